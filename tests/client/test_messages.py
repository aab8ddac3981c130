"""What arrives and what is sent: handlers, hooks, bad lines, floods, limits, logs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import socket
import threading
import time
from pathlib import Path

import pytest

import katcp
from katcp import (
    AsyncClient,
    BlockingClient,
    CallbackClient,
    DeviceClient,
    KatcpClientDisconnected,
    KatcpClientOverflow,
    KatcpTypeError,
    Message,
)
from tests.support.helpers import (
    PATIENCE,
    Recorder,
    TestDevice,
    in_loop,
    start_client,
    texts,
    until_answered,
)
from tests.support.peek import Peek


class Silent(logging.Logger):
    """A logger that formats everything and keeps it to itself."""

    def __init__(self):
        super().__init__("silent", logging.DEBUG)
        self.lines = []

    def handle(self, record):
        self.lines.append((record.levelno, record.getMessage()))


class Listener(BlockingClient):
    """Notes all that no handler takes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = Recorder()

    def unhandled_inform(self, msg):
        if msg.name != "client-connected":
            self.seen(msg)

    def unhandled_reply(self, msg):
        self.seen(msg)


# ---- handlers ----


@pytest.mark.parametrize("cls", [DeviceClient, AsyncClient, CallbackClient, BlockingClient])
def test_messages_go_to_the_handler_of_their_name_else_to_unhandled(device, cls):
    class Mixin:
        def inform_mixed_in(self, msg):
            self.seen("inform_mixed_in", str(msg))

    class Client(Mixin, cls):
        seen = Recorder()

        def inform_two_words(self, msg):
            self.seen("inform_two_words", str(msg))

        def reply_foo(self, msg):
            self.seen("reply_foo", str(msg))

        def request_bar(self, msg):
            self.seen("request_bar", str(msg))

        def unhandled_inform(self, msg):
            self.seen("unhandled_inform", str(msg))

        def unhandled_reply(self, msg):
            self.seen("unhandled_reply", str(msg))

        def unhandled_request(self, msg):
            self.seen("unhandled_request", str(msg))

    client = start_client(device, cls=Client)
    device.send_raw(
        b"#two-words 1\n#mixed-in\n!foo ok\n?bar\n"
        b"#other\n!other ok\n?other\n#Two-Words\n!foo[9] ok\n"
    )
    client.seen.wait(9)
    assert client.seen.calls == [
        ("inform_two_words", "#two-words 1"),
        ("inform_mixed_in", "#mixed-in"),
        ("reply_foo", "!foo ok"),
        ("request_bar", "?bar"),
        ("unhandled_inform", "#other"),
        ("unhandled_reply", "!other ok"),
        ("unhandled_request", "?other"),
        ("unhandled_inform", "#Two-Words"),
        ("reply_foo", "!foo[9] ok"),
    ]


def test_what_handlers_raise_is_logged_and_survived(device, logs):
    class Client(BlockingClient):
        def inform_bad(self, msg):
            raise ValueError("of inform")

        def reply_bad(self, msg):
            raise ValueError("of reply")

        def request_bad(self, msg):
            raise ValueError("of request")

        def unhandled_inform(self, msg):
            if msg.name == "unknown":
                raise ValueError("of fallback")

    client = start_client(device, Client)
    device.send_raw(b"#bad\n!bad ok\n?bad\n#unknown\n")
    for text in ("Inform bad", "Reply bad", "Request bad", "Inform unknown"):
        logged = logs.expect(f"{text} FAIL: Traceback (most recent call last):", logging.ERROR)
        assert "ValueError: of " in logged
    assert until_answered(client)
    assert device.received_requests("bad") == []


def test_tb_limit_limits_the_traceback(device, logs):
    class Client(BlockingClient):
        def inform_deep(self, msg, depth=30):
            if depth:
                return self.inform_deep(msg, depth - 1)
            raise ValueError("deep")

    start_client(device, Client, tb_limit=3)
    device.send_raw(b"#deep\n")
    assert logs.expect("Inform deep FAIL", logging.ERROR).count(", in ") == 3


