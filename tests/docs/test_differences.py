"""Differences from katcp 0.9 that no room's own tests prove.

The page docs/explanation/differences.rst names a test for each difference,
and tests/docs/test_docs.py checks that it does. What the plan of this package asks
for in numbered items stands there under these names:

==  ===========================================================================
 1  stop-waits, stop-cuts, stop-again, stop-start, stop-timeout
 2  local-failure-type, local-failure-id, local-error
 3  protocol-per-connection, another-version, both-greetings, bad-version, flags-as-text
 4  reply-without-id, same-message-again, explicit-id-pending, id-range,
    automatic-id-skips, name-mismatch, internal-number
 5  late-reply, unclaimed-reply
 6  last-lines
 7  debug-log, log-length, connect-log
 8  no-reconnect-refused, no-reconnect-lost
 9  reconnect-delay, connect-timeout, keepalive, resolver
10  before-start, after-stop, wrong-thread, wait-in-loop, start-twice, wrong-type,
    fork, convert-seconds, until-disconnected
11  overflow-raises, overflow-reason
12  request-returns, request-check-mid, request-check-bytes
13  timeout-argument, async-methods
14  unknown-request, request-coroutine, awaitable-errors
15  no-docstring
==  ===========================================================================
"""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from tornado.ioloop import IOLoop

import katcp
from katcp import (
    AsyncClient,
    BlockingClient,
    KatcpClientDisconnected,
    KatcpThreadError,
    KatcpVersionError,
    Message,
    ProtocolFlags,
)
from tests.support.helpers import (
    PATIENCE,
    Recorder,
    TestDevice,
    closed_port,
    in_loop,
    start_client,
    until_answered,
)


class Listener(BlockingClient):
    """Notes the replies that no handler takes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = Recorder()

    def unhandled_reply(self, msg):
        self.seen(str(msg))


def test_until_disconnected_resolves_when_the_connection_is_lost(device, ioloop):
    """until-disconnected"""
    client = AsyncClient(*device.address)
    client.set_ioloop(ioloop)
    client.auto_reconnect_delay = 1000

    async def use():
        client.start()
        await client.until_connected()
        device.wait_for_client()
        disconnected = client.until_disconnected(timeout=PATIENCE)
        assert not disconnected.done()
        device.close_clients()
        assert await disconnected is None
        assert not client.is_connected()
        client.stop()
        await client.until_stopped()

    ioloop.run_sync(use, timeout=PATIENCE)


def test_until_x_before_start_of_a_managed_client_is_refused_at_once():
    """until-before-start"""
    client = AsyncClient("127.0.0.1", 1)
    for name in ("running", "connected", "disconnected", "protocol", "stopped"):
        with pytest.raises(KatcpThreadError, match=rf"Call start\(\) before until_{name}\(\)"):
            getattr(client, f"until_{name}")()


def test_misuse_is_refused_also_under_python_without_asserts(device):
    """before-start, after-stop, wrong-thread, wait-in-loop, wrong-type: the same under -O."""
    program = f"""
import katcp

msg = katcp.Message.request("echo")
client = katcp.AsyncClient({device.address[0]!r}, {device.address[1]})

def refused(call, *args):
    try:
        call(*args)
    except (RuntimeError, TypeError) as error:
        print(type(error).__name__, str(error).partition(".")[0].partition(", use ")[0])
    else:
        print("not refused")

