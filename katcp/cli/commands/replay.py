"""``katcp replay``: a device that answers from a recording.

Strategy
--------
A recorded connection becomes a greeting and a list of exchanges. An `Exchange` is a line of the
client and all lines with which the device responded: its informs and its reply, and unsolicited
lines before the client's next one. Each has its delay.

Rules
-----
- The first client gets the first recorded connection, the second the second, and so on; after the
  last the first again.
- A line of a client matches a recorded one if type, name and arguments are the same; the answer has
  the client's id. Lines that are no messages are compared as bytes.
- If a line is repeated, it gets the next recorded answer; the last one is repeated for ever. A line
  that was recorded only on another connection is answered from there.
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

# The key to find a client's line by.
_Key = Union[bytes, tuple[int, str, tuple[bytes, ...]]]


EXAMPLES = """
replay night.txt
replay night.txt --listen 0.0.0.0:7147 --speed 10
"""


def add_subcommand(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "replay",
        help="simulate a device from a recording",
        description="Listen, greet clients like the recorded device, and answer the recorded\n"
        "requests with the same answers and delays. Ctrl-C ends it.",
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
        recorded = [read_exchanges(events) for events in read_recording(file)]
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}", USAGE) from None
    except RecordingError as error:
        raise CommandError(f"cannot replay {file}: {error}", USAGE) from None
    asyncio.run(_Device(options, file, recorded).run())
    return OK


class Said(NamedTuple):
    """A line of the device, and its delay in seconds after the client's line."""

    delay: float
    line: bytes
    is_answer: bool


class Exchange:
    """A line of the client, and the device's response.

    Attributes
    ----------
    request : Message or None
        None if the line is no request, as in the greeting.
    key : object
        The same for equal lines, whatever their ids.
    name, mid : bytes
        Those of the request; the id may be empty.
    said : list of Said
        In the order of time.
    closed : str
        How the device then closed the connection, if it did.
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
        """Add a line of the device."""
        self.said.append(Said(max(time - self._time, 0.0), line, is_answer))

    def close(self, time: float, how: str) -> None:
        """Note that the device closed the connection."""
        self.closed, self.closing_delay = how, max(time - self._time, 0.0)

    def say(self, said: Said, asked: Optional[Exchange]) -> bytes:
        """Return a line of the device, with the id of the present request."""
        if not said.is_answer or asked is None:
            return said.line

        def head(match: re.Match[bytes]) -> bytes:
            # A device that omits the id does so again.
            has_id = asked.mid and (match[2] or not self.mid)
            return match[1] + (b"[%b]" % asked.mid if has_id else b"")

        return _HEAD_RE.sub(head, said.line, count=1)

    def _understand(self, message: Message) -> None:
        self.key = (message.mtype, message.name, tuple(message.arguments))
        if message.mtype == Message.REQUEST:
            self.request = message
            self.name, self.mid = message.name.encode(), message.mid or b""


def read_exchanges(events: Sequence[Event]) -> list[Exchange]:
    """Return the exchanges of a recorded connection; the first is the greeting."""
    reader = _ExchangeReader(events[0].time)
    for event in events:
        reader.read(event)
    reader.finish()
    return reader.exchanges


class _ExchangeReader:
    """Makes exchanges of events, which may begin and end anywhere in a line."""

    def __init__(self, time: float) -> None:
        self.exchanges = [Exchange(time)]
        self._unanswered: list[Exchange] = []
        self._sent = LineSplitter()
        # The device's lines are kept unchanged, with line ends and blank lines.
        self._half_line = b""
        self._time = time

    def read(self, event: Event) -> None:
        """Process the next event."""
        if event.kind == SENT:
            for line in self._sent.feed(event.data):
                self._add_sent(Exchange(event.time, line))
        elif event.kind == SAID:
            self._time = event.time
            self._half_line += event.data
            lines = _DEVICE_LINE_RE.findall(self._half_line)
            self._half_line = b"" if not lines or lines[-1][-1:] in b"\r\n" else lines.pop()
            for line in lines:
                self._add_said(line)
        elif event.kind == ENDED:
            self.finish()
            self.exchanges[-1].close(event.time, event.data.decode())

    def finish(self) -> None:
        """Process an incomplete last line of the device."""
        if self._half_line:
            self._add_said(self._half_line)
        self._half_line = b""

    def _add_sent(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if exchange.request is not None:
            self._unanswered.append(exchange)

    def _add_said(self, line: bytes) -> None:
        exchange = self._asked(line)
        (exchange or self.exchanges[-1]).add(self._time, line, is_answer=exchange is not None)
        if exchange is not None and line.startswith(b"!"):
            self._unanswered.remove(exchange)

    def _asked(self, line: bytes) -> Optional[Exchange]:
        """Return the exchange that a line of the device belongs to."""
        match = _HEAD_RE.match(line)
        if match is None:
            return None
        name, mid = match[1][1:], (match[2] or b"")[1:-1]
        named = [exchange for exchange in self._unanswered if exchange.name == name]
        for exchange in named:
            if exchange.mid == mid:
                return exchange
        # Some devices omit the id.
        return named[0] if named and not mid else None


class _Device:
    """The device, for all clients."""

    def __init__(
        self, options: argparse.Namespace, file: str, recorded: list[list[Exchange]]
    ) -> None:
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
        self, writer: asyncio.StreamWriter, recorded: list[list[Exchange]], speed: float
    ) -> None:
        self._writer = writer
        self._speed = speed
        self._greeting = recorded[0][0]
        # The remaining exchanges of each recorded connection, the client's own first.
        self._to_come = [_by_key(exchanges) for exchanges in recorded]
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
        asked = Exchange(0.0, line)
        exchange = self._next(asked.key)
        if exchange is not None:
            self._begin(exchange, asked)
            return
        print(f"not in the recording: {shorten(printable(line))}", file=sys.stderr, flush=True)
        if asked.request is not None:
            reply = Message.reply(
                asked.request.name, "invalid", NOT_RECORDED, mid=asked.mid or None
            )
            self._writer.write(bytes(reply) + b"\n")

    def _next(self, key: _Key) -> Optional[Exchange]:
        """Return the next exchange for a line of the client; the last one again and again."""
        for to_come in self._to_come:
            exchanges = to_come.get(key)
            if exchanges:
                return exchanges.popleft() if len(exchanges) > 1 else exchanges[0]
        return None

    def _begin(self, exchange: Exchange, asked: Optional[Exchange]) -> None:
        task = asyncio.ensure_future(self._play(exchange, asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _play(self, exchange: Exchange, asked: Optional[Exchange]) -> None:
        """Send the response, each line at its time."""
        began = asyncio.get_running_loop().time()
        for delay, lines in itertools.groupby(exchange.said, key=lambda said: said.delay):
            await self._sleep_until(began, delay)
            self._writer.write(b"".join(exchange.say(said, asked) for said in lines))
        if exchange.closed:
            await self._sleep_until(began, exchange.closing_delay)
            if exchange.closed.startswith("reset"):
                reset(self._writer)
            self._writer.close()

    async def _sleep_until(self, began: float, delay: float) -> None:
        left = began + delay / self._speed - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)


def _by_key(exchanges: list[Exchange]) -> dict[_Key, collections.deque[Exchange]]:
    """Return all exchanges but the greeting, in order, by the client's line."""
    found: dict[_Key, collections.deque[Exchange]] = {}
    for exchange in exchanges[1:]:
        found.setdefault(exchange.key, collections.deque()).append(exchange)
    return found
