"""Requests between a reconnect and the greeting of a device that had message ids."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import re
import socket
import time

import pytest

from katcp import (
    BlockingClient,
    KatcpClientDisconnected,
    KatcpClientError,
    KatcpClientStopped,
    KatcpClientTimeout,
    KatcpTypeError,
    KatcpVersionError,
    Message,
    ProtocolFlags,
)
from tests.support.faultproxy import LINGER
from tests.support.helpers import PATIENCE, Recorder, in_loop, in_thread
from tests.support.peek import Peek

WITH_IDS = b"#version-connect katcp-protocol 5.1-MIB\n"
WITHOUT_IDS = b"#version-connect katcp-protocol 5.1-MB\n"
V4 = b"#version x-1.0\n#build-state y-1\n"

# Longer than any test takes, in seconds.
NEVER = 1000.0

# A limit that the test waits for.
SOON = 0.1


class Device:
    """The device's end of one connection after the other, used in the test's thread."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)
        self.address = self.listener.getsockname()
        self.socket = self.file = None

    def accept(self):
        self.socket, _ = self.listener.accept()
        self.socket.settimeout(PATIENCE)
        self.file = self.socket.makefile("rb")

    def say(self, data):
        self.socket.sendall(data)

    def line(self):
        """Return the next line that the client sent."""
        return self.file.readline().rstrip(b"\n")

    def lines(self, count):
        return [self.line() for _ in range(count)]

    def hang_up(self, *, reset=False):
        if self.socket is not None:
            if reset:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            else:
                # What nobody has read would make the close a reset.
                self.socket.shutdown(socket.SHUT_WR)
                self.file.read()
            self.file.close()
            self.socket.close()
            self.socket = None

    def close(self):
        self.hang_up()
        self.listener.close()


@pytest.fixture
def device():
    with contextlib.closing(Device()) as device:
        yield device


class Client(BlockingClient):
    """A client whose connections the test waits for."""

    def __init__(self, *address, greeting_timeout=NEVER, **kwargs):
        super().__init__(*address, **{"timeout": NEVER, **kwargs})
        self.auto_reconnect_delay = self.auto_reconnect_max_delay = 0.02
        self.GREETING_TIMEOUT = greeting_timeout
        self.connections = Recorder()
        self.add_connection_callback(self.connections)

    def mark(self, device, text="mark"):
        """Check that the client has sent nothing else so far; in the test's thread."""
        self.send_message(Message.inform(text))
        assert device.line() == b"#" + text.encode()

    def reconnect(self, device):
        """Return when the device has lost the client, and has it back; it has not greeted."""
        count = len(self.connections.calls)
        device.hang_up()
        device.accept()
        self.connections.wait(count + 2)
        in_loop(self, int)  # it waits for the greeting now


@pytest.fixture
def start(device):
    """Start clients that are connected again to a device that had ids; one at a time."""
    with contextlib.ExitStack() as stack:

        def start(cls=Client, greetings=(WITH_IDS,), **kwargs):
            client = cls(*device.address, **kwargs)
            stack.callback(client.stop, PATIENCE)
            client.start()
            device.accept()
            client.connections.wait(1)
            for greeting in greetings:
                device.say(greeting)
                if greeting:
                    assert client.wait_protocol(PATIENCE)
                client.reconnect(device)
            return client

        yield start


@pytest.fixture
def client(start):
    return start()


def ask(client, *arguments, **kwargs):
    """Make a request with a future for any thread."""
    mid = kwargs.pop("mid", None)
    return client.concurrent_request(Message.request("read", *arguments, mid=mid), **kwargs)


def reply_of(future):
    return future.result(PATIENCE)[0]


def answer(device, line, code=b"ok"):
    """Answer a request with its own arguments."""
    head, _, arguments = line.partition(b" ")
    device.say(b"!" + head[1:] + b" " + code + b" " + arguments + b"\n")


# Every kind of request


def by_callback(client, msg):
    future = concurrent.futures.Future()
    client.callback_request(msg, lambda reply: future.set_result((reply, [])))
    return future


