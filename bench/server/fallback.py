"""The device of bench/server/server.c in Python, for machines without a compiler.

As fast as Python goes: whole chunks are read, the common request is answered
by one replacement, everything large is prepared.
"""

from __future__ import annotations

import select
import socket
import sys
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "workers"))

from lines import PAYLOAD_KINDS, escape, make_payload

CHUNK = 262144
BLOCK_LINES = 1024
GREETINGS = {
    "v5": b"#version-connect katcp-protocol 5.0-MI\n"
    b"#version-connect katcp-library bench-1\n"
    b"#version-connect katcp-device bench-1\n",
    "v4": b"#version bench-1\n#build-state bench-1\n",
}
FLOOD_LINE = b"#sensor-status 1500000000.000000 1 bench.x nominal 1234.567\n"
PAYLOADS = {kind.encode(): escape(make_payload(kind)) + b"\n" for kind in PAYLOAD_KINDS}


class Client:
    """One connection: what came without its end, and what waits to go out."""

    def __init__(self, poller: select.epoll, sock: socket.socket) -> None:
        self.poller = poller
        self.socket = sock
        self.pieces: list[bytes] = []  # of the line that has not ended
        self.output: deque[memoryview] = deque()

    def receive(self) -> bool:
        """Answer what is there; return whether the connection lives."""
        try:
            data = self.socket.recv(CHUNK)
        except OSError:
            return False
        head, newline, rest = data.rpartition(b"\n")
        if newline:
            lines = b"".join([*self.pieces, head]).split(b"\n")
            self.pieces = [rest]
            self.send(b"".join([part for line in lines for part in answer(line)]))
        else:
            self.pieces.append(data)
        return bool(data)

    def send(self, data: bytes) -> None:
        """Send as much as the kernel takes, and the rest when it can."""
        self.output.append(memoryview(data))
        if len(self.output) == 1:
            self.flush()

    def flush(self) -> None:
        """Go on sending; an error is found by `receive`."""
        try:
            while self.output:
                sent = self.socket.send(self.output[0])
                self.output[0] = self.output[0][sent:]
                if not self.output[0]:
                    self.output.popleft()
        except BlockingIOError:
            self.poller.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            self.output.clear()
        else:
            self.poller.modify(self.socket, select.EPOLLIN)


def answer(line: bytes) -> list[bytes]:
    """Return the answer to one request, in parts."""
    head, _, argument = line[1:].partition(b" ")
    name, bracket, rest = head.partition(b"[")
    mid = bracket + rest
    if name in (b"echo", b"swallow"):
        return [b"!%s ok\n" % head]
    if name == b"silent":
        return []
    if name == b"flood":
        return [b"!flood%s ok\n" % mid, FLOOD_LINE * int(argument)]
    if name == b"informs":
        inform = b"#informs%s a.sensor.of.the.bench nominal 1234.567\n" % mid
        return [inform * int(argument), b"!informs%s ok %s\n" % (mid, argument)]
    if name == b"fetch":
        return [b"!fetch%s ok " % mid, PAYLOADS[argument]]
    return [b"!%s invalid\n" % head]


def main() -> None:
    greeting = GREETINGS["v4" if "--v4" in sys.argv else "v5"]
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    poller.register(sys.stdin, select.EPOLLIN)
    clients: dict[int, Client] = {}
    while True:
        for descriptor, event in poller.poll():
            if descriptor == sys.stdin.fileno():
                return
            if descriptor == listener.fileno():
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                poller.register(sock, select.EPOLLIN)
                client = clients[sock.fileno()] = Client(poller, sock)
                client.send(greeting)
                continue
            client = clients[descriptor]
            if event & select.EPOLLOUT:
                client.flush()
            if event & ~select.EPOLLOUT and not client.receive():
                del clients[descriptor]
                client.socket.close()


main()
