"""Many clients at once, one that floods, one that does not read, many pending requests.

Not collected by default: ``tox -e load``. The figures that it prints depend on the
machine; what it asserts does not: latency is counted in processor time of the
loop's thread, in units of ``MAX_LOOP_LATENCY``, and the cost of a reply is
compared with another cost in the same run.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import random
import resource
import socket
import statistics
import threading
import time
from typing import Any, Callable, Iterator

import pytest

import katcp
from katcp import AsyncClient, BlockingClient, KatcpClientOverflow, Message
from katcp.ioloop_manager import IOLoopManager
from katcp.simdevice import Sensor, SimulatedDevice
from tests.support.helpers import PATIENCE, TestDevice, in_loop, start_client, until_answered
from tests.support.peek import Peek

SHARED_CLIENTS = 1000
MANAGED_CLIENTS = 100

# A thousand connections on a busy machine take their time.
LONG_PATIENCE = 6 * PATIENCE

FEW, MANY = 1_000, 50_000


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """Allow both ends of all connections to be open in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * SHARED_CLIENTS + 500
    assert hard == resource.RLIM_INFINITY or hard >= wanted, "the hard limit is too low"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def shared_loop() -> Iterator[Any]:
    """A loop that runs in a thread of its own."""
    manager = IOLoopManager()
    manager.start()
    yield manager.get_ioloop()
    manager.stop()
    manager.join(PATIENCE)


@contextlib.contextmanager
def shared_clients(device: TestDevice, ioloop: Any, number: int) -> Iterator[list[AsyncClient]]:
    """Clients of one device that share a loop."""
    clients = [AsyncClient(*device.address, timeout=LONG_PATIENCE) for _ in range(number)]
    for client in clients:
        client.set_ioloop(ioloop)
        client.start()
    for client in clients:
        assert client.wait_connected(LONG_PATIENCE)
        assert client.wait_protocol(LONG_PATIENCE)
    yield clients
    for client in clients:
        client.stop(LONG_PATIENCE)


async def ask_all(clients: list[AsyncClient]) -> None:
    """Let all clients ask at once; each gets its own answer."""
    answers = await asyncio.gather(
        *(
            client.future_request(Message.request("echo", number))
            for number, client in enumerate(clients)
        )
    )
    assert [reply.arguments for reply, _ in answers] == [
        [b"ok", b"%d" % number] for number in range(len(clients))
    ]


# ---- many sensors ----


async def cost_per_sensor(number: int) -> float:
    """Return the processor time to list and subscribe a sensor of *number*, both ends of it."""
    sensors = [Sensor(f"sensor.{i}", "float", "A sensor", "V", value=1.0) for i in range(number)]
    with SimulatedDevice(sensors=sensors) as device:
        async with AsyncClient(*device.address, timeout=LONG_PATIENCE) as client:
            began = time.process_time()
            _, informs = await client.future_request(Message.request("sensor-list"))
            assert len(informs) == number
            requests = (Message.request("sensor-sampling", s.name, "event") for s in sensors)
            await asyncio.gather(*map(client.async_request, requests))
            return (time.process_time() - began) / number


@pytest.mark.timeout(5 * LONG_PATIENCE)
def test_a_sensor_costs_the_same_however_many_there_are(capsys):
    few, many = (
        min(asyncio.run(cost_per_sensor(number)) for _ in range(3)) for number in (1_000, 10_000)
    )
    with capsys.disabled():
        print(
            f"\nto list and subscribe 10 000 sensors takes {10_000 * many:.1f} s of the processor"
        )
    assert many < 2 * few


# ---- many clients ----


@pytest.mark.timeout(5 * LONG_PATIENCE)
def test_a_thousand_clients_on_one_loop(device, shared_loop, capsys):
    began = time.monotonic()
    with shared_clients(device, shared_loop, SHARED_CLIENTS) as clients:
        connected = time.monotonic()
        assert device.client_count == SHARED_CLIENTS
        for _ in range(3):
            in_loop(clients[0], ask_all, clients)
        answered = time.monotonic()
        # All come back, and all answer again.
        device.close_clients()
        device.wait_for_connection(2 * SHARED_CLIENTS, LONG_PATIENCE)
        for client in clients:
            assert client.wait_connected(LONG_PATIENCE)
        in_loop(clients[0], ask_all, clients)
    with capsys.disabled():
        print(
            f"\n{SHARED_CLIENTS} clients on one loop: connected in {connected - began:.2f} s, "
            f"{3 * SHARED_CLIENTS / (answered - connected):.0f} requests/s"
        )


