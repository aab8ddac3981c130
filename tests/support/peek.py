"""All that the state machine looks at behind the client's public portal."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Optional
from unittest import mock

from tornado.netutil import Resolver

import katcp._net.connection
import katcp._runtime.waiter
import katcp.client._clients
from katcp._state.lifecycle import State

# Longer than any example takes, in seconds.
FOR_EVER = 3600.0


class Peek:
    """The private state of one client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def state(self) -> State:
        """Where the client is in its life."""
        return self._client._lifecycle.state

    def event(self, name: str) -> bool:
        """Return whether an event is set."""
        return self._client._state_events[name].is_set()

    def pending(self) -> list[tuple[str, Optional[bytes], Optional[float]]]:
        """Return name, id and deadline of each pending request, in the order of sending."""
        requests = self._client._pending_requests._pending.values()
        return [(request.name, request.mid, request.deadline) for request in requests]

    def leftovers(self) -> dict[str, Any]:
        """Return what a stopped client still holds, and should not."""
        client, pending = self._client, self._client._pending_requests
        held = {
            "pending": pending._pending,
            "names": pending._by_name,
            "ids of abandoned requests": pending._abandoned_mids,
            "timer": client._deadline_timer,
            "connection": client._device_connection,
            "threads in stop()": client._stop_waiters,
            "waiters": [e for e in client._state_events.values() if e._waiting],
        }
        return {name: value for name, value in held.items() if value}


@contextlib.contextmanager
def virtual_world(resolver: type[Resolver]) -> Iterator[None]:
    """Let clients dial what *resolver* says, and their threads know no real time.

    The device's socket is a local one: what is sent there has arrived when the call returns,
    which is not so with TCP. It has none of TCP's options.
    """
    Resolver.configure(resolver)
    try:
        with (
            mock.patch.object(katcp._net.connection, "KEEPALIVE", ()),
            mock.patch.object(katcp._runtime.waiter, "LOOP_CHECK_INTERVAL", FOR_EVER),
            mock.patch.object(katcp.client._clients, "BUSY_LOOP_MARGIN", FOR_EVER),
        ):
            yield
    finally:
        Resolver.configure(None)
