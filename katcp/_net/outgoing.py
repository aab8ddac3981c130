"""Coalesced writing: messages sent together go to the kernel in one call.

The first message after a read is sent at once. Further ones in the same iteration of the loop are
coalesced and flushed at its end, and those sent while lines are handled are flushed afterwards.
Where several connections of a loop are read in one iteration, all are flushed together at its end,
so that a peer that serves several of them is woken once.

Limits are read on each use, since programs change them while a connection is open; a limit set on
the stream itself (`stream.max_write_buffer_size`) is used until the client's own limit is changed.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import weakref
from typing import Optional, Protocol

from tornado.iostream import StreamBufferFullError, StreamClosedError

from ..errors import KatcpClientDisconnected, KatcpClientOverflow
from .stream import PatientStream

# How many bytes are coalesced before they are flushed.
MAX_COALESCED_SIZE = 65536


class WriteLimits(Protocol):
    """The limit of the bytes that wait to be sent; it may change."""

    MAX_WRITE_BUFFER_SIZE: int


class Flusher:
    """Flushes the connections of one loop at the end of an iteration.

    Attributes
    ----------
    last_reader : int
        The descriptor of the connection that was opened or read last: a reference to the object
        would keep it alive.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.last_reader = -1
        # Weak: a key that referred to the loop would keep it for ever.
        self._loop = weakref.ref(loop)
        self._waiting: collections.deque[Outgoing] = collections.deque()

    def flush_soon(self, outgoing: Outgoing) -> None:
        """Flush *outgoing* at the end of this iteration of the loop."""
        if not self._waiting:
            self._call_soon()
        self._waiting.append(outgoing)

    def _flush(self) -> None:
        try:
            while self._waiting:
                self._waiting.popleft().end_iteration()
        finally:
            if self._waiting:
                self._call_soon()

    def _call_soon(self) -> None:
        loop = self._loop()
        assert loop is not None
        loop.call_soon(self._flush)


_flushers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Flusher] = (
    weakref.WeakKeyDictionary()
)


def flusher_of(loop: asyncio.AbstractEventLoop) -> Flusher:
    """Return the flusher of a loop."""
    flusher = _flushers.get(loop)
    if flusher is None:
        flusher = _flushers[loop] = Flusher(loop)
    return flusher


