"""One TCP connection, against plain sockets on loopback."""

import asyncio
import contextlib
import errno
import functools
import gc
import logging
import select
import socket
import struct
import subprocess
import sys
import threading
from unittest import mock

import pytest
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.netutil import Resolver

import katcp._net.dial
from katcp._net.connection import Connection, ConnectionEnded
from katcp._net.dial import KEEPALIVE, ConnectionFailed, _known_options
from katcp._net.outgoing import MAX_COALESCED_SIZE
from katcp._net.stream import MAX_PIECES
from katcp.errors import KatcpClientDisconnected, KatcpClientOverflow

# A limit that is exceeded only by a test that fails.
TIMEOUT = 5.0

# A limit that the test waits for.
SOON = 0.05

MEGABYTE = 1 << 20

# What makes a close a reset.
LINGER = struct.pack("ii", 1, 0)


class Limits:
    """The limits that a client would have."""

    def __init__(self, msg=2 * MEGABYTE, write=4 * MEGABYTE):
        self.MAX_MSG_SIZE = msg
        self.MAX_WRITE_BUFFER_SIZE = write

    def connection(self, host, port):
        return Connection(host, port, self)


class Peer:
    """The other end: a blocking socket, which is used in the loop's thread.

    The kernel does the work of both ends, so nothing has to wait for a thread.
    """

    def __init__(self, host="127.0.0.1", family=socket.AF_INET):
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.bind((host, 0))
        self.listener.listen(1)
        self.listener.settimeout(TIMEOUT)
        self.address = self.listener.getsockname()[:2]
        self.socket = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.listener.close()
        if self.socket is not None:
            self.socket.close()

    def accept(self):
        self.socket, _ = self.listener.accept()
        self.socket.settimeout(TIMEOUT)

    def was_called(self):
        """Return whether somebody has connected."""
        return bool(select.select([self.listener], [], [], 0)[0])

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, size):
        """Return exactly *size* bytes."""
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            assert more, data
            data += more
        return data

    def nothing_to_receive(self):
        """Return whether nothing has been sent that was not received."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(TIMEOUT)
        return False

    def receive_to_end(self):
        data = b""
        while True:
            more = self.socket.recv(65536)
            if not more:
                return data
            data += more

    def reset(self):
        """End the connection with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        self.socket.close()


async def opened(peer, limits=None):
    """Return a connection to *peer*."""
    connection = (limits or Limits()).connection(*peer.address)
    await connection.open(TIMEOUT)
    peer.accept()
    return connection


def write(connection, data):
    """Send *data*; return a future that resolves when the kernel has it."""
    connection.outgoing.send(data)
    return connection.outgoing.until_sent()


async def lines_to_end(connection):
    """Return all lines and the cause of the end."""
    lines = []
    while True:
        try:
            lines += await connection.read_lines()
        except ConnectionEnded as end:
            return lines, end.cause


async def read_lines(connection, count):
    """Return *count* lines."""
    lines = []
    while len(lines) < count:
        lines += await connection.read_lines()
    assert len(lines) == count
    return lines


