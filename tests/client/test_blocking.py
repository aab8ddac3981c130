"""Blocking requests: however the answer arrives, whatever ends them, whoever interrupts."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import socket
import struct
import threading

import pytest

import katcp
from katcp import BlockingClient, KatcpClientDisconnected, KatcpClientTimeout, Message
from katcp.client import AsyncClient
from tests.support.helpers import PATIENCE, Recorder, TestDevice, in_loop, start_client, texts
from tests.support.peek import Peek
from tests.support.steps import AtStep

GREETING = b"#version-connect katcp-protocol 5.1-MIB\n"
LINGER = struct.pack("ii", 1, 0)


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
    """Wait until the loop of *client* has done what was posted to it."""
    in_loop(client, lambda: None)


def in_another_thread(function, *args):
    """Return what a thread gets, which the signal handlers do not interrupt."""
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        return threads.submit(function, *args).result()


def ask(client, name="ask", *args, timeout=PATIENCE):
    """Make a blocking request in another thread than the main one."""
    return in_another_thread(client.blocking_request, Message.request(name, *args), timeout)


def state_of(client):
    """Whatever must be as before when a request is over."""
    peek = Peek(client)
    return {"pending": len(peek.pending), "names": peek.names_awaited}


AT_REST = {"pending": 0, "names": set()}


# ---- however the answer arrives ----


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


@pytest.mark.parametrize("limit", [1000, 65536, 131072])
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


@pytest.mark.parametrize("limit", [1000, 65536, 131072])
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
        Peek(client).connect_failures = 5
        assert ask(client)[0].reply_ok()
        logs.expect("Reconnected to")
        assert Peek(client).connect_failures == 0


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
def test_a_thread_that_waits_is_woken_at_once(device, end, monkeypatch):
    monkeypatch.setattr("katcp._runtime.waiter.LOOP_CHECK_INTERVAL", 10 * PATIENCE)
    client = start_client(device)
    thread = threading.Thread(target=lambda: (device.next_held(), getattr(client, end)()))
    thread.start()
    reply, _ = ask(client, "hold", timeout=10 * PATIENCE)
    thread.join(PATIENCE)
    assert isinstance(reply.local_error, katcp.KatcpClientError)
    assert not isinstance(reply.local_error, KatcpClientTimeout)


@pytest.mark.parametrize("timeout", [0, -1, 0.05])
def test_the_time_ends_for_a_thread_that_waits(device, timeout):
    client = start_client(device)
    reply, _ = ask(client, "silent", timeout=timeout)
    assert isinstance(reply.local_error, KatcpClientTimeout)
    assert ask(client, "echo", "next")[0].arguments == [b"ok", b"next"]
    assert in_loop(client, state_of, client) == AT_REST


def test_without_a_limit_it_waits_for_the_reply(device):
    client = start_client(device, timeout=None)
    threading.Thread(target=lambda: device.next_held().reply("ok")).start()
    assert ask(client, "hold", timeout=None)[0].reply_ok()


# ---- several requests at once ----


@pytest.fixture(params=["5.1-MIB", "4"])
def any_device(request):
    with TestDevice(protocol=request.param) as device:
        yield device


def held_by_a_thread(client, device):
    """Let a thread wait for its ``?hold``; return the thread, its answers, the request."""
    answers = Recorder()
    thread = threading.Thread(target=lambda: answers(ask(client, "hold", "first")[0]))
    thread.start()
    held = device.next_held()
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
    assert len(Peek(client).pending) >= 1
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


def test_an_id_that_a_thread_waits_for_is_in_use(device):
    client = start_client(device)
    thread, answers, held = held_by_a_thread(client, device)
    mid = held.message.mid
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


def test_a_request_that_would_overflow_fails(device, logs):
    client = start_client(device)
    client.MAX_WRITE_BUFFER_SIZE = 100
    reply, _ = in_another_thread(client.blocking_request, Message.request("echo", "x" * 1000))
    assert isinstance(reply.local_error, katcp.KatcpClientOverflow)
    logs.expect("Could not send to device", level=logging.WARNING)
    logs.expect("closed with error", level=logging.WARNING)


def test_a_request_that_is_pending_gets_its_reply_first(any_device):
    client = start_client(any_device)
    first, second = Recorder(), Recorder()
    client.callback_request(Message.request("hold", "first"), first)
    held = any_device.next_held()
    thread = threading.Thread(target=lambda: second(ask(client, "hold", "second")[0]))
    thread.start()
    next_held = any_device.next_held()
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


# ---- an exception of a signal handler, at every step ----


def raise_interrupt():
    raise KeyboardInterrupt


def interrupted_at(client, step, *request):
    """Ask, and be interrupted at a step; return where that was, None if there are less."""
    message = Message.request(*request)
    with AtStep(step, raise_interrupt) as at_step:
        try:
            client.blocking_request(message, PATIENCE)
        except KeyboardInterrupt:
            assert at_step.where is not None
    return at_step.where


@pytest.mark.parametrize("request_", [("count", 2), ("echo", "interrupted")], ids=lambda r: r[0])
def test_interrupted_at_any_step_it_leaves_nothing_behind(any_device, request_):
    client = start_client(any_device)
    connection = Peek(client).connection
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
        assert Peek(client).connection is connection, where
        step += 1
    assert step > 50


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
