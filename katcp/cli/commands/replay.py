"""``katcp replay``: a device that answers from a recording.

Strategy
--------
A recorded connection becomes a greeting and a list of turns. A `Turn` is a line that
the client sent, and all lines that the device said because of it: the informs and
the reply that belong to it, and what came unasked before the client sent more. Each
has its delay.

Rules
-----
- The first client is given the first recorded connection, the second the second,
  and so on; after the last the first again.
- A line of a client is a recorded one if type, name and arguments are the same; the
  id may differ, and stands in the answer. Lines that are no messages are compared
  as bytes.
- The same line again is answered as it was answered the next time; the last answer
  is repeated for ever. A line that was sent on another connection only is answered
  from there.
- Other requests are answered ``invalid``.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import itertools
import re
import sys
from typing import Any, NamedTuple, Optional, Sequence, Union

from ..._wire.lines import LineSplitter
from ..._wire.text import shorten
from ...core import KatcpSyntaxError, Message, MessageParser
from ..devices import DEFAULT_PORT, Address
from ..listen import Server, peer_of, reset
from ..options import add_listen_option, parse_positive
from ..output import OK, USAGE, CommandError, count, printable
from ..recording import ENDED, SAID, SENT, Event, RecordingError, read_recording

NOT_RECORDED = "This request is not in the recording."

_READ_SIZE = 64 * 1024
_DEVICE_LINE_RE = re.compile(rb"[^\r\n]*[\r\n]+|[^\r\n]+\Z")
_HEAD_RE = re.compile(rb"([!#][a-zA-Z][a-zA-Z0-9-]*)(\[[0-9]+\])?")

_PARSER = MessageParser()

# What a line of a client is found by.
_Key = Union[bytes, tuple[int, str, tuple[bytes, ...]]]


EXAMPLES = """
replay night.txt
replay night.txt --listen 0.0.0.0:7147 --speed 10
"""


def add_subcommand(subparsers: Any) -> None:
    """Add ``katcp replay``."""
    parser = subparsers.add_parser(
        "replay",
        help="be a device that answers from a recording",
        description="Listen, greet clients as the recorded device did, and answer the requests\n"
        "that are in the recording as it answered them, as slowly as it did. Ctrl-C ends it.",
        usage="FILE",
        words="FILE        what 'katcp record' has written",
        examples=EXAMPLES,
    )
    add_listen_option(parser, Address("127.0.0.1", DEFAULT_PORT))
    parser.add_argument(
        "--speed",
        metavar="FACTOR",
        type=parse_positive,
        default=1.0,
        help="how many times as fast as recorded (default: %(default)g)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if len(options.words) != 1:
        raise CommandError("which FILE? see katcp replay --help", USAGE)
    file = options.words[0]
    try:
        recorded = [read_turns(events) for events in read_recording(file)]
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}", USAGE) from None
    except RecordingError as error:
        raise CommandError(f"cannot replay {file}: {error}", USAGE) from None
    asyncio.run(_Device(options, file, recorded).run())
    return OK


class Said(NamedTuple):
    """A line of the device, so many seconds after what the client sent."""

    delay: float
    line: bytes
    is_answer: bool


class Turn:
    """A line that the client sent, and what the device said because of it.

    Attributes
    ----------
    request : Message or None
        None if the line is no request, as in the greeting.
    key : object
        What equal lines have in common, whatever their ids.
    name, mid : bytes
        Those of the request; the id may be empty.
    said : list of Said
        In the order of time.
    closed : str
        How the device closed the connection after that, if it did.
    """

    def __init__(self, time: float, line: bytes = b"") -> None:
        self.request: Optional[Message] = None
        self.key: _Key = line
        self.name = self.mid = b""
        self.said: list[Said] = []
        self.closed = ""
        self.closing_delay = 0.0
        self._time = time
        with contextlib.suppress(KatcpSyntaxError):
            self._understand(_PARSER.parse(line))

    def add(self, time: float, line: bytes, *, is_answer: bool) -> None:
        """Add what the device said."""
        self.said.append(Said(max(time - self._time, 0.0), line, is_answer))

    def close(self, time: float, how: str) -> None:
        """Note that the device closed the connection."""
        self.closed, self.closing_delay = how, max(time - self._time, 0.0)

    def say(self, said: Said, asked: Optional[Turn]) -> bytes:
        """Return a line of the device, with the id of the one who asks now."""
        if not said.is_answer or asked is None:
            return said.line

        def head(match: re.Match[bytes]) -> bytes:
            # A device that left out the id that it was given does so again.
            has_id = asked.mid and (match[2] or not self.mid)
            return match[1] + (b"[%b]" % asked.mid if has_id else b"")

        return _HEAD_RE.sub(head, said.line, count=1)

    def _understand(self, message: Message) -> None:
        self.key = (message.mtype, message.name, tuple(message.arguments))
        if message.mtype == Message.REQUEST:
            self.request = message
            self.name, self.mid = message.name.encode(), message.mid or b""


def read_turns(events: Sequence[Event]) -> list[Turn]:
    """Return the turns of a recorded connection; the first is the greeting."""
    reader = _TurnReader(events[0].time)
    for event in events:
        reader.read(event)
    reader.finish()
    return reader.turns


class _TurnReader:
    """Makes turns of events, which may begin and end anywhere in a line."""

    def __init__(self, time: float) -> None:
        self.turns = [Turn(time)]
        self._unanswered: list[Turn] = []
        self._sent = LineSplitter()
        # What the device said is kept as it was: line ends, blank lines and all.
        self._half_line = b""
        self._time = time

    def read(self, event: Event) -> None:
        """Take in the next event."""
        if event.kind == SENT:
            for line in self._sent.feed(event.data):
                self._add_sent(Turn(event.time, line))
        elif event.kind == SAID:
            self._time = event.time
            self._half_line += event.data
            lines = _DEVICE_LINE_RE.findall(self._half_line)
            self._half_line = b"" if not lines or lines[-1][-1:] in b"\r\n" else lines.pop()
            for line in lines:
                self._add_said(line)
        elif event.kind == ENDED:
            self.finish()
            self.turns[-1].close(event.time, event.data.decode())

    def finish(self) -> None:
        """Take in what the device said before it ended in the middle of a line."""
        if self._half_line:
            self._add_said(self._half_line)
        self._half_line = b""

    def _add_sent(self, turn: Turn) -> None:
        self.turns.append(turn)
        if turn.request is not None:
            self._unanswered.append(turn)

    def _add_said(self, line: bytes) -> None:
        turn = self._asked(line)
        (turn or self.turns[-1]).add(self._time, line, is_answer=turn is not None)
        if turn is not None and line.startswith(b"!"):
            self._unanswered.remove(turn)

    def _asked(self, line: bytes) -> Optional[Turn]:
        """Return the turn whose request a line of the device belongs to."""
        match = _HEAD_RE.match(line)
        if match is None:
            return None
        name, mid = match[1][1:], (match[2] or b"")[1:-1]
        named = [turn for turn in self._unanswered if turn.name == name]
        for turn in named:
            if turn.mid == mid:
                return turn
        # There are devices that leave the id out.
        return named[0] if named and not mid else None


class _Device:
    """The device, for all clients."""

    def __init__(self, options: argparse.Namespace, file: str, recorded: list[list[Turn]]) -> None:
        self._recorded = recorded
        self._file = file
        self._speed: float = options.speed
        self._count = 0
        self._server = Server(options.listen, self._serve)

    async def run(self) -> None:
        """Serve clients until Ctrl-C."""
        await self._server.run(self._announce)

    def _announce(self, address: Address) -> None:
        connections = count(len(self._recorded), "connection")
        print(f"replay of {self._file}, {connections}, listens on {address}", flush=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = self._count % len(self._recorded)
        self._count += 1
        print(f"{self._count}: {peer_of(writer)} connected", flush=True)
        order = [self._recorded[own], *self._recorded[:own], *self._recorded[own + 1 :]]
        await _Player(writer, order, self._speed).run(reader)


class _Player:
    """Answers one client."""

    def __init__(
        self, writer: asyncio.StreamWriter, recorded: list[list[Turn]], speed: float
    ) -> None:
        self._writer = writer
        self._speed = speed
        self._greeting = recorded[0][0]
        # Of each recorded connection, that of the client first, what is still to come.
        self._to_come = [_by_key(turns) for turns in recorded]
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Greet, and answer every line until the client has gone."""
        splitter = LineSplitter()
        self._begin(self._greeting, None)
        try:
            while data := await reader.read(_READ_SIZE):
                for line in splitter.feed(data):
                    self._answer(line)
        except ConnectionError:
            pass
        finally:
            for task in self._tasks:
                task.cancel()

    def _answer(self, line: bytes) -> None:
        asked = Turn(0.0, line)
        turn = self._next(asked.key)
        if turn is not None:
            self._begin(turn, asked)
            return
        print(f"not in the recording: {shorten(printable(line))}", file=sys.stderr, flush=True)
        if asked.request is not None:
            reply = Message.reply(
                asked.request.name, "invalid", NOT_RECORDED, mid=asked.mid or None
            )
            self._writer.write(bytes(reply) + b"\n")

    def _next(self, key: _Key) -> Optional[Turn]:
        """Return the next turn for a line of the client; the last one again and again."""
        for to_come in self._to_come:
            turns = to_come.get(key)
            if turns:
                return turns.popleft() if len(turns) > 1 else turns[0]
        return None

    def _begin(self, turn: Turn, asked: Optional[Turn]) -> None:
        task = asyncio.ensure_future(self._play(turn, asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _play(self, turn: Turn, asked: Optional[Turn]) -> None:
        """Say what was said, each line at its time."""
        began = asyncio.get_running_loop().time()
        for delay, lines in itertools.groupby(turn.said, key=lambda said: said.delay):
            await self._sleep_until(began, delay)
            self._writer.write(b"".join(turn.say(said, asked) for said in lines))
        if turn.closed:
            await self._sleep_until(began, turn.closing_delay)
            if turn.closed.startswith("reset"):
                reset(self._writer)
            self._writer.close()

    async def _sleep_until(self, began: float, delay: float) -> None:
        left = began + delay / self._speed - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)


def _by_key(turns: list[Turn]) -> dict[_Key, collections.deque[Turn]]:
    """Return all turns but the greeting, in their order, by what the client sent."""
    found: dict[_Key, collections.deque[Turn]] = {}
    for turn in turns[1:]:
        found.setdefault(turn.key, collections.deque()).append(turn)
    return found