class Outgoing:
    """The sending side of one connection.

    Parameters
    ----------
    stream : PatientStream
        The stream of the connection.
    limits : WriteLimits
        The client's limit.
    flusher : Flusher
        The flusher of the loop.

    Attributes
    ----------
    is_held : bool
        Whether lines are being handled: messages sent meanwhile are flushed by `release`.
    waiting : list of bytes
        The coalesced data.
    has_sent : bool
        Whether something was sent at once since the last read: more may follow in the same
        iteration of the loop.
    """

    __slots__ = (
        "_descriptor",
        "_flusher",
        "_is_closed",
        "_limit",
        "_limits",
        "_size",
        "_stream",
        "_written",
        "has_sent",
        "is_held",
        "waiting",
    )

    def __init__(self, stream: PatientStream, limits: WriteLimits, flusher: Flusher) -> None:
        self._stream = stream
        self._limits = limits
        self._flusher = flusher
        self._descriptor = flusher.last_reader = stream.socket.fileno()
        self._limit = limits.MAX_WRITE_BUFFER_SIZE
        self.is_held = False
        self.has_sent = False
        self._is_closed = False
        self.waiting: list[bytes] = []
        self._size = 0
        # The future of the coalesced data, if it was asked for.
        self._written: Optional[asyncio.Future[None]] = None

    def send(self, data: bytes) -> None:
        """Send *data*, now or at the end of the iteration.

        Raises `KatcpClientOverflow` if too much data is waiting, and `KatcpClientDisconnected` if
        the connection has ended.
        """
        stream = self._stream
        limit = stream.max_write_buffer_size
        if (
            self._is_closed
            or stream.socket is None
            or self._limit != self._limits.MAX_WRITE_BUFFER_SIZE
            or limit is None
            or self._size + len(data) > limit
        ):
            self._check(len(data))
        if stream.has_written and stream.writing():
            self.flush()
            self._wait_in_stream(data)
        elif (
            self.waiting
            or self.is_held
            or self.has_sent
            or self._flusher.last_reader != self._descriptor
        ):
            if not self.waiting and not self.is_held:
                self._flusher.flush_soon(self)
            self.waiting.append(data)
            self._size += len(data)
            if self._size >= MAX_COALESCED_SIZE:
                self.flush()
        else:
            self.has_sent = True
            rest = stream.write_at_once(data)
            if rest:
                self._leave_rest(rest)

    def send_pieces(self, pieces: list[bytes]) -> None:
        """Send large data now, without a copy if the kernel takes all of it.

        Raises the same as `send`.
        """
        self._check(sum(map(len, pieces)))
        self.flush()
        stream = self._stream
        self.has_sent = True
        if stream.writing():
            self._wait_in_stream(b"".join(pieces))
        else:
            rest = stream.write_pieces_at_once(pieces)
            if rest:
                self._leave_rest(rest)

    def _check(self, size: int) -> None:
        """Raise unless the connection is open and *size* more bytes may wait."""
        stream = self._stream
        if self._is_closed or stream.socket is None:
            raise KatcpClientDisconnected("the connection is closed")
        if self._limit != self._limits.MAX_WRITE_BUFFER_SIZE:
            self._limit = self._limits.MAX_WRITE_BUFFER_SIZE
            stream.max_write_buffer_size = self._limit
        limit = stream.max_write_buffer_size
        if limit is not None and self._size + size > limit:
            raise self._overflow()

    def until_sent(self) -> asyncio.Future[None]:
        """Return a future that resolves when the kernel has everything sent so far.

        It fails with `tornado.iostream.StreamClosedError` if the connection is closed first.
        Coalesced messages share one.
        """
        if self.waiting:
            if self._written is None or self._written.cancelled():
                self._written = asyncio.get_running_loop().create_future()
            return self._written
        if not self._stream.closed():
            return self._stream.write(b"")
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failed.set_exception(StreamClosedError())
        failed.exception()  # it may not be awaited
        return failed

    def release(self, is_only_reader: bool) -> None:
        """Flush the data sent while lines were handled."""
        if is_only_reader:
            self.flush()
        else:
            self._flusher.flush_soon(self)

    def end_iteration(self) -> None:
        """Flush at the end of an iteration of the loop."""
        self.has_sent = False
        self.flush()

    def flush(self) -> None:
        """Send the coalesced data, and settle its future."""
        if not self.waiting:
            return
        data = b"".join(self.waiting) if len(self.waiting) > 1 else self.waiting[0]
        written, self._written = self._written, None
        self.waiting = []
        self._size = 0
        stream = self._stream
        if not stream.closed():
            rest = data if stream.writing() else stream.write_at_once(data)
            if rest:
                self._leave_rest(rest)
        if written is not None:
            self.until_sent().add_done_callback(functools.partial(_copy_outcome, written))

    def close(self) -> None:
        """Flush for the last time, and accept nothing more."""
        self.flush()
        self._is_closed = True

    def _leave_rest(self, rest: bytes) -> None:
        """Leave accepted data that the kernel did not take to the stream."""
        stream = self._stream
        limit, stream.max_write_buffer_size = stream.max_write_buffer_size, None
        stream.write(rest)
        stream.max_write_buffer_size = limit

    def _wait_in_stream(self, data: bytes) -> None:
        """Queue *data* in the stream."""
        try:
            self._stream.write(data)
        except StreamBufferFullError:
            raise self._overflow() from None

    def _overflow(self) -> KatcpClientOverflow:
        return KatcpClientOverflow(
            "more than MAX_WRITE_BUFFER_SIZE "
            f"({self._stream.max_write_buffer_size} bytes) would wait to be sent"
        )


def _copy_outcome(written: asyncio.Future[None], sent: asyncio.Future[None]) -> None:
    """Copy the outcome of a write to the future of coalesced data."""
    if written.done():
        return
    error = sent.exception()
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)
        written.exception()  # it may not be awaited
