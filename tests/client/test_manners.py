"""Native manners of the clients: with, async with, ask, futures for any thread or loop, repr."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import re
import sys
import threading

import pytest
from tornado.ioloop import IOLoop

import katcp
from katcp import (
    AsyncClient,
    BlockingClient,
    CallbackClient,
    DeviceClient,
    KatcpClientDisconnected,
    KatcpClientError,
    KatcpClientStopped,
    KatcpClientTimeout,
    KatcpReplyError,
    KatcpSyntaxError,
    KatcpThreadError,
    KatcpTypeError,
    KatcpUsageError,
    Message,
    ProtocolFlags,
)
from tests.support.helpers import PATIENCE, TestDevice, in_loop, start_client, texts
from tests.support.peek import Peek

CLIENTS = [DeviceClient, AsyncClient, CallbackClient, BlockingClient]


def echo(*arguments):
    return Message.request("echo", *arguments)


# ---- with ----


@pytest.mark.parametrize("cls", CLIENTS)
def test_with_starts_waits_and_stops(device, cls):
    with cls(*device.address) as client:
        assert type(client) is cls
        assert client.is_connected()
        assert client.protocol_flags == ProtocolFlags.parse_version("5.1-MIB")
    assert not client.running()


def test_with_stops_after_an_exception(device):
    with pytest.raises(ZeroDivisionError), BlockingClient(*device.address) as client:
        raise ZeroDivisionError
    assert not client.running()


def test_with_can_be_repeated(device):
    client = BlockingClient(*device.address)
    for _ in range(2):
        with client:
            assert client.ask("echo", 1).arguments == [b"1"]


def test_with_of_a_client_that_was_stopped_in_the_block(device):
    with BlockingClient(*device.address) as client:
        client.stop()
    assert not client.running()


def test_with_refuses_a_client_that_is_started_and_leaves_it_running(device):
    client = start_client(device)
    with pytest.raises(KatcpUsageError, match="already started"):
        client.__enter__()
    assert client.ask("echo").arguments == []


@pytest.mark.parametrize("cls", CLIENTS)
def test_with_names_the_reason_of_a_failed_connection(refused_address, logs, cls):
    host, port = refused_address
    client = cls(host, port)
    Peek(client).request_timeout = 0.1
    with pytest.raises(KatcpClientDisconnected) as error, client:
        pass
    assert str(error.value).startswith(f"Could not connect to {host}:{port}: ")
    assert "Connection refused" in str(error.value)
    assert not client.running()
    logs.expect("Failed to connect")


def test_with_takes_the_timeout_of_requests():
    assert Peek(DeviceClient("localhost", 1)).request_timeout == 5.0
    assert Peek(AsyncClient("localhost", 1, timeout=0.25)).request_timeout == 0.25


def test_with_does_not_wait_for_a_client_that_gives_up(refused_address, logs):
    client = BlockingClient(*refused_address, timeout=None, auto_reconnect=False)
    with pytest.raises(KatcpClientDisconnected, match="Connection refused"), client:
        pass
    logs.expect("Failed to connect")


def test_with_says_that_nobody_answers(silent_address):
    host, port = silent_address[:2]
    client = BlockingClient(host, port, timeout=0.1)
    with pytest.raises(KatcpClientTimeout) as error, client:
        pass
    assert str(error.value) == f"Could not connect to {host}:{port} within 0.1 seconds"


def test_with_says_that_the_device_does_not_greet():
    with TestDevice(faults=["no-greeting"]) as device:
        host, port = device.address
        client = BlockingClient(host, port, timeout=0.1)
        with pytest.raises(KatcpClientTimeout) as error, client:
            pass
        assert str(error.value) == (
            f"Connected to {host}:{port}, which has not said within 0.1 seconds what "
            "protocol it speaks: if it never does, preset_protocol_flags() before."
        )
        client.preset_protocol_flags(ProtocolFlags(5, 0, "I"))
        with client:
            assert client.ask("echo", 1).arguments == [b"1"]


def test_with_says_that_the_connection_is_lost():
    with TestDevice(faults=["no-greeting"]) as device:
        client = BlockingClient(*device.address, timeout=PATIENCE, auto_reconnect=False)
        host, port = device.address

        def disconnect():
            device.wait_for_client()
            device.disconnect_clients("Too busy.")

        thread = threading.Thread(target=disconnect)
        thread.start()
        with pytest.raises(KatcpClientDisconnected) as error, client:
            pass
        thread.join()
        assert str(error.value) == (
            f"The connection to {host}:{port} was lost at once, as the device announced: Too busy."
        )


def test_with_of_a_client_that_is_stopped_meanwhile(silent_address):
    entered = threading.Event()

    class Entering(BlockingClient):
        async def _install(self):
            entered.set()
            await super()._install()

    client = Entering(*silent_address[:2], timeout=PATIENCE)

    def stop():
        entered.wait(PATIENCE)
        client.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises((KatcpClientStopped, KatcpUsageError), match="stopped"), client:
        pass
    thread.join()


def test_with_is_refused_where_a_loop_runs(device):
    client = BlockingClient(*device.address)

    async def main():
        with pytest.raises(KatcpThreadError, match="use 'async with'"):
            client.__enter__()

    asyncio.run(main())
    assert client.ioloop is None


def test_with_may_be_used_in_a_cell_of_a_notebook(device, monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)

    async def cell():
        with BlockingClient(*device.address) as client:
            return client.ask("echo", 1).arguments

    assert asyncio.run(cell()) == [b"1"]


def test_with_and_a_shared_loop_in_another_thread(device):
    ioloop = IOLoop(make_current=False)
    thread = threading.Thread(target=ioloop.start)
    thread.start()
    client = BlockingClient(*device.address)
    client.set_ioloop(ioloop)
    with client:
        assert client.ask("echo", 1).arguments == [b"1"]
    assert not client.running()
    ioloop.add_callback(ioloop.stop)
    thread.join()
    ioloop.close()


# ---- async with ----


@pytest.mark.parametrize("cls", CLIENTS)
def test_async_with_in_asyncio(device, cls):
    async def main():
        async with cls(*device.address) as client:
            assert type(client) is cls
            assert client.is_connected()
            assert client.ioloop.asyncio_loop is asyncio.get_running_loop()
        assert not client.running()

    asyncio.run(main())


def test_async_with_in_tornado(device, ioloop):
    async def main():
        async with AsyncClient(*device.address) as client:
            assert client.ioloop is ioloop
            reply, _ = await client.future_request(echo(1))
            return texts([reply])

    assert ioloop.run_sync(main) == ["!echo ok 1"]


def test_async_with_stops_after_an_exception(device):
    client = AsyncClient(*device.address)

    async def main():
        async with client:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    assert not client.running()


def test_async_with_in_one_loop_after_the_other(device):
    client = AsyncClient(*device.address)

    async def main():
        async with client:
            return (await client.async_ask("echo", 1)).arguments

    for _ in range(3):
        assert asyncio.run(main()) == [b"1"]


def test_async_with_after_a_managed_run(device):
    client = AsyncClient(*device.address)
    with client:
        client.ask("echo")

    async def main():
        async with client:
            return (await client.async_ask("echo", 1)).arguments

    assert asyncio.run(main()) == [b"1"]


def test_async_with_takes_the_loop_that_was_set(device, ioloop):
    client = AsyncClient(*device.address)
    client.set_ioloop(ioloop)

    async def main():
        async with client:
            return (await client.async_ask("echo", 1)).arguments

    assert ioloop.run_sync(main) == [b"1"]


def test_async_with_refuses_another_loop_than_was_set(device, ioloop):
    client = AsyncClient(*device.address)
    client.set_ioloop(ioloop)

    async def main():
        with pytest.raises(KatcpUsageError, match="another ioloop"):
            await client.__aenter__()

    asyncio.run(main())


def test_async_with_refuses_a_client_that_is_started(device):
    client = start_client(device)

    async def main():
        with pytest.raises(KatcpUsageError, match="already started"):
            await client.__aenter__()

    asyncio.run(main())
    assert client.ask("echo").arguments == []


def test_async_with_names_what_failed(refused_address, logs):
    host, port = refused_address
    client = AsyncClient(host, port, timeout=0.1)

    async def main():
        with pytest.raises(KatcpClientDisconnected) as error:
            await client.__aenter__()
        assert "Connection refused" in str(error.value)
        assert not client.running()

    asyncio.run(main())
    logs.expect("Failed to connect")


def test_async_with_of_a_client_that_gives_up(refused_address, logs):
    client = AsyncClient(*refused_address, timeout=None, auto_reconnect=False)

    async def main():
        with pytest.raises(KatcpClientDisconnected, match="Connection refused"):
            await client.__aenter__()

    asyncio.run(main())
    logs.expect("Failed to connect")


def test_async_with_that_is_cancelled_leaves_nothing(silent_address):
    client = AsyncClient(*silent_address[:2], timeout=PATIENCE)

    async def main():
        entering = asyncio.ensure_future(client.__aenter__())
        await client.until_running()
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert not client.running()

    async def run():
        client.set_ioloop(IOLoop.current())
        await main()

    asyncio.run(run())


def test_async_with_that_is_stopped_meanwhile(silent_address):
    client = AsyncClient(*silent_address[:2], timeout=PATIENCE)

    async def main():
        client.set_ioloop(IOLoop.current())
        entering = asyncio.ensure_future(client.__aenter__())
        await client.until_running()
        client.stop()
        with pytest.raises(KatcpClientStopped, match="before it was ready"):
            await entering

    asyncio.run(main())


# ---- ask ----


@pytest.mark.parametrize("protocol", ["5.1-MIB", "4"])
def test_ask_returns_the_answer(protocol):
    with TestDevice(protocol=protocol) as device:
        client = start_client(device)
        answer = client.ask("count", 2)
        assert answer.arguments == [b"2"]
        assert texts(answer.informs) == ["#count 0", "#count 1"]
        assert texts([answer.reply]) == ["!count ok 2"]
        assert client.ask("echo", "text", b"\x00\xff", 1.5, True).arguments == [
            b"text",
            b"\x00\xff",
            b"1.5",
            b"1",
        ]


@pytest.mark.parametrize(
    ("name", "reason", "code"),
    [("refuse", "not today", b"fail"), ("nono", "Unknown request 'nono'.", b"invalid")],
)
def test_ask_raises_what_the_device_refuses(device, name, reason, code):
    client = start_client(device)
    with pytest.raises(KatcpReplyError) as error:
        client.ask(name)
    assert str(error.value) == reason
    assert error.value.reply.arguments[0] == code


def test_ask_raises_a_timeout(device):
    client = start_client(device)
    with pytest.raises(KatcpClientTimeout, match="Request silent timed out after"):
        client.ask("silent", timeout=0.01)


def test_ask_raises_a_lost_connection(device):
    client = start_client(device)
    with pytest.raises(KatcpClientDisconnected, match="Connection closed before reply"):
        ask_and(client, device, device.close_clients)


def test_ask_raises_that_the_client_was_stopped(device):
    client = start_client(device)
    with pytest.raises(KatcpClientStopped, match="Client stopped before reply"):
        ask_and(client, device, client.stop)


def ask_and(client, device, function):
    """Ask what is held; call *function* when the device has the request."""

    def then():
        device.next_held()
        function()

    thread = threading.Thread(target=then)
    thread.start()
    try:
        client.ask("hold", timeout=PATIENCE)
    finally:
        thread.join()


def test_ask_refuses_misuse(device):
    client = BlockingClient(*device.address)
    with pytest.raises(KatcpUsageError, match=r"Call start\(\) before ask\(\)"):
        client.ask("echo")
    with pytest.raises(KatcpSyntaxError):
        client.ask("two words")
    with client:
        with pytest.raises(KatcpThreadError, match=r"use await async_ask\(\)"):
            in_loop(client, client.ask, "echo")
        with pytest.raises(KatcpTypeError):
            client.ask("echo", timeout="soon")
    with pytest.raises(KatcpUsageError, match=r"The client is stopped: call .* before ask\(\)"):
        client.ask("echo")
    with pytest.raises(KatcpUsageError, match=r"is stopped: call .* before async_ask\(\)"):
        asyncio.run(client.async_ask("echo"))


@pytest.mark.parametrize("argument", [None, [1, 2], (1,), {}, set()], ids=repr)
def test_ask_refuses_what_nobody_means_to_send(argument, device):
    """A message of its own takes it, as in katcp 0.9.3."""
    client = start_client(device)
    with pytest.raises(KatcpTypeError) as failure:
        client.ask("write", "bram", 0, argument)
    assert str(failure.value).startswith(f"Argument 3 of ?write is {argument!r}: ")
    with pytest.raises(KatcpTypeError):
        asyncio.run(client.async_ask("write", argument))
    assert Message.request("write", argument).arguments == [str(argument).encode()]
    assert device.received_requests("write") == []


def test_async_ask_in_the_loop_of_the_client(device):
    client = start_client(device)
    assert in_loop(client, client.async_ask, "echo", 1).arguments == [b"1"]
    with pytest.raises(KatcpReplyError, match="not today"):
        in_loop(client, client.async_ask, "refuse")
    with pytest.raises(KatcpClientTimeout):
        in_loop(client, lambda: client.async_ask("silent", timeout=0.01))


def test_async_ask_in_another_loop(device):
    client = start_client(device)
    assert asyncio.run(client.async_ask("echo", 1)).arguments == [b"1"]
    with pytest.raises(KatcpReplyError, match="not today"):
        asyncio.run(client.async_ask("refuse"))
    with pytest.raises(KatcpClientTimeout):
        asyncio.run(client.async_ask("silent", timeout=0.01))


# ---- futures for threads ----


def test_many_concurrent_requests(device):
    client = start_client(device)
    futures = [client.concurrent_request(echo(number)) for number in range(200)]
    _, pending = concurrent.futures.wait(futures, PATIENCE)
    assert pending == set()
    assert [future.result()[0].get_int(1) for future in futures] == list(range(200))
    assert len(Peek(client).pending) == 0


@pytest.mark.parametrize("cls", [AsyncClient, BlockingClient])
def test_concurrent_requests_end_in_their_own_order(device, cls):
    client = start_client(device, cls)
    first = client.concurrent_request(Message.request("hold"), timeout=PATIENCE)
    second = client.concurrent_request(Message.request("count", 1))
    completed = concurrent.futures.as_completed([first, second], PATIENCE)
    assert next(completed) is second
    reply, informs = second.result()
    assert texts([*informs, reply]) == ["#count 0", "!count ok 1"]
    device.next_held().reply("ok", "late")
    assert next(completed) is first
    assert texts([first.result()[0]]) == ["!hold ok late"]


def test_a_concurrent_request_that_is_cancelled_is_forgotten(device):
    client = start_client(device)
    future = client.concurrent_request(Message.request("hold"), timeout=PATIENCE)
    held = device.next_held()
    assert future.cancel()
    assert future.cancel()
    in_loop(client, int)
    assert len(Peek(client).pending) == 0
    # Who waits for it is told.
    done, _ = concurrent.futures.wait([future], PATIENCE)
    assert done == {future}
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(0)
    held.reply("ok", "late")
    assert client.ask("echo", 1).arguments == [b"1"]


def test_a_concurrent_request_that_is_cancelled_before_it_is_sent(device):
    client = start_client(device)
    blocked, go_on = threading.Event(), threading.Event()

    def block():
        blocked.set()
        go_on.wait(PATIENCE)

    client.ioloop.add_callback(block)
    assert blocked.wait(PATIENCE)
    future = client.concurrent_request(Message.request("hold"))
    assert future.cancel()
    go_on.set()
    client.ask("echo")
    assert device.received_requests("hold") == []


def test_cancelling_races_with_the_reply(device):
    client = start_client(device)
    futures = [client.concurrent_request(echo(number)) for number in range(500)]
    cancelled = [future for future in futures if future.cancel()]
    _, pending = concurrent.futures.wait(futures, PATIENCE)
    assert pending == set()
    assert all(future.cancelled() for future in cancelled)
    assert all(f.result()[0].reply_ok() for f in futures if not f.cancelled())
    in_loop(client, int)
    assert len(Peek(client).pending) == 0


def test_a_concurrent_request_in_the_ioloop(device):
    client = start_client(device)
    future = in_loop(client, lambda: [client.concurrent_request(echo(1))])[0]
    assert texts([future.result(PATIENCE)[0]]) == ["!echo ok 1"]
    # What is wrong with it the future tells there.
    request = Message.request("hold", mid=5)
    held = client.concurrent_request(request, timeout=PATIENCE)
    device.next_held()
    again = in_loop(client, lambda: [client.concurrent_request(Message.request("hold", mid=5))])[0]
    with pytest.raises(KatcpUsageError, match="Message id 5 is used"):
        again.result(PATIENCE)
    held.cancel()


@pytest.mark.parametrize(
    ("end", "error_class"),
    [("close_clients", KatcpClientDisconnected), ("stop", KatcpClientStopped)],
)
def test_concurrent_requests_end_with_the_connection_or_the_client(device, end, error_class):
    client = start_client(device)
    future = client.concurrent_request(Message.request("hold"), timeout=PATIENCE)
    device.next_held()
    (client.stop if end == "stop" else device.close_clients)()
    reply, informs = future.result(PATIENCE)
    assert isinstance(reply.local_error, error_class)
    assert informs == []


def test_a_concurrent_request_times_out(device):
    client = start_client(device)
    reply, _ = client.concurrent_request(Message.request("silent"), timeout=0.01).result(PATIENCE)
    assert isinstance(reply.local_error, KatcpClientTimeout)


def test_a_concurrent_request_of_a_client_that_has_ended(device):
    client = start_client(device, auto_reconnect=False)
    device.close_clients()
    assert client.wait_disconnected(PATIENCE)
    client.join(PATIENCE)
    reply, informs = client.concurrent_request(echo()).result(0)
    assert isinstance(reply.local_error, KatcpClientDisconnected)
    assert informs == []


def test_concurrent_requests_refuse_misuse(device):
    client = BlockingClient(*device.address)
    with pytest.raises(KatcpUsageError, match=r"Call start\(\) before concurrent_request\(\)"):
        client.concurrent_request(echo())
    with pytest.raises(KatcpTypeError, match="must be a Message"):
        client.concurrent_request("echo")
    with client, pytest.raises(KatcpTypeError, match="A timeout must be a number"):
        client.concurrent_request(echo(), timeout="soon")
    with pytest.raises(KatcpUsageError, match="is stopped"):
        client.concurrent_request(echo())


def test_ids_of_concurrent_requests(device, device_v4):
    client = start_client(device)
    reply, _ = client.concurrent_request(echo(), use_mid=False).result(PATIENCE)
    assert reply.mid is None
    reply, _ = client.concurrent_request(echo(), use_mid=True).result(PATIENCE)
    assert reply.mid is not None
    client = start_client(device_v4)
    reply, _ = client.concurrent_request(echo(), use_mid=True).result(PATIENCE)
    assert "not supported" in str(reply.local_error)


# ---- any loop ----


def test_async_request_in_another_loop(device):
    client = start_client(device)

    async def main():
        requests = [client.async_request(echo(number)) for number in range(50)]
        return [reply.get_int(1) for reply, _ in await asyncio.gather(*requests)]

    assert asyncio.run(main()) == list(range(50))


def test_async_request_in_the_loop_of_the_client(device):
    async def main():
        async with AsyncClient(*device.address) as client:
            reply, informs = await client.async_request(Message.request("count", 1))
            return texts([*informs, reply])

    assert asyncio.run(main()) == ["#count 0", "!count ok 1"]


@pytest.mark.parametrize("place", ["own", "other"])
def test_async_request_that_is_cancelled_is_forgotten(device, place):
    client = start_client(device)

    async def main():
        asking = asyncio.ensure_future(client.async_request(Message.request("hold"), PATIENCE))
        await asyncio.get_running_loop().run_in_executor(None, device.next_held)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    if place == "own":
        in_loop(client, main)
    else:
        asyncio.run(main())
    in_loop(client, int)
    assert len(Peek(client).pending) == 0


def test_async_request_refuses_misuse(device):
    client = AsyncClient(*device.address)
    with pytest.raises(KatcpUsageError, match=r"Call start\(\) before async_request\(\)"):
        asyncio.run(client.async_request(echo()))
    with pytest.raises(KatcpTypeError):
        asyncio.run(client.async_request(Message.inform("echo")))


# ---- subclasses and repr ----


def test_a_subclass_may_use_the_names_for_its_own_methods(device):
    def own(self, *args, **kwargs):
        raise AssertionError("called by the library")

    names = [
        "add_connection_callback add_inform_callback ask async_ask async_request",
        "blocking_request callback_request concurrent_request future_request informs",
        "remove_connection_callback remove_inform_callback start stop join",
        "wait_connected wait_protocol until_connected until_protocol until_stopped",
        "bind_address bind_address_string is_connected running",
    ]
    methods = dict.fromkeys(" ".join(names).split(), own)
    for name in methods:
        others = {other: method for other, method in methods.items() if other == name}
        subclass = type("Mine", (BlockingClient,), others)
        with subclass(*device.address) as client:
            assert BlockingClient.ask(client, "echo", 1).arguments == [b"1"]
            assert asyncio.run(BlockingClient.async_ask(client, "echo", 1)).arguments == [b"1"]
            stream = BlockingClient.informs(client, "tick", timeout=PATIENCE)
            device.inform(Message.inform("tick"))
            assert next(stream).name == "tick"
            assert "Mine" in repr(client)
    subclass = type("Mine", (BlockingClient,), methods)

    async def main():
        async with subclass(*device.address) as client:
            return (await BlockingClient.async_ask(client, "echo", 1)).arguments

    assert asyncio.run(main()) == [b"1"]


@pytest.mark.parametrize("cls", CLIENTS)
def test_repr_before_the_constructor_of_the_client_has_run(cls):
    class Early(cls):
        def __init__(self):
            self.shown = repr(self), str(self), f"{self}"
            super().__init__("localhost", 7147)

    client = Early()
    assert all(re.fullmatch("<.*Early object at 0x[0-9a-f]+>", text) for text in client.shown)
    assert repr(client) == "<Early localhost:7147 stopped>"
    with pytest.raises(KatcpTypeError):
        cls.__init__(made := cls.__new__(cls), 5, 7147)
    assert "object at" in repr(made)


@pytest.mark.parametrize("cls", CLIENTS)
def test_repr(device, cls):
    host, port = device.address
    client = cls(host, port)
    assert repr(client) == f"<{cls.__name__} {host}:{port} stopped>"
    with client:
        assert repr(client) == f"<{cls.__name__} {host}:{port} connected>"


@pytest.mark.parametrize("cls", CLIENTS)
def test_dir_lists_what_people_type(cls):
    class Program(cls):
        def gain(self):
            pass

        def _helper(self):
            pass

    client = Program("localhost", 7147)
    client.amplifiers = 2
    public = {name for name in dir(Program) if not name.startswith("_")}
    limits = {"CONNECT_TIMEOUT", "GREETING_TIMEOUT", "MAX_LOG_RATE", "MAX_VERSIONS_SIZE"}
    if issubclass(cls, AsyncClient):
        limits.add("MAX_INFORMS_SIZE")
    names = {name for name in dir(client) if not name.startswith("__")}
    assert names == (public | {"versions", "amplifiers"}) - limits
    assert client.MAX_LOG_RATE > 0


def test_all_failures_of_ask_are_of_one_family():
    family = [KatcpReplyError, KatcpClientTimeout, KatcpClientDisconnected, KatcpClientStopped]
    assert all(issubclass(cls, KatcpClientError) for cls in family)
    assert not any(issubclass(a, b) for a in family for b in family if a is not b)
    assert katcp.KatcpReplyError is katcp.core.KatcpReplyError


def test_a_future_that_nobody_looks_at_leaves_nothing(device):
    client = start_client(device)
    client.concurrent_request(Message.request("refuse"))
    client.ask("echo")
    gc.collect()
