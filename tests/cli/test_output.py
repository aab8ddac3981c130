"""Text that any terminal can show, and colours."""

import io

import pytest

from katcp.cli.output import paint, printable, printable_lines


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain text", "plain text"),
        ("temp\u00e9rature".encode(), "temp\u00e9rature"),
        (b"\xff\x00", r"\xff\x00"),
        (b"\x1b[2J\n", r"\x1b[2J\n"),
        ("\u202e\udcff", r"\u202e\udcff"),
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
