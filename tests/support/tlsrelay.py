"""A relay that takes TLS from clients and passes on what they say to a device without TLS.

It stands for the proxy in front of a real device. Each connection has a thread
of its own with blocking sockets: so the alerts of the handshake go out as those
of real servers do.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from typing import Any

from tests.support.helpers import PATIENCE

CHUNK_SIZE = 65536


class TlsRelay:
    """A relay to *target*, listening on return.

    Attributes
    ----------
    address
        Host and port where it listens; kept when it is started again.
    """

    def __init__(
        self, target: tuple[Any, ...], context: ssl.SSLContext, host: str = "127.0.0.1"
    ) -> None:
        self.address: tuple[str, int] = (host, 0)
        self.context = context
        self._target = target[:2]
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._ended = True
        self.start()

    def __enter__(self) -> TlsRelay:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def start(self) -> None:
        """Listen (again)."""
        family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        listener = socket.create_server(self.address, family=family)
        self.address = listener.getsockname()[:2]
        self._ended = False
        self._run(self._accept, listener)

    def kill(self) -> None:
        """End all connections, without a farewell of TLS, and the listening."""
        with self._lock:
            self._ended = True
            for sock in self._sockets:
                _cut(sock)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self._threads.clear()

    def _run(self, function: Any, sock: socket.socket) -> None:
        self._keep(sock)
        thread = threading.Thread(target=function, args=(sock,), name="tls-relay", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _keep(self, sock: socket.socket) -> None:
        """Let *sock* be cut by `kill`."""
        with self._lock:
            self._sockets.append(sock)
            if self._ended:
                _cut(sock)

    def _close(self, sock: socket.socket) -> None:
        with self._lock:
            if sock in self._sockets:
                self._sockets.remove(sock)
            sock.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not self._ended:
                self._run(self._serve, listener.accept()[0])
        self._close(listener)

    def _serve(self, raw: socket.socket) -> None:
        # What is cut is the connection, and not what TLS made of it.
        handle = raw.dup()
        self._keep(handle)
        try:
            with contextlib.suppress(OSError), self._encrypted(raw) as client:
                self._relay(client)
        finally:
            self._close(raw)
            self._close(handle)

    def _encrypted(self, raw: socket.socket) -> ssl.SSLSocket:
        """Shake hands; if that fails, let the client read why."""
        peer = raw.dup()
        try:
            return self.context.wrap_socket(raw, server_side=True)
        except OSError:
            # A close with bytes unread would be a reset, which overtakes the alert.
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(CHUNK_SIZE):
                pass
            raise
        finally:
            peer.close()

    def _relay(self, client: ssl.SSLSocket) -> None:
        """Pass on what either end says, until one of them ends."""
        # No name is looked up: tests decide what names lead to.
        device = socket.socket(socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET)
        self._keep(device)
        try:
            device.connect(self._target)
            while True:
                ready = [client] if client.pending() else select.select([client, device], [], [])[0]
                for sock in ready:
                    data = sock.recv(CHUNK_SIZE)
                    if not data:
                        return
                    (device if sock is client else client).sendall(data)
        finally:
            self._close(device)


def _cut(sock: socket.socket) -> None:
    """Wake whoever waits at *sock*, and let its peer see the end."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
