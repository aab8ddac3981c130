"""The device's side, played by the test: it does nothing of its own accord but greet."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import re
import socket
import tempfile
from typing import Any, Callable, Optional

from tornado.netutil import Resolver

LINE = re.compile(rb"([?!#])([a-z-]+)(?:\[(\d+)\])?(?: (.*))?")

_places: list[Peer] = []


class PeerResolver(Resolver):
    """Leads to the peer that is being played, or is silent as long as that says so."""

    def initialize(self) -> None:
        pass

    async def resolve(self, host: str, port: int, family: Any = None) -> list[tuple[int, Any]]:
        peer = _places[-1]
        while peer.name_server_hangs:
            # In virtual time.
            await asyncio.sleep(1.0)
        return [(socket.AF_UNIX, peer.path)]


class Peer:
    """A device on a local socket.

    Attributes
    ----------
    greeting : list of bytes
        The lines that the next connection is greeted with.
    said : deque of bytes
        The lines that the client has not handled yet.
    connection : socket or None
        The connection that is open on both sides.
    """

    def __init__(
        self,
        on_line: Callable[[bytes, bytes, Optional[bytes], bytes], None],
        on_garbage: Callable[[], None],
    ) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.path = os.path.join(self._directory.name, "device")
        self.name_server_hangs = False
        self.greeting: list[bytes] = []
        self.said: collections.deque[bytes] = collections.deque()
        self.connection: Optional[socket.socket] = None
        self._on_line = on_line
        self._on_garbage = on_garbage
        self._tail = b""
        self._held: list[tuple[bytes, bool]] = []
        self._listener: Optional[socket.socket] = None
        _places.append(self)
        self.listen()

    @property
    def is_listening(self) -> bool:
        return self._listener is not None

    def listen(self) -> None:
        """Take connections."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        self._listener.bind(self.path)
        self._listener.listen(16)

    def refuse(self) -> None:
        """Take no connections."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def say(self, line: bytes, *, hold: bool = False, is_message: bool = True) -> None:
        """Send a line; with *hold*, not before the next one, and both at once."""
        self._held.append((line, is_message))
        if not hold:
            self.flush()

    def flush(self, more: bytes = b"") -> None:
        """Send what is held, and *more*."""
        held, self._held = self._held, []
        data = b"".join(line + b"\n" for line, _ in held) + more
        if self.connection is not None and data:
            for line, is_message in held:
                if is_message:
                    self.said.append(line)
                else:
                    self._on_garbage()
            self.connection.sendall(data)

    def cut(self) -> None:
        """Close the connection; if there is something unread, that resets it."""
        self._forget_connection()

    def pump(self) -> bool:
        """Read and accept; return whether the client has something to do now."""
        self._read()
        return self._accept()

    def close(self) -> None:
        self.refuse()
        self._forget_connection()
        self._directory.cleanup()
        _places.remove(self)

    def _accept(self) -> bool:
        accepted = False
        while self._listener is not None:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                break
            self._forget_connection()
            self.connection = connection
            self.connection.setblocking(False)
            accepted = True
            with contextlib.suppress(BrokenPipeError):
                for line in self.greeting:
                    self.say(line)
            self._read()
        return accepted

    def _read(self) -> None:
        while self.connection is not None:
            try:
                data = self.connection.recv(65536)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            if not data:
                self._forget_connection()
                return
            *lines, self._tail = (self._tail + data).split(b"\n")
            for line in lines:
                match = LINE.fullmatch(line)
                assert match is not None, f"not a message: {line!r}"
                kind, name, mid, arguments = match.groups()
                self._on_line(kind, name, mid, arguments or b"")

    def _forget_connection(self) -> None:
        """Close, and know nothing of what was held for the connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        self._tail = b""
        self._held = []