async def turns(count=5):
    """Let the loop do what it has to do."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def run(ioloop):
    """Run a coroutine function in a loop of its own."""
    return lambda main: ioloop.run_sync(main, 2 * TIMEOUT)


@pytest.fixture
def peer():
    with Peer() as peer:
        yield peer


# Opening


def test_open_connects(run, peer):
    async def main():
        connection = Limits().connection(*peer.address)
        assert connection.stream is None
        assert connection.local_address == ()
        await connection.open(TIMEOUT)
        peer.accept()
        assert connection.local_address == peer.socket.getpeername()
        assert not connection.is_closed
        assert connection.error is None
        connection.close()
        assert peer.receive_to_end() == b""

    run(main)


def test_the_port_may_be_text(run, peer):
    async def main():
        connection = Limits().connection(peer.address[0], str(peer.address[1]))
        await connection.open(TIMEOUT)
        connection.close()

    run(main)


@pytest.mark.parametrize("host", ["localhost", "", None, "0.0.0.0"])
def test_a_name_and_no_host_lead_to_this_machine(run, peer, host):
    async def main():
        connection = Limits().connection(host, peer.address[1])
        await connection.open(TIMEOUT)
        peer.accept()
        assert connection.local_address == peer.socket.getpeername()
        connection.close()

    run(main)


def test_an_ipv6_literal_is_connected_to(run):
    async def main():
        with Peer("::1", socket.AF_INET6) as peer:
            connection = await opened(peer)
            assert connection.local_address[0] == "::1"
            peer.send(b"#hello\n")
            assert await connection.read_lines() == [b"#hello"]
            connection.close()

    run(main)


def test_an_ipv6_address_with_a_scope_is_looked_up(run, peer, resolve_to):
    async def main():
        resolve_to(peer.address)
        connection = Limits().connection("fe80::1%eth0", 1)
        await connection.open(TIMEOUT)
        connection.close()

    run(main)


def test_a_refused_connection_says_so(run, refused_address):
    async def main():
        connection = Limits().connection(*refused_address)
        # The address is the one that was asked for.
        with pytest.raises(ConnectionFailed, match=r"^\[Errno 111\] Connection refused$"):
            await connection.open(TIMEOUT)
        assert connection.stream is None

    run(main)


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("nosuchhost.invalid", 7147, "."),
        ("not..a.name", 7147, "label"),
        ("x" * 80, 7147, "label"),
        ("127.0.0.1", "seven", "seven"),
        ("127.0.0.1", 70000, "."),
    ],
)
def test_an_address_that_cannot_be_is_a_failure_with_a_reason(run, host, port, reason):
    async def main():
        with pytest.raises(ConnectionFailed, match=reason):
            await Limits().connection(host, port).open(TIMEOUT)

    run(main)


def test_a_name_without_address_is_a_failure(run, resolve_to):
    async def main():
        resolve_to()
        with pytest.raises(ConnectionFailed, match="the name has no address"):
            await Limits().connection("device", 1).open(TIMEOUT)

    run(main)


def test_several_addresses_are_tried_in_turn(run, peer, resolve_to, refused_address):
    async def main():
        resolve_to(refused_address, ("127.0.0.1", 70000), peer.address, refused_address)
        connection = Limits().connection("device", 1)
        await connection.open(TIMEOUT)
        peer.accept()
        assert connection.local_address == peer.socket.getpeername()
        connection.close()

    run(main)


def test_an_address_that_never_answers_is_given_up(run, peer, resolve_to, silent_address):
    async def main():
        with pytest.raises(ConnectionFailed, match=rf"^no answer within {SOON} seconds$"):
            await Limits().connection(*silent_address).open(SOON)
        resolve_to(silent_address, peer.address)
        connection = Limits().connection("device", 1)
        await connection.open(SOON)
        connection.close()

    run(main)


def test_each_address_is_told_with_its_reason_when_none_answers(
    run, resolve_to, silent_address, refused_address
):
    async def main():
        resolve_to(silent_address, refused_address, ("127.0.0.1", 70000), ("::1", 1, 0, 0))
        with pytest.raises(ConnectionFailed) as caught:
            await Limits().connection("device", 1).open(SOON)
        reasons = str(caught.value).split("; ")
        assert reasons == sorted(reasons)
        [impossible] = [reason for reason in reasons if reason.startswith("127.0.0.1:70000: ")]
        assert set(reasons) - {impossible} == {
            f"127.0.0.1:{silent_address[1]}: no answer within {SOON} seconds",
            f"127.0.0.1:{refused_address[1]}: [Errno 111] Connection refused",
            "[::1]:1: [Errno 111] Connection refused",
        }

    run(main)


def test_the_only_address_of_a_name_is_told(run, resolve_to, refused_address):
    async def main():
        resolve_to(refused_address)
        text = f"127.0.0.1:{refused_address[1]}: [Errno 111] Connection refused"
        with pytest.raises(ConnectionFailed) as caught:
            await Limits().connection("device", 1).open(TIMEOUT)
        assert str(caught.value) == text

    run(main)


def test_close_while_connecting_ends_open(run, silent_address):
    async def main():
        connection = Limits().connection(*silent_address)
        opening = asyncio.ensure_future(connection.open(TIMEOUT))
        await turns()
        assert not opening.done()
        connection.close()
        with pytest.raises(ConnectionFailed, match=r"^closed while connecting$"):
            await opening
        assert connection.is_closed

    run(main)


class SilentNameServer:
    """Look-ups hang in their threads until the test lets them go on."""

    def __init__(self):
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def getaddrinfo(self, *args, **kwargs):
        self.asked.set()
        self.go_on.wait(TIMEOUT)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
def silent_name_server(monkeypatch):
    server = SilentNameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    yield server
    server.go_on.set()


def test_close_while_resolving_ends_open(run, silent_name_server):
    async def main():
        connection = Limits().connection("device", 1)
        opening = asyncio.ensure_future(connection.open(TIMEOUT))
        while not silent_name_server.asked.is_set():
            await asyncio.sleep(0)
        assert not opening.done()
        connection.close()
        with pytest.raises(ConnectionFailed, match=r"^closed while connecting$"):
            await opening

    run(main)


def test_a_name_server_that_never_answers_is_given_up(run, silent_name_server):
    async def main():
        connection = Limits().connection("device", 1)
        with pytest.raises(ConnectionFailed, match=r"^no address of the name within 0.2 seconds$"):
            await connection.open(0.2)

    run(main)


def test_a_look_up_for_which_no_thread_can_be_started_is_a_failure(run, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    async def main():
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(ConnectionFailed, match=r"^can't start new thread$"):
            await Limits().connection("device", 1).open(TIMEOUT)

    run(main)


def test_a_resolver_that_the_program_configured_is_used(run, peer, monkeypatch):
    class MyResolver(Resolver):
        def initialize(self):
            pass

        async def resolve(self, host, port, family=socket.AF_UNSPEC):
            assert (host, port) == ("my-device", 7147)
            return [(socket.AF_INET, peer.address)]

    async def main():
        connection = Limits().connection("my-device", 7147)
        await connection.open(TIMEOUT)
        connection.close()

    configuration = Resolver._save_configuration()
    Resolver.configure(MyResolver)
    try:
        run(main)
    finally:
        Resolver._restore_configuration(configuration)


def test_a_silent_name_server_does_not_keep_the_interpreter_from_exiting():
    program = """
import katcp, socket, threading
asked = threading.Event()
def getaddrinfo(*args, **kwargs):
    asked.set()
    threading.Event().wait()
socket.getaddrinfo = getaddrinfo
client = katcp.BlockingClient("device", 1)
client.daemon = True
client.start()
asked.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=TIMEOUT * 3, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_cancelled_while_connecting_it_is_closed(run, silent_address):
    async def main():
        connection = Limits().connection(*silent_address)
        opening = asyncio.ensure_future(connection.open(TIMEOUT))
        await turns()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert connection.is_closed

    run(main)


@pytest.fixture
def far_away(monkeypatch):
    """Let it take a turn of the loop to be connected, as to another machine."""
    monkeypatch.setattr(katcp._net.dial, "_is_connected", lambda sock: False)


