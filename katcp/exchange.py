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

import contextlib
import select
import socket
import time
from typing import Callable, Optional

from .connection import Connection
from .errors import KatcpSyntaxError
from .message import Message
from .parser import LineSplitter, MessageParser
from .pending import PendingRequest
from .threadsafe import Waiter

# A longer request, and the rest of a longer reply, are left to the loop.
MAX_SIZE = 65536
CHUNK_SIZE = 16384

# How often the thread looks whether the socket is still open, in seconds.
CHECK_INTERVAL = 0.25


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
    """

    def __init__(self, request: Message, started: float, deadline: Optional[float]) -> None:
        self.request = request
        self.started = started
        self.deadline = deadline
        self.connection: Optional[Connection] = None
        self.waiter = Waiter()
        self.pending: Optional[PendingRequest] = None
        self.reply: Optional[Message] = None
        self.informs: list[Message] = []
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

    def send(self, sock: socket.socket, data: bytes) -> None:
        """Send *data*, the request; in the loop's turn."""
        self._data = data
        # The stream finds the error again, and knows what to do.
        with contextlib.suppress(OSError):
            self._sent_sizes.extend(map(sock.send, (data,)))

    def read_reply(self, sock: socket.socket) -> None:
        """Read until the reply is there, or something else ends the loan."""
        splitter = LineSplitter()
        size = 0
        while size < MAX_SIZE and self._wait_for_data(sock) and self._receive(sock):
            size += len(self._chunks[-1])
            lines = splitter.feed(self._chunks[-1])
            for position, line in enumerate(lines, 1):
                msg = self._parse_own(line)
                if msg is None:
                    return
                if msg.mtype == Message.REPLY:
                    self._after_reply = b"\n".join([*lines[position:], splitter.pending])
                    self.reply = msg
                    return
                self.informs.append(msg)

    def _wait_for_data(self, sock: socket.socket) -> bool:
        """Return whether something can be read before the deadline."""
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        while True:
            patience = CHECK_INTERVAL
            if self.deadline is not None:
                patience = min(patience, self.deadline - time.monotonic())
            if patience <= 0 or sock.fileno() < 0:
                return False
            if poll.poll(patience * 1000):
                return True

    def _receive(self, sock: socket.socket) -> bool:
        """Read a chunk; return whether there was one."""
        try:
            self._chunks.extend(map(sock.recv, (CHUNK_SIZE,)))
        except OSError:
            return False
        return bool(self._chunks[-1])

    def _parse_own(self, line: bytes) -> Optional[Message]:
        """Return the message of a line if it is part of the answer."""
        try:
            msg = MessageParser().parse(line)
        except KatcpSyntaxError:
            return None
        is_own = msg.name == self.request.name and msg.mid == self.request.mid
        return msg if is_own and msg.mtype != Message.REQUEST else None
