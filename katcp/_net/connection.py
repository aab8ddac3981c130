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

Writing
-------
The first message after something was read is sent at once; what follows is
joined and sent at the end of the loop's turn, and what is written while lines
are handled when these are done: one system call, not one each. Where several
connections of a loop are read in turn, each leaves what it sends to the end of
the turn: then all are sent one right after the other, and a peer that serves
several of them is woken once.

Limits
------
Those of the client are asked for when they are needed, since programs change
them while a connection is open; what a program sets on the stream itself
(`stream.max_buffer_size`, `stream.max_write_buffer_size`) holds until the
client's own limit is changed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import functools
import os
import socket
import ssl
import weakref
from typing import Any, Awaitable, Callable, Optional, Protocol, Union

import tornado.netutil
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamBufferFullError, StreamClosedError

from .._runtime.tasks import FATAL, run_in_daemon_thread
from .._wire.lines import LineSplitter
from ..errors import KatcpClientDisconnected, KatcpClientOverflow
from . import tls
from .stream import CHUNK_SIZE, MAX_JOINED_SIZE, PatientStream, PatientTlsStream
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


class _Turn:
    """The end of the turns of one loop, for all connections in it."""

    def __init__(self) -> None:
        # The connection that was opened or has read last, by its number: to hold
        # the object would keep it from being thrown away.
        self.last_reader = -1
        self._waiting: collections.deque[Connection] = collections.deque()

    def let_end(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        """Let *connection* send what it has joined, at the end of the turn."""
        if not self._waiting:
            loop.call_soon(self._end, loop)
        self._waiting.append(connection)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._waiting:
                self._waiting.popleft().end_turn()
        finally:
            if self._waiting:
                loop.call_soon(self._end, loop)


_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn] = weakref.WeakKeyDictionary()


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
        self.local_address: tuple[Any, ...] = ()
        self.host = host
        self.port = port
        self._limits = limits
        self._ssl_context = ssl_context
        self._msg_limit = self._write_limit = 0
        self.splitter = LineSplitter()
        self._has_received = False
        self._loop = asyncio.get_running_loop()
        turn = _turns.get(self._loop)
        if turn is None:
            turn = _turns[self._loop] = _Turn()
        self._turn = turn
        self.until_closed: asyncio.Future[None] = self._loop.create_future()
        self.error: Optional[BaseException] = None
        self.on_lines: Optional[Callable[[list[bytes]], Optional[list[bytes]]]] = None
        self._left_lines: list[bytes] = []
        self._fd = -1
        self._is_handling = False
        # What waits to be sent together, and the future of its writing, if
        # somebody asked for one.
        self._joined: list[bytes] = []
        self._joined_size = 0
        # Up to this size more is joined, without another look at the limits;
        # 0: nothing waits to be joined.
        self._size_to_join = 0
        self._joined_written: Optional[asyncio.Future[None]] = None
        # Whether something was sent since the last time that something was
        # read: then more may follow in the same turn of the loop.
        self._sent_since_read = False

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
        self._fd = self._turn.last_reader = stream.socket.fileno()
        self._update_msg_limit(stream)
        self._update_write_limit(stream)
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
        self._sent_since_read = False
        if stream.has_stopped_reading:
            stream.has_stopped_reading = False
            lines, self._left_lines = self._left_lines, []
            return lines
        return self.splitter.feed(data, stream.max_buffer_size)

    def send(self, data: bytes) -> None:
        """Send *data*, now or at the end of the turn.

        Raises `KatcpClientOverflow` if too much waits to be sent already, and
        `KatcpClientDisconnected` if the connection has ended.
        """
        size = self._joined_size + len(data)
        if size < self._size_to_join:
            self._joined.append(data)
            self._joined_size = size
            return
        stream = self._open_stream()
        if stream.writing():
            self._send_joined()
            self._leave_to_stream(stream, data)
        elif (
            self._joined
            or self._is_handling
            or self._sent_since_read
            or self._turn.last_reader != self._fd
        ):
            self._join(stream, data)
        else:
            if not self._has_room(stream, len(data)):
                raise self._overflow(stream)
            self._sent_since_read = True
            self._send_now(stream, data)

    def send_pieces(self, pieces: list[bytes]) -> None:
        """Send large data, which is not copied if the kernel takes all of it; now.

        Raises what `send` raises.
        """
        stream = self._open_stream()
        if not self._has_room(stream, self._joined_size + sum(map(len, pieces))):
            raise self._overflow(stream)
        self._send_joined()
        self._sent_since_read = True
        if stream.writing():
            self._leave_to_stream(stream, b"".join(pieces))
        else:
            rest = stream.write_pieces_at_once(pieces)
            if rest:
                self._leave_rest(stream, rest)

    def until_sent(self) -> asyncio.Future[None]:
        """Return a future that resolves when the kernel has all that was sent so far.

        It fails with `tornado.iostream.StreamClosedError` if the connection is
        closed first. For messages that are joined it is the same.
        """
        if self._joined:
            if self._joined_written is None or self._joined_written.cancelled():
                self._joined_written = self._loop.create_future()
            return self._joined_written
        if self.stream is not None and not self.stream.closed():
            return self.stream.write(b"")
        failed: asyncio.Future[None] = self._loop.create_future()
        failed.set_exception(StreamClosedError())
        failed.exception()  # not everybody looks
        return failed

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
            self._send_joined()
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

    def _update_write_limit(self, stream: IOStream) -> None:
        limit = self._limits.MAX_WRITE_BUFFER_SIZE
        if limit != self._write_limit:
            stream.max_write_buffer_size = self._write_limit = limit

    def _take(self, data: bytes) -> bool:
        """Let *data*, which has just arrived, be handled; return whether more is wanted."""
        stream, on_lines = self.stream, self.on_lines
        assert stream is not None
        assert on_lines is not None
        self._has_received = True
        is_only_reader = self._turn.last_reader == self._fd
        self._turn.last_reader = self._fd
        self._update_msg_limit(stream)
        lines = self.splitter.feed(data, stream.max_buffer_size)
        stream.chunk_size = CHUNK_SIZE if lines else min(2 * len(data), MAX_CHUNK_SIZE)
        self._is_handling = True
        try:
            left = on_lines(lines) if lines else None
        except FATAL as error:
            # What the chunk holds besides would be lost.
            self.close(error)
            raise
        finally:
            self._is_handling = self._sent_since_read = False
            if self._joined:
                if is_only_reader:
                    self._send_joined()
                else:
                    self._turn.let_end(self._loop, self)
        if left is None and not self.splitter.overflowed:
            return True
        self._left_lines = left or []
        return False

    def _open_stream(self) -> PatientStream:
        """Return the stream to send to, or raise."""
        stream = self.stream
        if stream is None or self.until_closed.done() or stream.closed():
            raise KatcpClientDisconnected("the connection is closed")
        self._update_write_limit(stream)
        return stream

    def _send_now(self, stream: PatientStream, data: bytes) -> None:
        """Send what was accepted; what the kernel does not take, the stream keeps."""
        if not stream.writing():
            data = stream.write_at_once(data)
        if data:
            self._leave_rest(stream, data)

    def _leave_rest(self, stream: PatientStream, rest: bytes) -> None:
        """Let the stream keep what the kernel did not take of what was accepted."""
        limit, stream.max_write_buffer_size = stream.max_write_buffer_size, None
        stream.write(rest)
        stream.max_write_buffer_size = limit

    def _leave_to_stream(self, stream: IOStream, data: bytes) -> None:
        """Let *data* wait behind what waits already."""
        try:
            stream.write(data)
        except StreamBufferFullError:
            raise self._overflow(stream) from None

    def _join(self, stream: PatientStream, data: bytes) -> None:
        """Let *data* go out with others."""
        if not self._has_room(stream, self._joined_size + len(data)):
            raise self._overflow(stream)
        if not self._joined and not self._is_handling:
            self._turn.let_end(self._loop, self)
        self._joined.append(data)
        self._joined_size += len(data)
        if self._joined_size >= MAX_JOINED_SIZE:
            self._send_joined()
        else:
            limit = stream.max_write_buffer_size
            self._size_to_join = MAX_JOINED_SIZE if limit is None else min(MAX_JOINED_SIZE, limit)

    def end_turn(self) -> None:
        """Send what was joined in the turn of the loop that is over."""
        self._sent_since_read = False
        self._send_joined()

    def _send_joined(self) -> None:
        """Send what was joined; let those who wait for it know what becomes of it."""
        if not self._joined:
            return
        data = b"".join(self._joined) if len(self._joined) > 1 else self._joined[0]
        written, self._joined_written = self._joined_written, None
        self._joined = []
        self._joined_size = self._size_to_join = 0
        if self.stream is not None and not self.stream.closed():
            self._send_now(self.stream, data)
        if written is not None:
            self.until_sent().add_done_callback(functools.partial(_copy_outcome, written))

    def _has_room(self, stream: IOStream, size: int) -> bool:
        limit = stream.max_write_buffer_size
        return limit is None or size <= limit

    def _overflow(self, stream: IOStream) -> KatcpClientOverflow:
        return KatcpClientOverflow(
            "more than MAX_WRITE_BUFFER_SIZE "
            f"({stream.max_write_buffer_size} bytes) would wait to be sent"
        )


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


def _copy_outcome(written: asyncio.Future[None], sent: asyncio.Future[None]) -> None:
    """Let those whose messages were joined know what became of them."""
    if written.done():
        return
    error = sent.exception()
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)
        written.exception()  # not everybody looks