def test_a_peer_on_another_machine_is_connected_to(run, peer, far_away):
    async def main():
        connection = await opened(peer)
        assert connection.local_address == peer.socket.getpeername()
        peer.send(b"#hello\n")
        assert await connection.read_lines() == [b"#hello"]
        connection.close()

    run(main)


def test_close_before_open_ends_open(run, peer):
    async def main():
        connection = Limits().connection(*peer.address)
        connection.close()
        with pytest.raises(ConnectionFailed, match=r"^closed while connecting$"):
            await connection.open(TIMEOUT)

    run(main)


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_an_end_in_any_turn_of_opening_leaves_no_socket(run, far_away, how):
    async def main():
        outcomes = set()
        for moment in range(20):
            with Peer() as peer:
                connection = Limits().connection(*peer.address)
                opening = asyncio.ensure_future(connection.open(TIMEOUT))
                await turns(moment)
                if how == "close":
                    connection.close()
                else:
                    opening.cancel()
                await asyncio.wait([opening])
                outcome = "cancelled" if opening.cancelled() else type(opening.exception())
                outcomes.add(outcome)
                if outcome is type(None):
                    connection.close()
                if peer.was_called():
                    peer.accept()
                    assert peer.receive_to_end() == b""
        return outcomes

    # Else the moments do not span the whole of it.
    cut = ConnectionFailed if how == "close" else "cancelled"
    assert run(main) == {cut, type(None)}


def test_a_peer_that_closes_at_once_ends_the_reading(run, peer):
    async def main():
        connection = await opened(peer)
        peer.socket.close()
        assert await lines_to_end(connection) == ([], None)

    run(main)


def test_a_peer_that_resets_at_once_ends_the_reading(run, peer):
    async def main():
        connection = await opened(peer)
        peer.reset()
        lines, cause = await lines_to_end(connection)
        assert lines == []
        assert isinstance(cause, ConnectionResetError)

    run(main)


def test_what_a_peer_said_before_it_closed_at_once_is_delivered(run, peer):
    async def main():
        connection = await opened(peer)
        peer.send(b"#log too-many-clients\n")
        peer.socket.close()
        assert await lines_to_end(connection) == ([b"#log too-many-clients"], None)

    run(main)


def test_the_options_of_the_socket_are_set(run, peer):
    async def main():
        connection = await opened(peer)
        option = connection.stream.socket.getsockopt
        assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, value in KEEPALIVE:
            if hasattr(socket, name):
                assert option(socket.IPPROTO_TCP, getattr(socket, name)) == value
        connection.close()

    run(main)


def test_an_option_that_this_system_does_not_have_is_left_out():
    options = _known_options((("TCP_NODELAY", 1), ("TCP_NO_SUCH_OPTION", 1)))
    assert options == [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]


# Reading


def test_whole_lines_are_delivered(run, peer):
    async def main():
        connection = await opened(peer)
        peer.send(b"#one 1\n!two ok\r\n\n?three\r")
        assert await connection.read_lines() == [b"#one 1", b"!two ok", b"?three"]
        assert connection.splitter.pending == b""
        connection.close()

    run(main)


def test_a_line_in_one_byte_pieces_is_delivered_whole(run, peer):
    async def main():
        connection = await opened(peer)
        line = b"#log info 1 device hello\\_you"
        for position in range(len(line)):
            peer.send(line[position : position + 1])
            assert await connection.read_lines() == []
            assert connection.splitter.pending == line[: position + 1]
        peer.send(b"\n")
        assert await connection.read_lines() == [line]
        assert connection.splitter.pending == b""
        connection.close()

    run(main)


def test_a_line_cut_between_two_chunks_is_delivered_whole(run, peer):
    async def main():
        connection = await opened(peer)
        peer.send(b"#one\n#tw")
        assert await connection.read_lines() == [b"#one"]
        assert connection.splitter.pending == b"#tw"
        peer.send(b"o\n#three\n")
        assert await connection.read_lines() == [b"#two", b"#three"]
        connection.close()

    run(main)


def test_the_end_comes_after_what_arrived_first(run, peer):
    async def main():
        connection = await opened(peer)
        lines = [b"#line %d" % number for number in range(20000)]
        sender = threading.Thread(
            target=lambda: (peer.send(b"\n".join(lines) + b"\n#half"), peer.socket.close())
        )
        sender.start()
        assert await lines_to_end(connection) == (lines, None)
        sender.join(TIMEOUT)
        assert connection.splitter.pending == b"#half"
        assert connection.is_closed
        assert connection.stream.closed()
        # It stays so.
        with pytest.raises(ConnectionEnded) as caught:
            await connection.read_lines()
        assert caught.value.cause is None

    run(main)


def test_a_reset_is_the_cause_and_comes_after_what_arrived_first(run, peer):
    async def main():
        connection = await opened(peer)
        peer.send(b"#last words\n")
        assert await connection.read_lines() == [b"#last words"]
        peer.reset()
        lines, cause = await lines_to_end(connection)
        assert lines == []
        assert isinstance(cause, ConnectionResetError)
        assert connection.error is cause

    run(main)


def test_reading_what_is_not_open_has_ended(run, peer):
    async def main():
        with pytest.raises(ConnectionEnded):
            await Limits().connection(*peer.address).read_lines()

    run(main)


def test_close_ends_reading_and_nothing_more_is_delivered(run, peer):
    async def main():
        connection = await opened(peer)
        reading = asyncio.ensure_future(connection.read_lines())
        await turns()
        connection.close()
        with pytest.raises(ConnectionEnded) as caught:
            await reading
        assert caught.value.cause is None
        assert await lines_to_end(connection) == ([], None)

    run(main)


