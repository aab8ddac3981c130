"""The life of a client: start, connect, reconnect, wait, stop; threads and misuse."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from tornado.gen import TimeoutError as GenTimeoutError
from tornado.ioloop import IOLoop

import katcp
from katcp import (
    AsyncClient,
    BlockingClient,
    CallbackClient,
    DeviceClient,
    KatcpClientDisconnected,
    KatcpClientStopped,
    KatcpThreadError,
    KatcpTypeError,
    KatcpUsageError,
    Message,
    ProtocolFlags,
    make_threadsafe,
    make_threadsafe_blocking,
)
from katcp._state.lifecycle import EVENT_NAMES, State
from katcp.ioloop_manager import IOLoopManager
from tests.support.helpers import (
    PATIENCE,
    Recorder,
    TestDevice,
    closed_port,
    current_loop,
    in_loop,
    start_client,
    until_answered,
)
from tests.support.peek import Peek, watched_states

CLASSES = [DeviceClient, AsyncClient, CallbackClient, BlockingClient]


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def any_class(request):
    return request.param


def full_backlog():
    """Return listening sockets of one port that answer no connection any more."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    waiting = []
    for _ in range(3):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(server.getsockname())
        waiting.append(sock)
    return [server, *waiting]


# ---- before the start ----


def test_what_a_new_client_looks_like(any_class):
    client = any_class("127.0.0.1", 7147)
    assert client.bind_address == ("127.0.0.1", 7147)
    assert client.bind_address_string == "127.0.0.1:7147"
    assert client.sockname == ("127.0.0.1", -1)
    assert client.sockname_string == "127.0.0.1:-1"
    assert client.protocol_flags is None
    assert client.versions == {}
    assert client.ioloop is None
    assert client.last_connect_time is None
    assert client.auto_reconnect_delay == 0.5
    assert client.auto_reconnect_max_delay == 5.0
    assert not client.running()
    assert not client.is_connected()
    assert client.threadsafe == issubclass(any_class, CallbackClient)
    assert (client.MAX_MSG_SIZE, client.MAX_WRITE_BUFFER_SIZE) == (2097152, 4194304)
    assert client.MAX_LOOP_LATENCY == 0.03


@pytest.mark.parametrize("host", ["", None])
def test_no_host_means_every_address(host):
    assert BlockingClient(host, 7147).bind_address == ("0.0.0.0", 7147)


def test_the_port_may_be_text():
    assert BlockingClient("localhost", "7147").bind_address == ("localhost", 7147)


@pytest.mark.parametrize("port", ["seven", None, -1, 65536])
def test_a_bad_port_is_refused_at_once(port):
    with pytest.raises(KatcpTypeError, match="A port must be"):
        BlockingClient("localhost", port)


@pytest.mark.parametrize("host", [7147, ("localhost", 7147), ["localhost"]])
def test_a_bad_host_is_refused_at_once(host):
    with pytest.raises(KatcpTypeError, match="A host must be a str, not"):
        BlockingClient(host, 7147)


@pytest.mark.parametrize("cls", [AsyncClient, CallbackClient, BlockingClient])
def test_a_bad_timeout_is_refused_at_once(cls):
    with pytest.raises(KatcpTypeError, match="A timeout must be a number of seconds, not '5'"):
        cls("localhost", 7147, timeout="5")


def test_limits_may_be_set_per_client():
    client = BlockingClient("localhost", 1, max_msg_size=10, max_write_buffer_size=20)
    assert (client.MAX_MSG_SIZE, client.MAX_WRITE_BUFFER_SIZE) == (10, 20)
    assert (BlockingClient.MAX_MSG_SIZE, DeviceClient.MAX_MSG_SIZE) == (2097152, 2097152)


def test_before_start_everything_says_call_start_first(any_class):
    client = any_class("127.0.0.1", 7147)
    msg = Message.request("foo")
    for name, args in [
        ("stop", ()),
        ("wait_running", (1,)),
        ("wait_connected", (1,)),
        ("wait_disconnected", (1,)),
        ("wait_protocol", (1,)),
        ("send_message", (msg,)),
        ("send_request", (msg,)),
        ("request", (msg,)),
    ]:
        with pytest.raises(RuntimeError, match=rf"Call start\(\) before {name}\(\)"):
            getattr(client, name)(*args)
    for name in ("running", "connected", "disconnected", "protocol", "stopped"):
        with pytest.raises(RuntimeError, match=rf"Call start\(\) before until_{name}\(\)"):
            getattr(client, f"until_{name}")()
    with pytest.raises(RuntimeError, match="Cannot join if not started"):
        client.join()


# ---- start and stop, managed ----


def test_start_and_stop_with_a_managed_ioloop(any_class, device):
    client = start_client(device, any_class)
    assert client.running()
    assert client.is_connected()
    assert client.sockname[1] > 0
    assert client.ioloop_thread_id != threading.get_ident()
    assert abs(client.last_connect_time - client.ioloop.time()) < PATIENCE
    thread_count = threading.active_count()
    assert client.stop() is None
    assert threading.active_count() == thread_count - 1
    assert not client.running()
    assert not client.is_connected()
    assert client.join() is None
    assert str(client.protocol_flags) == "5.1-BIM"
    assert client.versions["katcp-protocol"] == ("5.1-BIM",)


def test_a_second_stop_does_nothing(any_class, device):
    client = start_client(device, any_class)
    client.stop()
    client.stop()
    client.stop(timeout=1)


