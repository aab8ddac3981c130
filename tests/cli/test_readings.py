"""Sensors as the command line shows them."""

import math

import pytest

from katcp import Message, ProtocolFlags
from katcp.cli.output import CommandError
from katcp.cli.readings import (
    Description,
    Reading,
    choose_sensors,
    format_period,
    json_value,
    natural_key,
    parse_descriptions,
    parse_number,
    parse_readings,
    parse_timestamp,
    show_age,
    show_arguments,
    show_time,
    show_value,
)

V4, V5 = ProtocolFlags(4, 0, ""), ProtocolFlags(5, 1, "I")


SENSORS = {
    name: Description(name, "", "float") for name in (b"rack10.t", b"rack2.t", b"rack2", b"mode")
}


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ([], "mode rack2 rack2.t rack10.t"),
        (["ack"], "rack2 rack2.t rack10.t"),
        (["rack2"], "rack2"),
        (["rack?.t"], "rack2.t"),
        (["t*"], ""),
        (["rack[12]*"], "rack2 rack2.t rack10.t"),
        (["/^m|2$/"], "mode rack2"),
        (["/"], ""),
        (["mode", "*.t"], "mode rack2.t rack10.t"),
    ],
)
def test_filters(filters, names):
    chosen, problems = choose_sensors(SENSORS, filters)
    assert b" ".join(sensor.name for sensor in chosen).decode() == names
    assert bool(problems) == (not names)


def test_filters_that_match_nothing():
    _, problems = choose_sensors(SENSORS, ["modes", "x", "mode"])
    assert problems == ["no sensor matches 'modes'; did you mean mode?", "no sensor matches 'x'"]
    assert choose_sensors({}, ["x"]) == ([], ["the device has no sensors"])


def test_regular_expression_that_is_none():
    with pytest.raises(CommandError, match="^bad regular expression /\\(/: "):
        choose_sensors(SENSORS, ["/(/"])


@pytest.mark.parametrize(
    ("arguments", "description"),
    [
        (["a", "text", "m/s", "float", 1, 2], Description(b"a", "m/s", "float", "text")),
        (["a", "", "", "odd"], Description(b"a", "", "odd")),
        ([b"\xff", b"\xff", b"\xb0C", "float"], Description(b"\xff", r"\xb0C", "float", r"\xff")),
        (["a", "", ""], None),
        ([], None),
    ],
)
def test_descriptions(arguments, description):
    found = parse_descriptions([Message.inform("sensor-list", *arguments)])
    assert found == ({} if description is None else {description.name: description})


@pytest.mark.parametrize(
    ("arguments", "readings"),
    [
        (["2", "1", "a", "nominal", "5"], [Reading(b"a", 2.0, "nominal", b"5")]),
        (
            ["2", "2", "a", "nominal", "5", b"\xff", "odd", b"\xfe"],
            [Reading(b"a", 2.0, "nominal", b"5"), Reading(b"\xff", 2.0, "odd", b"\xfe")],
        ),
        (["2", "0"], []),
        (["2", "2", "a", "nominal", "5"], []),
        (["2", "x", "a", "nominal", "5"], []),
        (["2", "1" * 5000, "a", "nominal", "5"], []),
        (["2"], []),
        ([], []),
    ],
)
def test_readings(arguments, readings):
    assert parse_readings(Message.inform("sensor-status", *arguments), V5) == readings


@pytest.mark.parametrize(
    ("text", "protocol", "seconds"),
    [
        (b"1700000000.5", V5, 1700000000.5),
        (b"1700000000500", V4, 1700000000.5),
        (b"500", V4, 0.5),
        (b"1700000000500", None, 1700000000.5),
        (b"1700000000.5", None, 1700000000.5),
        (b"1e-05", V5, 1e-5),
    ],
)
def test_timestamps(text, protocol, seconds):
    assert parse_timestamp(text, protocol) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize("text", [b"", b"1_0", b" 1", b"1\n", b"0x10", b"now", b"\xff", b"3+4j"])
