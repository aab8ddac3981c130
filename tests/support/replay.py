"""Transcripts of real servers: read, and played again by a server on loopback.

``data/transcripts/README.md`` tells what is in a transcript. Two rules put back
what the recorder left out:

- of a long line the recorder kept the beginning. The rest is its last byte
  over and over, up to the recorded length, and a line end;
- of a flood it kept the first 20 000 bytes. The line cut in two is left out.

Nothing here imports katcp, and what the lines mean is told by `tests.support.abnf`.
"""

from __future__ import annotations

import functools
import json
import pathlib
import queue
import socket
import struct
import threading
from typing import Any, NamedTuple, Optional

from tests.support.helpers import PATIENCE

TRANSCRIPTS = pathlib.Path(__file__).parent.parent / "data" / "transcripts"

# The recorder kept the first bytes of a long line: the others are not sent byte by byte.
LONG_LINE = 20_000
RECORDED_OF_LONG_LINE = 2000


class Exchange(NamedTuple):
    """What the recorder sent, and what the server said to that."""

    note: str
    sent: bytes
    received: bytes
    closed: str


@functools.cache
def read_transcript(name: str) -> list[list[Exchange]]:
    """Return the connections of a file; the first exchange of each is the banner."""
    connections: dict[int, list[Exchange]] = {}
    for entry in json.loads((TRANSCRIPTS / f"{name}.json").read_text()):
        if not entry.get("meta"):
            connections.setdefault(entry["conn"], []).append(_exchange(entry))
    for banner, *_ in connections.values():
        assert banner.note == "on connect"
        assert not banner.sent
    return list(connections.values())


def _exchange(entry: dict[str, Any]) -> Exchange:
    sent = _complete(bytes.fromhex(entry["send_hex"]), entry.get("send_len"))
    received = _complete(bytes.fromhex(entry["recv_hex"]), entry.get("recv_len"))
    if "recv_hex cut" in entry["note"]:
        received = received[: received.rindex(b"\n") + 1]
    return Exchange(entry["note"], sent, received, entry.get("closed", ""))


def _complete(data: bytes, length: Optional[int]) -> bytes:
    if length is None or length == len(data):
        return data
    return data + data[-1:] * (length - len(data) - 1) + b"\n"


class ReplayServer:
    """Says what a recorded server said, one connection and one exchange at a time.

    Each exchange waits for `play_next`: the server hears as many bytes as the
    recorder sent, and answers what was recorded, in one piece or byte by byte.
    """

    def __init__(self, connections: list[list[Exchange]], bytewise: bool) -> None:
        self._connections = connections
        self._bytewise = bytewise
        self._over = False
        self._go: queue.Queue[None] = queue.Queue()
        self._heard: queue.Queue[bytes | BaseException] = queue.Queue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)

    def __enter__(self) -> ReplayServer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        # After a test that failed the thread may wait for anything.
        self._over = True
        self._go.put(None)
        socket.create_connection(self.address, PATIENCE).close()
        self._thread.join(2 * PATIENCE)
        self._listener.close()

    def play_next(self) -> None:
        """Let the next exchange begin."""
        self._go.put(None)

    def heard(self) -> bytes:
        """Return what the client sent in an exchange, or after the last: to its end."""
        heard = self._heard.get(timeout=2 * PATIENCE)
        if isinstance(heard, BaseException):
            raise heard
        return heard

    def _run(self) -> None:
        try:
            for connection in self._connections:
                sock, _ = self._listener.accept()
                with sock:
                    if self._over:
                        return
                    sock.settimeout(PATIENCE)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._play(sock, connection)
        except BaseException as error:
            self._heard.put(error)

    def _play(self, sock: socket.socket, connection: list[Exchange]) -> None:
        for exchange in connection:
            self._go.get(timeout=2 * PATIENCE)
            if self._over:
                return
            self._heard.put(_read(sock, len(exchange.sent)))
            self._say(sock, exchange.received)
            if exchange.closed:
                if exchange.closed.startswith("reset"):
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return
        self._heard.put(_read(sock, 1))

    def _say(self, sock: socket.socket, data: bytes) -> None:
        if not self._bytewise:
            sock.sendall(data)
            return
        single = len(data)
        if max(map(len, data.split(b"\n"))) > LONG_LINE:
            single = RECORDED_OF_LONG_LINE
        for position in range(single):
            sock.sendall(data[position : position + 1])
        sock.sendall(data[single:-1])
        sock.sendall(data[max(single, len(data) - 1) :])


def _read(sock: socket.socket, size: int) -> bytes:
    """Return the next *size* bytes, or fewer at the end of the connection."""
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)
