"""Arguments read as values: what is taken, what is refused, and in which words."""

import math

import pytest

from katcp import KatcpArgumentError, Message


def message(*arguments):
    return Message.inform("sensor-status", *arguments)


@pytest.mark.parametrize(
    ("read", "data", "value"),
    [
        ("text", b"", ""),
        ("text", "größer".encode(), "größer"),
        ("int", b"0", 0),
        ("int", b"-12", -12),
        ("int", b"+007", 7),
        ("int", b"1" + b"0" * 30, 10**30),
        ("float", b"1", 1.0),
        ("float", b"-1.5e-3", -0.0015),
        ("float", b".5", 0.5),
        ("float", b"5.", 5.0),
        ("float", b"-INF", -math.inf),
        ("float", b"Infinity", math.inf),
        ("bool", b"1", True),
        ("bool", b"0", False),
        ("timestamp", b"1234567890.25", 1234567890.25),
        ("timestamp", b"-1", -1.0),
        ("timestamp", b"1e-05", 1e-05),
        ("timestamp", b"99999999999", 99999999999.0),
        ("timestamp", b"100000000000", 100000000.0),
        ("timestamp", b"1322206610270", 1322206610.27),
    ],
)
def test_value(read, data, value):
    found = getattr(message("first", data), f"get_{read}")(1)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_float():
    assert math.isnan(message(b"NaN").get_float(0))


@pytest.mark.parametrize(
    ("read", "data", "kind"),
    [
        ("text", b"\xff", "text in UTF-8"),
        *[
            ("int", data, "an integer")
            for data in (b"", b"1.0", b"1_000", b" 1", b"1\n", b"0x1", b"one")
        ],
        *[
            ("float", data, "a number")
            for data in (b"", b".", b"1_0.0", b" 1", b"1 ", b"1\n", b"0x1p3", b"in", b"1e", b"1,5")
        ],
        *[("bool", data, "a boolean (1 or 0)") for data in (b"", b"true", b"2", b"01", b"1 ")],
        *[
            ("timestamp", data, "a timestamp")
            for data in (b"", b"now", b"inf", b"nan", b"1e999", b"1_0")
        ],
    ],
)
def test_what_is_refused(read, data, kind):
    with pytest.raises(KatcpArgumentError) as error:
        getattr(message("first", data), f"get_{read}")(1)
    assert str(error.value).startswith(f"arguments[1] of #sensor-status is not {kind}: '")
    assert isinstance(error.value, ValueError)


def test_an_error_shows_the_text():
    with pytest.raises(KatcpArgumentError) as error:
        Message.reply("help", "ok", b"\xffmany").get_int(1)
    assert str(error.value) == "arguments[1] of !help is not an integer: '\\\\xffmany'"


def test_an_error_shows_no_megabyte():
    with pytest.raises(KatcpArgumentError) as error:
        message(b"x" * 1000000).get_int(0)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("index", [2, 100, -3])
def test_an_argument_that_is_not_there(index):
    with pytest.raises(KatcpArgumentError) as error:
        message("a", "b").get_float(index)
    assert str(error.value) == (
        f"#sensor-status has no arguments[{index}], which should be a number: it has 2."
    )


def test_positions_count_from_the_end_too():
    assert message("1", "2").get_int(-1) == 2


@pytest.mark.parametrize(
    ("milliseconds", "data", "seconds"),
    [(True, "1500", 1.5), (False, "1322206610270", 1322206610270.0), (True, "0", 0.0)],
)
def test_the_unit_of_a_timestamp_may_be_given(milliseconds, data, seconds):
    assert message(data).get_timestamp(0, milliseconds=milliseconds) == seconds
