"""Text that any terminal can show, and colours."""

import io
import sys

import pytest

from katcp.cli import output
from katcp.cli.output import (
    StatusLine,
    count,
    paint,
    printable,
    printable_lines,
    show_duration,
    show_seconds,
)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain text", "plain text"),
        ("temp\u00e9rature".encode(), "temp\u00e9rature"),
        (b"\xff\x00", r"\xff\x00"),
        (b"\x1b[2J\n", r"\x1b[2J\n"),
        ("\u202e\udcff", r"\u202e\xff"),
    ],
)
def test_printable(data, text):
    assert printable(data) == text


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", [""]),
        (b"one", ["one"]),
        (b"one\n\ttwo\r\n\nthree\n\n", ["one", "        two", "", "three"]),
        (b"bytes \xff\n\x00", [r"bytes \xff\n\x00"]),
        (b"bytes\n\x00", [r"bytes\n\x00"]),
        (b"\n", [r"\n"]),
    ],
)
def test_printable_lines(data, lines):
    assert printable_lines(data) == lines


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colours(stream, environment, coloured, monkeypatch):
    for name, value in {"NO_COLOR": "", "TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    assert paint("text", "red", stream) == ("\x1b[31mtext\x1b[0m" if coloured else "text")
    assert paint("text", None, stream) == "text"


def test_words():
    assert [count(number, "sensor") for number in (0, 1, 2)] == [
        "0 sensors",
        "1 sensor",
        "2 sensors",
    ]
    assert count(2, "reply", "replies") == "2 replies"
    assert [show_seconds(seconds) for seconds in (0.5, 1, 2)] == [
        "0.5 seconds",
        "1 second",
        "2 seconds",
    ]
    assert [show_duration(seconds) for seconds in (0.00064, 2.5)] == ["0.64 ms", "2.50 s"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_status(is_terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(output, "STATUS_INTERVAL", 0)
    status = StatusLine()
    status.clear()
    assert stream.getvalue() == ""
    status.show("Reading: 7")
    status.clear()
    assert stream.getvalue() == ("\rReading: 7\x1b[K\r\x1b[K" if is_terminal else "")
