"""What ``katcp shell`` does with requests and messages, on a terminal or without.

The main thread reads lines and waits for replies; the client lives in its own
thread, and prints what comes unasked.
"""

from __future__ import annotations

import queue
import re
import time
from typing import NamedTuple, Optional

from .cli_common import CommandClient, paint, printable
from .cli_words import BadWords, quote, split
from .message import Message
from .protocol import SEC_TS_KATCP_MAJOR

_NAME_RE = re.compile(rb"[a-zA-Z][a-zA-Z0-9-]*")

_LEVEL_COLOURS = {"warn": "yellow", "error": "red", "fatal": "red"}


class ShellClient(CommandClient):
    """A client that prints what comes unasked."""

    def unhandled_inform(self, msg: Message) -> None:
        """Show an inform that belongs to no request."""
        print(self.text_of_unasked(msg), flush=True)

    def unhandled_reply(self, msg: Message) -> None:
        """Show a reply that nobody waits for."""
        print(text_of(msg), flush=True)

    def text_of_unasked(self, msg: Message) -> str:
        """Return what to show of an inform that belongs to no request."""
        if msg.name != "log" or len(msg.arguments) < 3:
            return text_of(msg)
        level, timestamp, *rest = msg.arguments
        words = " ".join(map(printable, [level, *rest]))
        colour = _LEVEL_COLOURS.get(level.decode("ascii", "replace").lower(), "dim")
        return paint(f"{self._time_of_day(timestamp)} {words}", colour)

    def _time_of_day(self, timestamp: bytes) -> str:
        flags = self.protocol_flags
        is_seconds = flags is not None and flags.major >= SEC_TS_KATCP_MAJOR
        try:
            seconds = float(timestamp) / (1 if is_seconds else 1000)
            return time.strftime("%H:%M:%S", time.localtime(seconds))
        except (ValueError, OverflowError, OSError):
            return printable(timestamp)


class Answer(NamedTuple):
    """The reply to a request, and how many seconds it took."""

    reply: Message
    seconds: float


class Asking:
    """One request, whose informs are shown as they come.

    Parameters
    ----------
    client : ShellClient
        Who sends it.
    request : Message
        The request.
    timeout : float
        How many seconds to wait for the reply.
    """

    def __init__(self, client: ShellClient, request: Message, timeout: float) -> None:
        self._arrived: queue.Queue[tuple[Message, float]] = queue.Queue()
        self._is_given_up = False
        self._began = time.monotonic()
        client.callback_request(request, self._on_message, self._on_message, timeout=timeout)

    def wait(self, patience: Optional[float] = None) -> Optional[Answer]:
        """Show informs until the reply comes, and return it; None if *patience* ends before."""
        deadline = None if patience is None else time.monotonic() + patience
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            try:
                msg, when = self._arrived.get(timeout=left)
            except queue.Empty:
                return None
            if msg.mtype == Message.REPLY:
                return Answer(msg, when - self._began)
            print(text_of(msg), flush=True)

    def give_up(self) -> float:
        """Wait no more; return for how many seconds it was waited."""
        self._is_given_up = True
        return time.monotonic() - self._began

    def _on_message(self, msg: Message) -> None:
        """In the client's thread: pass it to the one who waits, or show it."""
        if not self._is_given_up:
            self._arrived.put((msg, time.monotonic()))
        elif msg.local_error is None:
            print(f"{text_of(msg)}   {paint('(late)', 'dim')}", flush=True)


def parse_line(line: str) -> Optional[Message]:
    """Return the request that a line asks for, None if it is blank.

    Raises
    ------
    BadWords
        If it cannot be understood.
    """
    words = split(line)
    if not words:
        return None
    name = words[0].removeprefix(b"?")
    if not _NAME_RE.fullmatch(name):
        raise BadWords(f"{quote(words[0])} is not the name of a request.", 0)
    return Message.request(name.decode(), *words[1:])


def text_of(msg: Message) -> str:
    """Return a message as a line, without its id; the arguments as they can be typed."""
    symbol = Message.TYPE_SYMBOLS[msg.mtype].decode()
    return " ".join([symbol + msg.name, *map(quote, msg.arguments)])
