"""The stream of bytes, cut into lines."""

from __future__ import annotations

from typing import Optional

# A number is found in bytes several times faster than a bytes of size 1.
_LINE_FEED, _CARRIAGE_RETURN = b"\n\r"

# Plain lines hold none of these: what has a meaning in an argument, and all
# white space of bytes.split() but the space and the line feed between them.
# What holds none of these is returned as it is by translate() with the marks.
NOT_PLAIN = b"\\\0\r\x1b\t\v\f"
_MARK_NOT_PLAIN = bytes.maketrans(NOT_PLAIN, b"." * len(NOT_PLAIN))
# No plain line is less than this: none is empty or begins with a space.
FIRST_PLAIN = b"!"
# Smaller pieces of a line take more memory than they hold.
_SMALL_SIZE = 1024
# From this size on it pays to split off the first words and to look whether
# there are more.
LONG_SIZE = 1000


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


def holds_plain_lines(data: bytes) -> bool:
    """Return whether no byte of data is special; of blank lines it knows nothing."""
    if len(data) < LONG_SIZE:
        return data.translate(_MARK_NOT_PLAIN) == data
    return not any(special in data for special in NOT_PLAIN)