def test_the_error_given_to_close_is_the_cause(run, peer):
    async def main():
        connection = await opened(peer)
        reading = asyncio.ensure_future(connection.read_lines())
        await turns()
        error = OSError("enough")
        connection.close(error)
        connection.close(KeyError("too late"))
        with pytest.raises(ConnectionEnded) as caught:
            await reading
        assert caught.value.cause is error
        assert connection.error is error

    run(main)


@pytest.mark.parametrize("arrived", [True, False])
def test_an_error_of_the_network_ends_the_connection(run, peer, logs, arrived):
    """It is found at once, or while the reader waits; tornado tells the two apart."""

    async def main():
        connection = await opened(peer)
        gone = OSError(errno.EHOSTUNREACH, "No route to host")

        def read_from_fd(buf):
            raise gone

        connection.stream.read_from_fd = read_from_fd
        if arrived:
            peer.send(b"#never\n")
            lines, cause = await lines_to_end(connection)
        else:
            connection.stream.read_from_fd = lambda buf: None
            reading = asyncio.ensure_future(lines_to_end(connection))
            await turns()
            connection.stream.read_from_fd = read_from_fd
            peer.send(b"#never\n")
            lines, cause = await reading
            logs.expect("error on read: [Errno 113] No route to host")
        assert (lines, cause) == ([], gone)
        assert connection.error is gone
        assert connection.is_closed

    run(main)


# Lines that are too long


def assert_overflow(cause, limit):
    assert isinstance(cause, KatcpClientOverflow)
    assert str(cause) == f"a line was longer than MAX_MSG_SIZE ({limit} bytes)"


@pytest.mark.parametrize("limit", [1, 2, 3, 100, 70000])
def test_a_line_that_is_too_long_ends_the_connection(run, peer, limit):
    async def main():
        connection = await opened(peer, Limits(msg=limit))
        # The limit counts the terminator.
        fits = [b"x" * (limit - 1)] if limit > 1 else []
        peer.send(b"".join(line + b"\n" for line in fits) + b"y" * limit + b"\nz\n")
        lines, cause = await lines_to_end(connection)
        assert lines == fits
        assert_overflow(cause, limit)
        assert connection.error is cause
        assert connection.is_closed
        # The peer sees the end, or the reset for what was not read.
        with contextlib.suppress(ConnectionResetError):
            assert peer.receive_to_end() == b""

    run(main)


def test_a_line_without_end_ends_the_connection(run, peer):
    async def main():
        connection = await opened(peer, Limits(msg=100))
        peer.send(b"#fine\n" + b"y" * 300)
        lines, cause = await lines_to_end(connection)
        assert lines == [b"#fine"]
        assert_overflow(cause, 100)

    run(main)


def test_many_lines_may_be_larger_than_the_limit_of_one(run, peer):
    async def main():
        connection = await opened(peer, Limits(msg=100))
        peer.send(b"#short line\n" * 1000)
        assert await read_lines(connection, 1000) == [b"#short line"] * 1000
        connection.close()

    run(main)


def test_the_clients_limit_may_change_while_the_connection_is_open(run, peer):
    async def main():
        limits = Limits(msg=100)
        connection = await opened(peer, limits)
        limits.MAX_MSG_SIZE = 1000
        peer.send(b"x" * 900 + b"\n")
        assert await read_lines(connection, 1) == [b"x" * 900]
        limits.MAX_MSG_SIZE = 100
        peer.send(b"x" * 900 + b"\n")
        lines, cause = await lines_to_end(connection)
        assert lines == []
        assert_overflow(cause, 100)

    run(main)


def test_the_streams_limit_may_change_while_the_connection_is_open(run, peer):
    async def main():
        limits = Limits(msg=100)
        connection = await opened(peer, limits)
        connection.stream.max_buffer_size = 1000
        peer.send(b"x" * 900 + b"\n")
        assert await read_lines(connection, 1) == [b"x" * 900]
        connection.stream.max_buffer_size = 50
        peer.send(b"x" * 60 + b"\n")
        lines, cause = await lines_to_end(connection)
        assert lines == []
        assert_overflow(cause, 50)

    run(main)


def test_the_clients_limit_wins_over_the_streams_when_it_changes(run, peer):
    async def main():
        limits = Limits(msg=100)
        connection = await opened(peer, limits)
        connection.stream.max_buffer_size = 50
        limits.MAX_MSG_SIZE = 1000
        peer.send(b"x" * 900 + b"\n")
        assert await read_lines(connection, 1) == [b"x" * 900]
        connection.close()

    run(main)


def test_a_limit_below_what_has_arrived_already_ends_the_connection(run, peer):
    async def main():
        connection = await opened(peer)
        peer.send(b"x" * 5000 + b"\n")
        connection.stream.max_buffer_size = 100
        lines, cause = await lines_to_end(connection)
        assert lines == []
        assert_overflow(cause, 100)

    run(main)


# Writing


def received(peer, size):
    """Return a future of so many bytes that the peer receives meanwhile."""
    return asyncio.get_running_loop().run_in_executor(None, peer.receive, size)


class Sends:
    """The sizes of the pieces that are sent."""

    def __init__(self, connection):
        self.sizes = []
        self.real = connection.stream.write_at_once
        connection.stream.write_at_once = self.write_at_once

    def write_at_once(self, data):
        self.sizes.append(len(data))
        return self.real(data)


async def filled(connection):
    """Write until the kernel takes no more; return how much was written."""
    size = 0
    while not connection.stream.writing():
        write(connection, b"x" * 60000)
        size += 60000
        await turns(2)
    return size


def test_what_is_written_arrives_and_the_future_resolves(run, peer):
    async def main():
        connection = await opened(peer)
        assert await write(connection, b"?help\n") is None
        assert peer.receive(6) == b"?help\n"
        connection.close()

    run(main)


