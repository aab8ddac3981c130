r"""How messages are read: bytes to lines, and a line to a message.

Strategy
--------
`LineSplitter` cuts the stream, however it arrives, at ``\n`` and ``\r`` and
searches only the new bytes, so a line of n bytes costs O(n). It also looks, in
a whole chunk at once, whether there is anything special in its lines.

`MessageParser` splits a plain line into its words with one `bytes.split`, and
looks the head (``!sensor-value``) up in a table of heads seen before. That is
all. What is special is looked for in other lines only: an argument with one
kind of escape is unescaped with one `bytes.replace`, one with several kinds by
a codec, in one step for all; a long one block by block, as it was escaped.

The rules that are enforced here are those of protocol.md, sections 1 and 2:

- a line ends at LF or CR; empty and blank lines are skipped silently;
- only space and tab separate; nothing may stand before the type character;
- an id is 1 to 2147483647, without leading zeros;
- an unknown escape, a backslash at the end of an argument, a raw NUL or ESC
  is an error, and the error ends with its line.
"""

from __future__ import annotations

import re
from codecs import escape_decode
from typing import Any, ClassVar, Iterator, Optional

from .errors import KatcpSyntaxError, KatcpTypeError
from .message import (
    BLOCK_SIZE,
    ESCAPED_ZERO_BLOCK,
    SEPARATOR,
    ZERO_BLOCK,
    Message,
    _make_message,
    is_mid,
    shorten,
)

# A number is found in bytes several times faster than a bytes of size 1.
_NUL, _LINE_FEED, _CARRIAGE_RETURN, _ESCAPE = b"\0\n\r\x1b"
_VERTICAL_TAB, _FORM_FEED = b"\v\f"
_SPACE, _BACKSLASH, _CLOSING_BRACKET = b" \\]"

# What no line begins with.
_BLANKS = (b"", b" ", b"\t")

# Plain lines hold none of these: what has a meaning in an argument, and all
# white space of bytes.split() but the space and the line feed between them.
# What holds none of these is returned as it is by translate() with the marks.
_NOT_PLAIN = b"\\\0\r\x1b\t\v\f"
_MARK_NOT_PLAIN = bytes.maketrans(_NOT_PLAIN, b"." * len(_NOT_PLAIN))
_MARK_NOT_IN_PLAIN_LINE = bytes.maketrans(_NOT_PLAIN + b"\n", b"." * len(_NOT_PLAIN + b"\n"))
# No plain line is less than this: none is empty or begins with a space.
_FIRST_PLAIN = b"!"
# Smaller pieces of a line take more memory than they hold.
_SMALL_SIZE = 1024
# From this size on it pays to split off the first words and to look whether
# there are more.
_LONG_SIZE = 1000

_WIRE_BLOCK_SIZE = 2 * BLOCK_SIZE
_UNESCAPES = {
    b"\\" + letter: plain for letter, plain in Message.ESCAPE_LOOKUP.items() if letter != b"\\"
}
# Python has escapes, too, and a codec for them: \a, \b, \f, \v, \r, \t and \\, and a
# line feed behind a backslash, which stands for nothing. So letters, and what the
# escapes stand for, change places with those before, and back again afterwards.
# Nothing is mixed up: the wire has no raw space, NUL, ESC or line feed.
_OURS = b"_b0fevna \b\0\f\x1b\v\n\a@"
_PYTHONS = b"b_f0vean\b \f\0\v\x1b\a@\n"
_TO_PYTHON = bytes.maketrans(_OURS, _PYTHONS)
_FROM_PYTHON = bytes.maketrans(_PYTHONS, _OURS)
# What the codec refuses if, and only if, an escape is unknown or unfinished: behind a
# backslash it knows "n", and no "x" without a number.
_TO_CHECK = bytes(
    letter if letter == _BACKSLASH else b"xn"[letter in b"_0nret@"] for letter in range(256)
)

# Heads without id ("!sensor-value") that were checked before, with their
# meaning. A server may send any names: the table keeps short ones only and
# starts anew when it is full.
_heads: dict[bytes, tuple[int, str]] = {}
_MAX_HEADS = 1000
_MAX_HEAD_SIZE = 100

# The head of the last inform, with its id, and its meaning: of most informs comes one
# after the other.
_INFORM = Message.INFORM
_last_inform: tuple[bytes, int, str, Optional[bytes]] = (b"", _INFORM, "", None)


