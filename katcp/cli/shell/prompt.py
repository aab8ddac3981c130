"""``katcp shell`` on a terminal.

Strategy
--------
The prompt (prompt_toolkit) and the waiting for replies take turns in the main
thread: where one waits for a reply nothing is typed, and Ctrl-C is a signal. Output
of the client's thread goes through `patch_stdout`, which puts it above the line
that is being typed.

The client learns the names of requests and sensors at each connection, and again
when the device says that its interface has changed.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import logging
import os
import pathlib
import signal
import sys
from typing import Any, Iterable, Iterator, Optional

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.patch_stdout import patch_stdout
from tornado.util import TimeoutError as TornadoTimeoutError

from ..._wire.message import Message
from ..connect import CONNECTION_LOST, GREETING_PATIENCE, connected, reason_of
from ..loglines import LEVELS
from ..output import OK, paint, printable
from ..quoting import BadWords, escape_bytes
from ..requests import Answer, Asking, ShellClient, parse_line, text_of

# A person has patience, and Ctrl-C: a reply is waited for so many seconds.
PATIENCE = 7 * 86400.0
# After so many it is said that it is waited for.
HINT_DELAY = 2.0
# How long the lists of names may take; there are devices with thousands of sensors.
LEARNING_TIMEOUT = 60.0

KEYS = "Tab completes, 'help' lists requests, Ctrl-C gives up, Ctrl-D ends."

_LOCAL = {"help": "help [NAME]: what the device says about its requests", "quit": "end the shell"}
_STRATEGIES = dict.fromkeys(
    ["none", "auto", "event", "period", "differential", "event-rate", "differential-rate"], ""
)
_LEVELS = dict.fromkeys(LEVELS, "")


def run_prompt(options: argparse.Namespace) -> int:
    """Run the shell on a terminal, and return the exit code."""
    # The terminal is to be left in order.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with connected(options, TerminalClient, auto_reconnect=True) as client:
        shell = _Shell(client, str(options.address))
        with patch_stdout(raw=True), _logs_shown():
            client.begin(shell)
            try:
                shell.run()
            finally:
                client.is_ending = True
    return OK


class TerminalClient(ShellClient):
    """A client that learns names, and tells of lost connections.

    Attributes
    ----------
    requests, sensors : dict
        What is known of each by name: help texts, and descriptions.
    is_ending : bool
        Whether nothing is told any more.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requests: dict[str, str] = {}
        self.sensor_help: dict[str, str] = {}
        self.is_ending = False
        self._shell: Optional[_Shell] = None

    def begin(self, shell: _Shell) -> None:
        """Learn the names; from now on lost connections are told."""
        self._shell = shell
        assert self.ioloop is not None
        self.ioloop.add_callback(self._learn, "Connected to")

    def notify_connected(self, connected: bool) -> None:
        """Tell of it, and learn the names again."""
        super().notify_connected(connected)
        if self._shell is None or self.is_ending:
            return
        if connected:
            assert self.ioloop is not None
            self.ioloop.add_callback(self._learn, "Connected again to")
        else:
            print(paint(f"{CONNECTION_LOST.capitalize()}.", "red"), flush=True)
        self._shell.redraw()

    def inform_interface_changed(self, msg: Message) -> Any:
        """Learn the names again."""
        self.unhandled_inform(msg)
        return self._learn(None)

    async def _learn(self, greeting: Optional[str]) -> None:
        """Ask for the names of requests and sensors, and tell what was found."""
        with contextlib.suppress(TornadoTimeoutError, asyncio.TimeoutError, TimeoutError):
            await self.until_protocol(GREETING_PATIENCE)
        helps = await self._list("help")
        sensors = await self._list("sensor-list")
        self.requests = {name: " ".join(rest) for name, *rest in helps if name}
        self.sensor_help = {name: _describe(*rest) for name, *rest in sensors if name}
        if greeting is not None and self.is_connected() and self._shell is not None:
            found = f"{len(self.requests)} requests, {len(self.sensor_help)} sensors"
            about = (
                f"protocol {self.protocol_flags}" if self.versions or self.protocol_flags else ""
            )
            told = ", ".join(filter(None, [about, found]))
            print(paint(f"{greeting} {self._shell.address}: {told}.", "green"), flush=True)
            self._shell.redraw()

    async def _list(self, name: str) -> list[list[str]]:
        """Return the arguments of all informs of a request, as text."""
        request = Message.request(name)
        reply, informs = await self.future_request(request, timeout=LEARNING_TIMEOUT)
        if not reply.reply_ok() and self.is_connected():
            print(paint(f"No completion from ?{name}: {reason_of(reply)}", "yellow"), flush=True)
        return [
            [argument.decode("utf-8", "replace") for argument in inform.arguments]
            for inform in informs
        ]


def _describe(description: str = "", units: str = "", kind: str = "", *_: str) -> str:
    """Return what is shown of a sensor beside its name."""
    about = " ".join(filter(None, [kind, f"in {units}" if units else ""]))
    return f"{description} ({about})" if about else description


