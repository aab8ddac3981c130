"""Callbacks for informs and for the connection, and streams of informs."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading

import pytest
from tornado.ioloop import IOLoop

from katcp import (
    AsyncClient,
    BlockingClient,
    DeviceClient,
    InformStream,
    KatcpClientTimeout,
    KatcpSyntaxError,
    KatcpThreadError,
    KatcpTypeError,
    KatcpUsageError,
    Message,
)
from tests.support.helpers import PATIENCE, Recorder, in_loop, start_client, texts
from tests.support.peek import Peek


def send(device, *lines):
    """Let the device send lines as informs to all clients."""
    for line in lines:
        name, *arguments = line.split()
        device.inform(Message.inform(name, *arguments))


# ---- callbacks ----


def test_callbacks_get_the_informs_of_their_name_or_all(device):
    client = start_client(device)
    ticks, every = Recorder(), Recorder()
    client.add_inform_callback("tick", ticks)
    client.add_inform_callback(None, every)
    send(device, "tick 1", "tock 2", "tick 3")
    assert texts([call[0] for call in ticks.wait(2)]) == ["#tick 1", "#tick 3"]
    assert texts([call[0] for call in every.wait(3)]) == ["#tick 1", "#tock 2", "#tick 3"]


@pytest.mark.parametrize("cls", [DeviceClient, AsyncClient, BlockingClient])
def test_callbacks_come_after_the_handler_and_in_their_order(device, cls):
    calls = []
    done = threading.Event()

    class Client(cls):
        def inform_tick(self, msg):
            calls.append("handler")

        def unhandled_inform(self, msg):
            calls.append("unhandled")

    client = start_client(device, Client)
    client.add_inform_callback(None, lambda msg: (calls.append("all"), done.set()))
    client.add_inform_callback("tick", lambda msg: calls.append("first"))
    client.add_inform_callback("tick", lambda msg: calls.append("second"))
    send(device, "tick")
    assert done.wait(PATIENCE)
    assert calls == ["handler", "first", "second", "all"]
    done.clear()
    send(device, "tock")
    assert done.wait(PATIENCE)
    assert calls[4:] == ["unhandled", "all"]


def test_callbacks_run_in_the_ioloop(device):
    client = start_client(device)
    threads = Recorder()
    client.add_inform_callback("tick", lambda msg: threads(threading.get_ident()))
    send(device, "tick")
    assert threads.wait() == [(client.ioloop_thread_id,)]


def test_informs_of_a_request_are_not_for_callbacks(device):
    client = start_client(device)
    every = Recorder()
    client.add_inform_callback(None, every)
    client.blocking_request(Message.request("count", 3))
    send(device, "tick")
    assert texts([call[0] for call in every.wait()]) == ["#tick"]


def test_a_callback_that_was_removed_is_not_called(device):
    client = start_client(device)
    first, second = Recorder(), Recorder()
    client.add_inform_callback("tick", first)
    client.add_inform_callback("tick", second)
    client.remove_inform_callback("tick", first)
    send(device, "tick")
    second.wait()
    assert first.calls == []
    client.remove_inform_callback("tick", second)
    assert Peek(client).inform_callbacks.all() == []
    with pytest.raises(KatcpUsageError, match="is not a callback for informs 'tick'"):
        client.remove_inform_callback("tick", second)


def test_a_callback_may_remove_itself(device):
    client = start_client(device)
    once, every = Recorder(), Recorder()

    def only_once(msg):
        client.remove_inform_callback("tick", only_once)
        once(msg)

    client.add_inform_callback("tick", only_once)
    client.add_inform_callback("tick", every)
    send(device, "tick 1", "tick 2")
    every.wait(2)
    assert texts(once.messages) == ["#tick 1"]


def fail(msg):
    raise ZeroDivisionError("in the callback")


async def fail_later(msg):
    await asyncio.sleep(0)
    raise ZeroDivisionError("in the callback")


@pytest.mark.parametrize("callback", [fail, fail_later])
def test_what_an_inform_callback_raises_is_logged(device, logs, callback):
    client = start_client(device)
    client.add_inform_callback("tick", callback)
    after = Recorder()
    client.add_inform_callback("tick", after)
    send(device, "tick")
    after.wait()
    text = logs.expect("Callback inform tick FAIL", logging.ERROR)
    assert "ZeroDivisionError: in the callback" in text
    assert client.ask("echo").arguments == []


@pytest.mark.parametrize("name", ["two words", "under_score", "", "1st"])
def test_a_name_that_no_inform_has_is_refused(name):
    client = BlockingClient("localhost", 1)
    with pytest.raises(KatcpSyntaxError):
        client.add_inform_callback(name, print)
    with pytest.raises(KatcpSyntaxError):
        client.informs(name)


def test_what_cannot_be_called_is_refused():
    client = BlockingClient("localhost", 1)
    with pytest.raises(KatcpTypeError, match="must be callable"):
        client.add_inform_callback("tick", None)
    with pytest.raises(KatcpTypeError, match="must be callable"):
        client.add_connection_callback("tick")


def test_connection_callbacks_follow_the_connection(device):
    client = BlockingClient(*device.address)
    client.auto_reconnect_delay = 0.02
    seen, removed = Recorder(), Recorder()
    client.add_connection_callback(seen)
    client.add_connection_callback(removed)
    client.remove_connection_callback(removed)
    with client:
        assert seen.wait() == [(True,)]
        device.close_clients()
        assert seen.wait(3) == [(True,), (False,), (True,)]
    assert seen.calls[3:] == [(False,)]
    assert removed.calls == []
    with pytest.raises(KatcpUsageError, match="is not a callback for the connection"):
        client.remove_connection_callback(removed)


def test_what_a_connection_callback_raises_is_logged(device, logs):
    client = BlockingClient(*device.address)
    client.add_connection_callback(fail)
    with client:
        logs.expect("Callback connected=True FAIL", logging.ERROR)
        client.ask("echo")
    logs.expect("Callback connected=False FAIL", logging.ERROR)


def test_connection_callbacks_are_told_of_a_connection_that_the_hook_refuses(device, logs):
    class Refusing(BlockingClient):
        def notify_connected(self, connected):
            if connected:
                raise ZeroDivisionError("in the hook")

    seen = Recorder()
    client = Refusing(*device.address, auto_reconnect=False)
    client.add_connection_callback(seen)
    device.started_clients.append(client)
    client.start()
    assert seen.wait(2) == [(True,), (False,)]
    logs.expect("Notify connect failed", logging.ERROR)


# ---- streams, in threads ----


def test_a_stream_gives_what_has_arrived_since_it_was_made(device):
    client = start_client(device)
    send(device, "tick 0")
    client.ask("echo")
    stream = client.informs("tick", timeout=PATIENCE)
    send(device, "tick 1", "tock", "tick 2")
    assert texts([next(stream), next(stream)]) == ["#tick 1", "#tick 2"]


def test_a_stream_without_name_gives_all(device):
    client = start_client(device)
    with client.informs(timeout=PATIENCE) as stream:
        send(device, "tick", "tock")
        assert texts([next(stream), next(stream)]) == ["#tick", "#tock"]


def test_a_stream_made_before_the_start_sees_the_first_informs(device):
    client = BlockingClient(*device.address)
    stream = client.informs("version-connect", timeout=PATIENCE)
    with pytest.raises(KatcpUsageError, match=r"Call start\(\) before"):
        next(stream)
    with client:
        assert next(stream).get_text(0) == "katcp-protocol"


def test_a_stream_waits_no_longer_than_its_timeout(device):
    client = start_client(device)
    stream = client.informs("tick", timeout=0.01)
    with pytest.raises(KatcpClientTimeout) as error:
        next(stream)
    host, port = device.address
    assert str(error.value) == f"No inform #tick of {host}:{port} within 0.01 seconds."
    # It may be gone on with.
    arrived = Recorder()
    client.add_inform_callback("tick", arrived)
    send(device, "tick 1")
    arrived.wait()
    assert texts([next(stream)]) == ["#tick 1"]


@pytest.mark.parametrize("end", ["stop", "close", "lost"])
def test_the_end_wakes_a_thread_that_waits(device, end):
    client = start_client(device, auto_reconnect=end != "lost")
    stream = client.informs("tick")
    waiting, result = threading.Event(), []

    def read():
        waiting.set()
        result.extend(stream)

    thread = threading.Thread(target=read)
    thread.start()
    assert waiting.wait(PATIENCE)
    {"stop": client.stop, "close": stream.close, "lost": device.close_clients}[end]()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert result == []
    assert stream.closed


def test_what_arrived_before_the_end_is_delivered(device):
    client = start_client(device)
    arrived = Recorder()
    stream = client.informs("tick")
    client.add_inform_callback("tick", arrived)
    send(device, "tick 1", "tick 2")
    arrived.wait(2)
    client.stop()
    assert texts(list(stream)) == ["#tick 1", "#tick 2"]
    assert list(client.informs()) == []


def test_a_loop_that_goes_wakes_a_thread_that_waits(device):
    ioloop = IOLoop(make_current=False)
    thread = threading.Thread(target=ioloop.start)
    client = BlockingClient(*device.address)
    client.set_ioloop(ioloop)
    client.start()
    thread.start()
    assert client.wait_protocol(PATIENCE)
    stream = client.informs("tick", timeout=PATIENCE)
    ioloop.add_callback(ioloop.stop)
    assert list(stream) == []
    thread.join()
    Peek(client).portal.ioloop.add_callback(client.stop)
    ioloop.run_sync(client.until_stopped)
    ioloop.close()


def test_a_full_stream_drops_the_oldest_and_says_so(device, logs):
    client = start_client(device)
    arrived = Recorder()
    stream = client.informs("tick", maxsize=2, timeout=PATIENCE)
    client.add_inform_callback("tick", arrived)
    send(device, *(f"tick {number}" for number in range(5)))
    arrived.wait(5)
    assert texts([next(stream), next(stream)]) == ["#tick 3", "#tick 4"]
    assert stream.dropped == 3
    # One warning, not three.
    logs.expect("More than 2 informs #tick of 127.0.0.1:")


def test_a_stream_without_limit_drops_nothing(device):
    client = start_client(device)
    arrived = Recorder()
    stream = client.informs("tick", maxsize=None, timeout=PATIENCE)
    client.add_inform_callback("tick", arrived)
    send(device, *(f"tick {number}" for number in range(1500)))
    arrived.wait(1500)
    assert [next(stream).get_int(0) for _ in range(1500)] == list(range(1500))
    assert stream.dropped == 0


@pytest.mark.parametrize("options", [{"maxsize": 0}, {"maxsize": "2"}, {"timeout": "2"}])
def test_options_of_a_stream_that_make_no_sense(options):
    with pytest.raises(KatcpTypeError):
        BlockingClient("localhost", 1).informs(**options)


def test_a_stream_that_was_dropped_is_forgotten(device):
    client = start_client(device)
    arrived = Recorder()
    stream = client.informs("tick", timeout=PATIENCE)
    client.add_inform_callback("tock", arrived)
    send(device, "tick", "tock")
    for _ in stream:
        break
    del stream
    gc.collect()
    send(device, "tick", "tock")
    arrived.wait(2)
    assert Peek(client).inform_callbacks.matching("tick") == ()


def test_a_stream_that_was_closed_is_forgotten(device):
    client = start_client(device)
    with client.informs("tick") as stream:
        assert len(Peek(client).inform_callbacks.matching("tick")) == 1
    assert Peek(client).inform_callbacks.all() == []
    assert list(stream) == []
    stream.close()


def test_a_stream_that_a_callback_has_just_closed_takes_nothing(device):
    client = start_client(device)
    after = Recorder()
    client.add_inform_callback("tick", lambda msg: stream.close())
    stream = client.informs("tick")
    client.add_inform_callback("tick", after)
    send(device, "tick")
    after.wait()
    assert list(stream) == []


def test_a_stream_is_not_waited_for_in_the_ioloop(device):
    client = start_client(device)
    stream = client.informs("tick")
    with pytest.raises(KatcpThreadError, match="use async for"):
        in_loop(client, next, stream)


def test_threads_share_a_stream(device):
    client = start_client(device)
    stream = client.informs("tick", timeout=PATIENCE)
    seen = Recorder()
    threads = [threading.Thread(target=lambda: seen(next(stream).get_int(0))) for _ in range(4)]
    for thread in threads:
        thread.start()
    send(device, *(f"tick {number}" for number in range(4)))
    for thread in threads:
        thread.join()
    assert sorted(seen.calls) == [(0,), (1,), (2,), (3,)]


def test_repr_of_a_stream(device):
    client = start_client(device)
    address = client.bind_address_string
    assert repr(client.informs("tick")) == f"<InformStream #tick of {address}: 0 waiting>"
    assert repr(client.informs()) == f"<InformStream of {address}: 0 waiting>"
    assert isinstance(client.informs(), InformStream)


# ---- streams, in loops ----


async def take(stream, count):
    found = []
    async with stream:
        async for msg in stream:
            found.append(msg)
            if len(found) == count:
                break
    return texts(found)


def test_async_for_in_another_loop(device):
    client = start_client(device)
    stream = client.informs("tick", timeout=PATIENCE)

    async def main():
        taking = asyncio.ensure_future(take(stream, 2))
        await asyncio.sleep(0)
        send(device, "tick 1", "tick 2")
        return await taking

    assert asyncio.run(main()) == ["#tick 1", "#tick 2"]


def test_async_for_in_the_loop_of_the_client(device):
    async def main():
        async with AsyncClient(*device.address) as client:
            taking = asyncio.ensure_future(take(client.informs("tick", timeout=PATIENCE), 2))
            await asyncio.sleep(0)
            send(device, "tick 1", "tick 2")
            return await taking

    assert asyncio.run(main()) == ["#tick 1", "#tick 2"]


def test_async_for_times_out(device):
    async def main():
        async with AsyncClient(*device.address) as client:
            with pytest.raises(KatcpClientTimeout, match="No inform of .* within 0.01 seconds"):
                await client.informs(timeout=0.01).__anext__()

    asyncio.run(main())


def test_async_for_ends_when_the_client_stops(device):
    async def main():
        client = AsyncClient(*device.address)
        async with client:
            taking = asyncio.ensure_future(take(client.informs("tick"), 1))
            await asyncio.sleep(0)
        return await taking

    assert asyncio.run(main()) == []


def test_async_for_after_the_client_has_stopped(device):
    async def main():
        async with AsyncClient(*device.address) as client:
            pass
        return await asyncio.wait_for(take(client.informs("tick"), 1), PATIENCE)

    assert asyncio.run(main()) == []


def test_a_cancelled_wait_loses_no_inform(device):
    async def main():
        async with AsyncClient(*device.address) as client:
            stream = client.informs("tick", timeout=PATIENCE)
            waiting = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0)
            waiting.cancel()
            send(device, "tick 1")
            return texts([await stream.__anext__()])

    assert asyncio.run(main()) == ["#tick 1"]


def test_async_for_before_the_start():
    async def main():
        with pytest.raises(KatcpUsageError, match=r"Call start\(\) before"):
            await AsyncClient("localhost", 1).informs().__anext__()

    asyncio.run(main())
