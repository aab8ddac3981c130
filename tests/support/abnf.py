r"""A strict decoder of the wire format, written from protocol.md, section 2, alone.

What the library reads and what real servers said is held against it, so it
shares nothing with katcp: it knows the rules of the grammar, each under the
name that it has there, and walks through a line from left to right. No two
rules that may follow each other begin with the same byte, so there is never a
choice to make: the next byte says which rule comes. Runs of bytes that one rule
allows are taken at once, for some servers say lines of megabytes.
"""

from __future__ import annotations

import functools
import re
from typing import Container, NamedTuple, Optional

# stream   = *( line eol )
# line     = blank / message
# blank    = *ws
# message  = type name [ "[" id "]" ] *( 1*ws argument ) *ws
# name     = letter *( letter / digit / "-" )
# id       = %x31-39 *digit                  ; and value <= 2147483647
# argument = 1*( plain / escape )
EOL = b"\x0a\x0d"
TYPE = b"?!#"
LETTER = frozenset([*range(0x41, 0x5B), *range(0x61, 0x7B)])
DIGIT = frozenset(range(0x30, 0x3A))
NAME_BYTE = LETTER | DIGIT | {ord("-")}
LARGEST_ID = 2147483647
WS = frozenset([0x20, 0x09])
PLAIN = frozenset(
    [
        *range(0x01, 0x09),
        0x0B,
        0x0C,
        *range(0x0E, 0x1B),
        *range(0x1C, 0x20),
        *range(0x21, 0x5C),
        *range(0x5D, 0x100),
    ]
)
# escape   = "\" ( "\" / "_" / "0" / %x6E / %x72 / %x65 / %x74 / "@" )
ESCAPE = {
    ord("\\"): b"\\",
    ord("_"): b" ",
    ord("0"): b"\0",
    ord("n"): b"\n",
    ord("r"): b"\r",
    ord("e"): b"\x1b",
    ord("t"): b"\t",
    ord("@"): b"",
}

# The same as tables: how each escape is read, and how each byte is written that is not plain.
READ = {b"\\%c" % letter: value for letter, value in ESCAPE.items()}
WRITTEN = {value: escape for escape, value in READ.items() if value}
_READ_RE = re.compile(rb"(\\[%s])" % re.escape(bytes(ESCAPE)))
_WRITTEN_RE = re.compile(b"([%s])" % re.escape(b"".join(WRITTEN)))
_ARGUMENT_RE = re.compile(b"(?:[%s]+|%s)+" % (re.escape(bytes(PLAIN)), _READ_RE.pattern))


class Line(NamedTuple):
    """A message as the grammar has it."""

    type: bytes
    name: str
    mid: Optional[bytes]
    arguments: tuple[bytes, ...]


class BadLine(NamedTuple):
    """A line that is no message."""

    line: bytes


class _NotInGrammar(Exception):
    """The next byte is none that may stand here."""


def is_blank(line: bytes) -> bool:
    """Return whether *line* is to be skipped silently."""
    return all(byte in WS for byte in line)


def decode(line: bytes) -> Line | BadLine:
    """Return what *line*, which is without its end and not blank, stands for."""
    try:
        return _Walk(line).message()
    except _NotInGrammar:
        return BadLine(line)


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the lines of a stream that are not blank, and the bytes after the last line end."""
    *lines, rest = re.split(b"[%s]" % EOL, data)
    return [line for line in lines if not is_blank(line)], rest


def decode_stream(data: bytes) -> list[Line | BadLine]:
    """Return all lines of *data*, which ends with a line."""
    lines, rest = split(data)
    assert not rest, rest
    return [decode(line) for line in lines]


def encode(line: Line) -> bytes:
    """Return *line* with its end, as a client should write it."""
    mid = b"" if line.mid is None else b"[%s]" % line.mid
    head = line.type + line.name.encode() + mid
    return b" ".join([head, *map(escape, line.arguments)]) + b"\n"


def escape(argument: bytes) -> bytes:
    """Return *argument* as it is written."""
    return _replace(_WRITTEN_RE, WRITTEN, argument) or rb"\@"


def _replace(found: re.Pattern[bytes], table: dict[bytes, bytes], data: bytes) -> bytes:
    """Return *data* with all that is found replaced by what the table says."""
    pieces = found.split(data)
    pieces[1::2] = [table[piece] for piece in pieces[1::2]]
    return b"".join(pieces)


@functools.cache
def _all_of(allowed: frozenset[int]) -> re.Pattern[bytes]:
    return re.compile(b"[%s]*" % re.escape(bytes(allowed)))


class _Walk:
    """A walk through a line; each rule takes its bytes and returns what they mean."""

    def __init__(self, line: bytes) -> None:
        self.line = line
        self.position = 0

    def next_is(self, allowed: Container[int]) -> bool:
        return self.position < len(self.line) and self.line[self.position] in allowed

    def take_one(self, allowed: Container[int]) -> bytes:
        if not self.next_is(allowed):
            raise _NotInGrammar
        self.position += 1
        return self.line[self.position - 1 : self.position]

    def take_all(self, allowed: frozenset[int]) -> bytes:
        found = _all_of(allowed).match(self.line, self.position)
        assert found is not None
        self.position = found.end()
        return found[0]

    def message(self) -> Line:
        symbol = self.take_one(TYPE)
        name = self.name()
        mid = self.id() if self.next_is(b"[") else None
        return Line(symbol, name, mid, tuple(self.arguments()))

    def name(self) -> str:
        return (self.take_one(LETTER) + self.take_all(NAME_BYTE)).decode("ascii")

    def id(self) -> bytes:
        self.take_one(b"[")
        mid = self.take_one(DIGIT - {ord("0")}) + self.take_all(DIGIT)
        self.take_one(b"]")
        # More digits than the largest one has are not converted: Python has a limit.
        if len(mid) > len(str(LARGEST_ID)) or int(mid) > LARGEST_ID:
            raise _NotInGrammar
        return mid

    def arguments(self) -> list[bytes]:
        arguments = []
        while self.position < len(self.line):
            self.take_one(WS)
            self.take_all(WS)
            if self.position < len(self.line):
                arguments.append(self.argument())
        return arguments

    def argument(self) -> bytes:
        found = _ARGUMENT_RE.match(self.line, self.position)
        if found is None:
            raise _NotInGrammar
        self.position = found.end()
        return _replace(_READ_RE, READ, found[0])