def by_callback_in_the_loop(client, msg):
    return in_loop(client, by_callback, client, msg)


def by_future(client, msg):
    future = concurrent.futures.Future()

    def begin():
        awaited = client.future_request(msg)
        awaited.add_done_callback(lambda done: future.set_result(done.result()))

    in_loop(client, begin)
    return future


def by_thread(function):
    future = concurrent.futures.Future()
    in_thread(lambda: future.set_result(function()))
    return future


def by_blocking(client, msg):
    return by_thread(lambda: client.blocking_request(msg))


def by_async(client, msg):
    return by_thread(lambda: asyncio.run(client.async_request(msg)))


def by_concurrent(client, msg):
    return client.concurrent_request(msg)


WAYS = [
    by_callback,
    by_callback_in_the_loop,
    by_future,
    by_blocking,
    by_async,
    by_concurrent,
]


def until_held(client, count):
    """Return when so many requests of the client wait."""
    deadline = time.monotonic() + PATIENCE
    while in_loop(client, lambda: len(Peek(client).held())) < count:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("way", WAYS)
def test_they_wait_for_the_greeting_and_get_their_own_replies(device, client, way):
    futures = []
    for number in range(5):
        futures.append(way(client, Message.request("read", number)))
        until_held(client, number + 1)
    client.mark(device)
    device.say(WITH_IDS)
    lines = device.lines(5)
    assert [re.sub(rb"\[\d+\]", b"[]", line) for line in lines] == [
        b"?read[] %d" % number for number in range(5)
    ]
    for line in reversed(lines):
        answer(device, line)
    assert [reply_of(future).arguments for future in futures] == [
        [b"ok", b"%d" % number] for number in range(5)
    ]
    assert Peek(client).held() == []


def test_their_informs_are_their_own(device, client):
    first, second = ask(client, 1), ask(client, 2)
    device.say(WITH_IDS)
    lines = device.lines(2)
    for line in reversed(lines):
        head, _, arguments = line.partition(b" ")
        device.say(b"#" + head[1:] + b" " + arguments + b"\n")
        answer(device, line)
    for number, future in enumerate([first, second], 1):
        reply, informs = future.result(PATIENCE)
        assert [msg.arguments for msg in [reply, *informs]] == [
            [b"ok", b"%d" % number],
            [b"%d" % number],
        ]


# What the greeting tells


@pytest.mark.parametrize("greeting", [WITHOUT_IDS, V4, b"#version x-1.0\n", b"#build-state y\n"])
def test_a_device_that_comes_back_without_ids_is_asked_without(device, client, greeting):
    futures = [ask(client, number) for number in range(3)]
    client.mark(device)
    device.say(greeting)
    lines = device.lines(3)
    assert lines == [b"?read 0", b"?read 1", b"?read 2"]
    for line in lines:
        answer(device, line)
    assert [reply_of(future).arguments[1] for future in futures] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("greeting", [V4 + WITH_IDS, WITH_IDS + V4])
def test_a_device_that_greets_in_both_ways_is_asked_with_ids(device, client, greeting):
    ask(client, 1)
    device.say(greeting)
    assert device.line() == b"?read[1] 1"


def test_a_greeting_that_tells_nothing_is_not_the_end_of_the_wait(device, client, logs):
    ask(client, 1)
    device.say(b"#version-connect katcp-device x-1\n#version-connect katcp-protocol gibberish\n")
    logs.expect("cannot be understood")
    client.mark(device)
    device.say(WITH_IDS)
    assert device.line() == b"?read[1] 1"


def test_what_is_asked_once_the_ids_are_known_is_sent_at_once(device, client):
    ask(client, 1)
    device.say(WITH_IDS)
    assert device.line() == b"?read[1] 1"
    ask(client, 2)
    client.request(Message.request("read", 3))
    assert device.lines(2) == [b"?read[2] 2", b"?read[3] 3"]


