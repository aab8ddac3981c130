"""Sensors as the command line shows them."""

import math
import types

import pytest

from katcp import Message, ProtocolFlags
from katcp.cli.output import CommandError
from katcp.cli.readings import (
    choose_sensors,
    json_value,
    natural_key,
    parse_timestamp,
    show_age,
    show_arguments,
    show_time,
    show_value,
)

V4, V5 = ProtocolFlags(4, 0, ""), ProtocolFlags(5, 1, "I")


SENSORS = [types.SimpleNamespace(name=name) for name in ("rack10.t", "rack2.t", "rack2", "mode")]


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
    chosen, _, problems = choose_sensors(SENSORS, filters)
    assert " ".join(sensor.name for sensor in chosen) == names
    assert bool(problems) == (not names)


def test_filters_that_match_nothing():
    _, pattern, problems = choose_sensors(SENSORS, ["modes", "x", "mode"])
    names = ["mode", "modesty", "axe", "mod"]
    assert [name for name in names if pattern.search(name)] == ["mode", "modesty", "axe"]
    assert problems == ["no sensor matches 'modes'; did you mean mode?", "no sensor matches 'x'"]
    assert choose_sensors([], ["x"])[::2] == ([], ["the device has no sensors"])


def test_a_name_wins_over_what_it_means_as_a_pattern():
    sensors = [types.SimpleNamespace(name=name) for name in ("a[0]", "a0", "a[0]b")]
    (chosen,), _, _ = choose_sensors(sensors, ["a[0]"])
    assert chosen.name == "a[0]"


def test_regular_expression_that_is_none():
    with pytest.raises(CommandError, match="^bad regular expression /\\(/: "):
        choose_sensors(SENSORS, ["/(/"])


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


@pytest.mark.parametrize(
    ("value", "sensor_type", "text"),
    [
        (1700000000.5, "timestamp", "2023-11-14 22:13:20.500Z"),
        (1e300, "timestamp", "1e+300"),
        (1700000000.5, "float", "1700000000.5"),
        (7, "integer", "7"),
        (False, "boolean", "false"),
        (("10.0.0.1", 7148), "address", "10.0.0.1:7148"),
        (("::1", 7148), "address", "[::1]:7148"),
        (("10.0.0.1", None), "address", "10.0.0.1"),
        (None, "float", ""),
        ("\udcff\n", "string", r"\xff\n"),
    ],
)
def test_values(value, sensor_type, text):
    assert show_value(value, sensor_type) == text


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
    names = ["", "10", "antenna-2.x", "antenna-10.x", "antenna-x", "b" + "9" * 5000]
    backwards = names[::-1]
    assert sorted(backwards, key=natural_key) == names


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (-12, -12),
        (1000.0, 1000.0),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (False, False),
        (None, None),
        ("1", "1"),
        ("\udcff", {"base64": "/w=="}),
        (("::1", 7148), "[::1]:7148"),
    ],
)
def test_values_in_json(value, result):
    found = json_value(value)
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
