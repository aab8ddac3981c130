"""Whatever a server sends, memory stays within the documented limits and the client goes on.

The limits are those of docs/explanation/limits.rst. The server here is a plain
socket: it sends without end, as fast as the client takes it, and keeps nothing.
Memory is what Python has allocated in this process, at its peak.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import re
import socket
import threading
import tracemalloc
from typing import Any, Callable, Iterable, Iterator

import pytest

import katcp
from katcp import (
    BlockingClient,
    CallbackClient,
    KatcpClientDisconnected,
    KatcpClientOverflow,
    Message,
)
from katcp._state.requests import PendingRequest
from katcp._wire import message, parser
from katcp._wire.message import memory_size
from tests.support.helpers import PATIENCE, Recorder, in_loop, until_answered
from tests.support.peek import Peek

MEGABYTE = 2**20
GREETINGS = {
    "with-ids": b"#version-connect katcp-protocol 5.1-MIB\n",
    "without-ids": b"#version a-1.0\n#build-state b-1.0\n",
}

# What a client takes beside what a limit allows: chunks, one line, one message.
MARGIN = MEGABYTE

# What is sent is many times the limit, so that a client which keeps it is found out.
FLOOD = 12 * MEGABYTE


class HostileServer:
    """A server that answers ``?flood`` with *chunks*, ``?silent`` never, all else with ``ok``.

    Attributes
    ----------
    chunks : callable
        Returns what to send, given the id of ``?flood`` as it stands on the wire.
    flooded : threading.Event
        Set when all of it was sent, or the client has closed the connection.
    enough : threading.Event
        Ends a flood that has no end.
    """

    def __init__(self, greeting: bytes = GREETINGS["with-ids"]) -> None:
        self.chunks: Callable[[bytes], Iterable[bytes]] = lambda mid: ()
        self.flooded = threading.Event()
        self.enough = threading.Event()
        self._greeting = greeting
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._clients: list[katcp.DeviceClient] = []

    def __enter__(self) -> HostileServer:
        self._threads[0].start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.enough.set()
        for client in self._clients:
            client.stop(PATIENCE)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)

    def start_client(self, cls: Any = BlockingClient, **kwargs: Any) -> Any:
        """Return a client that is connected, knows the protocol and is used to requests."""
        client = cls(*self._listener.getsockname(), timeout=PATIENCE, **kwargs)
        client.auto_reconnect_delay = 0.02
        self._clients.append(client)
        client.start()
        assert client.wait_protocol(PATIENCE)
        assert client.blocking_request(Message.request("hello"))[0].reply_ok()
        return client

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=[sock])
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError), sock.makefile("rb") as requests:
            sock.sendall(self._greeting)
            for line in requests:
                name, mid = re.match(rb"[?!]([a-z0-9-]+)(\S*)", line, re.IGNORECASE).groups()
                if line.startswith(b"?") and name == b"flood":
                    self._flood(sock, mid)
                elif line.startswith(b"?") and name != b"silent":
                    sock.sendall(b"!%s%s ok\n" % (name, mid))

    def _flood(self, sock: socket.socket, mid: bytes) -> None:
        try:
            for chunk in self.chunks(mid):
                if self.enough.is_set():
                    break
                sock.sendall(chunk)
        finally:
            self.flooded.set()


@pytest.fixture(params=GREETINGS)
def any_server(request: pytest.FixtureRequest) -> Iterator[HostileServer]:
    """A hostile server, with ids and without."""
    with HostileServer(GREETINGS[request.param]) as server:
        yield server


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """A hostile server that knows ids."""
    with HostileServer() as server:
        yield server


class Memory:
    """The memory that Python allocates beyond what it had, at its peak."""

    def __enter__(self) -> Memory:
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *exception: object) -> None:
        tracemalloc.stop()

    @property
    def peak(self) -> int:
        """In bytes."""
        return tracemalloc.get_traced_memory()[1] - self._before


def lines_of(line: bytes, size: int = FLOOD) -> list[bytes]:
    """Return chunks, of *size* bytes together, that repeat *line*."""
    chunk = line * max(1, 65536 // len(line))
    return [chunk] * (size // len(chunk))


def numbered(line: bytes, count: int) -> Iterator[bytes]:
    """Return chunks of *count* lines that differ in a number."""
    for start in range(0, count, 100):
        yield b"".join(line % number for number in range(start, min(start + 100, count)))


# Informs of a request.


async def _ask_future(client: Any, asked: Message) -> Any:
    return await client.future_request(asked, timeout=60)


def ask_with_future(client: Any, asked: Message) -> Any:
    return in_loop(client, asyncio.ensure_future, _ask_future(client, asked))


def ask_blocking(client: Any, asked: Message) -> Any:
    return client.blocking_request(asked, timeout=60)


class FewInforms(BlockingClient):
    """A client with a small limit; it notes when twice as much came after a request failed."""

    MAX_INFORMS_SIZE = MEGABYTE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.size_of_rest = 0
        self.heard_more = threading.Event()

    def inform_flood(self, msg: Message) -> None:
        """Note what belongs to no request."""
        self.size_of_rest += memory_size(msg)
        if self.size_of_rest > 2 * self.MAX_INFORMS_SIZE:
            self.heard_more.set()


@pytest.mark.parametrize("ask", [ask_blocking, ask_with_future])
@pytest.mark.parametrize(
    "arguments", [b"", b" ab" * 200, b" " + b"x" * 100_000], ids=["empty", "many", "long"]
)
def test_too_many_informs_end_the_request_and_nothing_else(any_server, logs, ask, arguments):
    client = any_server.start_client(FewInforms)
    line = b"#flood%s" + arguments + b"\n"
    size = memory_size(katcp.MessageParser().parse(line % b"[1]"))
    count = 6 * client.MAX_INFORMS_SIZE // size
    any_server.chunks = lambda mid: lines_of(line % mid, count * len(line))
    others = Recorder()
    client.callback_request(Message.request("silent"), others, timeout=60)
    with Memory() as memory:
        reply, informs = ask(client, Message.request("flood"))
        kept = sum(map(memory_size, informs))
        del informs
        assert client.heard_more.wait(PATIENCE)
        assert memory.peak < 2 * client.MAX_INFORMS_SIZE + MARGIN
    assert 0 <= kept - client.MAX_INFORMS_SIZE < size
    text = (
        "The informs of request flood would take more memory than MAX_INFORMS_SIZE (1048576 bytes)"
    )
    assert reply.arguments == [b"fail", text.encode()]
    assert isinstance(reply.local_error, KatcpClientOverflow)
    logs.expect(text)
    assert not others.calls
    assert len(Peek(client).pending) == 1
    assert client.blocking_request(Message.request("hello"))[0].reply_ok()
    assert len(any_server._sockets) == 1, "the connection was lost"


def test_informs_that_are_not_kept_have_no_limit(server):
    client = server.start_client(FewInforms)
    line = b"#flood%s " + b"x" * 500 + b"\n"
    server.chunks = lambda mid: [*lines_of(line % mid), b"!flood%s ok\n" % mid]
    replies, counter = Recorder(), itertools.count()
    with Memory() as memory:
        client.callback_request(
            Message.request("flood"), replies, lambda inform: next(counter) and None, timeout=60
        )
        assert replies.wait()[0][0].reply_ok()
        assert memory.peak < MARGIN
    assert next(counter) > 20_000


def test_a_hundred_thousand_informs_are_far_below_the_limit(server):
    client = server.start_client()
    line = b"#flood%s antenna-%%06d.receiver.temperature a\\_text\\_about\\_it K float 0 100\n"
    server.chunks = lambda mid: [*numbered(line % mid, 100_000), b"!flood%s ok 100000\n" % mid]
    reply, informs = client.blocking_request(Message.request("flood"), timeout=60)
    assert reply.arguments == [b"ok", b"100000"]
    assert len(informs) == 100_000
    assert sum(map(memory_size, informs)) < client.MAX_INFORMS_SIZE / 3


# Versions.


class FewVersions(BlockingClient):
    MAX_VERSIONS_SIZE = 100_000


def test_endless_roles_of_versions_are_left_out_with_one_warning(server, logs):
    client = server.start_client(FewVersions)
    server.chunks = lambda mid: itertools.chain(
        numbered(b"#version-connect role-%d version serial\n", 20_000),
        [
            b"#version-connect role-0 other\n#version-connect katcp-protocol 5.0-I\n!flood%s ok\n"
            % mid
        ],
    )
    with Memory() as memory:
        assert client.blocking_request(Message.request("flood"))[0].reply_ok()
        assert memory.peak < MARGIN
    assert 100 < len(client.versions) < 500
    # What is known may change, and the protocol is always learned.
    assert client.versions["role-0"] == ("other",)
    assert str(client.protocol_flags) == "5.0-I"
    logs.expect("tells more of its versions than MAX_VERSIONS_SIZE (100000 bytes)")
    logs.expect("Protocol Version Warning")
    client.disconnect()
    assert client.wait_disconnected(PATIENCE)
    until_answered(client)
    assert client.versions == {"katcp-protocol": ("5.1-MIB",)}


def test_a_role_that_changes_for_ever_is_always_known(server):
    client = server.start_client(FewVersions)
    server.chunks = lambda mid: [
        *numbered(b"#version-connect role %d\n", 20_000),
        b"!flood%s ok\n" % mid,
    ]
    assert client.blocking_request(Message.request("flood"))[0].reply_ok()
    assert client.versions["role"] == ("19999",)


def test_versions_and_flags_of_a_megabyte(server, logs):
    client = server.start_client()
    server.chunks = lambda mid: [
        b"#version-connect katcp-device 1.0\n"
        b"#version-connect katcp-protocol 5.1-MI" + b"T" * MEGABYTE + b"\n",
        b"#version-connect katcp-library " + b"1" * MEGABYTE + b"\n!flood%s ok\n" % mid,
    ]
    assert client.blocking_request(Message.request("flood"))[0].reply_ok()
    assert str(client.protocol_flags) == "5.1-IMT"
    assert client.versions == {"katcp-protocol": ("5.1-MIB",), "katcp-device": ("1.0",)}
    logs.expect("tells more of its versions")
    assert len(logs.expect("Protocol Version Warning")) < 2000


# Lines.


class Listener(BlockingClient):
    """A client that keeps the last inform."""

    last: Any = None

    def unhandled_inform(self, msg: Message) -> None:
        """Keep it."""
        self.last = msg


@pytest.mark.parametrize("byte", [b"x", b" ", b"\t", b"\\", b"\0", b"#", b"["])
def test_an_endless_line_closes_the_connection(server, logs, byte):
    client = server.start_client()
    server.chunks = lambda mid: itertools.repeat(byte * 65536)
    with Memory() as memory:
        reply, _ = client.blocking_request(Message.request("flood"))
        assert memory.peak < 4 * client.MAX_MSG_SIZE
    assert b"MAX_MSG_SIZE (2097152 bytes)" in reply.arguments[1]
    logs.expect("closed with error KatcpClientOverflow")
    assert len(logs.expect("Dropped a line")) < 5000
    until_answered(client)


def test_endless_line_ends_and_blank_lines_are_nothing(server):
    client = server.start_client(Listener)
    server.chunks = lambda mid: [
        *lines_of(b"\n", MEGABYTE),
        *lines_of(b"\r\n", MEGABYTE),
        *lines_of(b" \t \n", MEGABYTE),
        *lines_of(b" " * MEGABYTE + b"\n"),
        b"!flood%s ok\n" % mid,
    ]
    with Memory() as memory:
        assert client.blocking_request(Message.request("flood"), timeout=60)[0].reply_ok()
        assert memory.peak < 4 * client.MAX_MSG_SIZE
    assert client.last is None


@pytest.mark.parametrize("separator", [b" ", b"\t", b" \t"])
@pytest.mark.parametrize("count", [10_000, 1_000_000])
def test_separators_without_arguments_are_one(server, separator, count):
    client = server.start_client(Listener)
    line = b"#x" + separator * count + b"a" + separator * 2 + b"b" + separator + b"\n"
    server.chunks = lambda mid: [line * 3, b"!flood%s ok\n" % mid]
    with Memory() as memory:
        if len(line) < client.MAX_MSG_SIZE:
            assert client.blocking_request(Message.request("flood"))[0].reply_ok()
            assert client.last.arguments == [b"a", b"b"]
            # A pointer each, for a moment, in a list that grows.
            assert memory.peak < 25 * len(line) + MARGIN


def test_a_million_arguments_take_memory_for_one_message_only(server):
    client = server.start_client(Listener, max_msg_size=MEGABYTE // 2)
    line = b"#x" + b" ab" * (client.MAX_MSG_SIZE // 3 - 2) + b"\n"
    server.chunks = lambda mid: [*[line] * 3, b"!flood%s ok\n" % mid]
    with Memory() as memory:
        assert client.blocking_request(Message.request("flood"), timeout=60)[0].reply_ok()
        one = memory_size(client.last)
        assert len(client.last.arguments) == client.MAX_MSG_SIZE // 3 - 2
        # One that was kept, one that is made, and lists of it.
        assert memory.peak < 2.5 * one + 3 * client.MAX_MSG_SIZE


# Names.


def test_names_of_a_megabyte_leave_nothing_behind(server):
    client = server.start_client(Listener)

    def chunks(mid: bytes) -> Iterator[bytes]:
        for number in range(20):
            # Not many requests: their replies have to wait until all of it was sent.
            for kind in (b"#", b"!") if number > 2 else (b"#", b"!", b"?"):
                yield b"%sname-%d-%s a\n" % (kind, number, b"x" * MEGABYTE)
        yield b"!flood%s ok\n" % mid

    server.chunks = chunks
    for heads in (message._heads, parser._heads):
        heads.clear()
    with Memory() as memory:
        assert client.blocking_request(Message.request("flood"), timeout=60)[0].reply_ok()
        until_answered(client)
        assert memory.peak < 12 * MEGABYTE
    assert len(client.last.name) > MEGABYTE
    assert all(len(name) <= 100 for _, name in message._heads)
    assert all(len(head) <= 100 for head in parser._heads)


def test_a_name_of_a_megabyte_is_shortened_in_every_log(server, logs):
    class Failing(BlockingClient):
        def unhandled_inform(self, msg: Message) -> None:
            """Fail."""
            raise ValueError("no")

    client = server.start_client(Failing)
    name = b"x" * MEGABYTE
    server.chunks = lambda mid: [
        b"#%s\n#%s[0]\n!%s%s ok\n" % (name, name, name, mid),
        b"#disconnect %s\n" % name,
        b"!flood%s ok\n" % mid,
    ]
    assert client.blocking_request(Message.request("flood"))[0].reply_ok()
    found = [
        logs.expect("Inform x", logging.ERROR),
        logs.expect("Inform disconnect", logging.ERROR),
        logs.expect("BAD COMMAND", logging.ERROR),
        logs.expect("Ignoring the id of"),
    ]
    assert all(len(text) < 5000 for text in found)


def test_a_reason_of_a_megabyte_is_shortened(server):
    client = server.start_client()

    def chunks(mid: bytes) -> Iterator[bytes]:
        yield b"#disconnect " + b"x" * MEGABYTE + b"\n"
        server._sockets[-1].shutdown(socket.SHUT_RDWR)

    server.chunks = chunks
    reply, _ = client.blocking_request(Message.request("flood"))
    assert isinstance(reply.local_error, KatcpClientDisconnected)
    assert b"as the device announced: xxx" in reply.arguments[1]
    assert len(reply.arguments[1]) < 1200
    until_answered(client)


# Logs.


class FewLogs(CallbackClient):
    MAX_LOG_RATE = 10

    def inform_fail(self, msg: Message) -> None:
        """Expect what is not there."""
        msg.arguments[5]


@pytest.mark.parametrize(
    ("line", "kind", "level"),
    [
        (b"garbage\n", "BAD COMMAND", logging.ERROR),
        (b"#fail\n", "Inform fail FAIL", logging.ERROR),
        (b"!other[1] ok\n", "Ignoring the id of", logging.WARNING),
        (b"#version-connect katcp-protocol x\n", "Protocol Version Warning", logging.WARNING),
    ],
)
def test_a_flood_of_nonsense_does_not_flood_the_log(server, logs, line, kind, level):
    client = server.start_client(FewLogs)
    in_loop(client, setattr, Peek(client).pending, "_last_mid", 0)
    client.callback_request(Message.request("silent"), lambda reply: None)
    server.chunks = lambda mid: [line * 5000, b"!flood%s ok\n" % mid]
    assert client.blocking_request(Message.request("flood"))[0].reply_ok()
    for _ in range(10):
        logs.expect(kind, level)
    logs.expect("More than MAX_LOG_RATE (10) records like ")
    assert not logs.matching(kind)
    client.disconnect()
    logs.expect("4990 records like ")


# What is not answered, not taken or not read.


def test_requests_behind_one_that_is_never_answered_cost_nothing_when_they_are_over():
    with HostileServer(GREETINGS["without-ids"]) as server:
        client = server.start_client()
        client.callback_request(Message.request("silent"), lambda reply: None, timeout=None)
        Peek(client).request_timeout = None

        async def ask_and_give_up() -> None:
            for _ in range(50):
                futures = [client.future_request(Message.request("silent")) for _ in range(100)]
                for future in futures:
                    future.cancel()
                await asyncio.sleep(0)

        in_loop(client, asyncio.ensure_future, ask_and_give_up())
        gc.collect()
        assert sum(type(obj) is PendingRequest for obj in gc.get_objects()) < 100
        until_answered(client)


def test_what_arrives_while_a_handler_pauses_the_reading_waits_at_the_device(server):
    class Pausing(katcp.DeviceClient):
        heard = 0

        def inform_pause(self, msg: Message) -> Any:
            """Let nothing be read until the test says so."""
            return released

        def inform_x(self, msg: Message) -> None:
            """Count it."""
            self.heard += 1

        def inform_end(self, msg: Message) -> None:
            """Note the end of the flood."""
            ended.set()

    ended = threading.Event()
    server.chunks = lambda mid: [b"#pause\n", *lines_of(b"#x " + b"y" * 500 + b"\n"), b"#end\n"]
    client = Pausing(*server._listener.getsockname())
    server._clients.append(client)
    client.enable_thread_safety()
    client.start()
    assert client.wait_protocol(PATIENCE)
    released = in_loop(client, lambda: [asyncio.get_running_loop().create_future()])[0]
    with Memory() as memory:
        client.send_request(Message.request("flood"))
        # The server is stuck as soon as the buffers of the kernel are full.
        assert not server.flooded.wait(0.5)
        assert client.heard == 0
        assert memory.peak < client.MAX_MSG_SIZE + MARGIN
        in_loop(client, released.set_result, None)
        assert ended.wait(PATIENCE)
        assert memory.peak < client.MAX_MSG_SIZE + MARGIN


def test_replies_to_endless_requests_that_nobody_takes_hit_the_limit(server, logs):
    limit = MEGABYTE
    client = server.start_client(max_write_buffer_size=limit)
    line = b"?x%s[1]\n" % (b"y" * 500)
    server.chunks = lambda mid: itertools.cycle(lines_of(line, MEGABYTE))
    with Memory() as memory:
        reply, _ = client.blocking_request(Message.request("flood"), timeout=60)
        # The bytes, their copies when they are joined, and a future for each message.
        assert memory.peak < 6 * limit + MARGIN
    assert b"MAX_WRITE_BUFFER_SIZE (1048576 bytes)" in reply.arguments[1]
    logs.expect("Could not send to device")
    logs.expect("Request xyyy", logging.ERROR)
    logs.expect("closed with error KatcpClientOverflow")
    for _ in logs.matching("Dropped a line"):
        logs.expect("Dropped a line")
    until_answered(client)
