"""Requests held back until the device has sent its greeting again.

Until its greeting has arrived, it is unknown whether a device has message ids. Without them replies
are matched by name, in the order of the requests, and a device with ids need not answer in that
order. So after a reconnect to a device that had ids, requests wait for the greeting, for a limited
time. Meanwhile they are pending: their deadlines apply, and they end with the connection. Nothing
overtakes them.
"""

from __future__ import annotations

import asyncio
from typing import Optional, Protocol

from .._runtime.tasks import FATAL
from .._state.requests import PendingRequests
from .._wire.message import AssignedMid, Message
from .._wire.text import shorten
from ..errors import KatcpClientError
from ._hooks import Client
from ._log import RateLimitedLog
from ._sinks import Sink

# The sink of a request, or None if its reply is not wanted; its message; whether to use an id.
_Held = tuple[Optional[Sink], Message, Optional[bool]]


class Sender(Protocol):
    """Begins requests."""

    pending: PendingRequests[Sink]
    held: Optional[HeldRequests]

    def begin(
        self, msg: Message, sink: Sink, timeout: Optional[float], use_mid: Optional[bool]
    ) -> None:
        """Begin a request."""


class HeldRequests:
    """The requests waiting for the greeting of one connection.

    It exists until they are released. All of it is used in the loop's thread.
    """

    __slots__ = ("_client", "_log", "_loop", "_requests", "_sender", "_sending", "_timer")

    def __init__(self, sender: Sender, client: Client, log: RateLimitedLog) -> None:
        self._sender = sender
        self._client = client
        self._log = log
        # In order, including those that are over.
        self._requests: list[_Held] = []
        # The request that is being released.
        self._sending: Optional[Sink] = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle = self._loop.call_later(client.GREETING_TIMEOUT, self._release)

    def take(
        self,
        msg: Message,
        sink: Sink,
        now: float,
        deadline: Optional[float],
        use_mid: Optional[bool],
    ) -> bool:
        """Hold a request back if it must wait for the greeting, or behind one that does."""
        has_chosen_mid = msg.mid is not None and type(msg.mid) is not AssignedMid
        if sink is self._sending or not (use_mid is not False or has_chosen_mid or self._requests):
            return False
        self._keep(sink, msg, use_mid)
        self._sender.pending.hold(sink, msg, now, deadline)
        return True

    def take_unclaimed(self, msg: Message) -> bool:
        """Hold a request whose reply is not wanted back, behind others that wait."""
        if not self._requests:
            return False
        self._keep(None, msg, False)
        return True

    def _keep(self, sink: Optional[Sink], msg: Message, use_mid: Optional[bool]) -> None:
        """Store the present state of *msg*."""
        bytes(msg)  # raises here if it cannot be sent
        if type(msg.mid) is AssignedMid:
            msg.mid = None  # it is from an earlier send
        held = msg.copy()
        held.mid = msg.mid
        self._requests.append((sink, held, use_mid))

    def on_protocol(self, has_ids: bool) -> None:
        """Send the requests: the protocol of the device is known."""
        if has_ids:
            self._release()
            return
        # After handling what has arrived: some devices first greet like version 4.
        self._timer.cancel()
        self._timer = self._loop.call_soon(self._release)

    def drop(self) -> None:
        """Drop the requests: the connection has ended."""
        self._timer.cancel()
        self._requests.clear()

    def _release(self) -> None:
        """Send the requests in order, and hold none back any more."""
        self._timer.cancel()
        fatal: Optional[BaseException] = None
        # Sending one may cause another one, which then is the last.
        for held in self._requests:
            try:
                self._send(*held)
            except FATAL as error:
                fatal = error
        self._sender.held = None
        if fatal is not None:
            raise fatal

    def _send(self, sink: Optional[Sink], msg: Message, use_mid: Optional[bool]) -> None:
        """Send one that is not over; if that fails, it ends with the error."""
        try:
            if sink is None:
                self._client.send_message(msg)
            else:
                self._begin(sink, msg, use_mid)
        except BaseException as error:
            reason = error if isinstance(error, KatcpClientError) else KatcpClientError(str(error))
            if sink is not None:
                # Not at once: a callback that retries would never return.
                self._loop.call_soon(sink.fail, msg, reason)
            if isinstance(error, FATAL):
                raise
            if reason is not error:
                self._log.exception("Could not send request %s", shorten(msg.name))

    def _begin(self, sink: Sink, msg: Message, use_mid: Optional[bool]) -> None:
        now = self._loop.time()
        if self._sender.pending.release(sink, now):
            started, deadline = sink.started, sink.deadline
            self._sending = sink
            self._sender.begin(msg, sink, None if deadline is None else deadline - now, use_mid)
            sink.started, sink.deadline = started, deadline
