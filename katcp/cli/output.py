"""What people see: text that any terminal can show, colours, errors and exit codes.

A subcommand that cannot go on raises `CommandError`: `katcp.cli.main` prints it and
returns its code.
"""

from __future__ import annotations

import os
import sys
from typing import Optional, TextIO, Union

# The exit codes, as `EXIT_CODES` tells them to users.
OK = 0
REFUSED = FAILED = 1
USAGE = 2
NOT_CONNECTED = 3
TIMED_OUT = 4
INTERRUPTED = 130

EXIT_CODES = (
    "exit codes: 0 all went well, 1 the device refused, 2 wrong command line, "
    "3 not connected or connection lost, 4 no reply in time, 130 Ctrl-C"
)

_COLOURS = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}


class CommandError(Exception):
    """A subcommand cannot go on; the text is one line for the user.

    Parameters
    ----------
    text : str
        What is wrong.
    code : int
        The exit code.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def printable(data: Union[bytes, str]) -> str:
    r"""Return text of one line that any terminal can show.

    Bytes that are not UTF-8, line ends, and what would steer the terminal are
    escaped, as in ``\xff``, ``\n`` and ``\x1b``.

    Parameters
    ----------
    data : bytes or str
        What a device sent.

    Returns
    -------
    str
    """
    text = data.decode("utf-8", "backslashreplace") if isinstance(data, bytes) else data
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def printable_lines(data: bytes) -> list[str]:
    """Return text of several lines, as help texts and tracebacks are, line by line.

    Parameters
    ----------
    data : bytes
        What a device sent.

    Returns
    -------
    list of str
        At least one, each `printable`. Blank lines at the end are left out. What
        is no text is one line.
    """
    lines = [printable(line.expandtabs()) for line in data.rstrip().splitlines()]
    is_text = all(map(str.isprintable, data.decode("utf-8", "replace").expandtabs().splitlines()))
    return lines if lines and is_text else [printable(data)]


def tell(text: str) -> None:
    """Tell the user something that is not part of the output."""
    print(f"katcp: {text}", file=sys.stderr, flush=True)


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person looks at *stream*, on a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def wants_colour(stream: TextIO) -> bool:
    """Return whether to colour what is written to *stream* (see https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def paint(text: str, colour: Optional[str], stream: Optional[TextIO] = None) -> str:
    """Return *text* in a colour, if *stream* shows colours.

    Parameters
    ----------
    text : str
        Printable text.
    colour : str or None
        A name, such as ``"red"`` or ``"bold"``; None leaves the text as it is.
    stream : file, optional
        Where the text will be written. Default: the standard output.

    Returns
    -------
    str
    """
    if colour is None or not wants_colour(stream or sys.stdout):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"