@pytest.mark.parametrize("style", ["message", "future", "coroutine"])
def test_the_reply_of_a_request_handler_is_sent_with_the_requests_id(device, style):
    class Client(BlockingClient):
        def request_ping(self, msg):
            reply = Message.reply("ping", "ok", *msg.arguments)
            if style == "message":
                return reply
            if style == "future":
                future = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().call_soon(future.set_result, reply)
                return future
            return self.later(reply)

        async def later(self, reply):
            await asyncio.sleep(0)
            return reply

    start_client(device, Client)
    device.send_raw(b"?ping[12] a\n?ping b\n")
    device.wait_until(lambda: len(device.received) >= 2)
    assert [str(msg) for msg in device.received] == ["!ping[12] ok a", "!ping ok b"]


@pytest.mark.parametrize(
    "wrong",
    [
        Message.reply("pong", "ok"),
        Message.inform("ping", "ok"),
        Message.request("ping", "ok"),
        "ok",
    ],
    ids=str,
)
def test_a_wrong_reply_of_a_request_handler_is_logged_and_not_sent(device, logs, wrong):
    class Client(BlockingClient):
        def request_ping(self, msg):
            return wrong

    client = start_client(device, Client)
    device.send_raw(b"?ping\n")
    text = logs.expect("Request ping FAIL: Traceback", logging.ERROR)
    assert "must return a reply of that name" in text
    until_answered(client)
    assert [str(msg.copy()) for msg in device.received] == ["?echo"]


@pytest.mark.parametrize("cls", [DeviceClient, BlockingClient])
def test_a_request_without_handler_is_answered_invalid(device, cls):
    start_client(device, cls)
    device.send_raw(b"?what[3] x\n")
    device.wait_until(lambda: bool(device.received))
    assert [str(msg) for msg in device.received] == [r"!what[3] invalid Unknown\_request."]