@pytest.mark.timeout(5 * LONG_PATIENCE)
def test_a_hundred_managed_clients(device, capsys):
    clients = [
        start_client(device, wait=None, timeout=LONG_PATIENCE) for _ in range(MANAGED_CLIENTS)
    ]
    for client in clients:
        assert client.wait_connected(LONG_PATIENCE)
        assert client.wait_protocol(LONG_PATIENCE)

    def ask(number: int) -> list[bytes]:
        reply, _ = clients[number].blocking_request(Message.request("echo", number))
        return list(reply.arguments)

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(MANAGED_CLIENTS) as threads:
        for _ in range(10):
            answers = list(threads.map(ask, range(MANAGED_CLIENTS)))
            assert answers == [[b"ok", b"%d" % n] for n in range(MANAGED_CLIENTS)]
        # Those whose requests are never answered hold nobody up.
        held = [
            threads.submit(client.blocking_request, Message.request("hold"))
            for client in clients[::2]
        ]
        requests = [device.next_held() for _ in held]
        assert ask(1) == [b"ok", b"1"]
        for request in requests:
            request.reply("ok")
        assert all(future.result()[0].reply_ok() for future in held)
    with capsys.disabled():
        seconds = time.monotonic() - began
        print(
            f"\n{MANAGED_CLIENTS} managed clients: {10 * MANAGED_CLIENTS / seconds:.0f} requests/s"
        )


# ---- one that floods ----


class FloodingServer:
    """A device that sends informs as fast as they are read, until it is closed."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._run)
        self._closing = threading.Event()
        self._thread.start()

    def _run(self) -> None:
        sock, _ = self._listener.accept()
        chunk = b"#flood 1.5 some-sensor nominal 3.14159\n" * 2000
        with sock, contextlib.suppress(OSError):
            while not self._closing.is_set():
                sock.sendall(chunk)

    def close(self) -> None:
        self._closing.set()
        self._thread.join(PATIENCE)
        self._listener.close()


class FloodedClient(AsyncClient):
    """A client that counts the informs."""

    count = 0

    def inform_flood(self, msg: Message) -> None:
        self.count += 1


class Ticker:
    """Notes how much processor time each turn of the loop takes; in the loop's thread."""

    def __init__(self) -> None:
        self.turns: list[float] = []
        self._last = time.thread_time()
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        now = time.thread_time()
        self.turns.append(now - self._last)
        self._last = now
        self._handle = self._loop.call_soon(self._tick)

    def stop(self) -> None:
        self._handle.cancel()


async def ask_one_by_one(client: AsyncClient, number: int) -> list[float]:
    """Return how long each of so many requests took."""
    latencies = []
    for position in range(number):
        began = time.monotonic()
        reply, _ = await client.future_request(Message.request("echo", position))
        latencies.append(time.monotonic() - began)
        assert reply.arguments == [b"ok", b"%d" % position]
    return latencies


def test_a_flooding_device_does_not_keep_the_loop_from_the_others(device, shared_loop, capsys):
    server = FloodingServer()
    flooded = FloodedClient(*server.address[:2])
    flooded.set_ioloop(shared_loop)
    with shared_clients(device, shared_loop, 100) as clients:
        flooded.start()
        assert flooded.wait_connected(PATIENCE)

        async def measure() -> tuple[list[float], list[float], int]:
            ticker = Ticker()
            before = flooded.count
            latencies = await ask_one_by_one(clients[0], 30)
            await ask_all(clients)
            ticker.stop()
            return ticker.turns, latencies, flooded.count - before

        turns, latencies, informs = Peek(clients[0]).portal.call(measure, timeout=LONG_PATIENCE)
        server.close()
        flooded.stop(PATIENCE)
    limit = AsyncClient.MAX_LOOP_LATENCY
    with capsys.disabled():
        print(
            f"\nflooded by {informs} informs: round trips of another client "
            f"{statistics.median(latencies) / limit:.1f} (median), {max(latencies) / limit:.1f} "
            f"(longest) MAX_LOOP_LATENCY; longest turn {max(turns) / limit:.2f}"
        )
    assert informs > 1000, "there was no flood"
    # The limit, and once more as much for what else a turn does.
    assert max(turns) < 2 * limit


def test_a_device_that_does_not_read_costs_its_client_the_connection(device, shared_loop, logs):
    with TestDevice(receive_buffer_size=4096) as slow:
        sender = BlockingClient(*slow.address, max_write_buffer_size=1024 * 1024)
        sender.auto_reconnect_delay = 0.02
        sender.set_ioloop(shared_loop)
        sender.start()
        assert sender.wait_protocol(PATIENCE)
        slow.pause_reading()
        with shared_clients(device, shared_loop, 10) as clients:
            replies: list[Message] = []
            ended = threading.Event()

            async def outrun() -> None:
                """Send more than the device takes, until the client says so."""
                while sender.is_connected() and not any(r.local_error for r in replies):
                    sender.callback_request(Message.request("echo", b"x" * 65536), replies.append)
                    await asyncio.sleep(0)
                sender.callback_request(Message.request("echo"), lambda reply: ended.set())

            Peek(sender).portal.call(outrun, timeout=LONG_PATIENCE)
            assert ended.wait(PATIENCE)
            in_loop(clients[0], ask_all, clients)
        errors = [reply.local_error for reply in replies]
        assert isinstance(errors[0], katcp.KatcpClientError)
        overflows = [error for error in errors if isinstance(error, KatcpClientOverflow)]
        assert "MAX_WRITE_BUFFER_SIZE (1048576 bytes)" in str(overflows[0])
        logs.expect("Could not send to device")
        logs.expect("closed with error KatcpClientOverflow")
        slow.resume_reading()
        until_answered(sender)
        sender.stop(PATIENCE)