def test_the_first_after_something_was_read_is_sent_at_once(run, peer):
    async def main():
        connection = await opened(peer)
        for turn in (b"1", b"2", b"3"):
            write(connection, b"?first-of-turn-" + turn)
            assert peer.receive(16) == b"?first-of-turn-" + turn
            peer.send(b"#go\n")
            assert await read_lines(connection, 1) == [b"#go"]
        connection.close()

    run(main)


def test_the_first_of_a_later_turn_is_sent_at_once(run, peer):
    async def main():
        connection = await opened(peer)
        write(connection, b"?one")
        write(connection, b"?two")
        await turns(1)
        write(connection, b"?three")
        assert peer.receive(14) == b"?one?two?three"
        connection.close()

    run(main)


def test_of_several_that_are_read_in_turn_each_sends_at_the_end_of_the_turn(run, peer):
    async def main():
        with Peer() as other:
            peers = [peer, other]
            connections = [await opened(each) for each in peers]
            answered = []

            def answer(connection, lines):
                connection.outgoing.send(b"?answer\n")
                answered.append(lines)

            readings = []
            for connection in connections:
                connection.on_lines = functools.partial(answer, connection)
                readings.append(asyncio.ensure_future(lines_to_end(connection)))
            for expected in (b"#one", b"#two"):
                for each in peers:
                    each.send(expected + b"\n")
                while len(answered) < 2:
                    await turns(1)
                assert answered == [[expected]] * 2
                assert all(each.nothing_to_receive() for each in peers)
                await turns(1)
                assert [each.receive(8) for each in peers] == [b"?answer\n"] * 2
                answered.clear()
            # Outside of the handling it is the same for the one that has not read last.
            connections[0].outgoing.send(b"?later\n")
            assert peer.nothing_to_receive()
            connections[1].outgoing.send(b"?at-once\n")
            assert other.receive(9) == b"?at-once\n"
            await turns(1)
            assert peer.receive(7) == b"?later\n"
            for connection in connections:
                connection.close()
            await asyncio.gather(*readings)

    run(main)


def test_what_one_connection_cannot_send_does_not_keep_others_from_it(run, peer, logs):
    async def main():
        with Peer() as other:
            connections = [await opened(each) for each in (peer, other)]
            for connection in connections:
                connection.outgoing.send(b"?first\n")
                connection.outgoing.send(b"?second\n")
            with mock.patch.object(connections[0].stream, "write_at_once", side_effect=Surprise):
                await turns(2)
            assert other.receive(15) == b"?first\n?second\n"
            for connection in connections:
                connection.close()

    run(main)
    logs.expect("Surprise", logging.ERROR)


class Surprise(Exception):
    """What nobody has thought of."""


def test_the_rest_of_a_turn_is_joined_in_order_into_one_send(run, peer):
    async def main():
        connection = await opened(peer)
        sends = Sends(connection)
        futures = [write(connection, b"?request[%d]\n" % number) for number in range(10, 100)]
        assert sends.sizes == [13]
        assert peer.receive(13) == b"?request[10]\n"
        assert peer.nothing_to_receive()
        assert futures[0].done()
        assert not any(future.done() for future in futures[1:])
        await asyncio.wait(futures)
        assert sends.sizes == [13, 89 * 13]
        assert peer.receive(89 * 13) == b"".join(b"?request[%d]\n" % n for n in range(11, 100))
        assert [future.result() for future in futures] == [None] * 90
        # A new turn begins anew.
        write(connection, b"?more\n")
        assert sends.sizes == [13, 89 * 13, 6]
        connection.close()

    run(main)


def test_a_turn_with_very_much_is_sent_in_pieces(run, peer):
    async def main():
        connection = await opened(peer)
        sends = Sends(connection)
        piece = MAX_COALESCED_SIZE // 4
        for letter in b"abcdefg":
            write(connection, bytes([letter]) * piece)
        assert sends.sizes[:2] == [piece, 4 * piece]
        await turns(2)
        expected = b"".join(bytes([letter]) * piece for letter in b"abcdefg")
        # What the kernel did not take waits for the peer to read.
        assert await received(peer, 7 * piece) == expected
        connection.close()

    run(main)


def test_order_is_kept_when_the_kernel_takes_no_more(run, peer):
    async def main():
        connection = await opened(peer)
        connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10000)
        expected, futures = b"", []
        for number in range(3000):
            if number % 700 == 0:
                await turns(2)
            data = b"?request[%d] %s\n" % (number, b"x" * (number % 500))
            futures.append(write(connection, data))
            expected += data
        assert connection.stream.writing()
        receiving = received(peer, len(expected))
        await asyncio.wait(futures)
        assert await receiving == expected
        assert {future.result() for future in futures} == {None}
        connection.close()

    run(main)


PIECES = [b"?large ", *[bytes([letter]) * 30000 for letter in b"abcdefgh"], b"\n"]


def test_pieces_are_sent_as_they_are_behind_what_was_joined(run, peer):
    async def main():
        connection = await opened(peer)
        for data in (b"?first\n", b"?second\n"):
            connection.outgoing.send(data)
        connection.outgoing.send_pieces(PIECES)
        connection.outgoing.send(b"?last\n")
        expected = b"?first\n?second\n" + b"".join(PIECES) + b"?last\n"
        assert await received(peer, len(expected)) == expected
        connection.close()

    run(main)


