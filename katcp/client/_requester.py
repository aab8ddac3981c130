"""The requests of a client: ids, pending requests, deadlines, sending."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Iterable, Optional

from .._net.connection import Connection
from .._net.outgoing import Outgoing
from .._runtime.tasks import FATAL
from .._state.negotiation import ServerProtocol
from .._state.replies import fallen_behind, local_failure, timed_out
from .._state.requests import PendingRequests
from .._wire.escaping import BLOCK_SIZE
from .._wire.message import AssignedMid, Message, line_in_pieces
from .._wire.text import as_text, shorten
from ..errors import (
    KatcpClientDisconnected,
    KatcpClientError,
    KatcpClientOverflow,
    KatcpUsageError,
    KatcpVersionError,
)
from ._addresses import address_to_string
from ._held import HeldRequests
from ._hooks import Client, parts_behind
from ._log import RateLimitedLog
from ._sinks import Sink

# How long a search for deadlines is not repeated, in seconds for each pending request: ten times as
# long as it takes.
_REST_PER_REQUEST = 1e-6


class Requester:
    """Begins requests of every kind and ends each of them once; in the loop's thread.

    Attributes
    ----------
    connection : Connection or None
        The connection to send to; None while not connected.
    held : HeldRequests or None
        After a reconnect, until it is known whether the device has ids.
    pending : PendingRequests
        The requests waiting for their replies.
    timer : asyncio.TimerHandle or None
        One for all requests, set to the earliest deadline.
    """

    __slots__ = (
        "_client",
        "_log",
        "_protocol",
        "_timer_deadline",
        "_timer_rests_until",
        "connection",
        "held",
        "pending",
        "timer",
    )

    def __init__(self, client: Client, protocol: ServerProtocol, log: RateLimitedLog) -> None:
        self._client = client
        self._log = log
        self._protocol = protocol
        self.connection: Optional[Connection] = None
        self.held: Optional[HeldRequests] = None
        self.pending: PendingRequests[Sink] = PendingRequests(log)
        self.timer: Optional[asyncio.TimerHandle] = None
        self._timer_deadline = math.inf
        self._timer_rests_until = -math.inf

    # Beginning and sending.

    def begin(
        self, msg: Message, sink: Sink, timeout: Optional[float], use_mid: Optional[bool]
    ) -> None:
        """Send a request for *sink*, or raise and leave nothing pending."""
        now = asyncio.get_running_loop().time()
        deadline = None if timeout is None else now + (timeout if timeout > 0 else 0)
        if (
            self.held is not None
            and self.connection is not None
            and self.held.take(msg, sink, now, deadline, use_mid)
        ):
            if deadline is not None and deadline < self._timer_deadline:
                self._set_timer(deadline)
            return
        if msg.mid is None and use_mid is None:
            if self._protocol.message_ids:
                msg.mid = AssignedMid(b"%d" % self.pending.next_mid())
        else:
            self.assign_mid(msg, use_mid)
        (send,) = parts_behind(self, self._client.send_message)
        is_hooked = send != self.send
        pending = self.pending
        pending.add(sink, msg, now, deadline)
        try:
            if is_hooked:
                pending.leave_to_program(sink)
            send(msg)
        except Exception:
            pending.take_back(sink, left_to_program=is_hooked)
            raise
        except BaseException:
            # Ctrl-C may come after it was sent.
            pending.abandon(sink)
            raise
        if deadline is not None and deadline < self._timer_deadline:
            self._set_timer(deadline)

    def send_unclaimed(self, msg: Message) -> None:
        if self.held is None or not self.held.take_unclaimed(msg):
            self._client.send_message(msg)

    def send(self, msg: Message) -> Outgoing:
        """Send any message; return the connection."""
        connection = self.connection
        if connection is None or connection.outgoing is None:
            raise self.not_connected()
        outgoing = connection.outgoing
        last = msg.arguments[-1] if msg.arguments else b""
        pieces = [msg.__bytes__() + b"\n"] if len(last) <= BLOCK_SIZE else line_in_pieces(msg)
        if self._client._logger.isEnabledFor(logging.DEBUG):
            line = b"".join(pieces)
            address = address_to_string(self._client._bindaddr)
            self._log.debug("Sending to %s: %s", address, shorten(repr(line[:2000])))
        try:
            if len(pieces) == 1:
                outgoing.send(pieces[0])
            else:
                outgoing.send_pieces(pieces)
        except KatcpClientOverflow as error:
            connection.close(error)
            address = address_to_string(self._client._bindaddr)
            reason = f"Could not send to device {address}: {error}"
            self._log.warning("%s. Message: %s", reason, shorten(repr(msg)))
            raise KatcpClientOverflow(reason) from None
        except KatcpClientDisconnected:
            raise self.not_connected() from None
        return outgoing

    def not_connected(self) -> KatcpClientDisconnected:
        """Return the error for sending without a connection; any thread."""
        address = address_to_string(self._client._bindaddr)
        return KatcpClientDisconnected(f"Not connected to device {address}")

    # Message ids.

    def assign_mid(self, msg: Message, use_mid: Optional[bool]) -> None:
        """Set or clear the id to send *msg* with, or raise if that is impossible."""
        supported = self._protocol.message_ids
        mid = msg.mid
        if mid is not None:
            is_chosen = type(mid) is not AssignedMid
            if is_chosen or (supported and use_mid is not False and not self._is_used(int(mid))):
                self.check_mid(mid)
                return
            msg.mid = None
        if use_mid or (use_mid is None and supported):
            if not supported:
                raise KatcpVersionError("Message IDs not supported by server")
            msg.mid = AssignedMid(b"%d" % self.pending.next_mid())

    def _is_used(self, mid: int) -> bool:
        """Return whether a reply with this id may still come."""
        return self.pending.is_mid_pending(mid) or self.pending.may_be_answered_late(mid)

    def check_mid(self, mid: bytes) -> None:
        """Raise if no message can be sent with an id chosen by the program; any thread."""
        if not self._protocol.message_ids:
            raise KatcpVersionError("Message IDs not supported by server")
        if self.pending.is_mid_pending(int(mid)):
            raise KatcpUsageError(
                f"Message id {as_text(mid)} is used by a pending request: "
                "choose another one, or leave the choice to the client."
            )

    def check_submitted(self, msg: Message) -> None:
        """Raise in another thread what could only be logged in the loop."""
        bytes(msg)
        # Read once: the loop may be about to send the same message for another thread.
        mid = msg.mid
        if mid is not None and type(mid) is not AssignedMid and self._protocol.message_ids:
            self.check_mid(mid)

    # The greeting.

    def expect_greeting(self) -> None:
        """Hold requests back if the device, now reconnected, had ids before."""
        if self._protocol.had_ids and not self._protocol.preset:
            self.held = HeldRequests(self, self._client, self._log)

    # Ending.

    def forget(self, sink: Sink) -> None:
        """Drop a request: its reply is not wanted any more."""
        self.pending.abandon(sink)

    def overflow(self, sink: Sink, limit: int) -> None:
        """Fail a request whose informs take too much memory."""
        error = KatcpClientOverflow(
            f"The informs of request {shorten(sink.name)} would take more memory than "
            f"MAX_INFORMS_SIZE ({limit} bytes)"
        )
        self._log.warning("%s: it has failed.", error)
        self.pending.abandon(sink)
        self._end_all([(sink, error)])

    def fail_all(self, error: KatcpClientError) -> None:
        """End all pending requests with *error*."""
        self._cancel_timer()
        self._timer_rests_until = -math.inf
        if self.held is not None:
            self.held.drop()
            self.held = None
        # Callbacks first: a thread that wakes must find what they did, as in the old client.
        sinks = sorted(self.pending.take_all(), key=lambda sink: sink.wakes_thread)
        self._end_all((sink, error) for sink in sinks)

    def _end_all(self, ended: Iterable[tuple[Sink, KatcpClientError]]) -> None:
        """Answer requests that are pending no more, whatever the callbacks raise."""
        fatal: Optional[BaseException] = None
        for sink, error in ended:
            try:
                if not sink.take_reply(local_failure(sink, error)):
                    self._log.debug("Request %s, without a consumer: %s", sink.name, error)
            except FATAL as raised:
                fatal = raised
        if fatal is not None:
            raise fatal

    # Deadlines.

    def _set_timer(self, deadline: float) -> None:
        """Rearm the timer for an earlier *deadline*."""
        self._cancel_timer()
        loop = asyncio.get_running_loop()
        self.timer = loop.call_at(max(deadline, self._timer_rests_until), self._end_expired)
        self._timer_deadline = deadline

    def _cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = None
        self._timer_deadline = math.inf

    def _end_expired(self) -> None:
        """End the requests whose deadline has passed."""
        self._cancel_timer()
        now = asyncio.get_running_loop().time()
        ended = []
        for sink in self.pending.take_expired(now):
            hint = ""
            if self.pending.is_behind(sink):
                hint = fallen_behind(sink.name)
                self._renew_connection(hint)
            ended.append((sink, timed_out(sink.name, now - sink.started, hint)))
        try:
            self._end_all(ended)
        finally:
            self._timer_rests_until = now + len(self.pending) * _REST_PER_REQUEST
            deadline = self.pending.next_deadline()
            if deadline is not None and deadline < self._timer_deadline:
                self._set_timer(deadline)

    def _renew_connection(self, reason: str) -> None:
        """Close the connection, if the client reconnects."""
        if self._client._auto_reconnect and self.connection is not None:
            self.connection.close(KatcpClientDisconnected(reason))