def test_start_after_stop_makes_a_new_ioloop_and_thread(any_class, device):
    client = start_client(device, any_class)
    loop = client.ioloop
    client.stop()
    client.start()
    assert client.ioloop is not loop
    assert client.wait_protocol(PATIENCE)


def test_a_second_start_is_refused_however_soon_it_comes(any_class, device):
    client = any_class(*device.address)
    client.start()
    with pytest.raises(RuntimeError, match=r"Device client already started\."):
        client.start()
    assert client.wait_connected(PATIENCE)
    with pytest.raises(RuntimeError, match=r"Device client already started\."):
        client.start()
    device.wait_for_connection(1)
    client.stop()
    assert device.connection_count == 1


def test_many_threads_that_start_at_once_make_one_run(device):
    client = BlockingClient(*device.address)
    outcomes = Recorder()

    def start():
        try:
            client.start()
            outcomes("started")
        except RuntimeError as error:
            outcomes(str(error))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.stop()
    assert sorted(outcome for (outcome,) in outcomes.calls) == (
        ["Device client already started."] * 7 + ["started"]
    )


@pytest.mark.parametrize("has_run", [False, True])
def test_a_start_without_a_thread_leaves_the_client_stopped_and_usable(
    any_class, device, monkeypatch, has_run
):
    def start(thread):
        raise RuntimeError("can't start new thread")

    client = any_class(*device.address)
    device.started_clients.append(client)
    if has_run:
        client.start()
        client.stop()
    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", start)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                client.start()
            assert not client.running()
            client.stop()
            client.join()
            client.stop(timeout=1)
        with pytest.raises(KatcpUsageError, match=r"start\(\) before wait_running\(\)"):
            client.wait_running(PATIENCE)
    client.start()
    assert client.wait_protocol(PATIENCE)


def test_start_with_a_timeout_waits_until_it_runs(device):
    client = BlockingClient(*device.address)
    assert client.start(timeout=PATIENCE) is None
    assert client.running()
    client.stop()


def test_stop_right_after_start(any_class, device):
    for _ in range(20):
        client = any_class(*device.address)
        client.start()
        client.stop()
        assert not client.running()


def test_stop_in_the_managed_ioloops_own_thread(device):
    client = start_client(device)
    stopped = Recorder()
    client.callback_request(Message.request("echo"), lambda msg: stopped(client.stop()))
    assert stopped.wait() == [(None,)]
    client.join(PATIENCE)
    assert not client.running()
    client.start()
    assert client.wait_connected(PATIENCE)


def test_join_in_the_managed_ioloops_own_thread_is_refused(device):
    client = start_client(device)
    with pytest.raises(RuntimeError, match="cannot join current thread"):
        in_loop(client, client.join)


def test_join_with_a_timeout_returns_while_the_client_runs(device):
    client = start_client(device)
    assert client.join(0.01) is None
    assert client.running()


def test_stop_cuts_a_connect_that_hangs():
    sockets = full_backlog()
    client = BlockingClient(*sockets[0].getsockname())
    client.start()
    assert client.wait_running(PATIENCE)
    client.stop()
    assert not client.running()
    for sock in sockets:
        sock.close()


def test_stop_cuts_the_delay_before_a_reconnect(logs):
    client = BlockingClient("127.0.0.1", closed_port())
    client.auto_reconnect_delay = 1000
    client.start()
    logs.expect("Failed to connect")
    client.stop(timeout=PATIENCE)
    assert not client.running()


def test_stop_that_takes_too_long_returns_and_says_so(device, logs):
    class Client(BlockingClient):
        busy, go_on = threading.Event(), threading.Event()

        def inform_busy(self, msg):
            self.busy.set()
            self.go_on.wait(PATIENCE)

    client = start_client(device, Client)
    device.inform(Message.inform("busy"))
    assert client.busy.wait(PATIENCE)
    client.stop(timeout=0.01)
    logs.expect("The client has not stopped within 0.01 seconds")
    client.go_on.set()
    client.join(PATIENCE)
    assert not client.running()


def test_a_hundred_cycles_leave_no_thread_and_no_descriptor(device):
    client = start_client(device)
    client.stop()
    device.wait_for_client(0)
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        client.start()
        client.stop()
    device.wait_for_client(0)
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_a_managed_ioloop_is_never_current_in_the_makers_thread(device):
    asyncio.set_event_loop(None)
    client = start_client(device)
    assert current_loop() is None
    assert in_loop(client, IOLoop.current) is client.ioloop


def test_an_ioloop_that_is_stopped_behind_its_back_ends_the_client(device):
    client = start_client(device)
    outcome = Recorder()
    thread = threading.Thread(
        target=lambda: outcome(*client.blocking_request(Message.request("hold"), timeout=60))
    )
    thread.start()
    device.next_held()
    client.ioloop.add_callback(client.ioloop.stop)
    error = outcome.wait()[0][0].local_error
    assert isinstance(error, (KatcpClientDisconnected, KatcpClientStopped))
    thread.join()
    client.join(PATIENCE)
    assert not client.running()
    assert not client.is_connected()


# ---- a shared ioloop ----


def run(ioloop, function):
    """Run a coroutine function in the loop."""
    return ioloop.run_sync(function, timeout=PATIENCE)