refused(client.request, msg)
client.start()
assert False, "asserts are on"
client.wait_protocol({PATIENCE})
refused(client.start)
refused(client.request, msg)
refused(client.future_request, msg)
refused(client.callback_request, katcp.Message.inform("echo"))
client.ioloop.add_callback(refused, client.blocking_request, msg)
client.ioloop.add_callback(refused, client.wait_connected)
client.blocking_request(msg)
client.stop()
refused(client.request, msg)
"""
    done = subprocess.run(
        [sys.executable, "-O", "-c", program], capture_output=True, timeout=60, check=False
    )
    assert done.stderr == b""
    assert done.stdout.decode().splitlines() == [
        "KatcpUsageError Call start() before request()",
        "KatcpUsageError Device client already started",
        "KatcpThreadError request() must be called in the thread of the ioloop",
        "KatcpThreadError future_request() must be called in the thread of the ioloop",
        "KatcpTypeError The message 'echo' is not a request but an inform",
        "KatcpThreadError Cannot call blocking_request() in ioloop",
        "KatcpThreadError Cannot call wait_connected() in ioloop",
        "KatcpUsageError The client is stopped: call start() before request()",
    ]


@pytest.mark.parametrize("mid", [None, 5])
def test_a_local_failure_carries_the_id_of_its_request_or_none(logs, mid):
    """local-failure-id"""
    client = BlockingClient("127.0.0.1", closed_port())
    client.auto_reconnect_delay = 1000
    client.preset_protocol_flags(ProtocolFlags(5, 0, "M" if mid is None else "IM"))
    client.start()
    logs.expect("Failed to connect")
    reply, _ = client.blocking_request(Message.request("foo", mid=mid))
    assert isinstance(reply.local_error, KatcpClientDisconnected)
    head = "!foo" if mid is None else "!foo[5]"
    host, port = client.bind_address
    assert str(reply) == rf"{head} fail Not\_connected\_to\_device\_{host}:{port}"
    client.stop()


def test_a_refused_id_is_not_used_up(device_v4):
    """id-not-used-up"""
    client = start_client(device_v4)
    for _ in range(3):
        with pytest.raises(KatcpVersionError, match="Message IDs not supported by server"):
            client.request(Message.request("echo"), use_mid=True)
    device_v4.protocol = "5.1-MIB"
    device_v4.close_clients()
    device_v4.wait_for_connection(2)
    reply, _ = client.blocking_request(Message.request("count", 0))
    while reply.mid is None:
        reply, _ = client.blocking_request(Message.request("count", 0))
    assert reply.mid == b"1"


def test_an_id_that_the_client_gave_is_taken_away_for_a_device_without(device):
    """same-message-again"""
    client = start_client(device)
    own, chosen = Message.request("echo"), Message.request("echo", mid=77)
    for msg in (own, chosen):
        assert client.blocking_request(msg)[0].reply_ok()
    assert own.mid is not None
    device.protocol = "4"
    device.close_clients()
    device.wait_for_connection(2)
    until_answered(client)
    reply, _ = client.blocking_request(own)
    assert (reply.reply_ok(), reply.mid, own.mid) == (True, None, None)
    reply, _ = client.blocking_request(chosen)
    assert isinstance(reply.local_error, KatcpVersionError)
    assert chosen.mid == b"77"


def test_a_reply_with_an_id_does_not_answer_a_request_without_one(device_v4):
    """internal-number"""
    client = start_client(device_v4, Listener)
    replies = Recorder()
    client.callback_request(Message.request("hold"), replies)
    held = device_v4.next_held()
    device_v4.send_raw(b"".join(b"!hold[%d] ok\n" % number for number in range(1, 10)))
    held.reply("ok", "mine")
    assert str(replies.wait()[0][0]) == "!hold ok mine"
    assert client.seen.wait(9) == [(f"!hold[{number}] ok",) for number in range(1, 10)]


@pytest.mark.parametrize("mid", [b"0", b"007", b"2147483648"])
def test_received_ids_outside_the_protocol_make_the_line_an_error(device, logs, mid):
    """received-ids"""
    client = start_client(device, Listener)
    device.send_raw(b"!foo[%s] ok\n!foo[2147483647] ok\n" % mid)
    assert client.seen.wait() == [("!foo[2147483647] ok",)]
    assert f"!foo[{mid.decode()}] ok" in logs.expect("BAD COMMAND", logging.ERROR)


@pytest.mark.parametrize("kind", ["callback", "blocking"])
def test_the_last_lines_come_first_then_notify_then_the_pending_requests(device, kind):
    """last-lines"""
    order = []

    class Client(BlockingClient):
        def notify_connected(self, connected):
            order.append(connected)

        def inform_last(self, msg):
            order.append(msg.arguments[0])

    client = start_client(device, Client)
    client.auto_reconnect_delay = 1000
    order.clear()

    @device.request
    def leave(request):
        device.send_raw(b"".join(b"#last %d\n" % number for number in range(3000)))
        device.close_clients()

    ended = Recorder()
    if kind == "callback":
        client.callback_request(
            Message.request("leave"), lambda msg: ended(order.append(msg.name)), timeout=60
        )
        ended.wait()
    else:
        reply, _ = client.blocking_request(Message.request("leave"), timeout=60)
        order.append(reply.name)
    assert order == [*(b"%d" % number for number in range(3000)), False, "leave"]


def test_an_overflow_is_logged_once_by_the_client_and_by_nobody_else(device, logs):
    """overflow-log"""
    client = start_client(device, max_msg_size=1000, max_write_buffer_size=1000)
    before = len(logs.records)
    device.send_raw(b"#long " + b"x" * 2000 + b"\n")
    device.wait_for_connection(2)
    until_answered(client)
    reply, _ = client.blocking_request(Message.request("echo", b"x" * 2000))
    assert not reply.reply_ok()
    device.wait_for_connection(3)
    until_answered(client)
    server = client.bind_address_string
    warnings = [r for r in logs.records[before:] if r.levelno >= logging.WARNING]
    assert {record.name for record in warnings} == {"katcp.client"}
    assert all(len(logs.text_of(record)) < 1500 for record in warnings)
    for text in (
        f"Client stream for server {server} closed with error KatcpClientOverflow('a line",
        f"Could not send to device {server}: more than MAX_WRITE_BUFFER_SIZE (1000 bytes)",
        f"Client stream for server {server} closed with error KatcpClientOverflow('more than",
    ):
        assert logs.expect(text).startswith(text)
    # How much of the line had arrived by then, is another difference.
    assert all(logs.text_of(r).startswith("Dropped a line of ") for r in logs.unexpected())
    for record in logs.unexpected():
        logs.records.remove(record)


def test_a_connect_failure_without_reconnect_shows_no_traceback(logs):
    """connect-log, no-reconnect-refused"""
    client = BlockingClient("127.0.0.1", closed_port(), auto_reconnect=False)
    client.start()
    client.join(PATIENCE)
    assert not client.running()
    warnings = logs.unexpected()
    assert [record.name for record in warnings] == ["katcp.client"]
    assert "Traceback" not in logs.expect("Failed to connect to ")


def test_a_change_of_reason_is_logged_again(logs):
    """connect-log"""
    client = BlockingClient("127.0.0.1", closed_port())
    client.auto_reconnect_delay = client.auto_reconnect_max_delay = 0.001
    client.start()
    assert "Connection refused" in logs.expect("Failed to connect to ('127.0.0.1'")
    # Programs do this, and a device may be moved.
    in_loop(client, setattr, client, "_bindaddr", ("nosuchhost.invalid", 1))
    assert "refused" not in logs.expect("Failed to connect to ('nosuchhost.invalid', 1): ")
    client.stop()


def test_no_logger_is_the_default_one(device, logs):
    """no-logger"""
    client = start_client(device, logger=None)
    device.send_raw(b"garbage\n")
    until_answered(client)
    assert [record.name for record in logs.matching("BAD COMMAND")] == ["katcp.client"]
    logs.expect("BAD COMMAND", logging.ERROR)


def test_a_managed_ioloop_leaves_the_current_one_alone(device, ioloop):
    """not-current"""

    async def use():
        client = start_client(device)
        assert IOLoop.current() is not client.ioloop
        return IOLoop.current()

    assert ioloop.run_sync(use) is ioloop


def test_request_check_forwards_its_id_and_keeps_the_arguments(device):
    """request-check-mid"""
    client = start_client(device)
    reply, _ = katcp.request_check(client, ValueError, "echo", "a", 1, mid=31)
    assert str(reply) == "!echo[31] ok a 1"
    assert str(device.wait_for_request("echo")) == "?echo[31] a 1"


@pytest.mark.parametrize("flags", ["IMTB", "M", "", "Z", "IZ"])
def test_no_flags_of_a_device_are_refused(flags):
    """bad-version"""
    with TestDevice(faults=["no-greeting"]) as device:
        client = start_client(device, wait="connected")
        device.wait_for_client()
        device.send_raw(b"#version-connect katcp-protocol 5.0-%s\n" % flags.encode())
        assert client.wait_protocol(PATIENCE)
        assert client.protocol_flags.flags == {bytes([letter]) for letter in flags.encode()}
        reply, _ = client.blocking_request(Message.request("echo"))
        assert (reply.mid is not None) == ("I" in flags)