def test_nothing_overtakes_what_was_joined_when_reading_goes_on(run, peer):
    async def main():
        connection = await opened(peer)
        large = b"?large " + b"x" * MAX_COALESCED_SIZE + b"\n"

        def leave(lines):
            # Runs after this, and before `read_lines` returns.
            for data in (b"?first\n", b"?second\n"):
                asyncio.get_running_loop().call_soon(connection.outgoing.send, data)
            return lines

        connection.on_lines = leave
        asyncio.get_running_loop().call_soon(peer.send, b"#inform\n")
        assert await connection.read_lines() == [b"#inform"]
        connection.outgoing.send(large)
        expected = b"?first\n?second\n" + large
        assert await received(peer, len(expected)) == expected
        connection.close()

    run(main)


def test_more_pieces_than_the_kernel_takes_at_a_time_all_arrive(run, peer):
    async def main():
        connection = await opened(peer)
        pieces = [b"%d " % number for number in range(10 * MAX_PIECES)]
        connection.outgoing.send_pieces(pieces)
        expected = b"".join(pieces)
        assert await received(peer, len(expected)) == expected
        connection.close()

    run(main)


def test_pieces_keep_the_order_when_the_kernel_takes_no_more(run, peer):
    async def main():
        connection = await opened(peer)
        connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10000)
        for _ in range(12):
            connection.outgoing.send_pieces(PIECES)
        assert connection.stream.writing()
        expected = b"".join(PIECES) * 12
        assert await received(peer, len(expected)) == expected
        connection.close()

    run(main)


def test_a_system_that_sends_no_pieces_gets_them_joined(run, peer, monkeypatch):
    async def main():
        connection = await opened(peer)
        connection.outgoing.send_pieces(PIECES)
        assert peer.receive(len(b"".join(PIECES))) == b"".join(PIECES)
        connection.close()

    monkeypatch.setattr("katcp._net.stream.PatientStream.takes_pieces", False)
    run(main)


class Lines:
    """An `on_lines` that notes what it gets, and leaves what follows *last*."""

    def __init__(self, connection, last=None):
        self.got = []
        self.came = asyncio.Event()
        self.last = last
        connection.on_lines = self

    def __call__(self, lines):
        self.came.set()
        if self.last not in lines:
            self.got += lines
            return None
        end = lines.index(self.last) + 1
        self.got += lines[:end]
        return lines[end:]

    async def wait(self, count):
        while len(self.got) < count:
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), TIMEOUT)
        return self.got


def test_lines_are_handled_as_they_arrive(run, peer):
    async def main():
        connection = await opened(peer)
        lines = Lines(connection)
        reading = asyncio.ensure_future(connection.read_lines())
        peer.send(b"#one\n#two\n#thr")
        assert await lines.wait(2) == [b"#one", b"#two"]
        peer.send(b"ee\n\n")
        assert await lines.wait(3) == [b"#one", b"#two", b"#three"]
        assert not reading.done()
        peer.socket.close()
        with pytest.raises(ConnectionEnded):
            await reading

    run(main)


def test_reading_stops_when_lines_are_left_and_goes_on_with_the_next_call(run, peer):
    async def main():
        connection = await opened(peer)
        lines = Lines(connection, last=b"#two")
        peer.send(b"#one\n#two\n#three\n#fo")
        left = await connection.read_lines()
        assert (lines.got, left) == ([b"#one", b"#two"], [b"#three"])
        lines.got += left
        peer.send(b"ur\n#five\n")
        await turns(20)
        assert len(lines.got) == 3

        async def read():
            while True:
                # What arrived while nobody read is not given to on_lines.
                lines.got += await connection.read_lines()
                lines.came.set()

        reading = asyncio.ensure_future(read())
        assert await lines.wait(5) == [b"#one", b"#two", b"#three", b"#four", b"#five"]
        connection.close()
        with pytest.raises(ConnectionEnded):
            await reading

    run(main)


def test_the_end_is_not_found_before_the_lines_that_are_left_were_handled(run, peer):
    async def main():
        connection = await opened(peer)
        Lines(connection, last=b"#one")
        reading = asyncio.ensure_future(connection.read_lines())
        await turns()
        peer.send(b"#one\n?two\n")
        peer.socket.shutdown(socket.SHUT_WR)
        assert await reading == [b"?two"]
        await turns()
        connection.outgoing.send(b"!two ok\n")
        assert peer.receive(8) == b"!two ok\n"
        assert await lines_to_end(connection) == ([], None)

    run(main)


def test_nothing_left_is_something_else_than_going_on(run, peer):
    async def main():
        connection = await opened(peer)
        lines = Lines(connection, last=b"#one")
        peer.send(b"#one\n")
        assert await connection.read_lines() == []
        assert lines.got == [b"#one"]
        connection.close()

    run(main)


def test_a_line_that_is_too_long_ends_the_reading_after_those_before_it(run, peer):
    async def main():
        connection = await opened(peer, Limits(msg=1000))
        lines = Lines(connection)
        peer.send(b"#one\n" + b"x" * 1000)
        assert await connection.read_lines() == []
        with pytest.raises(ConnectionEnded) as end:
            await connection.read_lines()
        assert isinstance(end.value.cause, KatcpClientOverflow)
        assert lines.got == [b"#one"]

    run(main)


def test_what_is_written_while_lines_are_handled_is_sent_once_they_are(run, peer):
    async def main():
        connection = await opened(peer)
        sends = Sends(connection)

        def answer(lines):
            for line in lines:
                connection.outgoing.send(line + b"\n")
            assert sends.sizes == []
            handled.set()

        handled = asyncio.Event()
        connection.on_lines = answer
        reading = asyncio.ensure_future(connection.read_lines())
        peer.send(b"?one\n?two\n?three\n")
        await asyncio.wait_for(handled.wait(), TIMEOUT)
        await turns(1)
        assert sends.sizes == [17]
        assert peer.receive(17) == b"?one\n?two\n?three\n"
        connection.close()
        with pytest.raises(ConnectionEnded):
            await reading

    run(main)