def test_start_and_stop_in_a_shared_ioloop(any_class, device, ioloop):
    client = any_class(*device.address)
    client.set_ioloop(ioloop)

    async def use():
        client.start()
        assert client.ioloop is ioloop
        assert not client.running()
        assert await client.until_running() is True
        assert await client.until_connected() is None
        assert await client.until_protocol() is None
        assert client.stop() is None
        assert await client.until_stopped() is True
        assert client.is_connected() is client.running() is False
        assert await client.until_disconnected() is None
        client.stop()
        client.start()
        await client.until_connected()
        client.stop()
        await client.until_stopped()

    run(ioloop, use)
    assert client.join() is None


def test_set_ioloop_without_argument_takes_the_current_one_at_start(device, ioloop):
    client = AsyncClient(*device.address)
    client.set_ioloop()

    async def use():
        assert client.ioloop is None
        client.start()
        assert client.ioloop is IOLoop.current()
        await client.until_connected()
        client.stop()
        await client.until_stopped()

    run(ioloop, use)


def test_set_ioloop_twice_or_after_start_is_refused(device, ioloop):
    client = AsyncClient(*device.address)
    client.set_ioloop(ioloop)
    with pytest.raises(RuntimeError, match="IOLoop instance already set"):
        client.set_ioloop(ioloop)
    managed = start_client(device)
    with pytest.raises(RuntimeError, match="IOLoop instance already set"):
        managed.set_ioloop(ioloop)


def test_until_running_before_start_resolves_after_it(device, ioloop):
    client = AsyncClient(*device.address)
    client.set_ioloop(ioloop)

    async def use():
        running, stopped = client.until_running(), client.until_stopped()
        assert await stopped is True
        client.start()
        assert await running is True
        client.stop()
        await client.until_stopped()

    run(ioloop, use)


@pytest.mark.parametrize("event", ["running", "connected", "protocol", "stopped"])
def test_until_x_fails_after_its_timeout(ioloop, event, logs):
    client = AsyncClient("127.0.0.1", closed_port())
    client.set_ioloop(ioloop)
    client.auto_reconnect_delay = 1000

    async def use():
        if event != "running":
            client.start()
        with pytest.raises(GenTimeoutError, match="Timeout"):
            await getattr(client, f"until_{event}")(timeout=0.01)
        if event != "running":
            while not Peek(client).connect_failures:
                await asyncio.sleep(0.001)
            client.stop()
            await client.until_stopped()
            logs.expect("Failed to connect")

    run(ioloop, use)


def test_until_x_fails_when_the_client_stops(ioloop, logs):
    client = AsyncClient("127.0.0.1", closed_port())
    client.set_ioloop(ioloop)

    async def use():
        client.start()
        futures = [client.until_connected(), client.until_protocol()]
        await client.until_running()
        client.stop()
        await client.until_stopped()
        for future in futures:
            with pytest.raises(KatcpClientStopped):
                await future

    run(ioloop, use)
    assert len(logs.matching("Failed to connect")) <= 1
    for _ in logs.matching("Failed to connect"):
        logs.expect("Failed to connect")


def test_until_x_in_another_thread_is_refused(device):
    client = start_client(device)
    for name in ("running", "connected", "disconnected", "protocol", "stopped"):
        with pytest.raises(KatcpThreadError, match=rf"until_{name}\(\) must be called in"):
            getattr(client, f"until_{name}")()


def test_stop_of_a_shared_ioloops_client_from_another_thread_waits(device, ioloop):
    client = CallbackClient(*device.address)
    client.set_ioloop(ioloop)
    ended = Recorder()

    def use():
        assert client.wait_protocol(PATIENCE)
        client.stop()
        ended(client.running(), client.is_connected())
        client.stop()
        ioloop.add_callback(ioloop.stop)

    client.start()
    thread = threading.Thread(target=use)
    thread.start()
    ioloop.start()
    thread.join()
    assert ended.calls == [(False, False)]


def test_stop_right_after_start_waits_for_a_shared_ioloop_that_runs(device):
    manager = IOLoopManager()
    manager.start()
    client = CallbackClient(*device.address)
    client.set_ioloop(manager.get_ioloop())
    busy = threading.Event()
    manager.get_ioloop().add_callback(busy.wait)
    client.start()
    threading.Timer(0.05, busy.set).start()
    client.stop(PATIENCE)
    # Only a client that has stopped can be started.
    client.start()
    client.stop(PATIENCE)
    manager.stop()
    manager.join()


def test_start_in_a_shared_ioloop_that_does_not_run_times_out(device, ioloop):
    client = CallbackClient(*device.address)
    client.set_ioloop(ioloop)
    client.start(timeout=0.01)
    assert not client.running()
    client.stop()
    run(ioloop, client.until_stopped)


def test_a_shared_ioloop_that_was_closed_wakes_the_threads_that_wait(device):
    ioloop = IOLoop(make_current=False)
    client = CallbackClient(*device.address)
    client.set_ioloop(ioloop)
    client.start()
    outcomes = Recorder()

    def ask():
        assert client.wait_protocol(PATIENCE)
        outcomes(*client.blocking_request(Message.request("hold"), timeout=60))
        outcomes(client.wait_disconnected(PATIENCE))

    thread = threading.Thread(target=ask)
    thread.start()
    hold = threading.Thread(target=lambda: (device.next_held(), ioloop.add_callback(ioloop.stop)))
    hold.start()
    ioloop.start()
    hold.join()
    reply, _ = outcomes.wait()[0]
    assert isinstance(reply.local_error, KatcpClientStopped)
    thread.join()
    # The client is told to stop when its loop goes on; nobody is left waiting.
    client.stop()
    run(ioloop, client.until_stopped)
    ioloop.close()


