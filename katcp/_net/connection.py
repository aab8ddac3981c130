"""One TCP connection, optionally with TLS: dial, read, write, close. An object is used once.

A reconnect creates a new object, so late callbacks of the old one cannot affect it. Everything here
runs in the loop's thread.

Reading
-------
The stream is read in chunks, and a `LineSplitter` cuts them into lines. They are passed to
`on_lines` at once, without a future or a coroutine in between. When it wants no more for now,
reading stops, and `read_lines` returns the lines left over. While reading is stopped, the kernel
buffers the data, and the end is not noticed. Everything that has arrived is delivered before the
end of the connection is reported, even when a write noticed the end first.

Opening is in `katcp._net.dial`, writing in `katcp._net.outgoing`.

Limits
------
The client's limits are read on each use, since programs change them while a connection is open; a
limit set on the stream itself (`stream.max_buffer_size`, `stream.max_write_buffer_size`) is used
until the client's own limit is changed.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Awaitable, Callable, Optional, Protocol, Union

from tornado.iostream import IOStream, StreamClosedError

from .._runtime.tasks import FATAL, until_first
from .._wire.lines import LineSplitter
from ..errors import KatcpClientOverflow
from .dial import Dialler
from .outgoing import Outgoing, flusher_of
from .stream import CHUNK_SIZE, PatientStream, PatientTlsStream
from .tls import TlsFailure

# In the middle of a long line, that makes no difference.
MAX_CHUNK_SIZE = 32 * CHUNK_SIZE


class ConnectionEnded(Exception):
    """The connection has ended, and everything that arrived was delivered.

    Attributes
    ----------
    cause : Exception or None
        The reason. None: the peer closed it normally, or `close` was called without an error.
    """

    def __init__(self, cause: Optional[BaseException]) -> None:
        super().__init__(cause)
        self.cause = cause


class Limits(Protocol):
    """The limits of a client in bytes: of a line, and of the data waiting to be sent."""

    MAX_MSG_SIZE: int
    MAX_WRITE_BUFFER_SIZE: int


class Connection:
    """One TCP connection to a device.

    Parameters
    ----------
    host, port
        Where to connect to.
    limits : Limits
        The client's limits.
    ssl_context : ssl.SSLContext, optional
        How to encrypt. Default: no encryption.

    Attributes
    ----------
    stream : tornado.iostream.IOStream or None
        None until it is open.
    local_address : tuple
        The address of this end, as `socket.getsockname` gives it; once open.
    until_closed : asyncio.Future
        Done when `close` was called, or the peer has gone.
    splitter : LineSplitter
        Splits the stream into lines.
    on_lines : callable or None
        Called with the lines of each chunk at once, inside `read_lines`. It returns None to go on,
        or a list of the lines left over: reading stops, and `read_lines` returns them.
    error : Exception or None
        Why it was closed. None: normally.
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

        With TLS 1.3 it does so if it requires a client certificate, or another one.
        """
        return isinstance(self.error, TlsFailure) and not self._has_received

    async def open(self, timeout: float) -> None:
        """Connect, to each address of the host in turn.

        *timeout* is in seconds, for the name look-up and for each address, including the TLS
        handshake. Raises `ConnectionFailed`, also when `close` is called meanwhile.
        """
        dialler = Dialler(self.host, self.port, self._ssl_context, self.until_closed)
        try:
            sock = await dialler.dial(timeout)
        except asyncio.CancelledError:
            self.close()
            raise
        self.local_address = dialler.local_address
        stream_type = PatientStream if self._ssl_context is None else PatientTlsStream
        stream = stream_type(
            sock,
            max_buffer_size=self._limits.MAX_MSG_SIZE,
            max_write_buffer_size=self._limits.MAX_WRITE_BUFFER_SIZE,
        )
        self._fd = stream.socket.fileno()
        self._msg_limit = stream.max_buffer_size
        self.outgoing = Outgoing(stream, self._limits, self._flusher)
        self.stream = stream

    async def until_done_or_closed(self, awaitable: Awaitable[Any]) -> None:
        """Wait for *awaitable*, at most until the connection is closed."""
        await until_first(awaitable, self.until_closed)

    async def read_lines(self) -> list[bytes]:
        """Return the lines of the next chunk, or those left by `on_lines`; perhaps none.

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
        # The stream's limit is for all the data it holds, not for one line.
        stream.read_chunk_size = max(1, min(CHUNK_SIZE, stream.max_buffer_size // 2))
        try:
            # Resolves at once with the data in the stream.
            stream.on_data = None if self.on_lines is None else self._take
            data = await stream.read_bytes(stream.read_chunk_size, partial=True)
        except StreamClosedError as error:
            self.close(error.real_error or stream.write_error)
            raise ConnectionEnded(self.error) from None
        except OSError as error:
            # tornado does not turn every network error into a closed stream: "No route to host" is
            # raised unchanged.
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
        """Close now; data that the kernel does not take at once is dropped.

        Nothing more is delivered. May be called again.
        """
        if self._loop.is_closed():
            # Waiting coroutines cannot be woken any more: only the socket is left.
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

    def _update_msg_limit(self, stream: IOStream) -> None:
        """Update the stream's limit if the client's has changed."""
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
            # Otherwise the rest of the chunk would be lost.
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
