"""Sensors as the command line shows them."""

import io
import math
import sys

import pytest

from katcp import Message, ProtocolFlags
from katcp.cli.readings import (
    Description,
    Progress,
    Reading,
    SensorFilter,
    natural_key,
    parse_description,
    parse_number,
    parse_readings,
    parse_timestamp,
    shorten_cell,
    show_age,
    show_time,
    show_value,
)

V4, V5 = ProtocolFlags(4, 0, ""), ProtocolFlags(5, 1, "I")


@pytest.mark.parametrize(
    ("text", "arguments", "names"),
    [
        ("", [], ["rack1.temp", "rack2.temp", "mode"]),
        ("temp", [], ["rack1.temp", "rack2.temp"]),
        ("rack?.t*", [], ["rack1.temp", "rack2.temp"]),
        ("temp*", [], []),
        ("rack[12].temp", [], ["rack1.temp", "rack2.temp"]),
        ("/od/", ["/od/"], ["rack1.temp", "rack2.temp", "mode"]),
        ("/", [], []),
    ],
)
def test_filter(text, arguments, names):
    chosen = SensorFilter(text)
    assert chosen.arguments == arguments
    assert [n for n in ("rack1.temp", "rack2.temp", "mode") if chosen.matches(n.encode())] == names


@pytest.mark.parametrize(
    ("arguments", "description"),
    [
        (["a", "text", "m/s", "float", 1, 2], Description(b"a", "m/s", "float")),
        (["a", "", "", "odd"], Description(b"a", "", "odd")),
        ([b"\xff", b"\xff", b"\xb0C", "float"], Description(b"\xff", r"\xb0C", "float")),
        (["a", "", ""], None),
        ([], None),
    ],
)
def test_descriptions(arguments, description):
    assert parse_description(Message.inform("sensor-list", *arguments)) == description


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
    assert show_age(seconds) == text


def test_order_of_names():
    names = [b"", b"10", b"antenna-2.x", b"antenna-10.x", b"antenna-x", b"b" + b"9" * 5000]
    backwards = names[::-1]
    assert sorted(backwards, key=natural_key) == names


@pytest.mark.parametrize(
    ("text", "width", "cell"),
    [("abcdef", 6, "abcdef"), ("abcdef", 5, "ab..."), ("abcdef", 2, "..")],
)
def test_cells(text, width, cell):
    assert shorten_cell(text, width) == cell


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress(is_terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("katcp.cli.readings._PROGRESS_INTERVAL", 0)
    progress = Progress("Reading", 20)
    progress.clear()
    assert stream.getvalue() == ""
    progress.show(7)
    progress.clear()
    assert stream.getvalue() == ("\rReading: 7 of 20\x1b[K\r\x1b[K" if is_terminal else "")
