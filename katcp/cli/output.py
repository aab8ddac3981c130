"""Output for people: text that any terminal can show, colours, errors and exit codes.

A subcommand that cannot go on raises `CommandError`: `katcp.cli.main` prints it and
returns its code.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import functools
import os
import signal
import sys
import time
from typing import Any, Callable, Iterable, Optional, TextIO, Union

# The exit codes; `EXIT_CODES` explains them to users.
OK = 0
REFUSED = FAILED = 1
USAGE = 2
NOT_CONNECTED = 3
TIMED_OUT = 4
INTERRUPTED = 130

EXIT_CODES = (
    "exit codes: 0 success, 1 the device refused or the command failed, 2 wrong command\n"
    "line, 3 no connection or connection lost, 4 no reply in time, 130 Ctrl-C"
)

# Seconds between two texts of a `StatusLine`.
STATUS_INTERVAL = 0.1

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


# How to install the extra "cli".
HOW_TO_INSTALL = "in a checkout of katcp, run pip install '.[cli]'"


class CommandError(Exception):
    """A subcommand cannot go on; the text is one line for the user.

    *is_in_output* says that the output, which is JSON, already contains it.
    """

    def __init__(self, text: str, code: int, is_in_output: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.is_in_output = is_in_output


def printable(data: Union[bytes, str]) -> str:
    r"""Return text in one line that any terminal can show.

    Bytes that are not UTF-8, line ends and control characters are escaped, as in ``\xff``, ``\n``
    and ``\x1b``.
    """
    if isinstance(data, str) and data.isprintable():
        return data
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    text = raw.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def printable_lines(data: bytes) -> list[str]:
    """Return the lines of a text such as a help text or a traceback.

    At least one; blank lines at the end are dropped. Anything that is not text is one line.
    """
    lines = [printable(line.expandtabs()) for line in data.rstrip().splitlines()]
    is_text = all(map(str.isprintable, data.decode("utf-8", "replace").expandtabs().splitlines()))
    return lines if lines and is_text else [printable(data)]


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 sensor``, ``2 sensors``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def show_seconds(seconds: float) -> str:
    """Return a number of seconds with its unit: ``1 second``, ``0.5 seconds``."""
    return f"{seconds:g} second{'' if seconds == 1 else 's'}"


def show_duration(seconds: float) -> str:
    """Return a duration for people: ``0.61 ms``, ``2.50 s``."""
    return f"{seconds * 1000:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """Return a suggestion to append to an error about *text*."""
    close = difflib.get_close_matches(text, list(known), 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def tell(text: str) -> None:
    """Show the user something that is not part of the output."""
    # In one piece: several threads may call this.
    print(f"katcp: {text}\n", end="", file=sys.stderr, flush=True)


def on_signal(number: int, do: Callable[[], Any]) -> None:
    """Make the running loop call a function at a signal, where the platform supports it."""
    with contextlib.suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(number, do)


def exit_at_sigterm(app: Any) -> None:
    """End a running application of prompt_toolkit at SIGTERM, so that it restores the terminal."""
    end = functools.partial(app.exit, exception=SystemExit(128 + signal.SIGTERM))
    on_signal(signal.SIGTERM, end)


def is_terminal(stream: TextIO) -> bool:
    """Return whether *stream* is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def wants_colour(stream: TextIO) -> bool:
    """Return whether to colour output to *stream* (see https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def paint(text: str, colour: Optional[str], stream: Optional[TextIO] = None) -> str:
    """Return *text* in a colour, if *stream* shows colours."""
    if colour is None or not wants_colour(stream or sys.stdout):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


class StatusLine:
    """The current activity, on the standard error, if that is a terminal."""

    def __init__(self) -> None:
        self._is_shown = is_terminal(sys.stderr)
        self._is_dirty = False
        self._next_time = time.monotonic() + STATUS_INTERVAL

    def show(self, what: object) -> None:
        """Replace the text by *what*, not more often than one can read."""
        if self._is_shown and time.monotonic() >= self._next_time:
            self._next_time = time.monotonic() + STATUS_INTERVAL
            self._write(str(what))
            self._is_dirty = True

    def clear(self) -> None:
        """Remove the text."""
        if self._is_dirty:
            self._write("")
            self._is_dirty = False

    def _write(self, text: str) -> None:
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
