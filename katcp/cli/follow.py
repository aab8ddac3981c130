"""Following devices for ever: each connection is set up, and events are queued.

The clients run in their own threads. They put events in a queue, which the main thread handles in
order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import queue
from typing import Any, Iterator, Sequence

from tornado.util import TimeoutError as TornadoTimeoutError

from ..client import Answer
from ..core import KatcpClientStopped, KatcpUsageError, Message
from .connect import NO_LIMIT, CommandClient, patiently, started
from .devices import Address
from .output import REFUSED, CommandError, tell

# Pairs of a client and an event: True for a connection, False for its end, a text for the user, a
# `CommandError`, or anything that a subclass adds.
Events = queue.SimpleQueue[tuple[Any, Any]]


class FollowingClient(CommandClient):
    """A client that reconnects by itself, and sets up each connection.

    Attributes
    ----------
    connections : int
        How many connections there were.
    was_set_up : bool
        Whether one of them was set up.
    """

    def __init__(self, options: argparse.Namespace, device: Address, events: Events) -> None:
        super().__init__(options, device, auto_reconnect=True)
        self.connections = 0
        self.was_set_up = False
        self._events = events
        self._is_setting_up = self._is_outdated = False

    def note(self, event: Any) -> None:
        """Put an event in the queue."""
        self._events.put((self, event))

    def report(self, text: str) -> None:
        """Queue a log record of the library."""
        self.note(text)

    def notify_connected(self, connected: bool) -> None:
        """Queue the beginning or end of a connection."""
        super().notify_connected(connected)
        self.note(connected)
        if connected:
            self.connections += 1
            assert self.ioloop is not None
            self.ioloop.add_callback(self.set_up_again)

    async def set_up_again(self) -> None:
        """Set up the connection, and queue errors.

        A set-up in progress is cancelled first. Several calls meanwhile count as one.
        """
        self._is_outdated = True
        if self._is_setting_up:
            return
        self._is_setting_up = True
        try:
            while self._is_outdated:
                self._is_outdated = False
                await self._set_up_once()
        finally:
            self._is_setting_up = False

    async def _set_up_once(self) -> None:
        try:
            try:
                await self.until_protocol(self.greeting_patience)
            except (TornadoTimeoutError, asyncio.TimeoutError, TimeoutError):
                self.first_patience = self.patience - self.greeting_patience
                await self._check_alive()
            await self.set_up()
            self.was_set_up = True
        except CommandError as error:
            # The loss of a connection is an event of its own.
            if self.is_connected():
                self.note(error)
        except (KatcpClientStopped, KatcpUsageError):
            # Stopped in the middle.
            if self.running():
                raise

    async def _check_alive(self) -> None:
        """Raise `CommandError` if the device does not answer at all."""
        try:
            await self.fetch("watchdog")
        except CommandError as error:
            if error.code != REFUSED:
                raise

    async def set_up(self) -> None:
        """Set up a connection: for subclasses."""

    async def fetch(self, name: str, *arguments: str) -> Answer:
        """Return the answer to a request, or raise `CommandError`."""
        work = self.async_ask(name, *arguments, timeout=NO_LIMIT)
        return await patiently(self, Message.request(name, *arguments), work)


@contextlib.contextmanager
def following(clients: Sequence[FollowingClient]) -> Iterator[None]:
    """Start clients, and stop them at the end; at least one must connect."""
    errors = []
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(started(client))
        for client in clients:
            try:
                client.wait_first_connection()
            except CommandError as error:
                errors.append(error)
        if len(errors) == len(clients):
            raise errors[0]
        for problem in errors:
            tell(f"{problem}; trying again")
        yield


def text_of_event(clients: Sequence[FollowingClient], client: FollowingClient, event: Any) -> str:
    """Return the text of an event for the user; None for a first connection and for messages.

    Raises the event if it is an error in the first set-up of the only device.
    """
    if isinstance(event, CommandError):
        if len(clients) == 1 and not client.was_set_up:
            raise event
        return str(event)
    if isinstance(event, str):
        return event
    if event is False:
        return client.why_lost()
    if event is True and client.connections > 1:
        return f"{client.device}: connected again"
    return f"{client.device}: connected" if event is True and client.failure else ""