class LineSplitter:
    r"""Cut a stream of bytes into lines.

    A line ends at ``\n`` or ``\r``. Empty lines and lines of only spaces and
    tabs are dropped, so ``\r\n`` ends one line, not two.

    Attributes
    ----------
    overflowed : bool
        Whether a line was longer than the limit. That line and what follows
        it are lost; nothing more should be fed.
    pending_size : int
        The size of the line that is not ended yet.
    plain : bool
        Whether all lines that `feed` returned last are plain: none is blank
        or begins with a space, and none holds a backslash, a raw special byte
        or white space other than spaces. `MessageParser.parse_plain` reads
        such lines. False does not say that a line is not plain.
    """

    def __init__(self) -> None:
        self.overflowed = False
        self.plain = True
        # The line that is not ended yet, in the pieces that came: they are
        # joined once. Only small ones are put together before.
        self._pieces: list[bytes] = []
        self.pending_size = 0
        # Whether what the pieces came from was plain.
        self._tail_is_plain = True

    @property
    def pending(self) -> bytes:
        """The bytes of the line that is not ended yet."""
        return b"".join(self._pieces)

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
        plain = _holds_plain_lines(data)
        if _CARRIAGE_RETURN in data:
            data = data.replace(b"\r", b"\n")
        if _LINE_FEED not in data:
            self.pending_size += len(data)
            if self._pieces and len(self._pieces[-1]) < _SMALL_SIZE:
                data = self._pieces.pop() + data
            self._pieces.append(data)
            self._tail_is_plain = self._tail_is_plain and plain
            self.overflowed = max_size is not None and self.pending_size >= max_size
            return []
        lines = data.split(b"\n")
        if self._pieces:
            self._pieces.append(lines[0])
            lines[0] = b"".join(self._pieces)
            self._pieces.clear()
        tail = lines.pop()
        if tail:
            self._pieces.append(tail)
        self.pending_size = len(tail)
        self.plain = self._tail_is_plain and plain and min(lines) >= _FIRST_PLAIN
        self._tail_is_plain = plain
        # No line can be too large unless all of it together is.
        if max_size is not None and len(lines[0]) + len(data) >= max_size:
            lines = self._up_to_overflow(lines, max_size)
        return lines if self.plain else [line for line in lines if line.strip(b" \t")]

    def _up_to_overflow(self, lines: list[bytes], max_size: int) -> list[bytes]:
        """Return the lines before the first that is too large, if one is."""
        for position, line in enumerate(lines):
            if len(line) >= max_size:
                self.overflowed = True
                return lines[:position]
        self.overflowed = self.pending_size >= max_size
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
        if line >= _FIRST_PLAIN:
            if len(line) < _LONG_SIZE:
                if line.translate(_MARK_NOT_IN_PLAIN_LINE) == line:
                    return _parse_words(line.split())
            elif _holds_plain_lines(line) and _LINE_FEED not in line:
                return _parse_words(_split(line))
        if _LINE_FEED in line or _CARRIAGE_RETURN in line:
            line = _without_terminator(line)
        if _NUL in line or _ESCAPE in line:
            raise _special_error(line)
        if line[:1] in _BLANKS:
            raise _head_error(line)
        if _VERTICAL_TAB in line or _FORM_FEED in line:
            # They are no white space here, as they are for split() without separator.
            words = [word for word in line.replace(b"\t", b" ").split(b" ") if word]
        else:
            words = line.split() if len(line) < _LONG_SIZE else _split(line.replace(b"\t", b" "))
        message = _parse_words(words)
        if _BACKSLASH in line:
            message.arguments = _unescape_all(message.arguments, len(line) < _LONG_SIZE)
        return message

    def parse_plain(self, line: bytes) -> Message:
        """Return the message that *line*, which is known to be plain, holds.

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
        return _parse_words(line.split() if len(line) < _LONG_SIZE else _split(line))


def _holds_plain_lines(data: bytes) -> bool:
    """Return whether no byte of data is special; of blank lines it knows nothing."""
    if len(data) < _LONG_SIZE:
        return data.translate(_MARK_NOT_PLAIN) == data
    return not any(special in data for special in _NOT_PLAIN)


def _split(line: bytes) -> list[bytes]:
    """Split a long line without tabs, faster than `bytes.split` if its last word is very long."""
    words = line.split(None, 2)
    if _SPACE in words[-1]:
        words += words.pop().split()
    return words


def _parse_words(words: list[bytes]) -> Message:
    """Return the message with these words, the head and the escaped arguments."""
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
    return _make_message(mtype, name, words, mid)


def _unescape_all(arguments: list[bytes], is_short: bool) -> list[bytes]:
    """Return what the arguments of a line stand for."""
    # Those of a short line together, if something can stand between them.
    together = SEPARATOR.join(arguments) if is_short else b""
    if together and together.count(SEPARATOR) == len(arguments) - 1:
        try:
            return _unescape_block(together).split(SEPARATOR)
        except KatcpSyntaxError:
            pass  # the argument for itself tells what is wrong
    return [
        unescape_argument(argument) if _BACKSLASH in argument else argument
        for argument in arguments
    ]


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
    start = block.find(b"\\")
    escape = block[start : start + 2]
    next_start = block.find(b"\\", start + 2)
    if escape in _UNESCAPES and (next_start < 0 or block.startswith(escape, next_start)):
        # Perhaps there is one kind only. It is replaced wherever it stands, also in
        # the second half of an escaped backslash. But then the first half stays.
        text = block.replace(escape, _UNESCAPES[escape])
        if _BACKSLASH not in text:
            return text
    try:
        escape_decode(block.translate(_TO_CHECK))
    except ValueError:
        raise _escape_error(block) from None
    return escape_decode(block.translate(_TO_PYTHON))[0].translate(_FROM_PYTHON)


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