def test_writing_to_what_is_closed_raises(run, peer):
    async def main():
        connection = await opened(peer)
        connection.close()
        with pytest.raises(KatcpClientDisconnected, match="the connection is closed"):
            write(connection, b"?help\n")

    run(main)


def test_writing_to_a_stream_that_a_program_closed_raises(run, peer):
    async def main():
        connection = await opened(peer)
        connection.stream.close()
        with pytest.raises(KatcpClientDisconnected, match="the connection is closed"):
            write(connection, b"?help\n")
        connection.close()

    run(main)


def assert_overflows(connection, size, limit):
    message = rf"^more than MAX_WRITE_BUFFER_SIZE \({limit} bytes\) would wait to be sent$"
    with pytest.raises(KatcpClientOverflow, match=message):
        write(connection, b"x" * size)


def test_one_message_above_the_limit_overflows(run, peer):
    async def main():
        connection = await opened(peer, Limits(write=100))
        assert_overflows(connection, 101, 100)
        write(connection, b"x" * 100)
        await turns(2)
        connection.close()
        assert peer.receive_to_end() == b"x" * 100

    run(main)


def test_the_joined_messages_overflow_exactly_at_the_limit(run, peer):
    async def main():
        connection = await opened(peer, Limits(write=100))
        write(connection, b"a" * 100)  # sent at once
        write(connection, b"b" * 60)
        assert_overflows(connection, 41, 100)
        write(connection, b"c" * 40)
        assert_overflows(connection, 1, 100)
        await turns(2)
        # What was accepted is sent, what was refused is not.
        connection.close()
        assert peer.receive_to_end() == b"a" * 100 + b"b" * 60 + b"c" * 40

    run(main)


def test_pieces_overflow_exactly_at_the_limit_with_what_was_joined(run, peer):
    async def main():
        connection = await opened(peer, Limits(write=100))
        write(connection, b"a" * 100)  # sent at once
        write(connection, b"b" * 60)
        with pytest.raises(KatcpClientOverflow):
            connection.outgoing.send_pieces([b"x" * 20, b"x" * 21])
        connection.outgoing.send_pieces([b"c" * 20, b"d" * 20])
        connection.close()
        assert peer.receive_to_end() == b"a" * 100 + b"b" * 60 + b"c" * 20 + b"d" * 20

    run(main)


def test_what_the_kernel_does_not_take_overflows_exactly_at_the_limit(run, peer):
    async def main():
        connection = await opened(peer)
        connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10000)
        await filled(connection)
        waiting = len(connection.stream._write_buffer)
        limit = waiting + 1000
        connection.stream.max_write_buffer_size = limit
        assert_overflows(connection, 1001, limit)
        write(connection, b"x" * 400)
        write(connection, b"x" * 600)
        assert_overflows(connection, 1, limit)
        with pytest.raises(KatcpClientOverflow):
            connection.outgoing.send_pieces([b"x"])
        connection.close()

    run(main)


def test_the_clients_write_limit_may_change_while_the_connection_is_open(run, peer):
    async def main():
        limits = Limits(write=100)
        connection = await opened(peer, limits)
        assert connection.stream.max_write_buffer_size == 100
        limits.MAX_WRITE_BUFFER_SIZE = 200
        write(connection, b"x" * 200)
        await turns(2)
        limits.MAX_WRITE_BUFFER_SIZE = 50
        assert_overflows(connection, 51, 50)
        connection.close()

    run(main)


def test_the_streams_write_limit_may_change_while_the_connection_is_open(run, peer):
    async def main():
        limits = Limits(write=100)
        connection = await opened(peer, limits)
        connection.stream.max_write_buffer_size = 200
        write(connection, b"x" * 200)
        await turns(2)
        connection.stream.max_write_buffer_size = 50
        write(connection, b"x" * 50)
        assert_overflows(connection, 51, 50)
        await turns(2)
        connection.stream.max_write_buffer_size = None  # no limit
        write(connection, b"x")
        write(connection, b"x" * 1000)
        await turns(2)
        connection.close()
        assert len(peer.receive_to_end()) == 1251

    run(main)


def test_a_limit_that_shrinks_in_the_turn_does_not_lose_what_was_accepted(run, peer):
    async def main():
        connection = await opened(peer)
        futures = [write(connection, b"x" * 100) for _ in range(3)]
        connection.stream.max_write_buffer_size = 50
        await asyncio.wait(futures)
        assert connection.stream.max_write_buffer_size == 50
        assert peer.receive(300) == b"x" * 300
        # The next turn is sent as ever.
        futures = [write(connection, b"y") for _ in range(2)]
        await asyncio.wait(futures)
        assert peer.receive(2) == b"yy"
        connection.close()

    run(main)


# The end


def test_close_sends_what_was_joined_in_this_turn(run, peer):
    async def main():
        connection = await opened(peer)
        futures = [write(connection, b"?request[%d]\n" % number) for number in range(10)]
        connection.close()
        assert peer.receive_to_end() == b"".join(b"?request[%d]\n" % n for n in range(10))
        await asyncio.wait(futures)
        assert [future.result() for future in futures] == [None] * 10
        await turns(2)
        connection.close()

    run(main)


