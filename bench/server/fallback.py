"""The device of server.c in Python, for machines without a compiler."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "workers"))

from lines import PAYLOAD_KINDS, escape, make_payload

GREETING = (
    b"#version-connect katcp-protocol 5.1-MIB\n"
    b"#version-connect katcp-library bench-1\n"
    b"#version-connect katcp-device bench-1\n"
)
REQUESTS = [b"flood", b"help", b"sensor-list", b"sensor-sampling"]
PAYLOADS = {kind.encode(): escape(make_payload(kind)) for kind in PAYLOAD_KINDS}
SENSORS = [b"bench.sensor.%05d" % i for i in range(int(sys.argv[1]))]
STATUSES = {
    name: b"#sensor-status 1500000000.000000 1 %s nominal 1234.567\n" % name for name in SENSORS
}
FLOOD = list(STATUSES.values())[:1024]


class Connection(asyncio.Protocol):
    """One client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.pieces: list[bytes] = []  # of the line that has not ended
        transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        head, newline, rest = data.rpartition(b"\n")
        if newline:
            lines = b"".join([*self.pieces, head]).split(b"\n")
            self.pieces = []
            self.transport.write(b"".join(map(answer, lines)))
        self.pieces.append(rest)


def answer(line: bytes) -> bytes:
    """Return the answer to a request."""
    head, _, argument = line[1:].partition(b" ")
    name, bracket, rest = head.partition(b"[")
    mid = bracket + rest
    if name in (b"echo", b"swallow"):
        return b"!%s ok\n" % head
    if name == b"silent":
        return b""
    if name == b"flood":
        flood = itertools.islice(itertools.cycle(FLOOD), int(argument))
        return b"!flood%s ok\n%s" % (mid, b"".join(flood))
    if name == b"informs":
        inform = b"#informs%s a.sensor.of.the.bench nominal 1234.567\n" % mid
        return b"%s!informs%s ok %s\n" % (inform * int(argument), mid, argument)
    if name == b"fetch":
        return b"!fetch%s ok %s\n" % (mid, PAYLOADS[argument])
    if name == b"help":
        informs = b"".join([b"#help%s %s A\\_request.\n" % (mid, request) for request in REQUESTS])
        return b"%s!help%s ok %d\n" % (informs, mid, len(REQUESTS))
    if name == b"sensor-list":
        inform = b"#sensor-list%s %%s A\\_sensor. m float\n" % mid
        informs = b"".join([inform % sensor for sensor in SENSORS])
        return b"%s!sensor-list%s ok %d\n" % (informs, mid, len(SENSORS))
    if name == b"sensor-sampling":
        names = argument.partition(b" ")[0].split(b",")
        informs = b"".join([STATUSES[sensor] for sensor in names])
        return b"%s!sensor-sampling%s ok %s\n" % (informs, mid, argument)
    return b"!%s invalid\n" % head


async def main() -> None:
    """Serve until the standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