def test_a_device_that_does_not_greet_is_asked_without_ids_after_a_while(device, start):
    client = start(greeting_timeout=SOON)
    future = ask(client, 1)
    assert device.line() == b"?read 1"
    # The connection is at least as old as the request.
    assert in_loop(client, client.ioloop.time) - client.last_connect_time >= SOON
    answer(device, b"?read 1")
    assert reply_of(future).reply_ok()
    # The wait was for the connection, not for each request.
    client.GREETING_TIMEOUT = NEVER
    ask(client, 2)
    assert device.line() == b"?read 2"
    device.say(WITH_IDS)
    assert client.wait_protocol(PATIENCE)
    ask(client, 3)
    assert device.line() == b"?read[1] 3"


def test_the_wait_is_a_second_if_not_told_otherwise():
    assert BlockingClient.GREETING_TIMEOUT == 1.0


# When nobody waits


def test_nothing_waits_on_the_first_connection(device, start):
    client = start(greetings=())
    ask(client, 1)
    assert device.line() == b"?read 1"


@pytest.mark.parametrize("greeting", [WITHOUT_IDS, V4])
def test_nothing_waits_if_the_device_had_no_ids_when_it_last_greeted(device, start, greeting):
    client = start(greetings=[WITH_IDS, greeting])
    ask(client, 1)
    assert device.line() == b"?read 1"


def test_ids_are_remembered_over_a_connection_without_greeting(device, start):
    client = start(greetings=[WITH_IDS, b""])
    ask(client, 1)
    client.mark(device)
    device.say(WITH_IDS)
    assert device.line() == b"?read[1] 1"


def test_ids_are_remembered_over_a_stop(device, start):
    client = start()
    client.stop()
    device.hang_up()
    client.start()
    device.accept()
    assert client.wait_connected(PATIENCE)
    ask(client, 1)
    client.mark(device)
    device.say(WITH_IDS)
    assert device.line() == b"?read[1] 1"


def test_nothing_waits_if_the_flags_are_preset(device, start):
    client = start()
    client.preset_protocol_flags(ProtocolFlags(5, 1, "MI"))
    client.reconnect(device)
    ask(client, 1)
    assert device.line() == b"?read[1] 1"


@pytest.mark.parametrize("in_the_loop", [True, False])
def test_flags_that_are_preset_end_the_wait(device, client, in_the_loop):
    flags = ProtocolFlags(5, 1, "MI")
    ask(client, 1)
    client.mark(device)
    if in_the_loop:
        in_loop(client, client.preset_protocol_flags, flags)
    else:
        client.preset_protocol_flags(flags)
    assert device.line() == b"?read[1] 1"


def test_what_uses_no_id_is_sent_at_once(device, client):
    ask(client, 1, use_mid=False)
    assert client.request(Message.request("read", 2)) is None
    client.send_request(Message.request("read", 3))
    assert device.lines(3) == [b"?read 1", b"?read 2", b"?read 3"]


# Order


def test_nothing_overtakes_a_request_that_waits(device, client):
    ask(client, 1)
    ask(client, 2, use_mid=False)
    assert client.request(Message.request("read", 3)) is None
    client.send_request(Message.request("read", 4))
    ask(client, 5)
    client.mark(device)
    device.say(WITH_IDS)
    assert device.lines(5) == [
        b"?read[1] 1",
        b"?read 2",
        b"?read 3",
        b"?read 4",
        b"?read[2] 5",
    ]


def test_replies_that_nobody_asked_for_go_to_the_handlers(device, start):
    class Listener(Client):
        unhandled_reply = Recorder()

    client = start(Listener)
    first = ask(client, 1)
    client.request(Message.request("read", 2))
    third = ask(client, 3, use_mid=False)
    device.say(WITH_IDS)
    for line in device.lines(3):
        answer(device, line)
    assert reply_of(third).arguments == [b"ok", b"3"]
    assert reply_of(first).arguments == [b"ok", b"1"]
    [(reply,)] = Listener.unhandled_reply.wait()
    assert str(reply) == "!read ok 2"


