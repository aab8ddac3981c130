"""Requests that are held back until the device has greeted again.

Until its greeting has arrived, nobody knows whether a device has message ids.
Without them replies are matched by name, in the order of the requests, and a device
with ids need not answer in that order. So after a reconnect to a device that had
ids, requests wait for the greeting, or until it does not seem to come. Meanwhile
they are pending: their deadlines run, and they end with the connection. Nothing
overtakes them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Optional

from .._runtime.tasks import FATAL
from .._state.requests import PendingRequest
from .._wire.message import AssignedMid, Message, shorten
from ..errors import KatcpClientError

if TYPE_CHECKING:
    from ._clients import AsyncClient

# A request, or None if nobody asked for its reply; its message; whether to use an id.
_Held = tuple[Optional[PendingRequest], Message, Optional[bool]]


class HeldRequests:
    """The requests of a client that wait for the greeting of one connection.

    It is the client's `_held_requests` from the connection to the release. All of it
    is used in the loop's thread.
    """

    __slots__ = ("_client", "_loop", "_requests", "_timer")

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        # In their order, those that are over included.
        self._requests: list[_Held] = []
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle = self._loop.call_later(client.GREETING_TIMEOUT, self._release)

    def must_wait(self, msg: Message, use_mid: Optional[bool]) -> bool:
        """Return whether *msg* has to wait: to know about ids, or behind one that does."""
        has_chosen_mid = msg.mid is not None and type(msg.mid) is not AssignedMid
        return use_mid is not False or has_chosen_mid or bool(self._requests)

    def add(self, request: Optional[PendingRequest], msg: Message, use_mid: Optional[bool]) -> None:
        """Hold a request back, with *msg* as it is now."""
        bytes(msg)  # raises here what could not be sent
        if type(msg.mid) is AssignedMid:
            msg.mid = None  # it is from an earlier time
        held = msg.copy()
        held.mid = msg.mid
        self._requests.append((request, held, use_mid))
        if request is not None:
            self._client._pending_requests.hold(request)

    def on_protocol(self, has_ids: bool) -> None:
        """Send them, for the device has told its protocol."""
        if has_ids:
            self._release()
            return
        # When what has arrived is handled: some devices greet as version 4 first.
        self._timer.cancel()
        self._timer = self._loop.call_soon(self._release)

    def drop(self) -> None:
        """Send none of them any more: the connection has ended."""
        self._timer.cancel()
        self._requests.clear()

    def _release(self) -> None:
        """Send them in their order, and hold none back any more."""
        self._timer.cancel()
        fatal: Optional[BaseException] = None
        # To send one may be the reason for another one, which is the last then.
        for held in self._requests:
            try:
                self._send(*held)
            except FATAL as error:
                fatal = error
        self._client._held_requests = None
        if fatal is not None:
            raise fatal

    def _send(
        self, request: Optional[PendingRequest], msg: Message, use_mid: Optional[bool]
    ) -> None:
        """Send one that is not over; if that fails, it ends with the reason."""
        client = self._client
        pending, now = client._pending_requests, self._loop.time()
        if request is not None and not pending.release(request, now):
            return
        try:
            if request is None:
                client.send_message(msg)
            else:
                client._assign_mid(msg, use_mid)
                request.mid = msg.mid
                client._send_pending(request, msg)
        except KatcpClientError as error:
            self._fail(request, msg, error)
        except BaseException as error:
            self._fail(request, msg, KatcpClientError(str(error)))
            if isinstance(error, FATAL):
                raise
            client._device_log.exception("Could not send request %s", shorten(msg.name))

    def _fail(
        self, request: Optional[PendingRequest], msg: Message, error: KatcpClientError
    ) -> None:
        """End one that was not sent, as if it had not been held back."""
        if request is None:
            return
        if request.keeps_informs:
            self._client._end_locally(request, error)
        else:
            more = request.more
            self._client._answer_soon(msg, request.take_callback(), more, error)
