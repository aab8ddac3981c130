"""Lines made from bytes: hypothesis draws the bytes, and each of them makes one choice.

So one draw gives hundreds of lines, and 200 000 of them take seconds.
"""

from __future__ import annotations

from typing import Callable, Iterator, Sequence, TypeVar

from hypothesis import strategies

from tests.support import abnf

T = TypeVar("T")

TYPES = [b"?", b"!", b"#"]
NAMES = [b"a", b"Z", b"foo", b"help", b"sensor-value", b"x-1-", b"B2b", b"a" * 101]
NO_MIDS = [b""] * 4
MIDS = [b"[1]", b"[7]", b"[10]", b"[999999999]", b"[1000000000]", b"[2147483647]"]
BAD_MIDS = [
    *[b"[0]", b"[01]", b"[]", b"[", b"[1", b"]", b"1]", b"[-1]", b"[+1]", b"[1_0]", b"[ 1]"],
    *[b"[2147483648]", b"[4294967297]", b"[99999999999999999999]", b"[1][2]", b"[1]x", b"[[1]]"],
    *[b"[\xd9\xa1]", b"[\xb2]", b"[1\t]", b"[1\\_]", b"[0x1]", b"[1.0]", b"[" + b"1" * 5000 + b"]"],
]
SEPARATORS = [b" ", b"\t", b"  ", b" \t \t"]
ENDS = [b"", b"", b"", b" ", b"\t", b" \t "]
PLAIN = [bytes([byte]) for byte in sorted(abnf.PLAIN)]
ESCAPES = [b"\\%c" % letter for letter in abnf.ESCAPE]
WORDS = [
    *[b"ok", b"fail", b"1.5", b"12", b"a=b,c", b"[1]", b"?foo", b"#", b"@", b"'a", b'"'],
    *["é".encode(), "\u2028".encode(), "🛰".encode(), b"\xff\xfe", b"\xed\xa0\x80", b"\xc3"],
]
# What is not grammar, or only in the right place.
ODD = [
    *[b"\\", b"\\\\\\", b"\\q", b"\\N", b"\\ ", b"\\\t", b"\\\0", b"\\\xff", b"\\x41", b"\\1"],
    *[b"\0", b"\x1b", b"\x1b[0m", b"\x0b", b"\x0c", b"\x1c", b"\x7f", b"\x85", b"\xa0"],
    *[b"?", b"!", b"#", b"$", b"_", b".", b"-", b" ", b"\t", b"\xef\xbb\xbf", b"[", b"]"],
]
WHITE = [b" ", b"\t", b"\x0b", b"\x0c", b"\x1c", b"\x1f", b"\x85", b"\xa0", b"\xc2\x85", b"\0"]
ANY_BYTE = [bytes([byte]) for byte in range(256) if byte not in abnf.EOL]


class Choices:
    """Bytes, each of which chooses once; used up, they always choose the first."""

    def __init__(self, data: bytes) -> None:
        self._bytes = iter(data)
        self.left = len(data)

    def pick(self, options: Sequence[T]) -> T:
        self.left -= 1
        return options[next(self._bytes, 0) % len(options)]

    def count(self, most: int) -> range:
        return range(self.pick(range(most + 1)))


def good_line(choices: Choices) -> bytes:
    """Return a line that is a message."""
    line = choices.pick(TYPES) + choices.pick(NAMES) + choices.pick([*NO_MIDS, *MIDS])
    for _ in choices.count(4):
        line += choices.pick(SEPARATORS) + good_argument(choices)
    return line + choices.pick(ENDS)


def good_argument(choices: Choices) -> bytes:
    pieces = [choices.pick(choices.pick([PLAIN, ESCAPES, WORDS])) for _ in choices.count(5)]
    return b"".join(pieces) or rb"\@"


def spoilt_line(choices: Choices) -> bytes:
    """Return a line that would be a message if not for a mistake or three."""
    line = good_line(choices)
    for _ in choices.count(2):
        line = choices.pick(MISTAKES)(line, choices)
    return choices.pick(MISTAKES)(line, choices)


def insert(line: bytes, choices: Choices) -> bytes:
    position = choices.pick(range(len(line) + 1))
    return line[:position] + choices.pick([*ODD, *BAD_MIDS]) + line[position:]


def replace(line: bytes, choices: Choices) -> bytes:
    position = choices.pick(range(len(line) + 1))
    return line[:position] + choices.pick(ANY_BYTE) + line[position + 1 :]


def remove(line: bytes, choices: Choices) -> bytes:
    position = choices.pick(range(len(line) + 1))
    return line[:position] + line[position + choices.pick(range(1, 4)) :]


def append(line: bytes, choices: Choices) -> bytes:
    return line + choices.pick(ODD)


def prefix(line: bytes, choices: Choices) -> bytes:
    return choices.pick(ODD) + line


def bad_mid(line: bytes, choices: Choices) -> bytes:
    head, space, rest = line.partition(b" ")
    return head.partition(b"[")[0] + choices.pick(BAD_MIDS) + space + rest


MISTAKES: list[Callable[[bytes, Choices], bytes]] = [
    insert,
    replace,
    remove,
    append,
    prefix,
    bad_mid,
]


def raw_line(choices: Choices) -> bytes:
    """Return any bytes but line ends, those that mean something more often."""
    sources = [ANY_BYTE, ODD, ESCAPES, TYPES, NAMES]
    return b"".join(choices.pick(choices.pick(sources)) for _ in choices.count(12))


def white_line(choices: Choices) -> bytes:
    """Return a line of what some language takes for white space; most are not blank."""
    return b"".join(choices.pick(WHITE) for _ in choices.count(3))


KINDS = [good_line, spoilt_line, raw_line] * 4 + [white_line]


class Lines:
    """Lines of all kinds, as many as *data* is good for, and too many to be shown."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        choices = Choices(self._data)
        while choices.left > 0:
            yield choices.pick(KINDS)(choices)


def lines(size: int) -> strategies.SearchStrategy[Lines]:
    """Many lines, without their ends; about a twentieth of *size*."""
    return strategies.binary(min_size=size, max_size=size).map(Lines)
