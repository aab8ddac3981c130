"""Splitting of the byte stream into lines."""

from __future__ import annotations

from typing import Optional

# Finding a number in bytes is several times faster than finding a bytes of size 1.
_LINE_FEED, _CARRIAGE_RETURN = b"\n\r"

# Plain lines contain none of these: bytes with a meaning in an argument, and all white space of
# bytes.split() except the space and the line feed between them. With the marks, translate() returns
# anything without these unchanged.
NOT_PLAIN = b"\\\0\r\x1b\t\v\f"
_MARK_NOT_PLAIN = bytes.maketrans(NOT_PLAIN, b"." * len(NOT_PLAIN))
# Every plain line is greater than or equal to this: none is empty or begins with a space.
FIRST_PLAIN = b"!"
# Smaller pieces of a line take more memory than their contents.
_SMALL_SIZE = 1024
# From this size on it pays to split off the first words and look for more.
LONG_SIZE = 1000


class LineSplitter:
    r"""Cut a stream of bytes into lines.

    A line ends at ``\n`` or ``\r``. Empty lines and lines of only spaces and
    tabs are dropped, so ``\r\n`` ends one line, not two.

    Attributes
    ----------
    overflowed : bool
        Whether a line was longer than the limit. That line and what follows it are lost; `feed`
        must not be called again.
    pending_size : int
        The size of the incomplete line.
    plain : bool
        Whether all lines that `feed` returned last are plain: none is blank or begins with a space,
        and none contains a backslash, a raw special byte or white space other than spaces.
        `MessageParser.parse_plain` parses such lines. False does not mean that a line is not plain.
    """

    def __init__(self) -> None:
        self.overflowed = False
        self.plain = True
        # The incomplete line, in the pieces that arrived: they are joined once. Only small ones are
        # joined earlier.
        self._pieces: list[bytes] = []
        self.pending_size = 0
        # Whether the data of these pieces was plain.
        self._tail_is_plain = True

    @property
    def pending(self) -> bytes:
        """The bytes of the incomplete line."""
        return b"".join(self._pieces)

    def feed(self, data: bytes, max_size: Optional[int] = None) -> list[bytes]:
        """Return the lines that *data* completes.

        Parameters
        ----------
        data : bytes
            The bytes that were read.
        max_size : int, optional
            The largest size of a line in bytes, including its terminator. Default: no limit.

        Returns
        -------
        list of bytes
            The lines, without terminators.
        """
        # Only the new bytes are searched: a line of n bytes costs O(n), however many pieces it
        # arrives in.
        if len(data) < LONG_SIZE:
            plain = data.translate(_MARK_NOT_PLAIN) == data
        else:
            plain = holds_plain_lines(data)
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
        self.plain = self._tail_is_plain and plain and min(lines) >= FIRST_PLAIN
        self._tail_is_plain = plain
        # No line is too large unless all of them together are.
        if max_size is not None and len(lines[0]) + len(data) >= max_size:
            lines = self._up_to_overflow(lines, max_size)
        return lines if self.plain else [line for line in lines if line.strip(b" \t")]

    def _up_to_overflow(self, lines: list[bytes], max_size: int) -> list[bytes]:
        """Return the lines before the first that is too large, if there is one."""
        for position, line in enumerate(lines):
            if len(line) >= max_size:
                self.overflowed = True
                return lines[:position]
        self.overflowed = self.pending_size >= max_size
        return lines


def holds_plain_lines(data: bytes) -> bool:
    """Return whether data contains no special byte; blank lines are not checked."""
    if len(data) < LONG_SIZE:
        return data.translate(_MARK_NOT_PLAIN) == data
    return not any(special in data for special in NOT_PLAIN)