def test_close_drops_what_the_kernel_does_not_take_and_fails_its_futures(run, peer):
    async def main():
        connection = await opened(peer)
        connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10000)
        write(connection, b"first\n")
        joined = [write(connection, b"x" * 30000) for _ in range(MEGABYTE * 3 // 30000)]
        connection.close()
        await asyncio.wait(joined)
        with pytest.raises(StreamClosedError):
            await joined[-1]
        received = peer.receive_to_end()
        assert received.startswith(b"first\nxxx")
        assert len(received) < 6 + 30000 * len(joined)

    run(main)


def test_joined_messages_fail_with_their_common_send(run, peer, logs):
    async def main():
        connection = await opened(peer)

        def write_to_fd(data):
            raise OSError(errno.EHOSTUNREACH, "No route to host")

        first, *joined = [write(connection, b"?request\n") for _ in range(3)]
        connection.stream.write_at_once = lambda data: data  # it left all to the stream
        connection.stream.write_to_fd = write_to_fd
        await asyncio.wait(joined)
        assert first.result() is None
        for future in joined:
            with pytest.raises(StreamClosedError):
                await future
        logs.expect("Write error on ")
        _, cause = await lines_to_end(connection)
        assert cause.errno == errno.EHOSTUNREACH

    run(main)


def test_messages_whose_future_was_cancelled_are_sent_all_the_same(run, peer):
    async def main():
        connection = await opened(peer)
        for number in range(3):
            write(connection, b"?request[%d]\n" % number).cancel()
        assert await write(connection, b"?request[3]\n") is None
        assert peer.receive(48) == b"".join(b"?request[%d]\n" % n for n in range(4))
        write(connection, b"?first\n")
        write(connection, b"?second\n").cancel()
        await turns(2)
        assert peer.receive(15) == b"?first\n?second\n"
        connection.close()

    run(main)


def test_joined_messages_that_nobody_sends_any_more_fail(run, peer):
    async def main():
        connection = await opened(peer)
        first, *joined = [write(connection, b"?request\n") for _ in range(3)]
        connection.stream.close()
        connection.close()
        assert first.result() is None
        for future in joined:
            with pytest.raises(StreamClosedError):
                await future

    run(main)


def test_a_failed_write_that_nobody_looks_at_is_not_logged(run, peer, logs):
    async def main():
        connection = await opened(peer)
        for _ in range(3):
            write(connection, b"?request\n")
        connection.stream.close()
        connection.close()

    run(main)
    gc.collect()
    assert not logs.matching("never retrieved")


def test_a_write_to_a_peer_that_has_gone_does_not_lose_what_it_said_before(run, peer):
    async def main():
        connection = await opened(peer)
        lines = [b"#line %d" % number for number in range(1000)]
        peer.send(b"\n".join(lines) + b"\n")
        peer.socket.close()
        for _ in range(5):
            await write(connection, b"?are-you-there\n")
            connection.outgoing.send_pieces(PIECES)
        read, cause = await lines_to_end(connection)
        assert read == lines
        assert cause is None or isinstance(cause, (BrokenPipeError, ConnectionResetError))

    run(main)


def test_a_reset_that_a_write_finds_first_is_the_cause_too(run, peer):
    async def main():
        connection = await opened(peer)
        peer.send(b"#last words\n")
        peer.reset()
        await write(connection, b"?are-you-there\n")
        await write(connection, b"?are-you-there\n")
        lines, cause = await lines_to_end(connection)
        assert lines == [b"#last words"]
        assert isinstance(cause, ConnectionResetError)

    run(main)


def test_close_may_be_called_again_and_leaves_nothing(run, peer):
    async def main():
        connection = await opened(peer)
        write(connection, b"?help\n")
        for _ in range(3):
            connection.close()
        assert connection.is_closed
        assert connection.stream.closed()
        assert connection.error is None
        assert peer.receive_to_end() == b"?help\n"
        await turns()
        assert len(asyncio.all_tasks()) == 1

    run(main)


def test_close_after_the_loop_was_closed_closes_the_socket(peer):
    ioloop = IOLoop(make_current=False)

    async def main():
        never_opened = Limits().connection(*peer.address)
        return await opened(peer), never_opened

    connections = ioloop.run_sync(main, TIMEOUT)
    ioloop.close()
    for connection in connections:
        connection.close()
        connection.close()
    assert peer.receive_to_end() == b""


# until_done_or_closed


def test_until_done_or_closed_returns_when_the_awaitable_is_done(run, peer):
    async def main():
        connection = Limits().connection(*peer.address)

        async def answer():
            await asyncio.sleep(0)
            done.append(True)

        done = []
        await connection.until_done_or_closed(answer())
        assert done == [True]
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(KeyError("the caller's business"))
        await connection.until_done_or_closed(failed)
        assert isinstance(failed.exception(), KeyError)
        assert not connection.is_closed

    run(main)


def test_until_done_or_closed_returns_when_the_connection_is_closed(run, peer):
    async def main():
        connection = await opened(peer)
        never = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(connection.until_done_or_closed(never))
        await turns()
        assert not waiting.done()
        connection.close()
        await waiting
        assert not never.done()
        await connection.until_done_or_closed(never)

    run(main)


def test_until_done_or_closed_returns_when_the_peer_has_gone(run, peer):
    async def main():
        connection = await opened(peer)
        never = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(connection.until_done_or_closed(never))
        reading = asyncio.ensure_future(lines_to_end(connection))
        peer.socket.close()
        await waiting
        assert await reading == ([], None)

    run(main)


def test_nothing_is_logged_in_a_quiet_life(run, peer, logs):
    async def main():
        connection = await opened(peer)
        write(connection, b"?help\n")
        peer.socket.close()
        await lines_to_end(connection)

    logging.getLogger("tornado").setLevel(logging.DEBUG)
    run(main)
    logging.getLogger("tornado").setLevel(logging.NOTSET)
    assert not logs.records