class _Shell:
    """The loop of prompting and asking; all but `redraw` in the main thread."""

    def __init__(self, client: TerminalClient, address: str) -> None:
        self.address = address
        self._client = client
        self._session: PromptSession[str] = PromptSession(
            self._prompt,
            completer=_Completer(client),
            complete_while_typing=False,
            history=_open_history(),
            bottom_toolbar=self._toolbar,
            enable_open_in_editor=False,
        )

    def run(self) -> None:
        """Do what is typed until Ctrl-D."""
        while True:
            try:
                line = self._session.prompt()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if line.strip() in ("quit", "exit"):
                return
            # Ctrl-C just before or after the waiting.
            with contextlib.suppress(KeyboardInterrupt):
                # Several, if they were pasted.
                for part in line.splitlines():
                    self._do(part)

    def redraw(self) -> None:
        """Show the prompt and the toolbar anew; any thread."""
        self._session.app.invalidate()

    def _do(self, line: str) -> None:
        try:
            request = parse_line(line)
        except BadWords as error:
            print(paint(f"{' ' * (len(self.address) + 2 + error.position)}^ {error}", "red"))
            return
        if request is None:
            return
        if request.name == "help" and not line.lstrip().startswith("?"):
            self._help(request)
        else:
            self._ask(request)

    def _ask(self, request: Message) -> None:
        asking = Asking(self._client, request, PATIENCE, _show_answer)
        try:
            try:
                asking.wait(HINT_DELAY)
            except concurrent.futures.TimeoutError:
                print(paint("No reply yet; Ctrl-C gives up.", "dim"), flush=True)
                asking.wait()
        except KeyboardInterrupt:
            seconds = asking.give_up()
            print(paint(f"Gave up ?{request.name} after {_duration(seconds)}.", "yellow"))

    def _help(self, request: Message) -> None:
        """Show help texts as texts: all in short, or one in full."""
        requests = self._client.requests
        if not request.arguments:
            width = max(map(len, requests), default=0)
            for name in sorted(requests):
                print(
                    f"{paint(printable(name.ljust(width)), 'bold')}  {_first_line(requests[name])}"
                )
            return
        for argument in request.arguments:
            name = argument.decode("utf-8", "replace").removeprefix("?")
            if name in requests:
                print(paint(f"?{printable(name)}", "bold"))
                for line in requests[name].strip().splitlines():
                    print(f"  {printable(line.expandtabs())}")
            elif name in self._client.sensor_help:
                print(
                    f"{paint(printable(name), 'bold')}  {printable(self._client.sensor_help[name])}"
                )
            else:
                print(paint(f"The device has told of no {printable(name)}.", "red"))

    def _prompt(self) -> ANSI:
        if self._client.is_connected():
            return ANSI(f"{self.address}> ")
        return ANSI(paint(f"{self.address}! ", "red"))

    def _toolbar(self) -> str:
        """Return help for what is being typed, on one line."""
        if not self._client.is_connected():
            return "not connected; trying again"
        text = self._session.default_buffer.text
        words = text.split()
        if not words:
            return KEYS
        name = words[0].removeprefix("?")
        last = words[-1] if len(words) > 1 else ""
        if name in self._client.requests:
            help_text = f"?{name}: {_first_line(self._client.requests[name])}"
        else:
            help_text = _LOCAL.get(name, KEYS)
        if last in self._client.sensor_help:
            help_text = f"{last}: {_first_line(self._client.sensor_help[last])}"
        width = self._session.output.get_size().columns
        return help_text[: max(width - 1, 0)]


class _Completer(Completer):
    """Completes the names of requests, of sensors, and what else is known."""

    def __init__(self, client: TerminalClient) -> None:
        self._client = client

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """Yield the names that begin with the word before the cursor, or else hold it."""
        word = document.get_word_before_cursor(WORD=True)
        before = document.text_before_cursor[: -len(word) or None].split()
        if not before:
            word = word.removeprefix("?")
        names = self._names(before)
        fitting = [name for name in names if name.startswith(word)]
        for name in sorted(fitting or [name for name in names if word.lower() in name.lower()]):
            yield Completion(name, -len(word), display_meta=_first_line(names[name]))

    def _names(self, before: list[str]) -> dict[str, str]:
        """Return what may stand after these words, each with a description."""
        if not before:
            return {**_LOCAL, **self._client.requests}
        name, place = before[0].removeprefix("?"), len(before)
        if name == "help" and place == 1:
            return self._client.requests
        if name == "log-level" and place == 1:
            return _LEVELS
        if name == "sensor-sampling" and place == 2:
            return _STRATEGIES
        return self._client.sensor_help


class _FileHistory(FileHistory):
    """A history that takes bytes that are not UTF-8, too."""

    def store_string(self, string: str) -> None:
        super().store_string(escape_bytes(string))


def _open_history() -> History:
    """Return what was typed in earlier runs, if it can be kept."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    path = pathlib.Path(state, "katcp", "shell-history")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.open("rb+").close()
    except OSError:
        return InMemoryHistory()
    return _FileHistory(str(path))


class _LogHandler(logging.Handler):
    """Prints what the library has to say, above the line that is typed."""

    def emit(self, record: logging.LogRecord) -> None:
        print(paint(f"katcp: {printable(record.getMessage())}", "yellow"), flush=True)


@contextlib.contextmanager
def _logs_shown() -> Iterator[None]:
    handler = _LogHandler(logging.WARNING)
    logger = logging.getLogger("katcp")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _show_answer(answer: Answer) -> None:
    reply, took = answer.reply, paint(_duration(answer.seconds), "dim")
    if reply.local_error is None:
        colour = "green" if reply.reply_ok() else "red"
        print(f"{paint(text_of(reply), colour)}   {took}", flush=True)
    else:
        print(f"{paint(reason_of(reply), 'red')}   {took}", flush=True)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return printable(" ".join(lines[0].split())) if lines else ""
