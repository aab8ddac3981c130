"""The floor for programs with a loop: a bare protocol that does the exchange and parses nothing."""

import asyncio
import functools

import asyncio_workloads
from lines import escape
from worker import measure_payloads, parse_options, serve


class Lines(asyncio.Protocol):
    """Counts lines."""

    def __init__(self):
        self.missing = 0
        self.received = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.missing -= data.count(b"\n")
        if not self.missing:
            self.received.set_result(None)

    def until_received(self, count):
        """Return a future; no more lines may come before something is sent."""
        self.missing += count
        self.received = asyncio.get_running_loop().create_future()
        return self.received


async def connect(port, count):
    loop = asyncio.get_running_loop()
    clients = [Lines() for _ in range(count)]
    greetings = [client.until_received(3) for client in clients]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
    await asyncio.gather(*greetings)
    return clients


async def disconnect(clients):
    for client in clients:
        client.transport.abort()
    await asyncio.sleep(0)


in_loop = functools.partial(asyncio_workloads.in_loop, connect, disconnect)


def exchange(request, window=1):
    """Return the play that sends so many requests at once and waits for so many lines."""

    async def play(clients, operations):
        [client] = clients
        for _ in range(operations // window):
            received = client.until_received(window)
            client.transport.write(request * window)
            await received

    return play


def burst(request):
    """Return the play that sends *request* once, and reads a line for each operation."""

    async def play(clients, operations):
        [client] = clients
        received = client.until_received(operations + 1)
        client.transport.write(request % operations)
        await received

    return play


async def ask_all(clients, operations):
    ask = exchange(ECHO)
    await asyncio.gather(*[ask([client], operations // len(clients)) for client in clients])


ECHO = b"?echo[1] 1\n"

workloads = {
    "future": in_loop(exchange(ECHO)),
    "callback": in_loop(exchange(ECHO)),
    "clients-100": in_loop(ask_all, 100),
    "clients-1000": in_loop(ask_all, 1000),
    "flood": in_loop(burst(b"?flood[1] %d\n")),
    "informs": in_loop(burst(b"?informs[1] %d\n")),
    "connect-1000": asyncio_workloads.connecting(connect, disconnect),
    "memory": asyncio_workloads.memory(connect, disconnect),
    **measure_payloads(
        lambda payload: in_loop(exchange(b"?swallow[1] %s\n" % escape(payload))),
        lambda kind, size: in_loop(exchange(b"?fetch[1] %s\n" % kind.encode())),
    ),
}
for window in 100, 1000:
    together = in_loop(exchange(ECHO, window))
    workloads[f"future-{window}"] = workloads[f"callback-{window}"] = together

options = parse_options()
serve(workloads, options.port, {})
