"""Requests and messages in ``katcp shell``, with or without a terminal.

The main thread reads lines and waits for replies; the client runs in its own thread, and prints
unsolicited messages.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
import time
from typing import Any, Callable, NamedTuple, Optional, Sequence

from ..core import Message
from .connect import CommandClient
from .loglines import parse_log, show_log
from .output import paint
from .quoting import BadWords, quote, split

_NAME_RE = re.compile(rb"[a-zA-Z][a-zA-Z0-9-]*")


class ShellClient(CommandClient):
    """A client that prints unsolicited messages."""

    def unhandled_inform(self, msg: Message) -> None:
        """Show an inform that belongs to no request."""
        if msg.name == "log" and len(msg.arguments) >= 3:
            self._print(show_log(parse_log(msg, self.protocol_flags)))
        else:
            self._print(self.text_of(msg))

    def unhandled_reply(self, msg: Message) -> None:
        """Show an unexpected reply."""
        self._print(self.text_of(msg))

    def text_of(self, msg: Message) -> str:
        return text_of(msg)

    def _print(self, text: str) -> None:
        # The main thread notices it, too, and ends.
        with contextlib.suppress(OSError):
            print(text, flush=True)


class Answer(NamedTuple):
    """The reply to a request, and its response time in seconds."""

    reply: Message
    seconds: float


class Asking:
    """One request; its messages are shown in order in the client's thread."""

    def __init__(
        self,
        client: ShellClient,
        request: Message,
        timeout: float,
        show: Callable[[Answer], None],
    ) -> None:
        self._client = client
        self._show = show
        self._is_given_up = False
        self._answered: concurrent.futures.Future[Answer] = concurrent.futures.Future()
        self._began = time.monotonic()
        client.callback_request(request, self._on_reply, self._on_inform, timeout=timeout)

    def wait(self, patience: Optional[float] = None) -> Answer:
        """Return the answer after it was shown.

        Raises exceptions of printing, and `concurrent.futures.TimeoutError` after *patience*.
        """
        return self._answered.result(patience)

    def give_up(self) -> float:
        """Stop waiting; return the time waited, in seconds."""
        self._is_given_up = True
        return time.monotonic() - self._began

    def _on_inform(self, inform: Message) -> None:
        self._try(self._print, inform)

    def _on_reply(self, reply: Message) -> None:
        answer = Answer(reply, time.monotonic() - self._began)
        if not self._is_given_up:
            self._try(self._show, answer)
        elif reply.local_error is None:
            self._try(self._print, reply)
        if not self._answered.done():
            self._answered.set_result(answer)

    def _print(self, msg: Message) -> None:
        late = f"   {paint('(late)', 'dim')}" if self._is_given_up else ""
        print(f"{self._client.text_of(msg)}{late}", flush=True)

    def _try(self, show: Callable[[Any], None], shown: Any) -> None:
        """Show something; errors are raised in the waiting thread."""
        try:
            show(shown)
        except Exception as error:
            if not self._answered.done():
                self._answered.set_exception(error)


def parse_line(line: str) -> Optional[Message]:
    """Parse a line as a request; return None if it is blank or a comment."""
    words = [] if line.lstrip().startswith("#") else split(line)
    if not words:
        return None
    name = words[0].removeprefix(b"?")
    if not _NAME_RE.fullmatch(name):
        raise BadWords(f"{quote(words[0])} is not the name of a request.", 0)
    return Message.request(name.decode(), *words[1:])


def text_of(msg: Message, arguments: Optional[Sequence[bytes]] = None) -> str:
    """Format a message as a line, without its id; the arguments as they can be typed."""
    symbol = Message.TYPE_SYMBOLS[msg.mtype].decode()
    shown = msg.arguments if arguments is None else arguments
    return " ".join([symbol + msg.name, *map(quote, shown)])
