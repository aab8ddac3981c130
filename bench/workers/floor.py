"""The floor: exchanges the same lines and parses nothing, on a bare socket or in a protocol."""

import asyncio
import functools
import socket

from lines import escape
from loops import HOST, Package
from worker import parse_options, serve

GREETING_LINES = 3


class Lines(asyncio.Protocol):
    """Counts lines."""

    def __init__(self):
        self.greeted = self.until_received(GREETING_LINES)

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.missing -= data.count(b"\n")
        if not self.missing:
            self.received.set_result(None)

    def exchange(self, data, count):
        """Send *data*, and return a future that is done when so many lines have come."""
        self.transport.write(data)
        return self.until_received(count)

    def until_received(self, count):
        self.missing = count
        self.received = asyncio.get_running_loop().create_future()
        return self.received


@functools.cache
def make_line(name, *arguments):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in arguments]
    return b" ".join([b"?%s[1]" % name.encode(), *map(escape, words)]) + b"\n"


class Floor(Package):
    async def connect(self, port, count):
        loop = asyncio.get_running_loop()
        clients = [(await loop.create_connection(Lines, HOST, port))[1] for _ in range(count)]
        await asyncio.gather(*[client.greeted for client in clients])
        return clients

    connect_counting = connect

    async def disconnect(self, clients):
        for client in clients:
            client.transport.abort()
        await asyncio.sleep(0)

    def request(self, client, name, *arguments):
        lines = 1 + (arguments[0] if name in ("flood", "informs") else 0)
        return client.exchange(make_line(name, *arguments), lines)

    def check(self, result, size=None, informs=0):
        """Do nothing."""

    async def ask_together(self, clients, operations):
        await clients[0].exchange(make_line("echo", b"1") * operations, operations)

    async def receive_flood(self, clients, operations):
        await self.request(clients[0], "flood", operations)


def blocking(port):
    line = make_line("echo", b"1")
    with socket.create_connection((HOST, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        receive_lines(sock, GREETING_LINES)

        def run(operations, watch):
            with watch:
                for _ in range(operations):
                    sock.sendall(line)
                    receive_lines(sock, 1)

        yield run


def receive_lines(sock, count):
    """Read so many lines; no more come before something is sent."""
    while count:
        count -= sock.recv(4096).count(b"\n")


serve({**Floor().exchanges(), "blocking": blocking}, parse_options().port, {})