def test_a_closed_ioloop_ends_its_client_and_takes_no_other(device):
    ioloop = IOLoop(make_current=False)
    client = CallbackClient(*device.address)
    client.set_ioloop(ioloop)
    client.start()
    ended = Recorder()
    run(ioloop, client.until_protocol)

    async def ask():
        client.callback_request(Message.request("hold"), ended, timeout=60)
        device.next_held()

    run(ioloop, ask)
    ioloop.close()
    with pytest.raises(KatcpUsageError, match="The ioloop is closed"):
        in_thread(client.send_message, Message.request("echo"))
    in_thread(client.stop)
    assert isinstance(ended.wait()[0][0].local_error, KatcpClientStopped)
    assert not client.running()
    assert not client.is_connected()
    with pytest.raises(KatcpUsageError, match="The ioloop is closed"):
        client.start()
    assert not client.running()


def in_thread(function, *args):
    """Call *function* in a thread of its own and return or raise its outcome."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result(PATIENCE)


def test_stop_while_the_shared_ioloop_rests_says_so(device, ioloop, logs):
    client = CallbackClient(*device.address)
    client.set_ioloop(ioloop)
    client.start()
    run(ioloop, client.until_protocol)
    in_thread(client.stop)
    logs.expect("The ioloop does not run: the client stops when it does")
    assert client.running()
    run(ioloop, client.until_stopped)


def test_two_clients_share_the_ioloop_of_a_managed_one(device):
    first = start_client(device)
    second = CallbackClient(*device.address)
    second.set_ioloop(first.ioloop)
    second.start()
    assert second.wait_protocol(PATIENCE)
    assert second.blocking_request(Message.request("echo"))[0].reply_ok()
    second.stop()
    assert first.blocking_request(Message.request("echo"))[0].reply_ok()


# ---- waiting ----


def test_wait_x_returns_whether_it_is_so(device):
    client = start_client(device)
    for name, holds in [
        ("running", True),
        ("connected", True),
        ("protocol", True),
        ("disconnected", False),
    ]:
        for timeout in (0.01, 0, -1):
            assert getattr(client, f"wait_{name}")(timeout) is holds


def test_wait_x_returns_false_after_its_timeout_and_leaves_nothing(logs):
    client = BlockingClient("127.0.0.1", closed_port())
    client.auto_reconnect_delay = 1000
    client.start()
    logs.expect("Failed to connect")
    for _ in range(3):
        assert client.wait_connected(0.001) is False
        assert client.wait_protocol(timeout=0.001) is False
    in_loop(client, lambda: asyncio.sleep(0.01))
    assert all(not event._waiting for event in Peek(client).events.values())
    client.stop()


def test_wait_connected_right_after_start(device):
    client = BlockingClient(*device.address)
    client.start()
    assert client.wait_connected(PATIENCE) is True
    client.stop()


def test_wait_disconnected_wakes_when_the_connection_is_lost(device):
    client = start_client(device)
    client.auto_reconnect_delay = 1000
    outcome = Recorder()
    thread = threading.Thread(target=lambda: outcome(client.wait_disconnected(PATIENCE)))
    thread.start()
    device.close_clients()
    assert outcome.wait() == [(True,)]
    thread.join()


@pytest.mark.parametrize("event", ["running", "connected", "protocol"])
def test_stop_wakes_the_threads_that_wait(event, logs):
    client = BlockingClient("127.0.0.1", closed_port())
    client.auto_reconnect_delay = 1000
    client.start()
    logs.expect("Failed to connect")
    if event == "running":
        client.stop()
        return
    outcome = Recorder()
    waiting = Peek(client).events[event]
    thread = threading.Thread(target=lambda: outcome(getattr(client, f"wait_{event}")()))
    thread.start()
    while not in_loop(client, lambda: bool(waiting._waiting)):
        pass
    client.stop()
    assert outcome.wait() == [(False,)]
    thread.join()


@pytest.mark.parametrize("event", ["running", "connected", "disconnected", "protocol"])
def test_wait_x_in_the_ioloop_is_refused(device, event):
    client = start_client(device)
    text = rf"Cannot call wait_{event}\(\) in ioloop, use until_{event}\(\)"
    with pytest.raises(KatcpThreadError, match=text):
        in_loop(client, getattr(client, f"wait_{event}"), 1)


@pytest.mark.parametrize("event", ["running", "connected", "protocol"])
def test_wait_x_after_stop_says_so(event, logs):
    client = BlockingClient("127.0.0.1", closed_port())
    client.start()
    client.stop()
    with pytest.raises(KatcpUsageError, match="The client is stopped"):
        getattr(client, f"wait_{event}")(1)
    assert client.wait_disconnected(1) is True
    for _ in logs.matching("Failed to connect"):
        logs.expect("Failed to connect")


# ---- connecting and reconnecting ----


def test_it_connects_by_name_and_by_ipv6(logs):
    with TestDevice(host="::1") as device:
        assert start_client(device).sockname[0] == "::1"
    with TestDevice() as device:
        client = BlockingClient("localhost", device.address[1])
        client.start()
        assert client.wait_protocol(PATIENCE)
        client.stop()


def test_socket_options(device):
    client = start_client(device)
    sock = client._stream.socket
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_failing_to_connect_is_logged_once_per_reason(logs):
    port = closed_port()
    client = BlockingClient("127.0.0.1", port)
    client.auto_reconnect_delay = client.auto_reconnect_max_delay = 0.001
    client.start()
    text = logs.expect(f"Failed to connect to ('127.0.0.1', {port}): ")
    assert "Connection refused" in text
    assert "Traceback" not in text
    while in_loop(client, lambda: Peek(client).connect_failures) < 7:
        pass
    assert not logs.matching("Failed to connect")
    with TestDevice(port=port) as device:
        assert client.wait_connected(PATIENCE)
        logs.expect(f"Reconnected to 127.0.0.1:{port}")
        device.disconnect_clients()
        client.stop()


def test_failures_of_the_last_run_do_not_count(logs):
    port = closed_port()
    client = BlockingClient("127.0.0.1", port)
    client.auto_reconnect_delay = client.auto_reconnect_max_delay = 0.001
    for _ in range(2):
        client.start()
        logs.expect("Failed to connect")
        while in_loop(client, lambda: Peek(client).connect_failures) < 7:
            pass
        client.stop()
    with TestDevice(port=port):
        client.start()
        assert client.wait_protocol(PATIENCE)
        client.stop()
    assert not logs.matching("Reconnected to")


def test_an_unknown_host_is_a_reason_like_any_other(logs):
    client = BlockingClient("nosuchhost.invalid", 7147)
    client.auto_reconnect_delay = 1000
    client.start()
    assert "Failed to connect to ('nosuchhost.invalid', 7147)" in logs.expect("Failed to connect")
    client.stop()


def test_it_reconnects_after_the_connection_was_lost(device):
    client = start_client(device)
    for count in (2, 3):
        device.close_clients()
        device.wait_for_connection(count)
        until_answered(client)


def test_disconnect_in_another_thread(any_class, device):
    client = start_client(device, any_class)
    assert client.disconnect() is None
    device.wait_for_connection(2)
    assert client.wait_connected(PATIENCE)


def test_disconnect_before_start_and_after_stop_does_nothing(any_class, device):
    client = any_class(*device.address)
    assert client.disconnect() is None
    for count in (1, 2):
        client.start()
        assert client.wait_connected(PATIENCE)
        device.wait_for_connection(count)
        client.stop()
        assert client.disconnect() is None
    assert device.connection_count == 2


def test_disconnect_after_stop_in_a_shared_ioloop_does_nothing(any_class, device, ioloop):
    client = any_class(*device.address)
    client.set_ioloop(ioloop)

    async def main():
        client.start()
        client.disconnect()
        await client.until_connected(PATIENCE)
        client.stop()
        await client.until_stopped(PATIENCE)

    ioloop.run_sync(main, PATIENCE)
    assert client.disconnect() is None


def test_disconnect_closes_and_reconnects(any_class, device):
    client = start_client(device, any_class)

    def disconnect():
        client.disconnect()
        return client.is_connected()

    assert in_loop(client, disconnect) is False
    device.wait_for_connection(2)
    assert client.wait_connected(PATIENCE)


def test_stop_in_the_very_turn_in_which_the_delay_is_over(logs):
    client = BlockingClient("127.0.0.1", closed_port())
    client.auto_reconnect_delay = client.auto_reconnect_max_delay = 0.001
    client.start()
    logs.expect("Failed to connect")

    def stop_when_the_delay_is_over():
        # The timer goes off in the next turn, right behind stop().
        loop = client.ioloop.asyncio_loop
        over = loop.time() + 0.002
        while loop.time() < over:
            pass
        loop.call_soon(client.stop)
        return Peek(client).state is State.WAITING

    waited = 0
    while waited < 10:
        waited += in_loop(client, stop_when_the_delay_is_over)
        client.join(PATIENCE)
        assert not client.running()
        client.start()
    client.stop()
    for _ in logs.matching("Failed to connect"):
        logs.expect("Failed to connect")


def test_disconnect_again_and_again_does_not_make_the_delays_grow(device):
    client = start_client(device)
    for _ in range(4):
        until_answered(client)
        in_loop(client, client.disconnect)
        assert Peek(client).reconnect_attempt == 0


def test_a_connection_that_lasted_lets_the_delays_begin_anew(device):
    client = start_client(device)
    client.auto_reconnect_max_delay = 0
    for count in (2, 3):
        Peek(client).reconnect_attempt = 7
        device.close_clients()
        device.wait_for_connection(count)
        until_answered(client)
        assert Peek(client).reconnect_attempt == 1


def test_disconnect_when_not_connected_does_nothing(logs):
    client = BlockingClient("127.0.0.1", closed_port())
    client.auto_reconnect_delay = 1000
    client.start()
    logs.expect("Failed to connect")
    client.disconnect()
    in_loop(client, client.disconnect)
    assert client.running()
    client.stop()


def test_delays_grow_with_jitter_up_to_the_limit():
    client = DeviceClient("localhost", 1)
    delays = [[Peek(client).reconnect_delay(attempt) for attempt in range(12)] for _ in range(50)]
    assert {row[0] for row in delays} == {0.5}
    assert all(0.5 * 1.6 * 0.75 <= row[1] <= 0.5 * 1.6 for row in delays)
    assert all(5.0 * 0.75 <= row[11] <= 5.0 for row in delays)
    assert len({row[5] for row in delays}) > 1
    client.auto_reconnect_delay = 0.01
    client.auto_reconnect_max_delay = 0.001
    assert Peek(client).reconnect_delay(0) == 0.01
    assert Peek(client).reconnect_delay(10**6) <= 0.01


def test_the_connect_timeout_is_honoured(logs):
    class Client(BlockingClient):
        CONNECT_TIMEOUT = 0.05

    sockets = full_backlog()
    client = Client(*sockets[0].getsockname())
    client.start()
    assert "no answer within 0.05 seconds" in logs.expect("Failed to connect")
    client.stop()
    for sock in sockets:
        sock.close()


def test_a_slow_name_server_does_not_stall_the_ioloop(monkeypatch, device):
    resolved = threading.Event()
    real = socket.getaddrinfo

    def slow(host, *args, **kwargs):
        if host == "slow.invalid":
            assert resolved.wait(PATIENCE)
            host = "127.0.0.1"
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    client = BlockingClient("slow.invalid", device.address[1])
    client.start()
    assert client.wait_running(PATIENCE)
    in_loop(client, lambda: asyncio.sleep(0))
    resolved.set()
    assert client.wait_connected(PATIENCE)
    client.stop()


def test_protocol_state_belongs_to_one_connection(device):
    client = start_client(device)
    assert client.protocol_flags.message_ids
    device.protocol = "4"
    device.close_clients()
    device.wait_for_connection(2)
    assert until_answered(client).mid is None
    assert str(client.protocol_flags) == "4.0"
    assert client.versions == {}
    device.protocol = "5.1-MIBT"
    device.close_clients()
    device.wait_for_connection(3)
    until_answered(client)
    assert str(client.protocol_flags) == "5.1-BIMT"
    assert client.blocking_request(Message.request("echo"))[0].mid is not None


def test_a_device_that_comes_back_without_greeting_is_unknown(device):
    client = start_client(device)
    device.faults = ["no-greeting"]
    device.close_clients()
    device.wait_for_connection(2)
    while client.protocol_flags is not None:
        client.blocking_request(Message.request("echo"))
    reply, _ = client.blocking_request(Message.request("echo"))
    assert (reply.reply_ok(), reply.mid) == (True, None)
    assert client.versions == {}
    assert client.wait_protocol(0.01) is False


# ---- a client that ends by itself ----


@pytest.mark.parametrize("how", ["refused", "lost"])
def test_without_auto_reconnect_the_client_ends_by_itself(any_class, device, how, logs):
    address = device.address if how == "lost" else ("127.0.0.1", closed_port())
    client = any_class(*address, auto_reconnect=False)
    client.start()
    if how == "lost":
        assert client.wait_connected(PATIENCE)
        device.wait_for_client()
        device.close_clients()
    else:
        assert client.wait_connected(PATIENCE) is False
        logs.expect("Failed to connect")
    client.join(PATIENCE)
    assert not client.running()
    assert not client.is_connected()
    assert client.wait_connected(1) is False
    assert client.wait_disconnected(1) is True
    client.stop()
    client.disconnect()
    text = "Not connected to device"
    for name in ("send_message", "send_request", "request"):
        with pytest.raises(KatcpClientDisconnected, match=text):
            getattr(client, name)(Message.request("echo"))
    if isinstance(client, AsyncClient):
        reply, _ = client.blocking_request(Message.request("echo"))
        assert reply.arguments[1].decode().startswith(text)
        assert isinstance(reply.local_error, KatcpClientDisconnected)
        replies = Recorder()
        client.callback_request(Message.request("echo"), replies)
        assert str(replies.wait()[0][0]) == str(reply)
        client.callback_request(Message.request("echo"))
    client.start()
    client.stop()
    for _ in logs.matching("Failed to connect"):
        logs.expect("Failed to connect")


def test_a_shared_ioloops_client_that_ends_by_itself(device, ioloop):
    client = AsyncClient(*device.address, auto_reconnect=False)
    client.set_ioloop(ioloop)

    async def use():
        client.start()
        await client.until_connected()
        pending = client.future_request(Message.request("hold"))
        device.next_held()
        device.close_clients()
        await client.until_stopped()
        reply, _ = await pending
        assert isinstance(reply.local_error, KatcpClientDisconnected)
        reply, _ = await client.future_request(Message.request("echo"))
        assert isinstance(reply.local_error, KatcpClientDisconnected)

    run(ioloop, use)


# ---- notify_connected ----


class Notified(BlockingClient):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = Recorder()

    def notify_connected(self, connected):
        self.seen(connected, self.is_connected(), self.protocol_flags and 1)

    def unhandled_inform(self, msg):
        self.seen(msg.name)

    def inform_version_connect(self, msg):
        self.seen(msg.name)
        super().inform_version_connect(msg)


def test_the_order_of_events_on_a_connection(device):
    client = start_client(device, Notified)
    client.auto_reconnect_delay = 1000
    device.send_raw(b"#hello\n")
    device.close_clients()
    assert client.wait_disconnected(PATIENCE)
    calls = client.seen.wait(6)
    assert calls[0] == (True, True, None)
    assert set(calls[1:-2]) == {("version-connect",)}
    assert calls[-2:] == [("hello",), (False, False, 1)]


def test_stop_notifies_too(device):
    client = start_client(device, Notified)
    client.stop()
    assert client.seen.calls[-1][:2] == (False, False)


def test_notify_comes_before_the_pending_requests_fail(device):
    order = []

    class Client(BlockingClient):
        def notify_connected(self, connected):
            order.append(connected)

    client = start_client(device, Client)
    ended = Recorder()
    client.callback_request(
        Message.request("hold"), lambda msg: (order.append(msg.name), ended()), timeout=60
    )
    device.next_held()
    client.auto_reconnect_delay = 1000
    device.close_clients()
    ended.wait()
    assert order == [True, False, "hold"]


@pytest.mark.parametrize("pending", [True, False])
def test_stop_lets_the_pending_requests_fail_before_it_notifies(device, pending):
    order = []

    class Client(BlockingClient):
        def notify_connected(self, connected):
            order.append(connected)

    client = start_client(device, Client)

    async def wait():
        reply, _ = await client.future_request(Message.request("hold"), timeout=60)
        order.append(reply.arguments[1])

    if pending:
        client.callback_request(
            Message.request("hold"), lambda msg: order.append(msg.arguments[1]), timeout=60
        )
        client.ioloop.add_callback(wait)
        device.next_held()
        device.next_held()
    client.stop()
    failed = [b"Client stopped before reply was received"] * 2 * pending
    assert order == [True, *failed, False]


def test_what_a_callback_raises_at_stop_does_not_keep_it_from_notifying(device, logs):
    def fail(reply):
        raise ValueError("odd")

    client = start_client(device, Notified)
    client.callback_request(Message.request("hold"), fail, timeout=60)
    device.next_held()
    client.stop()
    logs.expect("Callback reply during failure", logging.ERROR)
    assert client.seen.calls[-1][:2] == (False, False)


def test_requests_from_notify_connected_go_out_without_id(device):
    class Client(BlockingClient):
        def notify_connected(self, connected):
            if connected:
                self.request(Message.request("echo"))

    start_client(device, Client)
    assert device.wait_for_request("echo").mid is None


def test_notify_that_raises_on_connect_closes_and_tries_again(device, logs):
    class Client(BlockingClient):
        tries = 0

        def notify_connected(self, connected):
            if connected:
                self.tries += 1
                if self.tries == 1:
                    raise ValueError("not yet")

    client = start_client(device, Client, wait=None)
    assert "ValueError: not yet" in logs.expect(
        "Notify connect failed. Disconnecting.", logging.ERROR
    )
    assert client.wait_protocol(PATIENCE)
    assert client.tries == 2


def test_notify_that_raises_on_disconnect_is_logged_and_survived(device, logs):
    class Client(BlockingClient):
        def notify_connected(self, connected):
            if not connected:
                raise ValueError("no")

    client = start_client(device, Client)
    ended = Recorder()
    client.callback_request(Message.request("hold"), ended, timeout=60)
    device.next_held()
    device.close_clients()
    ended.wait()
    logs.expect("Notify connect failed\n", logging.ERROR)
    until_answered(client)
    client.stop()
    logs.expect("Notify connect failed\n", logging.ERROR)


# ---- thread safety ----


class Worker(CallbackClient):
    """Methods that want to run in the loop."""

    @make_threadsafe
    def note(self, value):
        self.noted = (value, threading.get_ident())

    @make_threadsafe
    def fail(self):
        raise ValueError("in the loop")

    @make_threadsafe_blocking
    def where(self):
        return threading.get_ident()

    @make_threadsafe_blocking
    async def ask(self, name):
        reply, _ = await self.future_request(Message.request(name))
        return reply

    @make_threadsafe_blocking
    def limited(self, timeout=None):
        return timeout

    @make_threadsafe_blocking
    def refuse(self):
        raise ValueError("refused in the loop")


def test_decorated_methods_run_in_the_ioloop(device, logs):
    client = start_client(device, Worker)
    assert client.where() == client.ioloop_thread_id
    assert client.note(5) is None
    assert client.where() == client.ioloop_thread_id
    assert client.noted == (5, client.ioloop_thread_id)
    assert client.ask("echo").reply_ok()
    assert in_loop(client, client.where) == client.ioloop_thread_id
    with pytest.raises(ValueError, match="refused in the loop"):
        client.refuse()
    client.fail()
    assert "ValueError: in the loop" in logs.expect("Exception in callback", logging.ERROR)


def test_a_timeout_is_passed_on_to_a_method_that_has_one(device):
    client = start_client(device, Worker)
    assert client.limited(timeout=3) == 3
    assert in_loop(client, lambda: client.limited(timeout=3)) == 3
    assert client.where(timeout=None) == client.ioloop_thread_id


def test_decorated_methods_before_start_and_after_stop_say_so(device):
    client = Worker(*device.address)
    for text in (r"Call start\(\) before note", "The client is stopped"):
        with pytest.raises(KatcpUsageError, match=text):
            client.note(1)
        client.start()
        client.stop()


def test_unbound_calls_are_as_threadsafe_as_bound_ones(device):
    class Odd(CallbackClient):
        def send_message(self, msg):
            raise AssertionError("not this one")

        def is_connected(self):
            return "overridden"

    client = start_client(device, Odd)
    CallbackClient.send_message(client, Message.request("echo"))
    device.wait_for_request("echo")
    assert CallbackClient.is_connected(client) is True
    CallbackClient.disconnect(client)
    device.wait_for_connection(2)
    CallbackClient.stop(client)


def test_thread_safety_is_enabled_before_start_only(device):
    client = AsyncClient(*device.address)
    client.enable_thread_safety()
    client.enable_thread_safety()
    client.start()
    client.enable_thread_safety()
    client.stop()
    plain = start_client(device, AsyncClient)
    with pytest.raises(RuntimeError, match="Cannot enable thread safety after start"):
        plain.enable_thread_safety()
    plain.stop()
    plain.enable_thread_safety()


def test_without_thread_safety_a_decorated_method_runs_where_it_is_called(device):
    class Client(AsyncClient):
        @make_threadsafe_blocking
        def where(self):
            return threading.get_ident()

    assert start_client(device, Client).where() == threading.get_ident()


# ---- processes ----


@pytest.mark.parametrize("daemon", ["client.setDaemon(True)", "client.daemon = True"])
def test_with_a_daemon_thread_the_interpreter_exits_at_once(device, daemon):
    program = f"""
