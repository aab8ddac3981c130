r"""Parsing of messages: bytes to lines, and a line to a message.

Strategy
--------
`LineSplitter` cuts the stream, however it arrives, at ``\n`` and ``\r`` and searches only the new
bytes, so a line of n bytes costs O(n). It also checks a whole chunk at once for special bytes.

`MessageParser` splits a plain line into its words with one `bytes.split`, and looks the head
(``!sensor-value``) up in a table of heads seen before. That is all. Only other lines are searched
for special bytes: an argument with one kind of escape is unescaped with one `bytes.replace`, one
with several kinds by a codec in one step, a long one block by block.

The rules that are enforced here are those of protocol.md, sections 1 and 2:

- a line ends at LF or CR; empty and blank lines are skipped silently;
- only space and tab separate; nothing may precede the type character;
- an id is 1 to 2147483647, without leading zeros;
- an unknown escape, a backslash at the end of an argument, a raw NUL or ESC
  is an error, and the error ends with its line.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Optional

from ..errors import KatcpSyntaxError, KatcpTypeError
from . import escaping
from .escaping import unescape_all
from .lines import FIRST_PLAIN, LONG_SIZE, NOT_PLAIN, holds_plain_lines
from .message import Message, is_mid, make_message
from .text import as_text, shorten

# Finding a number in bytes is several times faster than finding a bytes of size 1.
_NUL, _LINE_FEED, _CARRIAGE_RETURN, _ESCAPE = b"\0\n\r\x1b"
_VERTICAL_TAB, _FORM_FEED = b"\v\f"
_SPACE, _BACKSLASH, _CLOSING_BRACKET = b" \\]"

# What no line begins with.
_BLANKS = (b"", b" ", b"\t")
_MARK_NOT_IN_PLAIN_LINE = bytes.maketrans(NOT_PLAIN + b"\n", b"." * len(NOT_PLAIN + b"\n"))

# Heads without id ("!sensor-value") that were checked before, with their meaning. A server may send
# any names: the table keeps short ones only and is cleared when it is full.
_heads: dict[bytes, tuple[int, str]] = {}
_MAX_HEADS = 1000
_MAX_HEAD_SIZE = 100

# The head of the last inform, with its id, and its meaning: most informs of a request follow one
# another.
_INFORM = Message.INFORM
_last_inform: tuple[bytes, int, str, Optional[bytes]] = (b"", _INFORM, "", None)


class MessageParser:
    """Parse a line into a `Message`.

    A parser has no state: it may be used for any number of lines, from any thread.

    Examples
    --------
    >>> MessageParser().parse(b"!read ok two\\\\_words")
    <Message reply read (b'ok', b'two\\\\_words')>
    """

    TYPE_SYMBOL_LOOKUP: ClassVar[dict[bytes, int]] = Message.TYPE_SYMBOL_LOOKUP
    ESCAPE_LOOKUP: ClassVar[dict[bytes, bytes]] = Message.ESCAPE_LOOKUP
    NAME_RE: ClassVar[re.Pattern[bytes]] = re.compile(
        rb"(?P<name>[a-zA-Z][a-zA-Z0-9\-]*)(\[(?P<id>[1-9][0-9]*)\])?"
    )
    SPECIAL_RE: ClassVar[re.Pattern[bytes]] = re.compile(rb"[\0\n\r\x1b\t ]")
    UNESCAPE_RE: ClassVar[re.Pattern[bytes]] = escaping.UNESCAPE_RE
    WHITESPACE_RE: ClassVar[re.Pattern[bytes]] = re.compile(rb"[ \t]+")

    def parse(self, line: Any) -> Message:
        """Parse one line.

        Parameters
        ----------
        line : bytes or str
            One line; text is encoded as UTF-8. A line terminator at its end is ignored.

        Returns
        -------
        Message

        Raises
        ------
        KatcpSyntaxError
            If the line is not a KATCP message; the text says what is wrong.
        KatcpTypeError
            If *line* is neither bytes nor text.
        """
        if not isinstance(line, bytes):
            line = _line_as_bytes(line)
        if line >= FIRST_PLAIN:
            if len(line) < LONG_SIZE:
                if line.translate(_MARK_NOT_IN_PLAIN_LINE) == line:
                    return _parse_words(line.split())
            elif holds_plain_lines(line) and _LINE_FEED not in line:
                return _parse_words(_split(line))
        if _LINE_FEED in line or _CARRIAGE_RETURN in line:
            line = _without_terminator(line)
        if _NUL in line or _ESCAPE in line:
            raise _special_error(line)
        if line[:1] in _BLANKS:
            raise _head_error(line)
        if _VERTICAL_TAB in line or _FORM_FEED in line:
            # These are not white space here, as they are for split() without a separator.
            words = [word for word in line.replace(b"\t", b" ").split(b" ") if word]
        else:
            words = line.split() if len(line) < LONG_SIZE else _split(line.replace(b"\t", b" "))
        message = _parse_words(words)
        if _BACKSLASH in line:
            message.arguments = unescape_all(message.arguments, len(line) < LONG_SIZE)
        return message

    def parse_plain(self, line: bytes) -> Message:
        """Parse one line that is known to be plain.

        Parameters
        ----------
        line : bytes
            A line that ``LineSplitter.feed`` returned and called plain.

        Returns
        -------
        Message
            The same as from `parse`.

        Raises
        ------
        KatcpSyntaxError
            If the line is not a KATCP message; the text says what is wrong.
        """
        return _parse_words(line.split() if len(line) < LONG_SIZE else _split(line))


def _split(line: bytes) -> list[bytes]:
    """Split a long line without tabs, faster than `bytes.split` if its last word is very long."""
    words = line.split(None, 2)
    if _SPACE in words[-1]:
        words += words.pop().split()
    return words


def _parse_words(words: list[bytes]) -> Message:
    """Return the message with these words: the head and the escaped arguments."""
    global _last_inform
    head = words.pop(0)
    known, mtype, name, mid = _last_inform
    if head != known:
        base, mid = head, None
        if head[-1] == _CLOSING_BRACKET:
            base, _, mid = head[:-1].partition(b"[")
            if not is_mid(mid):
                raise _head_error(head)
        mtype, name = _heads.get(base) or _check_head(base, head)
        if mtype == _INFORM and len(head) <= _MAX_HEAD_SIZE:
            _last_inform = head, mtype, name, mid
    return make_message(mtype, name, words, mid)


def _check_head(base: bytes, head: bytes) -> tuple[int, str]:
    """Return type and name of a new head."""
    match = MessageParser.NAME_RE.fullmatch(base, 1)
    mtype = Message.TYPE_SYMBOL_LOOKUP.get(base[:1])
    if mtype is None or match is None or match["id"] is not None:
        raise _head_error(head)
    found = (mtype, base[1:].decode("ascii"))
    if len(base) <= _MAX_HEAD_SIZE:
        if len(_heads) >= _MAX_HEADS:
            _heads.clear()
        _heads[base] = found
    return found


def _head_error(head: bytes) -> KatcpSyntaxError:
    if not head:
        return KatcpSyntaxError("Empty message received.")
    if head[:1] not in Message.TYPE_SYMBOL_LOOKUP:
        return KatcpSyntaxError(f"Bad type character {as_text(head[:1])!r}.")
    return KatcpSyntaxError(
        f"Bad message name (and possibly id) {shorten(as_text(head[1:1100]))!r}."
    )


def _special_error(line: bytes) -> KatcpSyntaxError:
    """Return the error for a line with a raw NUL or ESC."""
    head = line.replace(b"\t", b" ").partition(b" ")[0]
    if b"\0" in head or b"\x1b" in head:
        return _head_error(head)
    special = b"\0" if b"\0" in line else b"\x1b"
    return KatcpSyntaxError(f"Un-escaped special {special!r}.")


def _line_as_bytes(line: Any) -> bytes:
    if isinstance(line, str):
        try:
            return line.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise KatcpSyntaxError(f"The line has no UTF-8 form: {error}.") from None
    if isinstance(line, (bytearray, memoryview)):
        return bytes(line)
    raise KatcpTypeError(f"Line type must be bytes or str - not {type(line)}")


def _without_terminator(line: bytes) -> bytes:
    """Remove the terminator at the end of the line, the only one allowed."""
    stripped = line.rstrip(b"\r\n")
    special = re.search(rb"[\n\r]", stripped)
    if special:
        raise KatcpSyntaxError(f"Un-escaped special {special[0]!r}.")
    return stripped
