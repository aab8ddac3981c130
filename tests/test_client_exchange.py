"""Requests whose reply is read by the thread that waits for it: the client's side."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dis
import logging
import select
import socket
import struct
import sys
import threading

import pytest

import katcp
from katcp import BlockingClient, KatcpClientDisconnected, KatcpClientTimeout, Message
from katcp.client import AsyncClient
from katcp.connection import MAX_LOAN_SIZE
from katcp.threadsafe import TurnSelector

from .kit import PATIENCE, Recorder, TestDevice, in_loop, start_client, texts

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="others go the ordinary way")

GREETING = b"#version-connect katcp-protocol 5.1-MIB\n"
LINGER = struct.pack("ii", 1, 0)

# Before, an exception of Ctrl-C could leave the turn taken.
MAIN_THREAD_MAY = sys.version_info >= (3, 10)


class ScriptedDevice:
    """A device that sends for each request exactly the pieces that the test says.

    *script* is called with the socket and the id of each request, in a thread.
    """

    def __init__(self, script, greeting=GREETING):
        self.script = script
        self.greeting = greeting
        self.requests = []
        self.address = ("127.0.0.1", 0)

    def __enter__(self):
        self._listener = socket.create_server(self.address)
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self.client.stop(PATIENCE)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)

    def start_client(self, cls=BlockingClient, **kwargs):
        self.client = cls(*self.address, **kwargs)
        self.client.auto_reconnect_delay = 0.02
        self.client.start()
        assert self.client.wait_connected(PATIENCE)
        assert not self.greeting or self.client.wait_protocol(PATIENCE)
        return self.client

    def _serve(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.sendall(self.greeting)
                for line in sock.makefile("rb"):
                    self.requests.append(line)
                    mid = line[line.find(b"[") : line.find(b"]") + 1]
                    self.script(sock, mid)


def rest(client):
    """Wait until the loop of *client* waits for sockets, with nothing left to do."""
    door = client._loop_door
    while True:
        with door.selector.turn:
            if not door.ioloop.asyncio_loop._ready and not door.selector._epoll.poll(0):
                return


def in_another_thread(function, *args):
    """Return what a thread gets, which the signal handlers do not interrupt."""
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        return threads.submit(function, *args).result()


def ask(client, name="ask", *args, timeout=PATIENCE):
    """Make a blocking request of a thread that may read its reply."""
    rest(client)
    client._exchanges_to_skip = 0
    return in_another_thread(client.blocking_request, Message.request(name, *args), timeout)


@pytest.fixture
def posts(monkeypatch):
    """The names of the functions that were posted to a loop."""
    names = []
    post = katcp.threadsafe.LoopDoor.post

    def spy(self, function, *args, **kwargs):
        names.append(getattr(function, "__name__", ""))
        post(self, function, *args, **kwargs)

    monkeypatch.setattr(katcp.threadsafe.LoopDoor, "post", spy)
    return names


@pytest.fixture
def loans(monkeypatch):
    """The requests whose threads have borrowed the reading."""
    requests = []
    lend_reading = katcp.connection.Connection.lend_reading

    def spy(self, exchange, *args):
        requests.append(exchange.request)
        return lend_reading(self, exchange, *args)

    monkeypatch.setattr(katcp.connection.Connection, "lend_reading", spy)
    return requests


def state_of(client):
    """Whatever must be as before when an exchange is over."""
    connection, pending = client._device_connection, client._pending_requests
    selector = client._loop_door.selector
    return {
        "borrower": connection.borrower,
        "muted": connection._muted,
        "lent": connection.stream.is_lent,
        "pending": len(pending),
        "idle": pending.is_idle(),
        "events": selector.get_key(connection.stream.socket).events,
    }


AT_REST = {
    "borrower": None,
    "muted": None,
    "lent": False,
    "pending": 0,
    "idle": True,
    "events": 1,
}


# ---- the reply is read by the thread ----


def in_main_thread(function, *args):
    return function(*args)


@pytest.mark.parametrize("protocol", ["5.1-MIB", "4"])
@pytest.mark.parametrize("in_thread", [in_main_thread, in_another_thread])
def test_the_loop_sleeps_while_the_thread_reads_its_reply(protocol, in_thread, posts, monkeypatch):
    with TestDevice(protocol=protocol) as device:
        client = start_client(device)
        rest(client)
        woken = []
        wait = TurnSelector.select

        def spy(self, timeout=None):
            events = wait(self, timeout)
            if self is client._loop_door.selector:
                woken.append(events)
            return events

        in_loop(client, monkeypatch.setattr, TurnSelector, "select", spy)
        rest(client)
        del woken[:], posts[:]
        reply, informs = in_thread(client.blocking_request, Message.request("count", 2))
        assert texts([reply, *informs]) == ["!count ok 2", "#count 0", "#count 1"]
        if in_thread is in_another_thread or MAIN_THREAD_MAY:
            assert (woken, posts) == ([], [])
        else:
            assert posts == ["_blocking_request"]
        assert in_loop(client, state_of, client) == AT_REST


PIECES = {
    "at once": [b"#ask%s 1\n!ask%s ok 2\n"],
    "byte by byte": [b"#", b"a", b"sk%s 1", b"\n", b"!as", b"k%s", b" o", b"k 2", b"\n"],
    "CR LF": [b"#ask%s 1\r\n!ask%s ok 2\r\n"],
    "CR, and LF later": [b"#ask%s 1\r", b"\n!ask%s ok 2\r", b"\n"],
    "blank lines": [b"\n\n \t\n#ask%s 1\n\n  \n!ask%s ok 2\n\n"],
}

OTHERS = {
    "unsolicited inform": [b"#other 1\n#ask%s 1\n!ask%s ok 2\n"],
    "in between": [b"#ask%s 1\n#other 1\n!ask%s ok 2\n"],
    "other chunk": [b"#ask%s 1\n", b"#other 1\n", b"!ask%s ok 2\n"],
    "half another": [b"#oth", b"er 1\n#ask%s 1\n!ask%s ok 2\n"],
    "behind": [b"#ask%s 1\n!ask%s ok 2\n#other 1\n"],
    "half behind": [b"#ask%s 1\n!ask%s ok 2\n#oth", b"er 1\n"],
    "another id": [b"#ask%s 1\n!ask[99] ok 3\n!ask%s ok 2\n#other 1\n"],
    "another name": [b"#ask%s 1\n!nobody ok 3\n!ask%s ok 2\n#other 1\n"],
}


def sent_in_pieces(pieces):
    def script(sock, mid):
        for piece in pieces:
            sock.sendall(piece.replace(b"%s", mid))

    return script


@pytest.mark.parametrize("greeting", [GREETING, b"#version device-1.0\n"])
@pytest.mark.parametrize("pieces", [*PIECES.values(), *OTHERS.values()], ids=[*PIECES, *OTHERS])
def test_however_the_answer_arrives_it_is_whole_and_the_rest_is_handled(pieces, greeting):
    others = Recorder()

    class Client(BlockingClient):
        def inform_other(self, msg):
            others(msg, threading.current_thread().name)

    if b"MIB" not in greeting and b"[99]" in b"".join(pieces):
        pieces = [piece.replace(b"!ask[99] ok 3\n", b"") for piece in pieces]
    with ScriptedDevice(sent_in_pieces(pieces), greeting) as device:
        client = device.start_client(Client)
        for round_ in range(1, 4):
            reply, informs = ask(client)
            assert texts([reply, *informs]) == ["!ask ok 2", "#ask 1"]
            if b"er 1" in b"".join(pieces):
                calls = others.wait(round_)
                assert [(str(msg), name) for msg, name in calls] == [
                    ("#other 1", "katcp-ioloop")
                ] * round_
        rest(client)
        assert in_loop(client, state_of, client) == AT_REST


def test_a_bad_line_is_logged_and_the_reply_still_comes(logs):
    with ScriptedDevice(sent_in_pieces([b"nonsense\n!ask%s ok\n"])) as device:
        reply, _ = ask(device.start_client())
        assert reply.reply_ok()
        logs.expect("BAD COMMAND", logging.ERROR)


def test_a_request_of_the_device_is_answered_by_the_loop():
    answers = []

    def script(sock, mid):
        if device.requests[-1].startswith(b"?ask"):
            sock.sendall(b"?own[5] 1\n!ask%s ok\n" % mid)
        else:
            answers.append(device.requests[-1])
            answered.set()

    class Client(BlockingClient):
        def request_own(self, msg):
            return Message.reply("own", "ok")

    answered = threading.Event()
    with ScriptedDevice(script) as device:
        reply, _ = ask(device.start_client(Client))
        assert reply.reply_ok()
        assert answered.wait(PATIENCE)
        assert answers == [b"!own[5] ok\n"]


@pytest.mark.parametrize("size", [16384, 65536, 300000])
def test_a_long_reply_is_whole(device, size):
    client = start_client(device)
    reply, _ = ask(client, "echo", b"x" * size)
    assert reply.arguments == [b"ok", b"x" * size]
    assert ask(client, "echo", "next")[0].arguments == [b"ok", b"next"]


def test_many_informs_are_all_there(device):
    client = start_client(device)
    reply, informs = ask(client, "count", 20000)
    assert reply.reply_ok()
    assert [int(inform.arguments[0]) for inform in informs] == list(range(20000))


@pytest.mark.parametrize("limit", [1000, MAX_LOAN_SIZE - 1, MAX_LOAN_SIZE, 2 * MAX_LOAN_SIZE])
@pytest.mark.parametrize("excess", [1, 2000])
def test_a_line_that_is_too_long_ends_the_connection_as_ever(limit, excess, logs):
    def script(sock, mid):
        beginning = b"!ask%s ok " % mid
        sock.sendall(beginning.ljust(limit - 1 + excess, b"x") + b"\n")

    with ScriptedDevice(script) as device:
        client = device.start_client(auto_reconnect=False)
        client.MAX_MSG_SIZE = limit
        reply, _ = ask(client)
        assert isinstance(reply.local_error, KatcpClientDisconnected)
        assert f"MAX_MSG_SIZE ({limit} bytes)" in reply.arguments[1].decode()
        client.join(PATIENCE)
        logs.expect("closed with error")
        # Whether the end of the line has arrived decides the kernel.
        for _ in logs.matching("Dropped a line"):
            logs.expect("Dropped a line")


@pytest.mark.parametrize("limit", [1000, MAX_LOAN_SIZE - 1, MAX_LOAN_SIZE, 2 * MAX_LOAN_SIZE])
def test_a_line_of_the_largest_size_is_whole(limit):
    def script(sock, mid):
        sock.sendall((b"!ask%s ok " % mid).ljust(limit - 1, b"x") + b"\n")

    with ScriptedDevice(script) as device:
        client = device.start_client()
        client.MAX_MSG_SIZE = limit
        for _ in range(3):
            reply, _ = ask(client)
            assert len(bytes(reply)) == limit - 1


def test_the_first_word_after_failures_is_noted(logs):
    with ScriptedDevice(sent_in_pieces([b"!ask%s ok\n"]), greeting=b"") as device:
        client = device.start_client()
        client._connect_failures = 5
        assert ask(client)[0].reply_ok()
        logs.expect("Reconnected to")
        assert client._connect_failures == 0


# ---- the ends of a connection and of the time ----


def closed(sock, mid):
    sock.sendall(b"#ask%s 1\n#disconnect enough\n" % mid)
    sock.shutdown(socket.SHUT_RDWR)


def half_closed(sock, mid):
    sock.sendall(b"#disconnect enough\n")
    sock.shutdown(socket.SHUT_WR)


def reset(sock, mid):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    socket.close(sock.detach())


@pytest.mark.parametrize("script", [closed, half_closed, reset])
def test_the_end_of_the_connection_ends_the_request(script, logs):
    with ScriptedDevice(script) as device:
        client = device.start_client(auto_reconnect=False)
        reply, _ = ask(client)
        assert isinstance(reply.local_error, KatcpClientDisconnected)
        assert ("enough" in str(reply)) == (script is not reset)
        if script is reset:
            client.join(PATIENCE)
            for record in logs.unexpected():
                logs.records.remove(record)


def test_the_reply_before_the_end_counts():
    def script(sock, mid):
        sock.sendall(b"!ask%s ok\n" % mid)
        sock.shutdown(socket.SHUT_RDWR)

    with ScriptedDevice(script) as device:
        client = device.start_client(auto_reconnect=False)
        assert ask(client)[0].reply_ok()
        client.join(PATIENCE)
        assert not client.is_connected()


@pytest.mark.parametrize("end", ["stop", "disconnect"])
def test_a_thread_that_reads_is_woken_at_once(device, end, monkeypatch):
    monkeypatch.setattr("katcp.exchange.CHECK_INTERVAL", 10 * PATIENCE)
    client = start_client(device)
    thread = threading.Thread(target=lambda: (device.next_held(), getattr(client, end)()))
    thread.start()
    reply, _ = ask(client, "hold", timeout=10 * PATIENCE)
    thread.join(PATIENCE)
    assert isinstance(reply.local_error, katcp.KatcpClientError)
    assert not isinstance(reply.local_error, KatcpClientTimeout)


@pytest.mark.parametrize("timeout", [0, -1, 0.05])
def test_the_time_ends_for_a_thread_that_reads(device, timeout):
    client = start_client(device)
    reply, _ = ask(client, "silent", timeout=timeout)
    assert isinstance(reply.local_error, KatcpClientTimeout)
    assert ask(client, "echo", "next")[0].arguments == [b"ok", b"next"]
    assert in_loop(client, state_of, client) == AT_REST


def test_without_a_limit_it_reads_until_the_reply(device):
    client = start_client(device, timeout=None)
    threading.Thread(target=lambda: device.next_held().reply("ok")).start()
    assert ask(client, "hold", timeout=None)[0].reply_ok()


# ---- others during the loan ----


@pytest.fixture(params=["5.1-MIB", "4"])
def any_device(request):
    with TestDevice(protocol=request.param) as device:
        yield device


def held_by_a_thread(client, device):
    """Let a thread read for its ``?hold``; return the thread, its answers, the request."""
    answers = Recorder()
    thread = threading.Thread(target=lambda: answers(ask(client, "hold", "first")[0]))
    thread.start()
    held = device.next_held()
    assert client._device_connection.borrower is not None
    return thread, answers, held


def test_requests_of_other_threads_come_behind(any_device):
    client = start_client(any_device)
    thread, answers, held = held_by_a_thread(client, any_device)
    second = Recorder()
    other = threading.Thread(
        target=lambda: second(client.blocking_request(Message.request("hold", "second"))[0])
    )
    other.start()
    next_held = any_device.next_held()
    held.reply("ok", "first")
    next_held.reply("ok", "second")
    assert answers.wait()[0][0].arguments == [b"ok", b"first"]
    assert second.wait()[0][0].arguments == [b"ok", b"second"]
    thread.join(PATIENCE)
    other.join(PATIENCE)
    rest(client)
    assert in_loop(client, state_of, client) == AT_REST


@pytest.mark.parametrize("way", ["callback_request", "request", "send_message"])
def test_what_the_loop_sends_comes_behind(any_device, way):
    client = start_client(any_device)
    thread, answers, held = held_by_a_thread(client, any_device)
    message = Message.request("hold", "second")
    second = Recorder()
    if way == "callback_request":
        in_loop(client, client.callback_request, message, second)
    else:
        in_loop(client, getattr(client, way), message)
    assert len(client._pending_requests) >= 1
    next_held = any_device.next_held()
    held.reply("ok", "first")
    next_held.reply("ok", "second")
    assert answers.wait()[0][0].arguments == [b"ok", b"first"]
    if way == "callback_request":
        assert second.wait()[0][0].arguments == [b"ok", b"second"]
    thread.join(PATIENCE)
    assert ask(client, "echo", "next")[0].arguments == [b"ok", b"next"]
    rest(client)
    assert in_loop(client, state_of, client) == AT_REST


def test_the_rest_of_a_request_is_sent_by_the_loop():
    received = threading.Event()

    def script(sock, mid):
        received.set()
        sock.sendall(b"!ask%s ok %d\n" % (mid, len(device.requests[-1])))

    with ScriptedDevice(script) as device:
        client = device.start_client()
        send, sizes = katcp.exchange.Exchange.send, []

        def send_little(self, sock, data):
            little = type("Little", (), {"send": lambda _, data: sock.send(data[:10])})()
            is_whole = send(self, little, data)
            sizes.append(len(self.unsent))
            return is_whole

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(katcp.exchange.Exchange, "send", send_little)
            reply, _ = ask(client, "ask", "x" * 50000)
        assert sizes == [len(device.requests[-1]) - 10]
        assert reply.arguments == [b"ok", b"%d" % len(device.requests[-1])]
        rest(client)
        assert in_loop(client, state_of, client) == AT_REST


# ---- the request is sent by the thread, the reply is read by the loop ----


def let_the_loop_read(client):
    """Let blocking requests borrow nothing for some time."""
    rest(client)
    client._exchanges_to_skip = 1000


def test_the_loop_sleeps_while_threads_send(any_device, posts):
    client = start_client(any_device)
    let_the_loop_read(client)
    # The only thing that the loop has to know at once is the first deadline.
    for expected in [["_update_timer"], [], []]:
        rest(client)
        del posts[:]
        assert in_another_thread(client.blocking_request, Message.request("echo"))[0].reply_ok()
        assert posts == expected
    rest(client)
    assert in_loop(client, state_of, client) == AT_REST


def test_a_request_sent_by_its_thread_times_out(device):
    client = start_client(device)
    let_the_loop_read(client)
    request = Message.request("silent")
    reply, _ = in_another_thread(client.blocking_request, request, 0.05)
    assert isinstance(reply.local_error, KatcpClientTimeout)


def test_what_the_kernel_does_not_take_of_a_request_is_sent_first(monkeypatch):
    def script(sock, mid):
        sock.sendall(b"!ask%s ok %d\n" % (mid, len(device.requests[-1])))

    with ScriptedDevice(script) as device:
        client = device.start_client()
        let_the_loop_read(client)
        stream = client._device_connection.stream
        write_at_once = stream.write_at_once

        def write_little(data):
            monkeypatch.undo()
            # Nothing else may be sent before the rest: not in the turn either.
            client._loop_door.post(client.send_message, Message.request("ask", "behind"))
            return write_at_once(data[:10]) + data[10:]

        monkeypatch.setattr(stream, "write_at_once", write_little)
        request = Message.request("ask", "x" * 50000)
        reply, _ = in_another_thread(client.blocking_request, request)
        assert reply.arguments == [b"ok", b"%d" % len(device.requests[0])]
        assert device.requests[0].endswith(b" " + b"x" * 50000 + b"\n")
        in_another_thread(client.blocking_request, Message.request("ask", "last"))
        assert [line.split()[-1] for line in device.requests[1:]] == [b"behind", b"last"]


def test_the_rest_of_a_request_is_sent_before_that_of_another_thread(monkeypatch):
    def script(sock, mid):
        sock.sendall(b"!ask%s ok %d\n" % (mid, len(device.requests[-1])))

    with ScriptedDevice(script) as device:
        client = device.start_client()
        send, give_back = katcp.exchange.Exchange.send, client._give_back
        second = Recorder()
        other = threading.Thread(
            target=lambda: second(client.blocking_request(Message.request("ask", "other"))[0])
        )

        def send_little(self, sock, data):
            little = type("Little", (), {"send": lambda _, data: sock.send(data[:10])})()
            return send(self, little, data)

        def give_back_late(*args):
            monkeypatch.undo()
            # The kernel takes no more.
            stream = client._device_connection.stream
            monkeypatch.setattr(stream, "write_at_once", lambda data: data)
            other.start()
            while len(client._pending_requests) < 2 and other.is_alive():
                pass
            give_back(*args)

        monkeypatch.setattr(katcp.exchange.Exchange, "send", send_little)
        monkeypatch.setattr(client, "_give_back", give_back_late)
        reply, _ = ask(client, "ask", "x" * 50000)
        other.join(PATIENCE)
        assert reply.arguments == [b"ok", b"%d" % len(device.requests[0])]
        assert second.wait()[0][0].arguments == [b"ok", b"%d" % len(device.requests[1])]


def test_an_id_that_a_thread_reads_for_is_in_use(device):
    client = start_client(device)
    thread, answers, held = held_by_a_thread(client, device)
    mid = client._device_connection.borrower.request.mid
    for ask_again in (client.blocking_request, client.callback_request, client.request):
        with pytest.raises(katcp.KatcpUsageError, match="is used by a pending request"):
            in_another_thread(ask_again, Message.request("echo", mid=mid))
    held.reply("ok", "first")
    assert answers.wait()[0][0].arguments == [b"ok", b"first"]
    thread.join(PATIENCE)
    # Now it is free.
    assert ask(client, "echo", "again")[0].reply_ok()
    reply, _ = in_another_thread(client.blocking_request, Message.request("echo", mid=mid))
    assert reply.reply_ok()


def test_a_request_that_would_overflow_is_left_to_the_loop(device, logs):
    client = start_client(device)
    let_the_loop_read(client)
    client.MAX_WRITE_BUFFER_SIZE = 100
    reply, _ = in_another_thread(client.blocking_request, Message.request("echo", "x" * 1000))
    assert isinstance(reply.local_error, katcp.KatcpClientOverflow)
    logs.expect("Could not send to device", level=logging.WARNING)
    logs.expect("closed with error", level=logging.WARNING)


# ---- when it is not done ----


def test_a_request_that_is_pending_gets_its_reply_first(any_device):
    client = start_client(any_device)
    first, second = Recorder(), Recorder()
    client.callback_request(Message.request("hold", "first"), first)
    held = any_device.next_held()
    thread = threading.Thread(target=lambda: second(ask(client, "hold", "second")[0]))
    thread.start()
    next_held = any_device.next_held()
    assert client._device_connection.borrower is None
    held.reply("ok", "first")
    next_held.reply("ok", "second")
    assert first.wait()[0][0].arguments == [b"ok", b"first"]
    assert second.wait()[0][0].arguments == [b"ok", b"second"]
    thread.join(PATIENCE)


@pytest.mark.parametrize(
    "hook", ["send_message", "handle_message", "handle_reply", "handle_inform"]
)
@pytest.mark.parametrize("where", ["class", "instance"])
def test_a_hook_sees_the_messages(device, hook, where):
    seen = Recorder()

    def method(self, msg):
        seen(msg)
        return getattr(AsyncClient, hook)(self, msg)

    cls = type("Client", (BlockingClient,), {hook: method} if where == "class" else {})
    client = start_client(device, cls)
    if where == "instance":
        setattr(client, hook, method.__get__(client))
    rest(client)
    del seen.calls[:]
    reply, informs = ask(client, "count", 1)
    expected = {
        "send_message": ["?count 1"],
        "handle_message": ["#count 0", "!count ok 1"],
        "handle_reply": ["!count ok 1"],
        "handle_inform": ["#count 0"],
    }
    assert texts(seen.messages) == expected[hook]
    assert reply.reply_ok()
    assert len(informs) == 1


def test_debugging_shows_what_is_sent_and_received(device, logs):
    logger = logging.getLogger("katcp.test.exchange")
    logger.setLevel(logging.DEBUG)
    client = start_client(device, logger=logger)
    assert ask(client, "echo", "shown")[0].reply_ok()
    assert logs.matching("Sending to")
    assert logs.matching("received from")


def test_after_another_message_the_loop_reads_for_some_requests(device, loans):
    client = start_client(device)
    ask(client, "silent", timeout=0)
    skipped = client._exchanges_to_skip
    assert skipped > 0
    del loans[:]
    # Forgotten requests without id are waited for; this device has ids.
    request = Message.request("echo")
    for _ in range(skipped):
        rest(client)
        assert in_another_thread(client.blocking_request, request.copy())[0].reply_ok()
        assert not loans
    rest(client)
    assert in_another_thread(client.blocking_request, request)[0].reply_ok()
    assert len(loans) == 1


def test_nothing_is_lent_while_the_loop_handles_lines(device, posts):
    answers, lent = Recorder(), []

    class Client(BlockingClient):
        def inform_other(self, msg):
            thread.start()
            # It cannot take the turn, so it posts at once.
            while "_blocking_request" not in posts and thread.is_alive():
                pass
            lent.append(self._device_connection.borrower)

    client = start_client(device, Client)
    thread = threading.Thread(
        target=lambda: answers(client.blocking_request(Message.request("echo", "mine"))[0])
    )
    rest(client)
    del posts[:]
    device.send_raw(b"#other\n")
    assert answers.wait()[0][0].arguments == [b"ok", b"mine"]
    thread.join(PATIENCE)
    assert lent == [None]


# ---- an exception of a signal handler, at every step ----

# Where Python calls signal handlers: after calls, at the beginning of
# functions, and where a loop begins anew.
_SIGNAL_POINTS = ("CALL", "RESUME", "RETURN", "JUMP_BACKWARD", "JUMP_ABSOLUTE")

# A number for sys.monitoring that no debugger, profiler or coverage uses.
_TOOL = 4


class Interrupter:
    """Raises KeyboardInterrupt at the step of a given number, in the thread that makes it."""

    def __init__(self, step):
        self.step = step
        self.steps = 0
        self.where = None
        self._was_point = False
        self._thread = threading.get_ident()

    def __enter__(self):
        if sys.version_info >= (3, 12):
            # There, sys.settrace does not show all that it should.
            events = sys.monitoring.events
            sys.monitoring.use_tool_id(_TOOL, "interrupter")
            sys.monitoring.register_callback(_TOOL, events.INSTRUCTION, self._monitor)
            sys.monitoring.set_events(_TOOL, events.INSTRUCTION)
        else:
            self._before = sys.gettrace()
            sys.settrace(self._trace)

    def __exit__(self, *exception):
        if sys.version_info >= (3, 12):
            sys.monitoring.set_events(_TOOL, 0)
            sys.monitoring.register_callback(_TOOL, sys.monitoring.events.INSTRUCTION, None)
            sys.monitoring.free_tool_id(_TOOL)
        else:
            sys.settrace(self._before)

    def _monitor(self, code, offset):
        # It shows the steps of all threads.
        if threading.get_ident() == self._thread:
            self._instruction(code, offset)

    def _trace(self, frame, event, arg):
        if event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            self._was_point = True
        elif event == "return":
            self._was_point = True
        elif event == "opcode":
            self._instruction(frame.f_code, frame.f_lasti)
        return self._trace

    def _instruction(self, code, offset):
        # The steps of the end of the tracing are not the client's.
        if self.where is not None or code.co_filename == __file__:
            return
        was_point = self._was_point
        self._was_point = dis.opname[code.co_code[offset]].startswith(_SIGNAL_POINTS)
        if was_point:
            self.steps += 1
            if self.steps == self.step:
                self.where = f"{code.co_filename}, {code.co_name} at {offset}"
                raise KeyboardInterrupt


def interrupted_at(client, step, *request):
    """Ask, and be interrupted at a step; return where that was, None if there are less."""
    # What is made once is made again.
    in_loop(client, client._device_connection.close_reader)
    rest(client)
    client._exchanges_to_skip = 0
    message = Message.request(*request)
    interrupter = Interrupter(step)
    with interrupter:
        try:
            client.blocking_request(message, PATIENCE)
        except KeyboardInterrupt:
            assert interrupter.where is not None
    return interrupter.where


@pytest.mark.parametrize("request_", [("count", 2), ("echo", "interrupted")], ids=lambda r: r[0])
def test_interrupted_at_any_step_it_leaves_nothing_behind(any_device, request_):
    client = start_client(any_device)
    connection = client._device_connection
    step = 1
    while True:
        where = interrupted_at(client, step, *request_)
        if where is None:
            break
        for _ in range(2):
            reply, _ = client.blocking_request(Message.request("echo", step), PATIENCE)
            assert reply.arguments == [b"ok", b"%d" % step], where
        reply, informs = client.blocking_request(Message.request("count", 3), PATIENCE)
        assert (reply.reply_ok(), len(informs)) == (True, 3), where
        rest(client)
        assert in_loop(client, state_of, client) == AT_REST, where
        assert client._device_connection is connection, where
        step += 1
    assert step > 50
    # Not in vain: it was the short cut that was interrupted, where the main thread takes it.
    assert bool(connection._readers) == MAIN_THREAD_MAY


# ---- steps of the loop that seldom meet ----


def test_a_reply_of_an_old_connection_ends_no_request_of_the_new_one(device_v4):
    client = start_client(device_v4)
    thread, answers, held = held_by_a_thread(client, device_v4)
    exchange = client._device_connection.borrower
    count = device_v4.connection_count
    in_loop(client, client._let_borrower_be_pending, client._device_connection)
    old = client._device_connection
    client.disconnect()
    answers.wait()
    thread.join(PATIENCE)
    device_v4.wait_for_connection(count + 1, PATIENCE)
    # The old protocol is known until the client has seen the new connection.
    assert client.wait_connected(PATIENCE)
    assert client.wait_protocol(PATIENCE)
    new = Recorder()
    client.callback_request(Message.request("hold", "new"), new, timeout=PATIENCE)
    held = device_v4.next_held()
    # The thread, which had its reply just before, was very slow to say so.
    exchange.reply = Message.reply("hold", "ok")
    exchange.was_taken_over = False
    in_loop(client, client._take_over, old, exchange)
    held.reply("ok", "new")
    assert new.wait()[0][0].arguments == [b"ok", b"new"]


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_what_a_handler_has_to_wait_for_comes_before_more_is_read(seconds):
    order = []

    class Client(BlockingClient):
        MAX_LOOP_LATENCY = seconds

        async def handle_request(self, msg):
            order.append(str(msg))

    pieces = [b"?pause 1\n?pause 2\n!ask%s ok\n"]
    with ScriptedDevice(sent_in_pieces(pieces)) as device:
        client = device.start_client(Client)
        for _ in range(3):
            assert ask(client)[0].reply_ok()
        assert order == ["?pause 1", "?pause 2"] * 3
        rest(client)
        assert in_loop(client, state_of, client) == AT_REST