class Paused:
    """A handler that answers with a future, which the test resolves."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = Recorder()
        self.futures = Recorder()

    def pause(self, msg):
        future = asyncio.get_running_loop().create_future()
        self.futures(future)
        return future

    inform_slow = reply_slow = request_slow = pause

    def inform_next(self, msg):
        self.seen(str(msg))


@pytest.mark.parametrize(
    ("cls", "line", "pauses"),
    [
        (DeviceClient, b"#slow", True),
        (DeviceClient, b"!slow ok", True),
        (DeviceClient, b"?slow", True),
        (AsyncClient, b"#slow", False),
        (AsyncClient, b"!slow ok", False),
        (AsyncClient, b"?slow", True),
        (BlockingClient, b"#slow", False),
    ],
)
def test_when_reading_pauses_for_a_handler_is_as_in_the_old_client(device, cls, line, pauses):
    class Client(Paused, cls):
        pass

    client = start_client(device, Client)
    device.send_raw(line + b"\n#next\n")
    future = client.futures.wait()[0][0]
    if not pauses:
        client.seen.wait()
    in_loop(client, lambda: asyncio.sleep(0))
    assert len(client.seen.calls) == (0 if pauses else 1)
    in_loop(client, future.set_result, None)
    client.seen.wait()


@pytest.mark.parametrize("cls", [DeviceClient, BlockingClient])
@pytest.mark.parametrize("end", ["stop", "lost"])
def test_a_handler_that_never_ends_holds_up_neither_stop_nor_disconnect(device, cls, end):
    class Client(Paused, cls):
        pass

    client = start_client(device, Client)
    device.send_raw(b"?slow\n")
    client.futures.wait()
    if end == "lost":
        in_loop(client, client.disconnect)
        device.wait_for_connection(2)
        assert client.wait_connected(PATIENCE)
    client.stop()
    assert not client.running()


@pytest.mark.parametrize("cls", [DeviceClient, BlockingClient])
@pytest.mark.parametrize("kind", ["Inform", "Reply", "Request"])
def test_what_awaitables_of_handlers_raise_is_logged_like_the_handlers_own(device, logs, cls, kind):
    class Client(cls):
        async def inform_later(self, msg):
            await asyncio.sleep(0)
            raise ValueError("later")

        reply_later = request_later = inform_later

    client = start_client(device, Client)
    device.send_raw({"Inform": b"#", "Reply": b"!", "Request": b"?"}[kind] + b"later\n")
    assert "ValueError: later" in logs.expect(f"{kind} later FAIL: Traceback", logging.ERROR)
    device.send_raw(b"#x\n")
    assert client.is_connected()


def test_a_handler_may_return_a_future_of_another_thread(device):
    class Client(Paused, DeviceClient):
        def inform_threaded(self, msg):
            self.future = concurrent.futures.Future()
            self.seen("began")
            return self.future

    client = start_client(device, Client)
    device.send_raw(b"#threaded\n#next\n")
    client.seen.wait()
    client.future.set_result(None)
    assert client.seen.wait(2) == [("began",), ("#next",)]


def test_what_handle_message_raises_is_logged(device, logs):
    class Client(BlockingClient):
        def handle_message(self, msg):
            if msg.name == "odd":
                raise ValueError("odd")
            if msg.name == "later":
                return self.later()
            return super().handle_message(msg)

        async def later(self):
            raise ValueError("even later")

    client = start_client(device, Client)
    device.send_raw(b"#odd 1\n#later\n")
    text = "Unhandled exception in handle_message() from {} for message '{}'"
    for message in ("#odd 1", "#later"):
        logs.expect(text.format(client.bind_address_string, message), logging.ERROR)
    assert until_answered(client)


# ---- the greeting ----


@pytest.mark.parametrize(
    ("greeting", "flags", "versions"),
    [
        (b"#version-connect katcp-protocol 5.0-IM", "5.0-IM", {"katcp-protocol": ("5.0-IM",)}),
        (b"#version-connect katcp-protocol 5.1-", "5.1", {"katcp-protocol": ("5.1-",)}),
        (b"#version-connect katcp-protocol 4.9-M", "4.9-M", {"katcp-protocol": ("4.9-M",)}),
        (
            b"#version-connect katcp-device dev-1.0 sn1\n#version-connect katcp-protocol 5.0-I",
            "5.0-I",
            {"katcp-device": ("dev-1.0", "sn1"), "katcp-protocol": ("5.0-I",)},
        ),
        (b"#version x-4.0", "4.0", {}),
        (b"#build-state", "4.0", {}),
        (
            b"#version x\n#version-connect katcp-protocol 5.0-I",
            "5.0-I",
            {"katcp-protocol": ("5.0-I",)},
        ),
        (
            b"#version-connect katcp-protocol 5.0-I\n#version x\n#build-state y",
            "5.0-I",
            {"katcp-protocol": ("5.0-I",)},
        ),
    ],
)
def test_what_greetings_tell(greeting, flags, versions):
    with TestDevice(faults=["no-greeting"]) as device:
        client = start_client(device, wait="connected")
        device.wait_for_client()
        device.send_raw(greeting + b"\n")
        assert client.wait_protocol(PATIENCE)
        reply, _ = client.blocking_request(Message.request("echo"))
        assert reply.reply_ok()
        assert str(client.protocol_flags) == flags
        assert client.versions == versions


def test_versions_may_be_got_as_attributes_and_are_native_text(device):
    client = start_client(device)
    assert isinstance(client.versions["katcp-device"][0], str)
    assert getattr(client.versions, "katcp-device") == client.versions["katcp-device"]


@pytest.mark.parametrize("line", [b"#version-connect", b"#version-connect katcp-protocol"])
def test_a_greeting_with_too_few_arguments_is_ignored(line):
    with TestDevice(faults=["no-greeting"]) as device:
        client = start_client(device, wait="connected")
        device.wait_for_client()
        device.send_raw(line + b"\n")
        until_echoed(client)
        assert client.protocol_flags is None


def until_echoed(client):
    """What the device sent before has been handled."""
    assert client.blocking_request(Message.request("echo"))[0].reply_ok()


def test_a_version_that_cannot_be_understood_is_reported(logs):
    with TestDevice(faults=["bad-version"]) as device:
        client = start_client(device, wait="connected")
        logs.expect("with a katcp protocol version that cannot be understood")
        assert client.wait_protocol(0.01) is False
        until_echoed(client)


def test_a_version_that_changes_on_one_connection_is_adopted_with_a_warning(device, logs):
    client = start_client(device)
    device.send_raw(b"#version-connect katcp-protocol 5.0-M\n")
    until_echoed(client)
    logs.expect("inconsistent with the previously detected version. Previous version: '5.1-BIM'")
    assert client.is_connected()
    assert client.blocking_request(Message.request("echo"))[0].mid is None


def test_a_newer_major_version_is_accepted_with_a_warning(logs):
    with TestDevice(protocol="6.0-IMZ") as device:
        client = start_client(device)
        logs.expect("Server speaks katcp 6.0-IMZ, which is newer than this client knows")
        assert client.blocking_request(Message.request("echo"))[0].mid == b"1"
        assert client.convert_seconds(2) == 2


# ---- lines ----


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (rb"!foo \q", "KatcpSyntaxError: Invalid escape character b'q'."),
        (b"!foo a\\", "KatcpSyntaxError: Escape slash at end of argument."),
        (b"garbage", "KatcpSyntaxError: Bad type character 'g'."),
        (b"#foo[abc]", "KatcpSyntaxError: Bad message name (and possibly id) 'foo[abc]'."),
        (b"#foo a\0", "KatcpSyntaxError: Un-escaped special b'\\x00'."),
        (b"  #foo", "KatcpSyntaxError: Bad type character ' '."),
    ],
)
def test_a_bad_line_is_logged_once_and_nothing_else_is_lost(device, logs, line, error):
    client = start_client(device, Listener)
    device.send_raw(b"#before\n" + line + b"\n#after\n")
    client.seen.wait(2)
    assert texts(client.seen.messages) == ["#before", "#after"]
    text = logs.expect("BAD COMMAND: Traceback", logging.ERROR)
    assert error in text
    assert repr(line)[1:-1] in text


def test_every_error_vector_is_logged_once_and_nothing_is_lost(device):
    vectors = json.loads((Path(__file__).parent.parent / "data/vectors/parse.json").read_text())
    bad = [bytes.fromhex(vector["input_hex"]) for vector in vectors if vector["error"]]
    assert len(bad) > 50
    logger = Silent()
    client = start_client(device, Listener, logger=logger)
    for number, line in enumerate(bad):
        device.send_raw(line + b"#good %d\n" % number)
    client.seen.wait(len(bad))
    until_answered(client)
    assert texts(client.seen.messages) == [f"#good {number}" for number in range(len(bad))]
    errors = [text for level, text in logger.lines if level >= logging.ERROR]
    assert len(errors) == len(bad)
    assert all(text.startswith("BAD COMMAND: Traceback") for text in errors)


def test_empty_and_blank_lines_are_ignored_and_each_terminator_ends_a_line(device):
    client = start_client(device, Listener)
    device.send_raw(b"\n\r\n \t \n#a\r\n#b\r#c\n\n\r#d  x \t y \n")
    client.seen.wait(4)
    assert texts(client.seen.messages) == ["#a", "#b", "#c", "#d x y"]


def test_byte_by_byte_and_a_thousand_in_one_segment(device):
    client = start_client(device, Listener)
    for byte in rb"#one two\_words":
        device.send_raw(bytes([byte]))
    device.send_raw(b"\n" + b"".join(b"#n %d\n" % i for i in range(1000)))
    client.seen.wait(1001)
    assert client.seen.messages[0].arguments == [b"two words"]
    assert [int(msg.arguments[0]) for msg in client.seen.messages[1:]] == list(range(1000))


def test_bytes_that_are_not_text_are_delivered_at_every_log_level(device):
    logger = Silent()
    client = start_client(device, Listener, logger=logger)
    reply, _ = client.blocking_request(Message.request("echo", b"\xff\xfe \0"))
    assert reply.arguments == [b"ok", b"\xff\xfe \0"]
    assert any(
        "received from" in text and repr(r"!echo[1] ok \xff\xfe\_\0") in text
        for _, text in logger.lines
    )


def test_logs_show_traffic_and_never_much_of_one_message(device):
    logger = Silent()
    client = start_client(device, Listener, logger=logger)
    client.blocking_request(Message.request("echo", b"x" * 100_000))
    with pytest.raises(KatcpClientOverflow):
        client.send_message(Message.request("echo", b"y" * 5_000_000))
    device.send_raw(b"#garbled \\q" + b"z" * 100_000 + b"\n")
    address = client.bind_address_string
    sending = f"Sending to {address}: b'?echo[1]"
    assert sum(text.startswith(sending) for _, text in logger.lines) == 1
    assert max(len(text) for _, text in logger.lines) < 4000
    host, port = client.bind_address
    assert (logging.DEBUG, f"Connected to {host}:{port} with client addr") in [
        (level, text.rpartition(" ")[0]) for level, text in logger.lines
    ]


def test_a_half_line_at_the_end_is_dropped_and_logged_once(device, logs):
    client = start_client(device, Listener)
    device.send_raw(b"#whole\n#half a line")
    client.seen.wait()
    device.close_clients()
    logs.expect("Dropped a line of 12 bytes without end")
    device.wait_for_connection(2)
    until_answered(client)
    assert texts(client.seen.messages) == ["#whole"]


@pytest.mark.parametrize("end", ["stop", "disconnect"])
def test_a_half_line_is_not_logged_when_the_client_ends_the_connection(device, end):
    client = start_client(device, Listener)
    device.send_raw(b"#whole\n#half a line")
    client.seen.wait()
    getattr(client, end)()
    if end == "disconnect":
        device.wait_for_connection(2)
        until_answered(client)


def test_whole_lines_that_arrived_before_the_end_are_delivered(device):
    number = 20_000

    class Client(BlockingClient):
        def notify_connected(self, connected):
            self.connected_at = self.informs if hasattr(self, "informs") else None

    client = start_client(device, Client)
    client.auto_reconnect_delay = 1000

    @device.request
    def burst(request):
        request.send_raw(b"".join(b"#burst[1] %d\n" % i for i in range(number)))
        request.reply("ok", number)
        device.close_clients()

    reply, informs = client.blocking_request(Message.request("burst"), timeout=60)
    assert reply.reply_ok()
    assert [int(inform.arguments[0]) for inform in informs] == list(range(number))


def test_what_the_device_said_last_is_delivered_though_the_client_writes_on():
    server = socket.create_server(("127.0.0.1", 0))
    client = Listener(*server.getsockname())
    client.auto_reconnect_delay = 1000
    client.start()
    peer, _ = server.accept()
    assert client.wait_connected(PATIENCE)

    def block_and_write():
        # While the loop is busy the device says goodbye and resets the connection.
        peer.sendall(b"#version-connect katcp-protocol 5.0-M\n#disconnect bye\n")
        peer.close()
        for _ in range(5):
            client.send_message(Message.request("late"))

    in_loop(client, block_and_write)
    assert texts([client.seen.wait()[0][0]]) == ["#disconnect bye"]
    client.stop()
    server.close()


# ---- limits ----


def test_a_line_as_long_as_the_limit_is_delivered(device):
    client = start_client(device, Listener)
    limit = client.MAX_MSG_SIZE
    device.send_raw(b"#long " + b"x" * (limit - 7) + b"\n")
    message = client.seen.wait()[0][0]
    assert len(bytes(message)) == limit - 1


@pytest.mark.parametrize("tail", [b"\n", b"", b"x" * 1000])
def test_a_longer_line_closes_the_connection_and_names_the_limit(device, logs, tail):
    client = start_client(device, Listener)
    limit = client.MAX_MSG_SIZE
    replies = Recorder()
    client.callback_request(Message.request("hold"), replies, timeout=60)
    device.next_held()
    device.send_raw(b"#before\n#long " + b"x" * (limit - 6) + tail)
    reply = replies.wait()[0][0]
    text = f"a line was longer than MAX_MSG_SIZE ({limit} bytes)"
    assert reply.arguments[1].decode() == f"Connection closed before reply was received: {text}"
    assert isinstance(reply.local_error, KatcpClientDisconnected)
    assert isinstance(reply.local_error.__cause__, KatcpClientOverflow)
    logs.expect(f"closed with error KatcpClientOverflow('{text}')")
    for _ in logs.matching("Dropped a line"):
        logs.expect("Dropped a line")
    assert texts(client.seen.messages) == ["#before"]
    until_answered(client)


@pytest.mark.parametrize("where", ["class", "instance", "keyword", "stream"])
def test_limits_are_read_when_they_are_needed(device, logs, where):
    class Client(Listener):
        pass

    kwargs = {"max_msg_size": 4_000_000} if where == "keyword" else {}
    client = start_client(device, Client, **kwargs)
    if where == "class":
        Client.MAX_MSG_SIZE *= 2
        Client.MAX_WRITE_BUFFER_SIZE *= 2
    elif where == "instance":
        client.MAX_MSG_SIZE = client.MAX_WRITE_BUFFER_SIZE = 9_000_000
    elif where == "stream":
        client._stream.max_buffer_size *= 2
        client._stream.max_write_buffer_size *= 2
    data = b"x" * 3_000_000
    device.send_raw(b"#long " + data + b"\n")
    assert client.seen.wait()[0][0].arguments == [data]
    if where != "keyword":
        # More than the limit was, for a device that takes nothing for a while.
        device.pause_reading()
        in_loop(client, lambda: client.send_message(Message.inform("x", b"y" * 5_000_000)) and None)
        assert client.is_connected()


def test_writes_that_pile_up_hit_the_limit(logs):
    with TestDevice(receive_buffer_size=4096) as device:
        client = start_client(device)
        device.pause_reading()
        replies = Recorder()

        def ask_until_it_overflows():
            message = Message.request("silent", b"x" * 2**20)
            for asked in range(1, 100):
                client.callback_request(message.copy(), replies, timeout=60)
                if Peek(client).connection.is_closed:
                    return asked
            return None

        asked = in_loop(client, ask_until_it_overflows)
        # What the kernel took, and four that waited; the next was too much.
        assert 5 <= asked < 99
        reasons = [msg.local_error for (msg,) in replies.wait(asked)]
        assert sum(isinstance(reason, KatcpClientOverflow) for reason in reasons) == 1
        for message in replies.messages:
            assert b"MAX_WRITE_BUFFER_SIZE (4194304 bytes)" in message.arguments[1]
        logs.expect("Could not send to device")
        logs.expect("closed with error KatcpClientOverflow")
        device.resume_reading()
        until_answered(client)


def test_a_limit_that_a_handler_exceeds_is_logged_as_the_cause(device, logs):
    class Client(BlockingClient):
        MAX_WRITE_BUFFER_SIZE = 1000

        def inform_foo(self, msg):
            self.send_message(Message.inform("large", "x" * 1100))

    start_client(device, Client)
    device.send_raw(b"#foo\n")
    logs.expect("Could not send to device")
    logs.expect("Inform foo FAIL", logging.ERROR)
    logs.expect("closed with error KatcpClientOverflow")


# ---- the loop stays free ----


def test_the_loop_is_let_go_whatever_the_server_sends(device):
    class Client(BlockingClient):
        MAX_LOOP_LATENCY = 0.001
        informs = 0
        turns = 0
        flooded = False

        def inform_flood(self, msg):
            self.informs += 1
            if not self.flooded:
                self.flooded = True
                self.ioloop.add_callback(self.count_turn)

        def count_turn(self):
            self.turns += 1
            if self.informs < 50_000:
                self.ioloop.add_callback(self.count_turn)

    client = start_client(device, Client)
    device.send_raw(b"#flood 0123456789\n" * 50_000)
    until_echoed(client)
    assert client.informs == 50_000
    # At least 50 000 informs at a microsecond each, in turns of a millisecond.
    assert client.turns > 20


# ---- sending ----


def test_send_message_sends_any_kind_of_message(device):
    client = start_client(device)
    for msg in (Message.request("echo"), Message.reply("x", "ok"), Message.inform("y", 1)):
        assert client.send_message(msg) is None
    device.wait_until(lambda: len(device.received) == 3)
    assert [str(msg) for msg in device.received] == ["?echo", "!x ok", "#y 1"]


def test_send_message_in_the_loop_returns_a_future_and_send_request_none(device):
    client = start_client(device)

    async def send():
        assert await client.send_message(Message.request("echo")) is None
        assert client.send_request(Message.request("echo")) is None
        return asyncio.isfuture(client.send_message(Message.request("echo")))

    assert in_loop(client, send) is True
    device.wait_for_request("echo", count=3)


def test_messages_of_one_turn_are_sent_in_their_order(device):
    client = start_client(device)

    def send():
        for number in range(200):
            client.send_message(Message.request("echo", number, b"x" * (number * 10)))

    in_loop(client, send)
    device.wait_for_request("echo", count=200)
    sent = [int(msg.arguments[0]) for msg in device.received_requests("echo")]
    assert sent == list(range(200))


def test_sending_into_a_stream_that_is_closed_already_says_not_connected(device):
    client = start_client(device)

    def close_and_send():
        client._stream.close()
        with pytest.raises(KatcpClientDisconnected, match="Not connected to device"):
            client.send_message(Message.request("echo"))
        return client.future_request(Message.request("echo"))

    reply, _ = in_loop(client, close_and_send)
    assert isinstance(reply.local_error, KatcpClientDisconnected)
    until_answered(client)


def test_what_is_no_message_cannot_be_sent(device):
    client = start_client(device)
    for msg in ("?echo", b"?echo", None):
        with pytest.raises(KatcpTypeError, match="Only a Message can be sent"):
            client.send_message(msg)


# ---- hooks replaced on a live object ----


@pytest.mark.parametrize(
    "name",
    ["handle_message", "handle_inform", "unhandled_inform", "notify_connected"],
)
def test_hooks_replaced_on_a_live_object_take_effect(device, name):
    client = start_client(device)
    seen = Recorder()
    setattr(client, name, seen)
    if name == "notify_connected":
        device.close_clients()
        assert seen.wait()[0] == (False,)
    else:
        device.send_raw(b"#hello\n")
        assert texts([seen.wait()[0][0]]) == ["#hello"]


@pytest.mark.parametrize("name", ["handle_reply", "unhandled_reply"])
def test_reply_hooks_replaced_on_a_live_object_take_effect(device, name):
    client = start_client(device)
    seen = Recorder()
    setattr(client, name, seen)
    device.send_raw(b"!hello ok\n")
    assert texts([seen.wait()[0][0]]) == ["!hello ok"]


def test_send_message_replaced_on_a_live_object_takes_effect(device):
    client = start_client(device)
    sent = Recorder()
    original = client.send_message

    def send_message(msg):
        sent(str(msg))
        return original(msg)

    client.send_message = send_message
    assert client.blocking_request(Message.request("echo", 1))[0].reply_ok()
    client.request(Message.request("echo", 2))
    client.send_request(Message.request("echo", 3))
    client.callback_request(Message.request("echo", 4))
    assert [text for (text,) in sent.wait(4)] == [
        "?echo[1] 1",
        "?echo[2] 2",
        "?echo 3",
        "?echo[3] 4",
    ]


def test_handlers_added_to_the_table_take_effect(device):
    class Client(BlockingClient):
        pass

    seen = Recorder()
    client = start_client(device, Client)
    Client._inform_handlers["of-class"] = lambda client, msg: seen(client, str(msg))
    client._inform_handlers["of-object"] = lambda client, msg: seen(client, str(msg))
    device.send_raw(b"#of-class\n#of-object\n")
    assert seen.wait(2) == [(client, "#of-class"), (client, "#of-object")]
    assert "of-class" not in BlockingClient._inform_handlers


def test_a_slow_handler_delays_its_own_client_only(device):
    class Slow(BlockingClient):
        entered, go_on = threading.Event(), threading.Event()

        def inform_slow(self, msg):
            self.entered.set()
            assert self.go_on.wait(PATIENCE)

    slow, other = start_client(device, Slow), start_client(device)
    device.send_raw(b"#slow\n")
    assert slow.entered.wait(PATIENCE)
    began = time.monotonic()
    until_echoed(other)
    assert time.monotonic() - began < PATIENCE
    slow.go_on.set()


def test_importing_the_old_paths():
    assert katcp.core.Message is katcp.Message
    assert katcp.client.request_check is katcp.request_check
