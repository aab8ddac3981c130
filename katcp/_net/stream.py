"""A stream that reports its end only after everything that arrived before."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any, Callable, Optional, Union

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from .tls import TlsStream

# Some hundred messages: more at a time would delay timers.
CHUNK_SIZE = 8192

# Larger data is passed on in pieces that every system takes.
MAX_AT_ONCE_SIZE = 65536

# How many pieces every system accepts in one call.
MAX_PIECES = 1024

# The kernel's codes for a write to a peer that has gone.
_PEER_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ESHUTDOWN)


class PatientStream(IOStream):
    """A stream that lets the reader find out that the peer has gone.

    `IOStream` closes itself when a write fails, and loses what the peer had sent before, which is
    often the reason.

    Attributes
    ----------
    write_error : OSError or None
        The error of a write, unless it was a normal end; the kernel reports it only once, so a read
        would miss it.
    on_data : callable or None
        Called with the data that arrives while `read_bytes` waits, instead of the stream's buffer.
        It returns whether it wants more.
    chunk_size : int
        How many bytes are read at a time.
    has_stopped_reading : bool
        Whether `read_bytes` resolved, with nothing, because `on_data` wanted no
        more.
    has_written : bool
        Whether the stream ever had to write something itself.
    takes_pieces : bool
        Whether data can be sent in pieces, without joining them.
    """

    # With more than 30 attributes in its dictionary, an object takes a kilobyte more; tornado's
    # stream has nearly as many.
    __slots__ = (
        "_read_error",
        "_wants_no_more",
        "chunk_size",
        "has_stopped_reading",
        "has_written",
        "on_data",
        "write_error",
    )

    is_encrypted = False
    takes_pieces = hasattr(socket.socket, "sendmsg")

    def __init__(self, sock: socket.socket, **options: Any) -> None:
        self.write_error: Optional[OSError] = None
        self.on_data: Optional[Callable[[bytes], bool]] = None
        self.has_stopped_reading = False
        # Most streams never write anything themselves: this check costs nothing.
        self.has_written = False
        self.chunk_size = CHUNK_SIZE
        self._wants_no_more = False
        self._read_error: Optional[OSError] = None
        super().__init__(sock, **options)

    def _handle_events(self, fd: Any, events: int) -> None:
        is_to_read = events == IOLoop.READ
        if is_to_read and self.on_data is not None and not self.is_encrypted:
            # Pass data to `on_data`, not to the stream's buffer. A tornado that no longer calls
            # this method goes through `read_from_fd`.
            try:
                data = self.socket.recv(self.chunk_size)
            except BlockingIOError:
                return
            except OSError as error:
                self._read_error = error  # the kernel reports it once
                data = b""
            if data and self.on_data(data):
                return
            self._wants_no_more = bool(data)
            if not self.closed():
                super()._handle_events(fd, events)
        elif is_to_read and not self.reading() and not self.closed():
            # Not reading: the data and the end are left to the next read.
            self._state = IOLoop.ERROR | (IOLoop.WRITE if self.writing() else 0)
            self.io_loop.update_handler(fd, self._state)
        else:
            super()._handle_events(fd, events)

    def read_from_fd(self, buf: Union[bytearray, memoryview]) -> Optional[int]:
        if self._read_error is not None:
            raise self._read_error
        while not self._wants_no_more:
            size = super().read_from_fd(buf)
            if not size or self.on_data is None:
                return size
            with memoryview(buf) as view:
                data = bytes(view[:size])
            self._wants_no_more = not self.on_data(data)
            if not self._wants_no_more and not self.holds_more():
                return None  # the stream sees no data
        # Something must resolve the read; it is thrown away.
        self._wants_no_more = False
        self.has_stopped_reading = True
        buf[:1] = b"\n"
        return 1

    def holds_more(self) -> bool:
        """Return whether data can be read of which the loop is not notified."""
        return False

    def write(self, data: Union[bytes, memoryview]) -> asyncio.Future[None]:
        self.has_written = True
        return super().write(data)

    def writing(self) -> bool:
        return self.has_written and super().writing()

    def write_at_once(self, data: bytes) -> bytes:
        """Send what the kernel takes of *data*, unless earlier data waits; return the rest."""
        if len(data) > MAX_AT_ONCE_SIZE:
            return data
        try:
            size = self.socket.send(data)
        except OSError as error:
            # The stream meets the same error again, and handles it.
            return b"" if self._tells_of_the_end(error) else data
        return b"" if size == len(data) else data[size:]

    def write_pieces_at_once(self, pieces: list[bytes]) -> bytes:
        """Like `write_at_once`, with data in pieces."""
        if not self.takes_pieces:
            return self.write_at_once(b"".join(pieces))
        try:
            size = self.socket.sendmsg(pieces[:MAX_PIECES])
        except OSError as error:
            return b"" if self._tells_of_the_end(error) else b"".join(pieces)
        return b"" if size == sum(map(len, pieces)) else b"".join(pieces)[size:]

    def write_to_fd(self, data: memoryview) -> int:
        try:
            return super().write_to_fd(data)
        except OSError as error:
            if not self._tells_of_the_end(error):
                raise
            return len(data)

    def _tells_of_the_end(self, error: OSError) -> bool:
        """Return whether the peer has gone, which the reader will find out."""
        if error.errno not in _PEER_GONE:
            return False
        if error.errno != errno.EPIPE:
            # Without its traceback, which would keep the buffer alive.
            self.write_error = error.with_traceback(None)
        return True


class PatientTlsStream(PatientStream, TlsStream):
    """A `PatientStream` with TLS, which comes first in the order of base classes."""

    is_encrypted = True
    takes_pieces = False

    def holds_more(self) -> bool:
        # The rest of a record, which is decrypted as a whole.
        return not self.closed() and self.socket.pending() > 0
