"""One request whose reply is read by the thread that waits for it.

To wake the loop's thread, and to be woken by it, costs more than all the rest
of a round trip. So a thread that makes a blocking request while nothing else
is going on sends it in the loop's turn, and reads the socket itself.

It looks for its own informs and its own reply in what it reads, and does
nothing else. Whatever else happens - another message, a bad line, the end of
the connection, the timeout, Ctrl-C - ends the loan of the reading: what was
read goes to the loop as if it had arrived just now, and the request becomes a
pending one like any other. So everything that can go wrong is handled in one
place, and handlers and callbacks are always called in the loop's thread.

A signal handler may raise between any two steps of the main thread. Hence
what must not be lost, what was sent and what was read, is noted by the same
call of C code that sends or reads.
"""

from __future__ import annotations

import socket
import time
from typing import Callable, Optional

from .connection import CHECK_INTERVAL, MAX_LOAN_SIZE, Connection
from .errors import KatcpSyntaxError
from .message import Message
from .parser import LineSplitter, MessageParser
from .pending import PendingRequest
from .threadsafe import Waiter

# A longer request is left to the loop.
MAX_SIZE = 65536

# As is the rest of a reply that is longer than MAX_LOAN_SIZE.
CHUNK_SIZE = 16384
_SIZES = (CHUNK_SIZE,)

_parse = MessageParser().parse


class Exchange:
    """One request and the search for its reply.

    Parameters
    ----------
    request : Message
        The request.
    started : float
        When it began, on the clock of `time.monotonic`.
    deadline : float or None
        Until when to read.

    Attributes
    ----------
    connection : Connection or None
        Whose reading it has tried to borrow.
    waiter : Waiter
        Where the thread waits if the loop reads the reply.
    pending : PendingRequest or None
        The request, if the loop waits for its reply.
    reply : Message or None
        The reply, once it was found.
    informs : list of Message
        The informs before it.
    has_read : bool
        Whether the thread reads no more.
    was_taken_over : bool
        Whether the loop has gone on where the thread has ended.
    """

    __slots__ = (
        "_after_reply",
        "_chunks",
        "_data",
        "_sent_sizes",
        "connection",
        "deadline",
        "has_read",
        "informs",
        "pending",
        "reply",
        "request",
        "started",
        "waiter",
        "was_taken_over",
    )

    def __init__(self, request: Message, started: float, deadline: Optional[float]) -> None:
        self.request = request
        self.started = started
        self.deadline = deadline
        self.connection: Optional[Connection] = None
        self.waiter = Waiter()
        self.pending: Optional[PendingRequest] = None
        self.reply: Optional[Message] = None
        self.informs: list[Message] = []
        self.has_read = False
        self.was_taken_over = False
        self._data = b""
        self._sent_sizes: list[int] = []
        self._chunks: list[bytes] = []
        self._after_reply = b""

    def callbacks(self) -> tuple[Callable[[Message], None], Callable[[Message], None]]:
        """Return what the loop calls with the reply and with each inform before it."""
        informs: list[Message] = []

        def on_reply(reply: Message) -> None:
            self.waiter.set_result((reply, informs))

        return on_reply, informs.append

    @property
    def was_sent(self) -> bool:
        """Whether the request, or the beginning of it, was sent."""
        return bool(self._sent_sizes)

    @property
    def unsent(self) -> bytes:
        """What the kernel has not taken of the request."""
        return self._data[sum(self._sent_sizes) :]

    @property
    def unhandled(self) -> bytes:
        """What was read, and is for the loop to handle."""
        return b"".join(self._chunks) if self.reply is None else self._after_reply

    def send(self, sock: socket.socket, data: bytes) -> bool:
        """Send *data*, the request; return whether all of it was taken; in the loop's turn."""
        self._data = data
        try:
            self._sent_sizes.extend(map(sock.send, (data,)))
        except OSError:
            # The stream finds the error again, and knows what to do.
            return False
        return self._sent_sizes[0] == len(data)

    def read_reply(self, reader: socket.SocketType) -> None:
        """Read until the reply is there, or something else ends the loan.

        *reader* has the timeout `CHECK_INTERVAL`.
        """
        if self.connection is not None:
            self.connection.spinner.wait_for_data(reader, self.deadline)
        if not self._receive(reader):
            return
        chunk = self._chunks[0]
        if chunk.startswith(b"!") and chunk.find(b"\n") == len(chunk) - 1:
            # The rule: one reply, in one piece.
            self._take(chunk[:-1], b"")
        else:
            self._read_lines(reader)

    def _read_lines(self, reader: socket.SocketType) -> None:
        """Go on reading when there is more than one line, or less."""
        splitter = LineSplitter()
        size = 0
        while True:
            lines = splitter.feed(self._chunks[-1])
            for position, line in enumerate(lines, 1):
                rest = b"\n".join([*lines[position:], splitter.pending])
                if not self._take(line, rest) or self.reply is not None:
                    return
            size += len(self._chunks[-1])
            if size > MAX_LOAN_SIZE - CHUNK_SIZE or not self._receive(reader):
                return

    def _take(self, line: bytes, rest: bytes) -> bool:
        """Take in *line*; return whether it is part of the answer."""
        try:
            msg = _parse(line)
        except KatcpSyntaxError:
            return False
        request = self.request
        if msg.name != request.name or msg.mid != request.mid:
            return False
        if msg.mtype == Message.REPLY:
            self._after_reply = rest
            self.reply = msg
        elif msg.mtype == Message.INFORM:
            self.informs.append(msg)
        return msg.mtype != Message.REQUEST

    def _receive(self, reader: socket.SocketType) -> bool:
        """Read a chunk; return whether there was one before the deadline."""
        while True:
            if self.deadline is not None:
                patience = self.deadline - time.monotonic()
                if patience <= 0:
                    return False
                if patience < CHECK_INTERVAL:
                    reader.settimeout(patience)
            try:
                self._chunks.extend(map(reader.recv, _SIZES))
            except socket.timeout:
                continue
            except OSError:
                return False
            return self._chunks[-1] != b""