def test_no_numbers(text):
    assert math.isnan(parse_number(text))


def test_numbers():
    texts = [b"-3", b"+.5", b"1e3", b"INF", b"-inf"]
    assert [parse_number(text) for text in texts] == [-3, 0.5, 1000, math.inf, -math.inf]


@pytest.mark.parametrize(
    ("value", "status", "sensor_type", "protocol", "text"),
    [
        (b"1700000000.5", "nominal", "timestamp", V5, "2023-11-14 22:13:20.500Z"),
        (b"1700000000500", "nominal", "timestamp", V4, "2023-11-14 22:13:20.500Z"),
        (b"1700000000.5", "failure", "timestamp", V5, "1700000000.5"),
        (b"soon", "nominal", "timestamp", V5, "soon"),
        (b"1700000000.5", "nominal", "float", V5, "1700000000.5"),
        (b"\xff\n", "nominal", "string", V5, r"\xff\n"),
    ],
)
def test_values(value, status, sensor_type, protocol, text):
    assert show_value(Reading(b"a", 0.0, status, value), sensor_type, protocol) == text


@pytest.mark.parametrize("timestamp", [math.nan, math.inf, 1e18, -1e18])
def test_times_that_are_none(timestamp):
    assert show_time(timestamp) == "?"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (-0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (3599, "60 min"),
        (7200, "2 h"),
        (-100000, "-1 d"),
        (math.nan, "?"),
        (math.inf, "?"),
    ],
)
def test_ages(seconds, text):
    assert show_age(1e6 - seconds, 1e6) == text


def test_age_of_what_was_never_read():
    assert show_age(0.0, 1.8e9) == "never"


def test_order_of_names():
    names = [b"", b"10", b"antenna-2.x", b"antenna-10.x", b"antenna-x", b"b" + b"9" * 5000]
    backwards = names[::-1]
    assert sorted(backwards, key=natural_key) == names


@pytest.mark.parametrize(
    ("sensor_type", "status", "value", "result"),
    [
        ("integer", "nominal", b"-12", -12),
        ("integer", "nominal", b"1.5", "1.5"),
        ("integer", "nominal", b"9" * 5000, "9" * 5000),
        ("float", "error", b"1e3", 1000.0),
        ("float", "nominal", b"nan", "nan"),
        ("float", "failure", b"1.5", "1.5"),
        ("boolean", "nominal", b"0", False),
        ("boolean", "nominal", b"yes", "yes"),
        ("timestamp", "nominal", b"1700000000.5", 1700000000.5),
        ("timestamp", "nominal", b"never", "never"),
        ("string", "nominal", b"1", "1"),
        ("string", "nominal", b"\xff", {"base64": "/w=="}),
    ],
)
def test_values_in_json(sensor_type, status, value, result):
    found = json_value(Reading(b"a", 0.0, status, value), sensor_type, V5)
    assert (found, type(found)) == (result, type(result))


def test_times_in_informs():
    reading = Message.inform("sensor-value", "1700000000.5", 1, "since", "nominal", "1700000000")
    moment, since = b"2023-11-14T22:13:20.500Z", b"2023-11-14T22:13:20.000Z"
    rest = [b"1", b"since", b"nominal"]
    assert show_arguments(reading, V5) == [moment, *rest, b"1700000000"]
    assert show_arguments(reading, V5, {b"since": "timestamp"}) == [moment, *rest, since]
    for arguments in (["never", "1"], []):
        odd = Message.inform("sensor-status", *arguments)
        assert show_arguments(odd, V5) == odd.arguments
    other = Message.inform("echo", "1700000000.5")
    assert show_arguments(other, V5) == other.arguments


@pytest.mark.parametrize(("protocol", "text"), [(V5, "0.25"), (V4, "250"), (None, "250")])
def test_periods(protocol, text):
    assert format_period(0.25, protocol) == text