def test_what_is_asked_while_they_are_sent_comes_last(device, start):
    class Asker(Client):
        def send_message(self, msg):
            if msg.arguments == [b"1"]:
                self.callback_request(Message.request("read", 3), use_mid=False)
            return super().send_message(msg)

    client = start(Asker)
    ask(client, 1)
    ask(client, 2)
    device.say(WITH_IDS)
    assert device.lines(3) == [b"?read[1] 1", b"?read[2] 2", b"?read 3"]


def test_requests_from_notify_connected_wait_too(device, start):
    class Asker(Client):
        def notify_connected(self, connected):
            if connected:
                self.callback_request(Message.request("read", 1))

    client = start(Asker)
    # It went out without id on the first connection.
    client.mark(device)
    device.say(WITH_IDS)
    assert device.line() == b"?read[1] 1"


# Ids that a program wants


def test_an_id_that_is_wanted_is_waited_for(device, client):
    ask(client, 1, mid=77)
    ask(client, 2, use_mid=True)
    client.mark(device)
    device.say(WITH_IDS)
    lines = device.lines(2)
    assert lines == [b"?read[77] 1", b"?read[1] 2"]


@pytest.mark.parametrize("wanted", [{"mid": 77}, {"use_mid": True}, {"mid": 7, "use_mid": False}])
@pytest.mark.parametrize("greeting", [V4, None])
def test_an_id_that_is_wanted_but_not_there_fails(device, start, wanted, greeting):
    client = start(greeting_timeout=SOON if greeting is None else NEVER)
    future = ask(client, 1, **wanted)
    if greeting is not None:
        device.say(greeting)
    reply = reply_of(future)
    assert isinstance(reply.local_error, KatcpVersionError)
    client.mark(device)


def test_without_a_future_an_id_that_is_wanted_is_refused_at_once(client):
    for call in [client.request, client.send_request]:
        with pytest.raises(KatcpVersionError):
            call(Message.request("read", mid=77))


def test_an_id_that_is_wanted_twice_is_refused(device, client, logs):
    first, second = ask(client, 1, mid=77), ask(client, 2, mid=77)
    device.say(WITH_IDS)
    assert "is used by a pending request" in str(reply_of(second).local_error)
    logs.expect("Could not send request read", logging.ERROR)
    answer(device, device.line())
    assert reply_of(first).arguments == [b"ok", b"1"]


# The message


def test_it_is_sent_as_it_was_when_it_was_asked(device, client):
    msg = Message.request("read", "before")
    in_loop(client, client.callback_request, msg)
    msg.arguments = [b"after"]
    in_loop(client, client.callback_request, msg)
    device.say(WITH_IDS)
    assert device.lines(2) == [b"?read[1] before", b"?read[2] after"]


def test_a_message_that_was_sent_before_gets_a_new_id(device, start):
    client = start(greetings=())
    device.say(WITH_IDS)
    assert client.wait_protocol(PATIENCE)
    msg = Message.request("read")
    in_loop(client, client.callback_request, msg)
    in_loop(client, client.callback_request, Message.request("read"))
    assert device.lines(2) == [b"?read[1]", b"?read[2]"]
    client.reconnect(device)
    in_loop(client, client.callback_request, msg)
    assert msg.mid is None
    device.say(WITHOUT_IDS)
    assert device.line() == b"?read"


def test_what_cannot_be_sent_is_refused_at_once(client):
    msg = Message.request("read")
    msg.arguments = [1.5]
    with pytest.raises((KatcpTypeError, TypeError)):
        in_loop(client, client.callback_request, msg)
    assert Peek(client).held() == []


