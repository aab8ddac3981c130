"""What is fuzzed: functions that take any bytes, and raise if the library is wrong.

They need no fuzzer: ``tests/system/test_fuzz.py`` runs them on the corpus.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any, Callable

from tornado.ioloop import IOLoop

import katcp
from katcp._wire.lines import LineSplitter
from tests.support import abnf

# What a request may wait for; longer than any input takes.
TIMEOUT = 30.0
# Requests that one input may make the client send.
MAX_ASKED = 50


class Wrong(Exception):
    """The library did what it must not do."""


def check(holds: bool, what: str, *details: object) -> None:
    """Raise `Wrong` unless something holds; like an assert, also under ``python -O``."""
    if not holds:
        raise Wrong(f"{what}: {details!r}")


def read_line(line: bytes) -> abnf.Line | abnf.BadLine:
    """Return what the library says that *line* is; no error but one may come out."""
    try:
        return as_line(katcp.MessageParser().parse(line))
    except katcp.KatcpSyntaxError:
        return abnf.BadLine(line)


def as_line(msg: katcp.Message) -> abnf.Line:
    """Return *msg* as the strict decoder has it."""
    symbol = katcp.Message.TYPE_SYMBOLS[msg.mtype]
    return abnf.Line(symbol, msg.name, msg.mid, tuple(msg.arguments))


def splitter(data: bytes) -> None:
    """The first bytes tell the limit and where to cut the others; lines are as they were whole."""
    limit, size, stream = data[:1], data[1:2], data[2:]
    max_size = limit[0] if any(limit) else None
    step = size[0] + 1 if size else 1
    whole = LineSplitter()
    lines = whole.feed(stream)
    check((lines, whole.pending) == abnf.split(stream), "not the lines of the grammar", lines)
    cut = LineSplitter()
    found: list[bytes] = []
    for start in range(0, len(stream), step):
        found += cut.feed(stream[start : start + step], max_size)
        if cut.overflowed:
            break
    if cut.overflowed:
        check(max_size is not None, "an overflow without a limit")
        check(found == lines[: len(found)], "other lines before the overflow", found)
    else:
        check((found, cut.pending) == (lines, whole.pending), "other lines when cut", found)
        check(max_size is None or len(cut.pending) < max_size, "too much is kept", cut.pending)
    check(all(max_size is None or len(line) < max_size for line in found), "too long", found)


def parser(data: bytes) -> None:
    """A line is read as the strict decoder reads it, and what is read can be written."""
    expected = abnf.decode(data.rstrip(b"\r\n"))
    found = read_line(data)
    if isinstance(expected, abnf.BadLine):
        check(isinstance(found, abnf.BadLine), "read although it is no message", found)
        return
    check(found == expected, "read as something else", found, expected)
    msg = katcp.MessageParser().parse(data)
    check(bytes(msg) + b"\n" == abnf.encode(expected), "written as something else", bytes(msg))
    check(read_line(bytes(msg)) == expected, "another message after the round trip", bytes(msg))
    str(msg)
    repr(msg)


def client(data: bytes) -> None:
    """A server says *data* to a live client, over a socket, and closes."""
    _Visit(data).play()


class _Client(katcp.AsyncClient):
    """A client with handlers; the server's informs make it send requests and hang up."""

    # Every bad line is to be found in the log.
    MAX_LOG_RATE = 10**9

    def __init__(self, address: tuple[str, int], logger: logging.Logger) -> None:
        super().__init__(*address, timeout=TIMEOUT, logger=logger, auto_reconnect=False)
        self.seen: list[abnf.Line] = []
        self.asked = 0
        self.answered: list[int] = []
        self.hung_up = False

    def handle_message(self, msg: katcp.Message) -> Any:
        self.seen.append(as_line(msg))
        return super().handle_message(msg)

    def inform_ask(self, msg: katcp.Message) -> None:
        """Send the request that the arguments name."""
        name, *arguments = msg.arguments or [b"read"]
        try:
            request = katcp.Message.request(name.decode("ascii", "replace"), *arguments)
        except katcp.KatcpSyntaxError:
            return
        if self.asked < MAX_ASKED:
            self.asked += 1
            self.callback_request(
                request,
                reply_cb=self.note_reply,
                inform_cb=lambda inform, number: str(inform),
                user_data=(self.asked,),
            )

    def note_reply(self, msg: katcp.Message, number: int) -> None:
        self.answered.append(number)
        str(msg)

    def inform_hang_up(self, msg: katcp.Message) -> None:
        """Disconnect, in the middle of what the server says."""
        self.hung_up = True
        self.disconnect()

    async def inform_pause(self, msg: katcp.Message) -> None:
        """Let reading wait for a turn of the loop."""
        await asyncio.sleep(0)

    def request_greet(self, msg: katcp.Message) -> katcp.Message:
        """Answer the server's request."""
        return katcp.Message.reply_to_request(msg, "ok", *msg.arguments)


class _Records(logging.Handler):
    """Keeps the records of one visit."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()
        self.records.append(record)


class _Visit:
    """One client, and the server that says *data* to it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.records = _Records()
        self.loop_errors: list[dict[str, Any]] = []

    def play(self) -> None:
        logger = logging.Logger("fuzzed", logging.DEBUG)
        logger.addHandler(self.records)
        ioloop = IOLoop(make_current=False)
        try:
            client = ioloop.run_sync(lambda: self.meet(logger))
        finally:
            ioloop.close()
        self.check_client(client)
        self.check_records(client)

    async def meet(self, logger: logging.Logger) -> _Client:
        """Return the client, which has heard everything and ended."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.loop_errors.append(context))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            client = _Client(listener.getsockname(), logger)
            client.set_ioloop(IOLoop.current())
            client.start()
            sock, _ = await loop.sock_accept(listener)
        with sock:
            sock.setblocking(False)
            await loop.sock_sendall(sock, self.data)
            # Half closed: what the client sends is taken, so that it hears everything.
            sock.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(sock, 65536):
                pass
        await client.until_stopped(TIMEOUT)
        return client

    def check_client(self, client: _Client) -> None:
        lines, _ = abnf.split(self.data)
        good = [line for line in map(abnf.decode, lines) if isinstance(line, abnf.Line)]
        said = good[: len(client.seen)] if client.hung_up else good
        check(client.seen == said, "other messages than were said", client.seen, said)
        check(
            sorted(client.answered) == [*range(1, client.asked + 1)],
            "not every request ended once",
            client.asked,
            client.answered,
        )
        check(not client.is_connected() and not client.running(), "the client has not ended")

    def check_records(self, client: _Client) -> None:
        """Only a bad line may come with a traceback: the one of its syntax error."""
        check(not self.loop_errors, "an error in the loop", self.loop_errors)
        bad = 0
        for record in self.records.records:
            text = record.getMessage()
            if text.startswith("BAD COMMAND: ") and "KatcpSyntaxError" in text:
                bad += 1
            else:
                check(record.exc_info is None and record.levelno < logging.ERROR, "logged", text)
        lines, _ = abnf.split(self.data)
        all_bad = sum(isinstance(abnf.decode(line), abnf.BadLine) for line in lines)
        check(bad == all_bad or (client.hung_up and bad < all_bad), "bad lines logged", bad)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "splitter": splitter,
    "parser": parser,
    "client": client,
}
