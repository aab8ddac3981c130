"""One TCP connection, perhaps with TLS: dial, read, write, close. An object is used once.

A reconnect makes a new object, so a late callback of the old one cannot touch
it. Everything here runs in the loop's thread.

Opening
-------
All is done in the caller's coroutine, and it waits only for what takes time:
for the look-up of a name, for a device that is not on this machine, for the
handshake of TLS.

Reading
-------
The stream is read in chunks, and a `LineSplitter` cuts them into lines. They
are given to `on_lines` as soon as they are there, without a future or a
coroutine in between. When it wants no more for now, reading stops, and
`read_lines` returns what it left. While nobody reads, the kernel keeps what
comes, and the end is not found. What has arrived is delivered before the end
of the connection is reported, also when a write noticed the end first.

Writing is in `katcp._net.outgoing`.

Limits
------
Those of the client are asked for when they are needed, since programs change
them while a connection is open; what a program sets on the stream itself
(`stream.max_buffer_size`, `stream.max_write_buffer_size`) holds until the
client's own limit is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import socket
import ssl
from typing import Any, Awaitable, Callable, Optional, Protocol, Union

import tornado.netutil
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError

from .._runtime.tasks import FATAL, run_in_daemon_thread
from .._wire.lines import LineSplitter
from ..errors import KatcpClientOverflow
from . import tls
from .outgoing import Outgoing, flusher_of
from .stream import CHUNK_SIZE, PatientStream, PatientTlsStream
from .tls import TlsFailure

# In the middle of a long line, that makes no difference.
MAX_CHUNK_SIZE = 32 * CHUNK_SIZE

# Seconds of silence before the kernel asks whether the peer is still there,
# seconds between two such questions, and how many may go unanswered.
KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6))

# What the kernel says when it goes on connecting.
_IN_PROGRESS = (errno.EINPROGRESS, errno.EWOULDBLOCK)


def _known_options(options: tuple[tuple[str, int], ...]) -> list[tuple[int, int, int]]:
    """Return those options of TCP that this system has, as `setsockopt` takes them."""
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


class ConnectionEnded(Exception):
    """The connection has ended, and everything that arrived was delivered.

    Attributes
    ----------
    cause : Exception or None
        Why. None: the peer closed it in an orderly way, or `close` was called
        without an error.
    """

    def __init__(self, cause: Optional[BaseException]) -> None:
        super().__init__(cause)
        self.cause = cause


class Limits(Protocol):
    """The limits of a client; in bytes: of a line, and of what may wait to be sent."""

    MAX_MSG_SIZE: int
    MAX_WRITE_BUFFER_SIZE: int


class Connection:
    """One TCP connection to a device.

    Parameters
    ----------
    host, port
        Where to connect to.
    limits : Limits
        Whose limits hold.
    ssl_context : ssl.SSLContext, optional
        How to encrypt. Default: not at all.

    Attributes
    ----------
    stream : tornado.iostream.IOStream or None
        None before it is open.
    local_address : tuple
        The address of this end, as `socket.getsockname` gives it; once open.
    until_closed : asyncio.Future
        It is done when `close` was called, or the peer has gone.
    splitter : LineSplitter
        What cuts the stream into lines.
    on_lines : callable or None
        Is given the lines of each chunk as soon as they are there, in the
        middle of `read_lines`. It returns None if it wants more, or a list of
        those that it leaves: reading stops, and `read_lines` returns them.
    error : Exception or None
        Why it was closed. None: in an orderly way.
    """

    def __init__(
        self,
        host: Optional[str],
        port: Union[int, str],
        limits: Limits,
        ssl_context: Optional[ssl.SSLContext] = None,
    ) -> None:
        self.stream: Optional[PatientStream] = None
        self.outgoing: Optional[Outgoing] = None
        self.local_address: tuple[Any, ...] = ()
        self.host = host
        self.port = port
        self._limits = limits
        self._ssl_context = ssl_context
        self._msg_limit = 0
        self.splitter = LineSplitter()
        self._has_received = False
        self._loop = asyncio.get_running_loop()
        self._flusher = flusher_of(self._loop)
        self.until_closed: asyncio.Future[None] = self._loop.create_future()
        self.error: Optional[BaseException] = None
        self.on_lines: Optional[Callable[[list[bytes]], Optional[list[bytes]]]] = None
        self._left_lines: list[bytes] = []
        self._fd = -1

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called, or the peer has gone."""
        return self.until_closed.done()

    @property
    def was_refused(self) -> bool:
        """Whether the peer ended TLS as the first thing after the handshake.

        So it does with TLS 1.3 if it wants another client certificate, or any.
        """
        return isinstance(self.error, TlsFailure) and not self._has_received

    async def open(self, timeout: float) -> None:
        """Connect, to each address of the host in turn.

        *timeout* is in seconds: for the look-up of a name, and for each
        address with the TLS handshake.
        Raises `ConnectionFailed`, also when `close` is called meanwhile.
        """
        try:
            stream = await self._dial(timeout)
        except asyncio.CancelledError:
            self.close()
            raise
        self._fd = stream.socket.fileno()
        self._msg_limit = stream.max_buffer_size
        self.outgoing = Outgoing(stream, self._limits, self._flusher)
        self.stream = stream

    async def read_lines(self) -> list[bytes]:
        """Return the lines of the next chunk, or what `on_lines` left; there may be none.

        Raises `ConnectionEnded` after the last.
        """
        stream = self.stream
        if stream is None or self.is_closed:
            raise ConnectionEnded(self.error)
        if self.splitter.overflowed:
            self.close(
                KatcpClientOverflow(
                    f"a line was longer than MAX_MSG_SIZE ({stream.max_buffer_size} bytes)"
                )
            )
            raise ConnectionEnded(self.error)
        self._update_msg_limit(stream)
        # The stream refuses to hold more than the limit, counting all lines.
        stream.read_chunk_size = max(1, min(CHUNK_SIZE, stream.max_buffer_size // 2))
        try:
            # Resolves at once with what the stream holds already.
            stream.on_data = None if self.on_lines is None else self._take
            data = await stream.read_bytes(stream.read_chunk_size, partial=True)
        except StreamClosedError as error:
            self.close(error.real_error or stream.write_error)
            raise ConnectionEnded(self.error) from None
        except OSError as error:
            # Not every error of the network is a closed stream to tornado:
            # "No route to host" comes as it is.
            self.close(error)
            raise ConnectionEnded(error) from None
        finally:
            stream.on_data = None
        self._has_received = True
        if self.outgoing is not None:
            self.outgoing.has_sent = False
        if stream.has_stopped_reading:
            stream.has_stopped_reading = False
            lines, self._left_lines = self._left_lines, []
            return lines
        return self.splitter.feed(data, stream.max_buffer_size)

    def close(self, error: Optional[BaseException] = None) -> None:
        """Close, now; what the kernel does not take at once is dropped.

        Nothing that has arrived is delivered any more. May be called again.
        """
        if self._loop.is_closed():
            # Nobody there can be woken any more: only the socket is left.
            if self.stream is not None and self.stream.socket is not None:
                self.stream.close_fd()
            return
        if not self.until_closed.done():
            if self.outgoing is not None:
                self.outgoing.close()
            self.error = error
            self.until_closed.set_result(None)
        if self.stream is not None:
            self.stream.close()

    async def until_done_or_closed(
        self, awaitable: Awaitable[Any], timeout: Optional[float] = None
    ) -> None:
        """Wait for *awaitable*, but no longer than the connection is open, or *timeout* seconds."""
        futures: list[asyncio.Future[Any]] = [asyncio.ensure_future(awaitable), self.until_closed]
        await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    async def _dial(self, timeout: float) -> PatientStream:
        """Return a connected stream."""
        failures = []
        for family, address in await self._resolve(timeout):
            self._refuse_closed()
            try:
                return await self._connect(family, address, timeout)
            except (OSError, OverflowError) as error:
                # OverflowError: a port number above 65535.
                failures.append((address, str(error)))
        self._refuse_closed()
        raise ConnectionFailed(self._why_not(failures))

    def _refuse_closed(self) -> None:
        """Raise if `close` was called."""
        if self.is_closed:
            raise ConnectionFailed("closed while connecting")

    def _why_not(self, failures: list[tuple[Any, str]]) -> str:
        """Return the reason, given those of all addresses."""
        if not failures:
            return "the name has no address"
        if len(failures) == 1 and failures[0][0][0] == self.host:
            return failures[0][1]
        # Sorted, for name servers change the order, and the same reasons are no news.
        return "; ".join(sorted(f"{_address_text(address)}: {why}" for address, why in failures))

    async def _resolve(self, timeout: float) -> list[tuple[int, Any]]:
        """Return the addresses of the host, without blocking the loop."""
        host = self.host or "0.0.0.0"  # the old client's meaning of no host
        try:
            port = int(self.port)
            family = _family_of(host)
            if family is not None:
                return [(family, (host, port))]
            return await self._ask_for_addresses(host, port, timeout)
        except (OSError, ValueError, RuntimeError) as error:
            # ValueError: not a name or a port at all, like "a..b".
            # RuntimeError: no thread could be started.
            raise ConnectionFailed(str(error)) from None

    async def _ask_for_addresses(
        self, host: str, port: int, timeout: float
    ) -> list[tuple[int, Any]]:
        """Return the addresses of a name, or raise `OSError` or `ConnectionFailed`."""
        looking_up = self._begin_look_up(host, port)
        try:
            await self.until_done_or_closed(looking_up, timeout)
            self._refuse_closed()
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
        # tornado's own would take a thread of a pool, which keeps the
        # interpreter from exiting as long as a name server is silent.
        return run_in_daemon_thread(_look_up, host, port)

    async def _connect(self, family: int, address: Any, timeout: float) -> PatientStream:
        """Return a stream that is connected to *address*, or raise `OSError`."""
        deadline = self._loop.time() + timeout
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            for option in _SOCKET_OPTIONS:
                sock.setsockopt(*option)
            await self._connect_socket(sock, address, deadline, timeout)
            stream_type = PatientStream
            if self._ssl_context is not None:
                stream_type = PatientTlsStream
                sock = tls.wrap(sock, self._ssl_context, self.host or "")
                too_late = f"no end of the TLS handshake within {timeout} seconds"
                until_ready = functools.partial(self._until_ready, deadline, too_late)
                await tls.shake_hands(sock, until_ready)
            self.local_address = sock.getsockname()
            return stream_type(
                sock,
                max_buffer_size=self._limits.MAX_MSG_SIZE,
                max_write_buffer_size=self._limits.MAX_WRITE_BUFFER_SIZE,
            )
        except BaseException:
            sock.close()
            raise

    async def _connect_socket(
        self, sock: socket.socket, address: Any, deadline: float, timeout: float
    ) -> None:
        """Connect, or raise `OSError`."""
        error = sock.connect_ex(address)
        if error in _IN_PROGRESS:
            # On the same machine, it is connected already.
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

        Raises `TimeoutError` after *deadline*, and `ConnectionFailed` when
        `close` is called.
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
        self.until_closed.add_done_callback(on_ready)
        try:
            await ready
        finally:
            timer.cancel()
            ioloop.remove_handler(sock)
            self.until_closed.remove_done_callback(on_ready)
        self._refuse_closed()

    def _update_msg_limit(self, stream: IOStream) -> None:
        """Let the stream know the client's limit if it has changed."""
        limit = self._limits.MAX_MSG_SIZE
        if limit != self._msg_limit:
            stream.max_buffer_size = self._msg_limit = limit

    def _take(self, data: bytes) -> bool:
        """Handle *data*, which has just arrived; return whether more is wanted."""
        stream, outgoing, on_lines = self.stream, self.outgoing, self.on_lines
        assert stream is not None
        assert outgoing is not None
        assert on_lines is not None
        self._has_received = True
        is_only_reader = self._flusher.last_reader == self._fd
        self._flusher.last_reader = self._fd
        if self._msg_limit != self._limits.MAX_MSG_SIZE:
            self._update_msg_limit(stream)
        lines = self.splitter.feed(data, stream.max_buffer_size)
        stream.chunk_size = CHUNK_SIZE if lines else min(2 * len(data), MAX_CHUNK_SIZE)
        outgoing.is_held = True
        try:
            left = on_lines(lines) if lines else None
        except FATAL as error:
            # What the chunk holds besides would be lost.
            self.close(error)
            raise
        finally:
            outgoing.is_held = outgoing.has_sent = False
            if outgoing.waiting:
                outgoing.release(is_only_reader)
        if left is None and not self.splitter.overflowed:
            return True
        self._left_lines = left or []
        return False


def _family_of(host: str) -> Optional[int]:
    """Return the family of an address, or None: it is a name, or has a scope."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return family
    return None


def _look_up(host: str, port: int) -> list[tuple[int, Any]]:
    """Return the addresses of a host; blocks if a name server has to be asked."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def _address_text(address: tuple[Any, ...]) -> str:
    """Return an address of a socket as people write it."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_connected(sock: socket.socket) -> bool:
    """Return whether a socket has another end."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
