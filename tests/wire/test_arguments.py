"""Values read from and written as arguments: what is taken, what is refused, in which words."""

import datetime
import ipaddress
import json
import math
import random
import sys
from pathlib import Path

import pytest

from katcp import KatcpArgumentError, Message
from katcp._wire import arguments
from katcp._wire.arguments import decoder

VALUES = json.loads((Path(__file__).parents[1] / "data/vectors/values.json").read_text("utf-8"))
DECODE = [vector for vector in VALUES if vector["direction"] == "decode"]
ENCODE = [vector for vector in VALUES if vector["direction"] == "encode"]


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


# ---- the vectors ----


def read_vector(vector):
    return decoder(vector["type"], [b"on", b"off"], vector["major"])(
        bytes.fromhex(vector["wire_hex"])
    )


@pytest.mark.parametrize(
    "vector",
    [vector for vector in DECODE if vector["recommended"] == "accept"],
    ids=lambda vector: vector["id"],
)
def test_a_vector_that_is_read(vector):
    value, expected = read_vector(vector), vector["value"]
    if expected is None:
        # Outside of the form that the specification has, and without a value there.
        assert type(value) is {"timestamp": float, "string": str}[vector["type"]]
    elif vector["type"] == "address":
        assert [ipaddress.ip_address(value[0]), value[1]] == [
            ipaddress.ip_address(expected[0]),
            expected[1],
        ]
    elif vector["type"] == "lru":
        assert arguments.LRU_VALUES[value].decode() == expected
    elif isinstance(value, float):
        # As text, because JSON has no infinity.
        assert repr(value) == expected
    else:
        assert (type(value), value) == (type(expected), expected)


@pytest.mark.parametrize(
    "vector",
    [vector for vector in DECODE if vector["recommended"] == "reject"],
    ids=lambda vector: vector["id"],
)
def test_a_vector_that_is_refused(vector):
    with pytest.raises(ValueError):  # noqa: PT011
        read_vector(vector)


def test_each_vector_is_read_or_refused():
    assert {vector["recommended"] for vector in DECODE} == {"accept", "reject"}


@pytest.mark.parametrize("vector", ENCODE, ids=lambda vector: vector["id"])
def test_a_vector_that_is_written(vector):
    value, wire = eval(vector["value"]), bytes.fromhex(vector["wire_hex"])
    if vector["type"] == "timestamp":
        assert arguments.write_timestamp(value, vector["major"]) == wire
    else:
        name = {"integer": "int", "boolean": "bool"}.get(vector["type"], vector["type"])
        assert getattr(arguments, f"write_{name}")(value) == wire


# ---- reading ----


@pytest.mark.parametrize("read", [arguments.read_int, arguments.read_float])
def test_nothing_may_stand_around_or_in_a_number(read):
    """Python's own parsers take white space and underscores."""
    for byte in range(256):
        extra = bytes([byte])
        if extra not in b"0123456789+-." + b"eEnfiaty":
            for data in (extra + b"1", b"1" + extra, b"1" + extra + b"2"):
                with pytest.raises(ValueError):  # noqa: PT011
                    read(data)


@pytest.mark.parametrize(
    ("major", "data", "seconds"),
    [(5, b"1.5", 1.5), (6, b"1.5", 1.5), (4, b"1500", 1.5), (4, b"0.5", 0.0005)],
)
def test_the_unit_of_a_timestamp_depends_on_the_version(major, data, seconds):
    assert decoder("timestamp", major=major)(data) == seconds


def test_the_unit_of_a_timestamp_is_never_guessed_where_the_version_is_known():
    assert decoder("timestamp", major=5)(b"1322206610270") == 1322206610270.0
    assert decoder("timestamp", major=4)(b"1") == 0.001


def test_an_address_is_read_as_it_stands():
    read = decoder("address")
    assert read(b"[2001:0db8::1]:80") == ("2001:0db8::1", 80)
    assert read(b"[fe80::1%eth0]:65535") == ("fe80::1%eth0", 65535)


@pytest.mark.parametrize(
    "data",
    [
        *(b"[::1]:", b"[::1]:65536", b"[]", b"[", b"]", b"[::1]]", b"[[::1]]", b"::1:80"),
        *(b"1.2.3.4:+1", b"1.2.3.4:1_0", b"1.2.3.4 ", b"1.2.3.4\n", b"1.2.3.4:80\n", b":80"),
        b"\xff.2.3.4",
    ],
)
def test_what_is_no_address(data):
    with pytest.raises(ValueError):  # noqa: PT011
        decoder("address")(data)


def test_the_options_of_a_discrete_sensor_are_read_as_text():
    read = decoder("discrete", [b"on", b"\xff", b""])
    assert [read(data) for data in (b"on", b"\xff", b"")] == ["on", "\udcff", ""]


def test_an_unknown_type_is_refused_at_once():
    with pytest.raises(ValueError, match=r"^There is no sensor type 'complex'\.$"):
        decoder("complex")


# ---- writing ----


def test_what_is_written_reads_back_as_the_same_value():
    rng = random.Random(1)
    for _ in range(2000):
        number = rng.uniform(-1, 1) * 10 ** rng.randrange(-30, 30)
        assert arguments.read_float(arguments.write_float(number)) == number
        assert arguments.read_int(arguments.write_int(int(number))) == int(number)
        data = bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
        assert arguments.write_string(arguments.read_string(data)) == data


def test_a_time_reads_back_to_the_microsecond():
    rng = random.Random(1)
    for major in (4, 5):
        read = decoder("timestamp", major=major)
        for _ in range(2000):
            seconds = rng.uniform(0, 4e9)
            data = arguments.write_timestamp(seconds, major)
            assert data.replace(b".", b"").isdigit()
            assert abs(read(data) - seconds) < 1e-6


def test_milliseconds_have_no_more_digits_than_needed():
    written = [arguments.write_timestamp(seconds, 4) for seconds in (0, 10, 1.25, 1234.5678901)]
    assert written == [b"0", b"10000", b"1250", b"1234567.89"]


@pytest.mark.parametrize("major", [4, 5])
@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf])
def test_what_is_no_time_is_not_written(seconds, major):
    with pytest.raises(ValueError, match="is not a time"):
        arguments.write_timestamp(seconds, major)


@pytest.mark.parametrize("value", [b"\xff", bytearray(b"\xff"), memoryview(b"\xff"), "\udcff"])
def test_bytes_are_written_as_they_are(value):
    assert arguments.write_string(value) == b"\xff"


def test_text_of_a_class_of_its_own_is_written_as_what_it_is():
    class Mode(str):
        __slots__ = ()

        def __str__(self):
            return "Mode"

    assert arguments.write_string(Mode("on")) == b"on"
    assert arguments.write_string(datetime.date(2020, 1, 2)) == b"2020-01-02"


@pytest.mark.parametrize("value", ["1.5", b"1.5", None, [1.5], 1j])
def test_what_is_no_number_is_not_written_as_one(value):
    with pytest.raises((TypeError, ValueError)):
        arguments.write_float(value)
    if sys.flags.bytes_warning < 2:
        with pytest.raises(TypeError):
            arguments.write_int(value)