@pytest.mark.parametrize("error", [ValueError("no"), KatcpClientError("no")])
def test_what_cannot_be_sent_after_all_fails_and_the_others_are_sent(device, start, error, logs):
    class Picky(Client):
        def send_message(self, msg):
            if msg.arguments == [b"1"]:
                raise error
            return super().send_message(msg)

    client = start(Picky)
    refused = ask(client, 1)
    ask(client, 2)
    device.say(WITH_IDS)
    reply = reply_of(refused)
    assert isinstance(reply.local_error, KatcpClientError)
    assert str(reply.local_error) == "no"
    assert device.line() == b"?read[2] 2"
    if isinstance(error, ValueError):
        logs.expect("Could not send request read", logging.ERROR)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop_while_they_are_sent_ends_all(device, start, error, logs):
    class Interrupted(Client):
        def send_message(self, msg):
            if msg.arguments == [b"1"]:
                raise error
            return super().send_message(msg)

    client = start(Interrupted)
    replies = [ask(client, number) for number in range(3)]
    until_held(client, 3)
    device.say(WITH_IDS)
    for future in replies:
        assert isinstance(reply_of(future).local_error, KatcpClientError)
    client.join(PATIENCE)
    assert error.__name__ in logs.expect("Error running tornado IOloop", logging.ERROR)
    logs.expect("closed with error")
    assert Peek(client).leftovers() == {}


# The end of a request that waits


def test_a_timeout_shorter_than_the_wait_ends_it(device, client):
    first = ask(client, 1, timeout=SOON)
    ask(client, 2)
    third = ask(client, 3, timeout=SOON / 2)
    at_once = ask(client, 4, timeout=0)
    for future in (at_once, third, first):
        reply = reply_of(future)
        assert isinstance(reply.local_error, KatcpClientTimeout)
        assert re.fullmatch(
            r"Request read timed out after 0\.\d+ seconds\.", str(reply.arguments[1], "ascii")
        )
    client.mark(device)
    device.say(WITH_IDS)
    assert device.line() == b"?read[1] 2"


def test_the_timeout_counts_from_the_request(device, client):
    future = ask(client, 1, timeout=SOON)
    device.say(WITH_IDS)
    assert device.line() == b"?read[1] 1"
    assert isinstance(reply_of(future).local_error, KatcpClientTimeout)


@pytest.mark.parametrize("way", ["hang up", "reset", "disconnect"])
def test_the_end_of_the_connection_ends_them(device, client, way, logs):
    order = Recorder()
    for number in range(3):
        client.callback_request(
            Message.request("read", number), lambda reply, n: order(n, reply), user_data=(number,)
        )
    blocking = ask(client, 4)
    client.request(Message.request("read", 5))
    assert Peek(client).held() == ["read"] * 4
    if way == "disconnect":
        client.disconnect()
    else:
        device.hang_up(reset=way == "reset")
    assert isinstance(reply_of(blocking).local_error, KatcpClientDisconnected)
    calls = order.wait(3)
    assert [call[0] for call in calls] == [0, 1, 2]
    for _, reply in calls:
        assert str(reply.local_error) == "Connection closed before reply was received"
    if way == "reset":
        logs.expect("closed with error")
    device.hang_up()
    device.accept()
    client.connections.wait(5)
    ask(client, 6)
    device.say(WITH_IDS)
    assert device.line() == b"?read[1] 6"


def test_stop_ends_them(client):
    future = ask(client, 1)
    until_held(client, 1)
    client.stop(PATIENCE)
    assert isinstance(reply_of(future).local_error, KatcpClientStopped)
    assert Peek(client).leftovers() == {}


def test_those_of_notify_connected_false_fail_at_once(device, start):
    replies = Recorder()

    class Asker(Client):
        def notify_connected(self, connected):
            if not connected:
                self.callback_request(Message.request("read"), replies)

    client = start(Asker)
    replies.calls.clear()
    device.hang_up()
    [(reply,)] = replies.wait()
    assert str(reply.local_error).startswith("Not connected to device")
    device.accept()
    client.stop(PATIENCE)


def test_one_that_is_cancelled_is_not_sent(device, client):
    cancelled = ask(client, 1)
    ask(client, 2)
    until_held(client, 2)
    assert cancelled.cancel()

    async def begin_and_cancel():
        future = client.future_request(Message.request("read", 3))
        future.cancel()

    in_loop(client, begin_and_cancel)
    until_held(client, 1)
    device.say(WITH_IDS)
    ask(client, 4)
    assert device.lines(2) == [b"?read[1] 2", b"?read[2] 4"]
