"""aiokatcp as a competitor."""

import asyncio
import functools
import importlib.metadata

import aiokatcp
import asyncio_workloads
from aiokatcp import Message
from worker import (
    collect_lateness,
    measure_codec,
    measure_imports,
    measure_payloads,
    parse_options,
    serve,
)

HOST = "127.0.0.1"


class Counter(aiokatcp.Client):
    """Counts the informs that nobody asked for."""

    missing = 0

    def until_received(self, count):
        self.missing = count
        self.all_received = asyncio.get_running_loop().create_future()
        return self.all_received

    def inform_sensor_status(
        self, timestamp: bytes, count: bytes, name: bytes, status: bytes, value: bytes
    ) -> None:
        self.missing -= 1
        if self.missing == 0:
            self.all_received.set_result(None)


async def connect(port, count, client_class=aiokatcp.Client):
    clients = [client_class(HOST, port) for _ in range(count)]
    for client in clients:
        await client.wait_connected()
    return clients


async def disconnect(clients):
    for client in clients:
        client.close()
    for client in clients:
        await client.wait_closed()


in_loop = functools.partial(asyncio_workloads.in_loop, connect, disconnect)
connect_counters = functools.partial(connect, client_class=Counter)


async def ask(clients, operations):
    [client] = clients
    for _ in range(operations):
        await client.request("echo", b"1")


async def ask_beside_pending(clients, operations):
    """Ask one by one, while 1000 other requests wait for replies that never come."""
    [client] = clients
    if not hasattr(client, "silenced"):
        silenced = [client.request("silent") for _ in range(1000)]
        client.silenced = asyncio.gather(*silenced, return_exceptions=True)
    await ask(clients, operations)


async def ask_together(window, clients, operations):
    [client] = clients
    for _ in range(operations // window):
        await asyncio.gather(*[client.request("echo", b"1") for _ in range(window)])


async def ask_all(clients, operations):
    await asyncio.gather(*[ask([client], operations // len(clients)) for client in clients])


async def ask_in_tasks(count, clients, operations):
    """Do what threads do elsewhere: *count* tasks ask one client."""
    await asyncio.gather(*[ask(clients, operations // count) for _ in range(count)])


async def receive_flood(clients, operations):
    [client] = clients
    received = client.until_received(operations)
    await client.request("flood", operations)
    await received


async def receive_informs(clients, operations):
    [client] = clients
    _, informs = await client.request("informs", operations)
    assert len(informs) == operations


def send_payload(payload):
    async def play(clients, operations):
        [client] = clients
        for _ in range(operations):
            await client.request("swallow", payload)

    return in_loop(play)


def fetch_payload(kind, size):
    async def play(clients, operations):
        [client] = clients
        for _ in range(operations):
            [argument], _ = await client.request("fetch", kind)
            assert len(argument) == size

    return in_loop(play)


def timer(port, part):
    """How late a 1 ms timer is while informs are read; *part* of the times it was not as late."""

    async def measured(clients, operations, watch):
        flood = asyncio.ensure_future(receive_flood(clients, operations))
        lateness = await collect_lateness(asyncio.sleep, flood)
        watch.amount = lateness[int(part * (len(lateness) - 1))]

    with asyncio.Runner() as runner:
        clients = runner.run(connect_counters(port, 1))
        yield lambda operations, watch: runner.run(measured(clients, operations, watch))
        runner.run(disconnect(clients))


def make_message(kind, name, mid, arguments):
    return getattr(Message, kind)(name, *arguments, mid=mid)


def copy_message(message):
    return Message(message.mtype, message.name, *message.arguments)


def make_workloads():
    workloads = measure_codec(Message.parse, bytes, make_message, copy_message, b"\n")
    workloads.update(
        {
            **measure_payloads(send_payload, fetch_payload),
            # It has one kind of request: what others do in three ways is one here.
            "blocking": in_loop(ask),
            "future": in_loop(ask),
            "callback": in_loop(ask),
            "threads-8": in_loop(functools.partial(ask_in_tasks, 8)),
            "clients-100": in_loop(ask_all, 100),
            "clients-1000": in_loop(ask_all, 1000),
            "flood": asyncio_workloads.in_loop(connect_counters, disconnect, receive_flood),
            "informs": in_loop(receive_informs),
            "pending-1000": in_loop(ask_beside_pending),
            "timer-99": functools.partial(timer, part=0.99),
            "timer-worst": functools.partial(timer, part=1),
            "connect-1000": asyncio_workloads.connecting(connect, disconnect),
            "memory": asyncio_workloads.memory(connect, disconnect),
            "import": measure_imports("aiokatcp"),
        }
    )
    for window in 100, 1000:
        together = in_loop(functools.partial(ask_together, window))
        workloads[f"future-{window}"] = workloads[f"callback-{window}"] = together
    return workloads


options = parse_options()
serve(
    make_workloads(),
    options.port,
    {name: importlib.metadata.version(name) for name in ("aiokatcp", "katcp-codec")},
)
