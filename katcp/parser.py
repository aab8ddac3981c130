r"""How messages are read: bytes to lines, and a line to a message.

Strategy
--------
`LineSplitter` cuts the stream, however it arrives, at ``\n`` and ``\r`` and
searches only the new bytes, so a line of n bytes costs O(n). `MessageParser`
splits a line at its blanks and looks the head (``!sensor-value``) up in a
table of heads seen before. Arguments without a backslash are done then; the
others are unescaped with one `bytes.replace` per escape; long ones block by
block, as they are escaped.

The rules that are enforced here are those of protocol.md, sections 1 and 2:

- a line ends at LF or CR; empty and blank lines are skipped silently;
- only space and tab separate; nothing may stand before the type character;
- an id is 1 to 2147483647, without leading zeros;
- an unknown escape, a backslash at the end of an argument, a raw NUL or ESC
  is an error, and the error ends with its line.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Iterator, Optional

from .errors import KatcpSyntaxError, KatcpTypeError
from .message import (
    BLOCK_SIZE,
    ESCAPED_ZERO_BLOCK,
    ZERO_BLOCK,
    Message,
    _make_message,
    is_mid,
    shorten,
)

# While an argument is unescaped, its escaped backslashes are kept as NUL and
# its escaped NULs as backslash: neither byte can stand there any more. In the
# end the two are swapped.
_SWAP_NUL_AND_BACKSLASH = bytes.maketrans(b"\0\\", b"\\\0")
_WIRE_BLOCK_SIZE = 2 * BLOCK_SIZE
_UNESCAPES = (
    (b"\\_", b" "),
    (b"\\n", b"\n"),
    (b"\\r", b"\r"),
    (b"\\e", b"\x1b"),
    (b"\\t", b"\t"),
    (b"\\@", b""),
)

# Heads without id ("!sensor-value") that were checked before, with their
# meaning. A server may send any names: the table keeps short ones only and
# starts anew when it is full.
_heads: dict[bytes, tuple[int, str]] = {}
_MAX_HEADS = 1000
_MAX_HEAD_SIZE = 100


class LineSplitter:
    r"""Cut a stream of bytes into lines.

    A line ends at ``\n`` or ``\r``. Empty lines and lines of only spaces and
    tabs are dropped, so ``\r\n`` ends one line, not two.

    Attributes
    ----------
    overflowed : bool
        Whether a line was longer than the limit. That line and what follows
        it are lost; nothing more should be fed.
    """

    def __init__(self) -> None:
        self.overflowed = False
        self._tail = bytearray()

    @property
    def pending(self) -> bytes:
        """The bytes of the line that is not ended yet."""
        return bytes(self._tail)

    def feed(self, data: bytes, max_size: Optional[int] = None) -> list[bytes]:
        """Take in *data* and return the lines it completes.

        Parameters
        ----------
        data : bytes
            What was read.
        max_size : int, optional
            The largest size of a line in bytes, its terminator included.
            Default: no limit.

        Returns
        -------
        list of bytes
            The lines, without terminators.
        """
        # Only the new bytes are searched: a line of n bytes costs O(n)
        # however many pieces it arrives in.
        head, *rest = data.replace(b"\r", b"\n").split(b"\n")
        self._tail += head
        if not rest:
            self.overflowed = max_size is not None and len(self._tail) >= max_size
            return []
        lines = [bytes(self._tail), *rest[:-1]]
        self._tail = bytearray(rest[-1])
        # No line can be too large unless all of it together is.
        if max_size is not None and len(lines[0]) + len(data) >= max_size:
            lines = self._up_to_overflow(lines, max_size)
        return [line for line in lines if line.strip(b" \t")]

    def _up_to_overflow(self, lines: list[bytes], max_size: int) -> list[bytes]:
        """Return the lines before the first that is too large, if one is."""
        for position, line in enumerate(lines):
            if len(line) >= max_size:
                self.overflowed = True
                return lines[:position]
        self.overflowed = len(self._tail) >= max_size
        return lines


class MessageParser:
    """Parse a line into a `Message`.

    A parser keeps no state: one may be used for any number of lines, from any
    thread.

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
    UNESCAPE_RE: ClassVar[re.Pattern[bytes]] = re.compile(rb"\\(.?)", re.DOTALL)
    WHITESPACE_RE: ClassVar[re.Pattern[bytes]] = re.compile(rb"[ \t]+")

    def parse(self, line: Any) -> Message:
        """Return the message that *line* holds.

        Parameters
        ----------
        line : bytes or str
            One line; text is taken as UTF-8. A line terminator at its end is
            ignored.

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
        if b"\n" in line or b"\r" in line:
            line = _without_terminator(line)
        if b"\0" in line or b"\x1b" in line:
            raise _special_error(line)
        spaced = line.replace(b"\t", b" ") if b"\t" in line else line
        head, *arguments = spaced.split(b" ")
        if not head:
            raise _head_error(line)
        if not all(arguments):
            arguments = [argument for argument in arguments if argument]
        mtype, name, mid = _parse_head(head)
        if b"\\" in line:
            arguments = [
                unescape_argument(argument) if b"\\" in argument else argument
                for argument in arguments
            ]
        return _make_message(mtype, name, arguments, mid)


def unescape_argument(argument: bytes) -> bytes:
    r"""Return what an argument on the wire stands for.

    Parameters
    ----------
    argument : bytes
        The argument as it stands on the wire: without raw special bytes.

    Returns
    -------
    bytes

    Raises
    ------
    KatcpSyntaxError
        If a backslash is followed by an unknown letter, or by nothing.
    """
    if len(argument) <= _WIRE_BLOCK_SIZE:
        return _unescape_block(argument)
    return b"".join([_unescape_block(block) for block in _blocks(argument)])


def _blocks(argument: bytes) -> Iterator[bytes]:
    """Cut an argument into blocks, and through no escape."""
    start = 0
    while start < len(argument):
        block = argument[start : start + _WIRE_BLOCK_SIZE]
        # An odd run of backslashes at the end is cut off from its letter.
        if (len(block) - len(block.rstrip(b"\\"))) % 2 and start + len(block) < len(argument):
            block = block[:-1]
        yield block
        start += len(block)


def _unescape_block(block: bytes) -> bytes:
    if block == ESCAPED_ZERO_BLOCK:
        return ZERO_BLOCK
    # A run of backslashes pairs up from its left end, as replace() does, so
    # what is left of a run is one backslash that begins another escape.
    text = block.replace(b"\\\\", b"\0")
    for escape, plain in _UNESCAPES:
        text = text.replace(escape, plain)
    backslashes = text.count(b"\\")
    if backslashes:
        if backslashes != text.count(b"\\0"):
            raise _escape_error(block)
        text = text.replace(b"\\0", b"\\")
    return text.translate(_SWAP_NUL_AND_BACKSLASH)


def _parse_head(head: bytes) -> tuple[int, str, Optional[bytes]]:
    """Return type, name and id of a message from the first word of its line."""
    found = _heads.get(head)
    if found is not None:
        return (*found, None)
    mid: Optional[bytes] = None
    base = head
    if head.endswith(b"]"):
        base, _, mid = head[:-1].partition(b"[")
        if not is_mid(mid):
            raise _head_error(head)
    found = _heads.get(base) or _check_head(base, head)
    return (*found, mid)


def _check_head(base: bytes, head: bytes) -> tuple[int, str]:
    """Return type and name of a head seen for the first time."""
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
        return KatcpSyntaxError(f"Bad type character {_printable(head[:1])!r}.")
    return KatcpSyntaxError(
        f"Bad message name (and possibly id) {shorten(_printable(head[1:1100]))!r}."
    )


def _special_error(line: bytes) -> KatcpSyntaxError:
    """Return the error for a line that holds a raw NUL or ESC."""
    head = line.replace(b"\t", b" ").partition(b" ")[0]
    if b"\0" in head or b"\x1b" in head:
        return _head_error(head)
    special = b"\0" if b"\0" in line else b"\x1b"
    return KatcpSyntaxError(f"Un-escaped special {special!r}.")


def _escape_error(argument: bytes) -> KatcpSyntaxError:
    """Return the error for an argument that holds a bad escape."""
    bad = next(
        match[1]
        for match in MessageParser.UNESCAPE_RE.finditer(argument)
        if match[1] not in Message.ESCAPE_LOOKUP
    )
    if not bad:
        return KatcpSyntaxError("Escape slash at end of argument.")
    return KatcpSyntaxError(f"Invalid escape character {bad!r}.")


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
    """Return the line without the terminator at its end; there may be no other."""
    stripped = line.rstrip(b"\r\n")
    special = re.search(rb"[\n\r]", stripped)
    if special:
        raise KatcpSyntaxError(f"Un-escaped special {special[0]!r}.")
    return stripped


def _printable(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
