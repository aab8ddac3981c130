"""``katcp shell`` on a terminal.

Strategy
--------
The prompt (prompt_toolkit) and the waiting for replies alternate in the main thread: while waiting
for a reply nothing is typed, and Ctrl-C is a signal. Output of the client's thread goes through
`patch_stdout`, which puts it above the line that is being typed.

The client reads the names of requests, sensors and registers on each connection, and again when the
device says that its interface has changed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import functools
import queue
from typing import Any, Callable, Sequence

import platformdirs
from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.patch_stdout import patch_stdout

from ...core import Message
from ..connect import reason_of
from ..devices import Address
from ..follow import FollowingClient, following
from ..names import REGISTERS, REQUESTS, SENSORS, Names, first_line, make_names
from ..output import OK, CommandError, count, exit_at_sigterm, paint, printable, show_duration
from ..quoting import BadWords, escape_bytes
from ..readings import show_arguments
from ..requests import Answer, Asking, ShellClient, parse_line, text_of
from .completer import RequestCompleter, complete_now

# A person has patience, and Ctrl-C: the timeout of a reply in seconds.
PATIENCE = 7 * 86400.0
# After this many seconds the shell says that it is waiting.
HINT_DELAY = 2.0

# The toolbar, as much as fits; the most useful first.
KEYS = ("Tab completes", "help: all requests", "Ctrl-C gives up", "Ctrl-D ends")

_LOCAL = {"help": "help [NAME]: what the device says about its requests", "quit": "end the shell"}


def run_prompt(options: argparse.Namespace, device: Address) -> int:
    """Run the shell on a terminal, and return the exit code."""
    client = TerminalClient(options, device)
    shell = _Shell(client)
    client.redraw = shell.redraw
    with patch_stdout(raw=True), following([client]):
        try:
            shell.run()
        finally:
            client.is_ending = True
    return OK


class TerminalClient(ShellClient, FollowingClient):
    """A client that reads the device's names, and reports lost connections.

    Attributes
    ----------
    names : dict
        The known names of each kind.
    redraw : callable
        Redraws the prompt and the toolbar; any thread.
    is_ending : bool
        Whether nothing is reported any more.
    """

    def __init__(self, options: argparse.Namespace, device: Address) -> None:
        super().__init__(options, device, queue.SimpleQueue())
        self.names: dict[str, Names] = {REQUESTS: {}, SENSORS: {}, REGISTERS: {}}
        self.redraw: Callable[[], None] = lambda: None
        self.is_ending = False
        self._types: dict[bytes, str] = {}
        # The number of the last connection reported to the user.
        self._greeted = 0

    def look_up(self, kind: str) -> Names:
        """Return the names of a kind."""
        return self.names[kind]

    def text_of(self, msg: Message) -> str:
        """Format a message as a line, with times as dates."""
        return text_of(msg, show_arguments(msg, self.protocol_flags, self._types))

    def note(self, event: Any) -> None:
        """Report an event, instead of queueing it."""
        if self.is_ending:
            return
        if event is False:
            print(paint(self.why_lost(), "red"), flush=True)
        elif isinstance(event, (CommandError, str)):
            print(paint(str(event), "yellow"), flush=True)
        self.redraw()

    def inform_interface_changed(self, msg: Message) -> Any:
        """Read the names again."""
        self.unhandled_inform(msg)
        return self.set_up_again()

    async def set_up(self) -> None:
        """Read the names; on a new connection, report it."""
        await self._learn()
        if self.is_ending or not self.is_connected() or self._greeted == self.connections:
            return
        self._greeted = self.connections
        greeting = "Connected" if self.connections == 1 else "Connected again"
        about = f"protocol {self.protocol_flags}, " if self.protocol_flags else ""
        found = f"{count(len(self.names[REQUESTS]), 'request')}, "
        found += count(len(self.names[SENSORS]), "sensor")
        text = f"{greeting} to {self.device.full}: {about}{found}."
        print(paint(text, "green"), flush=True)
        self.redraw()

    async def _learn(self) -> None:
        for kind in (REQUESTS, SENSORS, REGISTERS):
            # Not every device has a memory.
            known = self.names[REQUESTS]
            if kind in known or kind != REGISTERS:
                await self._learn_kind(kind)

    async def _learn_kind(self, kind: str) -> None:
        try:
            informs = (await self.fetch(kind)).informs
        except CommandError as error:
            self.note(CommandError(f"No completion: {error}", error.code))
            return
        rows = [[it.decode("utf-8", "replace") for it in inform.arguments] for inform in informs]
        self.names[kind] = make_names(kind, rows)
        if kind == SENSORS:
            self._types = {
                inform.arguments[0]: printable(inform.arguments[3])
                for inform in informs
                if len(inform.arguments) > 3
            }


class _Shell:
    """The loop of prompts and requests; all but `redraw` in the main thread."""

    def __init__(self, client: TerminalClient) -> None:
        self._client = client
        bindings = KeyBindings()
        bindings.add("tab")(lambda event: complete_now(event.current_buffer))
        self._session: PromptSession[str] = PromptSession(
            self._prompt,
            completer=RequestCompleter(client.look_up, _LOCAL),
            complete_while_typing=False,
            history=_open_history(),
            key_bindings=bindings,
            bottom_toolbar=self._toolbar,
            enable_open_in_editor=False,
        )

    def run(self) -> None:
        """Handle input until Ctrl-D."""
        pre_run = functools.partial(exit_at_sigterm, self._session.app)
        while True:
            try:
                line = self._session.prompt(pre_run=pre_run)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if line.strip() in ("quit", "exit"):
                return
            # Ctrl-C just before or after waiting.
            with contextlib.suppress(KeyboardInterrupt):
                # Several, if they were pasted.
                for part in line.splitlines():
                    self._do(part)

    def redraw(self) -> None:
        """Redraw the prompt and the toolbar; any thread."""
        self._session.app.invalidate()

    def _do(self, line: str) -> None:
        try:
            request = parse_line(line)
        except BadWords as error:
            indent = " " * (len(str(self._client.device)) + 2 + error.position)
            print(paint(f"{indent}^ {error}", "red"))
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
            print(paint(f"Gave up ?{request.name} after {show_duration(seconds)}.", "yellow"))

    def _help(self, request: Message) -> None:
        """Show the help texts: a summary of all, or one in full."""
        requests, sensors = self._client.names[REQUESTS], self._client.names[SENSORS]
        if not request.arguments:
            width = max(map(len, requests), default=0)
            for name in sorted(requests):
                print(
                    f"{paint(printable(name.ljust(width)), 'bold')}  {first_line(requests[name])}"
                )
        for argument in request.arguments:
            name = argument.decode("utf-8", "replace").removeprefix("?")
            if name in requests:
                print(paint(f"?{printable(name)}", "bold"))
                for line in requests[name].strip().splitlines():
                    print(f"  {printable(line.expandtabs())}")
            elif name in sensors:
                print(f"{paint(printable(name), 'bold')}  {printable(sensors[name])}")
            else:
                print(paint(f"The device has no request or sensor {printable(name)}.", "red"))

    def _prompt(self) -> ANSI:
        if self._client.is_connected():
            return ANSI(f"{self._client.device}> ")
        return ANSI(paint(f"{self._client.device}! ", "red"))

    def _toolbar(self) -> str:
        """Return the help for the current input, on one line."""
        width = self._session.output.get_size().columns - 1
        return self._help_for_line(width)[: max(width, 0)]

    def _help_for_line(self, width: int) -> str:
        if not self._client.is_connected():
            return "not connected; trying again"
        requests, sensors = self._client.names[REQUESTS], self._client.names[SENSORS]
        words = self._session.default_buffer.text.split()
        name = words[0].removeprefix("?") if words else ""
        last = words[-1] if len(words) > 1 else ""
        if last in sensors:
            return f"{last}: {first_line(sensors[last])}"
        if name in requests:
            return f"?{name}: {first_line(requests[name])}"
        return _LOCAL.get(name) or _join_fitting(KEYS, width)


def _join_fitting(texts: Sequence[str], width: int) -> str:
    """Join as many texts as fit in a width."""
    joined = ""
    for text in texts:
        longer = f"{joined}, {text}" if joined else text
        if len(longer) > width:
            break
        joined = longer
    return joined


class _FileHistory(FileHistory):
    """A history that also takes bytes that are not UTF-8."""

    def store_string(self, string: str) -> None:
        super().store_string(escape_bytes(string))


def _open_history() -> History:
    """Return the history of earlier runs, if it can be stored."""
    path = platformdirs.user_state_path("katcp", appauthor=False) / "shell-history"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.open("rb+").close()
    except OSError:
        return InMemoryHistory()
    return _FileHistory(str(path))


def _show_answer(answer: Answer) -> None:
    reply, took = answer.reply, paint(show_duration(answer.seconds), "dim")
    if reply.local_error is None:
        colour = "green" if reply.reply_ok() else "red"
        print(f"{paint(text_of(reply), colour)}   {took}", flush=True)
    else:
        print(f"{paint(reason_of(reply), 'red')}   {took}", flush=True)