import katcp, sys
client = katcp.BlockingClient({device.address[0]!r}, {device.address[1]})
{daemon}
client.start()
assert client.wait_protocol({PATIENCE})
sys.exit(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")


def test_daemon_is_known_before_and_after():
    client = CallbackClient("localhost", 1)
    assert client.daemon is False
    client.setDaemon(True)
    assert client.daemon is True
    client.daemon = False
    assert client.daemon is False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system knows no fork")
def test_a_client_is_refused_in_a_forked_child(device):
    program = f"""
import katcp, os, sys
client = katcp.BlockingClient({device.address[0]!r}, {device.address[1]})
client.start()
assert client.wait_protocol({PATIENCE})
msg = katcp.Message.request("echo")
child = os.fork()
if not child:
    try:
        assert not client.is_connected() and not client.running()
        client.stop()
        for call in (client.wait_connected, client.start, lambda: client.send_message(msg),
                     lambda: client.blocking_request(msg), client.until_stopped):
            try:
                call()
            except RuntimeError as error:
                assert "was started in another process" in str(error), error
            else:
                raise SystemExit("not refused")
        own = katcp.BlockingClient({device.address[0]!r}, {device.address[1]})
        own.start()
        assert own.blocking_request(msg) and own.wait_protocol({PATIENCE})
        assert own.blocking_request(msg)[0].reply_ok()
        own.stop()
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
status = os.waitpid(child, 0)[1]
assert client.blocking_request(msg)[0].reply_ok()
client.stop()
sys.exit(os.WEXITSTATUS(status))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")


# ---- events and states ----


def test_events_agree_with_the_state_at_every_step(device):
    seen = []

    def look(client, state):
        seen.append((state, {name for name in EVENT_NAMES if Peek(client).events[name].is_set()}))

    with watched_states(look):
        client = start_client(device)
        device.close_clients()
        device.wait_for_connection(2)
        until_answered(client)
        client.stop()
    assert {state for state, _ in seen} == set(State)
    for state, held in seen:
        assert ("connected" in held) == (state is State.CONNECTED)
        assert ("disconnected" in held) != ("connected" in held)
        assert not {"running", "stopped"} <= held


def test_convert_seconds_follows_the_version_of_the_device():
    client = DeviceClient("localhost", 1)
    with pytest.raises(KatcpUsageError, match="protocol version of the device is not known yet"):
        client.convert_seconds(1)
    for flags, seconds, expected in [
        (ProtocolFlags(5, 0), 1.5, 1.5),
        (ProtocolFlags(6, 0), 1.5, 1.5),
        (ProtocolFlags(4, 0), 1.50051, 1500.51),
        (ProtocolFlags(3, 0), 1.50051, 1500),
    ]:
        client.preset_protocol_flags(flags)
        assert client.convert_seconds(seconds) == pytest.approx(expected)
    assert isinstance(client.convert_seconds(1.5), int)


def test_preset_flags_hold_before_start_and_over_restarts(device, logs):
    client = BlockingClient(*device.address)
    client.preset_protocol_flags(ProtocolFlags(5, 0, "M"))
    assert str(client.protocol_flags) == "5.0-M"
    for _ in range(2):
        client.start()
        assert client.wait_protocol(0) is True
        assert client.wait_connected(PATIENCE)
        logs.expect("Static configuration: '5.0-M'.Inform received: '#version-connect")
        assert client.versions["katcp-protocol"] == ("5.1-BIM",)
        assert str(client.protocol_flags) == "5.0-M"
        client.stop()


def test_preset_flags_after_start_and_of_the_wrong_type():
    with TestDevice(faults=["no-greeting"]) as device:
        client = start_client(device, wait="connected")
        client.preset_protocol_flags(ProtocolFlags(5, 0, "I"))
        assert client.wait_protocol(PATIENCE)
        assert client.blocking_request(Message.request("echo"))[0].mid == b"1"
        for flags in (None, "5.0"):
            with pytest.raises(KatcpTypeError, match="must be a ProtocolFlags"):
                client.preset_protocol_flags(flags)


def test_next_is_what_newobject_makes_of_it():
    from future.types.newobject import newobject

    assert issubclass(DeviceClient, newobject)
    with pytest.raises(TypeError, match="not an iterator"):
        DeviceClient("localhost", 1).next()


def test_importing_katcp_does_not_execute_a_stray_test_module(tmp_path):
    (tmp_path / "test.py").write_text("raise SystemExit('executed')")
    program = "import katcp, sys; print('future.standard_library' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(katcp.__file__))},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, b"False"), done.stderr


def test_time_is_not_raced_by_wall_clock_changes(device, monkeypatch):
    client = start_client(device)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    device.close_clients()
    device.wait_for_connection(2)
    until_answered(client)