# ---- many pending requests ----


class PatientServer:
    """A device that answers when it has got all requests, in the order that it is told."""

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._sock: Any = None

    def accept(self) -> None:
        """Greet the client."""
        self._sock, _ = self._listener.accept()
        self._sock.sendall(self._greeting)

    def read(self, number: int) -> list[bytes]:
        """Return so many requests, when they have come."""
        data, missing = [], number
        while missing > 0:
            data.append(self._sock.recv(1 << 20))
            missing -= data[-1].count(b"\n")
        return b"".join(data).split(b"\n")[:number]

    def answer(self, requests: list[bytes]) -> None:
        """Answer in this order."""
        self._sock.sendall(b"".join(b"!" + request[1:] + b" ok\n" for request in requests))

    def close(self) -> None:
        self._sock.close()
        self._listener.close()


def in_order(requests: list[bytes]) -> list[bytes]:
    return requests


def backwards(requests: list[bytes]) -> list[bytes]:
    return requests[::-1]


def shuffled(requests: list[bytes]) -> list[bytes]:
    return random.Random(len(requests)).sample(requests, len(requests))


async def cost_per_reply(
    client: AsyncClient,
    server: PatientServer,
    names: Callable[[int], str],
    order: Callable[[list[bytes]], list[bytes]],
    number: int,
) -> float:
    """Return the processor time that one of so many pending requests takes to end."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    replies: list[Message] = []

    def on_reply(reply: Message) -> None:
        replies.append(reply)
        if len(replies) == number:
            done.set_result(None)

    for position in range(number):
        client.callback_request(Message.request(names(position)), on_reply, timeout=LONG_PATIENCE)
    requests = order(await loop.run_in_executor(None, server.read, number))
    began = time.thread_time()
    answering = loop.run_in_executor(None, server.answer, requests)
    await done
    seconds = time.thread_time() - began
    await answering
    assert all(reply.reply_ok() for reply in replies)
    return seconds / number


WITH_IDS, WITHOUT_IDS = (
    b"#version-connect katcp-protocol 5.0-%s\n" % flags for flags in (b"MI", b"M")
)


@pytest.mark.timeout(5 * LONG_PATIENCE)
@pytest.mark.parametrize(
    ("greeting", "names", "order"),
    [
        pytest.param(WITH_IDS, lambda n: "ask", in_order, id="ids-in-order"),
        pytest.param(WITH_IDS, lambda n: "ask", backwards, id="ids-backwards"),
        pytest.param(WITH_IDS, lambda n: "ask", shuffled, id="ids-shuffled"),
        pytest.param(WITHOUT_IDS, lambda n: "ask", in_order, id="one-name-in-order"),
        pytest.param(WITHOUT_IDS, lambda n: f"ask-{n}", in_order, id="names-in-order"),
        pytest.param(WITHOUT_IDS, lambda n: f"ask-{n}", backwards, id="names-backwards"),
        pytest.param(WITHOUT_IDS, lambda n: f"ask-{n}", shuffled, id="names-shuffled"),
    ],
)
def test_a_reply_costs_the_same_however_many_are_pending(greeting, names, order, ioloop, capsys):
    server = PatientServer(greeting)
    client = AsyncClient(*server.address[:2])
    client.set_ioloop(ioloop)

    async def measure() -> tuple[float, float]:
        client.start()
        await asyncio.get_running_loop().run_in_executor(None, server.accept)
        await client.until_protocol(PATIENCE)
        few, many = [], []
        for _ in range(2):
            few += [await cost_per_reply(client, server, names, order, FEW) for _ in range(5)]
            many.append(await cost_per_reply(client, server, names, order, MANY))
        client.stop()
        await client.until_stopped()
        await asyncio.get_running_loop().shutdown_default_executor()
        return statistics.median(few), statistics.median(many)

    few, many = ioloop.run_sync(measure)
    server.close()
    with capsys.disabled():
        print(
            f"\na reply costs {few * 1e6:.1f} us with {FEW} pending, "
            f"{many * 1e6:.1f} us with {MANY}"
        )
    assert many < 3 * few
