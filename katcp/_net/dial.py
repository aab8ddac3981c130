"""Dialling: from a host and a port to a connected socket, perhaps with TLS.

Everything is done in the caller's coroutine, which waits only when necessary: for a name server, a
device on another machine, the TLS handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import socket
import ssl
from typing import Any, Optional, Union

import tornado.netutil
from tornado.ioloop import IOLoop

from .._runtime.tasks import run_in_daemon_thread, until_first
from .._wire.text import bracketed
from . import tls

# Seconds of silence before the kernel probes the peer, seconds between two probes, and how many may
# go unanswered.
KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6))

# The kernel's codes for a connection in progress.
_IN_PROGRESS = (errno.EINPROGRESS, errno.EWOULDBLOCK)


def _known_options(options: tuple[tuple[str, int], ...]) -> list[tuple[int, int, int]]:
    """Return the TCP options that this system has, as arguments of `setsockopt`."""
    return [
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in options
        if hasattr(socket, name)
    ]


_SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *_known_options(KEEPALIVE),
]


class ConnectionFailed(Exception):
    """No connection could be made; the text is the reason."""


class Dialler:
    """Connects to each address of a host in turn; in the loop's thread.

    Parameters
    ----------
    host, port
        Where to connect to.
    ssl_context : ssl.SSLContext or None
        How to encrypt. None: no encryption.
    cut : asyncio.Future
        Ends all waiting when it is done.

    Attributes
    ----------
    local_address : tuple
        The address of this end, as `socket.getsockname` gives it; once connected.
    """

    __slots__ = ("_cut", "_host", "_loop", "_port", "_ssl_context", "local_address")

    def __init__(
        self,
        host: Optional[str],
        port: Union[int, str],
        ssl_context: Optional[ssl.SSLContext],
        cut: asyncio.Future[None],
    ) -> None:
        self._host = host
        self._port = port
        self._ssl_context = ssl_context
        self._cut = cut
        self.local_address: tuple[Any, ...] = ()
        self._loop = asyncio.get_running_loop()

    async def dial(self, timeout: float) -> socket.socket:
        """Return a connected socket, which does not block.

        *timeout* is in seconds, for the name look-up and for each address, including the TLS
        handshake. Raises `ConnectionFailed`, also when it is cut short.
        """
        failures = []
        for family, address in await self._resolve(timeout):
            self._refuse_cut()
            try:
                return await self._connect(family, address, timeout)
            except (OSError, OverflowError) as error:
                # OverflowError: a port number above 65535.
                failures.append((address, str(error)))
        self._refuse_cut()
        raise ConnectionFailed(self._why_not(failures))

    def _refuse_cut(self) -> None:
        """Raise if dialling was cut short."""
        if self._cut.done():
            raise ConnectionFailed("closed while connecting")

    def _why_not(self, failures: list[tuple[Any, str]]) -> str:
        """Combine the reasons of all addresses."""
        if not failures:
            return "the name has no address"
        if len(failures) == 1 and failures[0][0][0] == self._host:
            return failures[0][1]
        # Sorted: name servers change the order, which is no new reason.
        return "; ".join(sorted(f"{_address_text(address)}: {why}" for address, why in failures))

    async def _resolve(self, timeout: float) -> list[tuple[int, Any]]:
        """Return the addresses of the host, without blocking the loop."""
        host = self._host or "0.0.0.0"  # as in the old client
        try:
            port = int(self._port)
            family = _family_of(host)
            if family is not None:
                return [(family, (host, port))]
            return await self._ask_for_addresses(host, port, timeout)
        except (OSError, ValueError, RuntimeError) as error:
            # ValueError: no valid name or port, like "a..b". RuntimeError: no thread could be
            # started.
            raise ConnectionFailed(str(error)) from None

    async def _ask_for_addresses(
        self, host: str, port: int, timeout: float
    ) -> list[tuple[int, Any]]:
        """Return the addresses of a name, or raise `OSError` or `ConnectionFailed`."""
        looking_up = self._begin_look_up(host, port)
        try:
            await until_first(looking_up, self._cut, timeout)
            self._refuse_cut()
            if not looking_up.done():
                raise TimeoutError(f"no address of the name within {timeout} seconds")
            return list(looking_up.result())
        finally:
            looking_up.cancel()

    def _begin_look_up(self, host: str, port: int) -> asyncio.Future[Any]:
        """Return a future of the addresses of a name."""
        resolver = tornado.netutil.Resolver
        if resolver.configured_class() is not resolver.configurable_default():
            found: asyncio.Future[Any] = asyncio.ensure_future(resolver().resolve(host, port))
            return found
        # tornado's own resolver would use a thread pool, which keeps the interpreter from exiting
        # while a name server is silent.
        return run_in_daemon_thread(_look_up, host, port)

    async def _connect(self, family: int, address: Any, timeout: float) -> socket.socket:
        """Return a socket connected to *address*, or raise `OSError`."""
        deadline = self._loop.time() + timeout
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            for option in _SOCKET_OPTIONS:
                sock.setsockopt(*option)
            await self._connect_socket(sock, address, deadline, timeout)
            if self._ssl_context is not None:
                sock = tls.wrap(sock, self._ssl_context, self._host or "")
                too_late = f"no end of the TLS handshake within {timeout} seconds"
                until_ready = functools.partial(self._until_ready, deadline, too_late)
                await tls.shake_hands(sock, until_ready)
            self._refuse_cut()
            self.local_address = sock.getsockname()
            return sock
        except BaseException:
            sock.close()
            raise

    async def _connect_socket(
        self, sock: socket.socket, address: Any, deadline: float, timeout: float
    ) -> None:
        """Connect, or raise `OSError`."""
        error = sock.connect_ex(address)
        if error in _IN_PROGRESS:
            # On the same machine it is already connected.
            if _is_connected(sock):
                return
            too_late = f"no answer within {timeout} seconds"
            await self._until_ready(deadline, too_late, sock, IOLoop.WRITE)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    async def _until_ready(
        self, deadline: float, too_late: str, sock: socket.socket, event: int
    ) -> None:
        """Wait until *sock* can be read or written.

        Raises `TimeoutError` after *deadline*, and `ConnectionFailed` when cut short.
        """
        ready = self._loop.create_future()

        def on_ready(*_: object) -> None:
            if not ready.done():
                ready.set_result(None)

        def on_late() -> None:
            if not ready.done():
                ready.set_exception(TimeoutError(too_late))

        timer = self._loop.call_at(deadline, on_late)
        ioloop = IOLoop.current()
        ioloop.add_handler(sock, on_ready, event)
        self._cut.add_done_callback(on_ready)
        try:
            await ready
        finally:
            timer.cancel()
            ioloop.remove_handler(sock)
            self._cut.remove_done_callback(on_ready)
        self._refuse_cut()


def _family_of(host: str) -> Optional[int]:
    """Return the family of an address; None for a name, or an address with a scope."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return family
    return None


def _look_up(host: str, port: int) -> list[tuple[int, Any]]:
    """Return the addresses of a host; blocks while a name server is asked."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def _address_text(address: tuple[Any, ...]) -> str:
    """Return a socket address for people to read."""
    host, port = address[:2]
    return f"{bracketed(host)}:{port}"


def _is_connected(sock: socket.socket) -> bool:
    """Return whether a socket is connected."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
