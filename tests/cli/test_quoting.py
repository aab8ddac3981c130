"""How arguments are typed in ``katcp shell``."""

import random

import pytest

from katcp.cli.quoting import BadWords, escape_bytes, quote, split


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        (" \t ", []),
        ("a  b\tc ", [b"a", b"b", b"c"]),
        ('"two words" x', [b"two words", b"x"]),
        ("'two words' x", [b"two words", b"x"]),
        ('a" "b', [b"a b"]),
        ("a' 'b", [b"a b"]),
        ('""', [b""]),
        ("''", [b""]),
        (r"\@ x", [b"", b"x"]),
        (r"a\_b", [b"a b"]),
        (r"a\ b", [b"a b"]),
        (r"\n\r\t\e\0\\", [b"\n\r\t\x1b\0\\"]),
        (r"\x00\xff\x41", [b"\0\xffA"]),
        (r'"\xff \"x\" ' "'" "y" "'" '"', [b"\xff \"x\" 'y'"]),
        (r"'/a\.b\x00/'", [rb"/a\.b\x00/"]),
        ("'say \"hi\"'", [b'say "hi"']),
        ("grüße €", ["grüße".encode(), "€".encode()]),
        ("\udcff\udc80", [b"\xff\x80"]),
        ("#a !b ?c", [b"#a", b"!b", b"?c"]),
    ],
)
def test_split(line, words):
    assert split(line) == words


@pytest.mark.parametrize(
    ("line", "position", "text"),
    [
        ('a "b', 2, "not closed"),
        ("ab 'c", 3, "not closed"),
        ("x \\q", 2, "\\q is no escape"),
        ('"x \\q"', 3, "\\q is no escape"),
        ("x\\", 1, "\\ is no escape"),
        ("\\xf", 0, "\\x is no escape"),
        ("\\xgg", 0, "\\x is no escape"),
    ],
)
def test_bad_words(line, position, text):
    with pytest.raises(BadWords, match="(?s)") as error:
        split(line)
    assert error.value.position == position
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        (b"plain-1.5/x", "plain-1.5/x"),
        ("grüße".encode(), "grüße"),
        (b"", '""'),
        (b"two words", '"two words"'),
        (b"it's", '"it\'s"'),
        (b'"', '\\"'),
        (b"a\\b", "a\\\\b"),
        (b"\x00\n\r\t\x1b\x07", r"\0\n\r\t\e\x07"),
        (b"\xff", r"\xff"),
        ("\u202e".encode(), r"\xe2\x80\xae"),
    ],
)
def test_quote(argument, text):
    assert quote(argument) == text
    assert split(text) == [argument]


def test_what_is_shown_can_be_typed():
    generator = random.Random(1)
    alphabet = [bytes([byte]) for byte in range(256)] + [b"\\", b"'", b'"', b" ", "ü".encode()] * 30
    for _ in range(3000):
        arguments = [
            b"".join(generator.choices(alphabet, k=generator.randrange(8))) for _ in range(3)
        ]
        line = " ".join(map(quote, arguments))
        assert split(line) == arguments
        assert line.isprintable()


def test_escape_bytes():
    assert escape_bytes("ü \udcff\udc80 x") == r"ü \xff\x80 x"
