"""All that tests look at behind the public names of a client."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator, Optional
from unittest import mock

from tornado.netutil import Resolver

import katcp
import katcp._net.dial
import katcp._runtime.waiter
import katcp.client._requester
import katcp.client._session
from katcp._runtime.portal import LoopPortal
from katcp._state.lifecycle import State
from katcp._state.requests import PendingRequest, PendingRequests
from katcp.client._run import Run

# Longer than any example takes, in seconds.
FOR_EVER = 3600.0


class Peek:
    """The private state of one client: no other test module knows these names."""

    def __init__(self, client: Any) -> None:
        self._session = client._session
        self._run = client._session.run

    @property
    def state(self) -> State:
        """Where the client is in its life."""
        return self._run.state

    @property
    def portal(self) -> LoopPortal:
        """The way into the client's loop."""
        return self._run.portal

    @property
    def connection(self) -> Any:
        """The connection of the moment, or the last one."""
        return self._run.connection

    @property
    def events(self) -> dict[str, Any]:
        """The events by name."""
        return self._run.events

    @property
    def pending(self) -> PendingRequests:
        """The requests that wait for their replies."""
        return self._session.requester.pending

    @property
    def names_awaited(self) -> set[str]:
        """The names of which replies without id are still to come."""
        return set(self.pending._by_name)

    @property
    def timer(self) -> Any:
        """The timer of the earliest deadline."""
        return self._session.requester.timer

    @property
    def inform_callbacks(self) -> Any:
        """The callbacks for informs, those of streams included."""
        return self._session.dispatcher.inform_callbacks

    @property
    def connect_failures(self) -> int:
        """How many attempts to connect have failed in a row."""
        return self._run.failures

    @connect_failures.setter
    def connect_failures(self, count: int) -> None:
        self._run.failures = count

    @property
    def reconnect_attempt(self) -> int:
        """The number of the next attempt to reconnect."""
        return self._run.attempt

    @reconnect_attempt.setter
    def reconnect_attempt(self, number: int) -> None:
        self._run.attempt = number

    def reconnect_delay(self, attempt: int) -> float:
        """Return the delay before an attempt."""
        return self._run.reconnect_delay(attempt)

    def let_time_out(self, name: str) -> None:
        """Let the time of the pending requests of a name be over, now; in the loop's thread."""
        for request in self.pending._pending.values():
            if request.name == name:
                request.deadline = 0.0
        self._session.requester._end_expired()

    @property
    def request_timeout(self) -> Optional[float]:
        """The timeout that was given to the constructor."""
        return self._session.timeout

    @request_timeout.setter
    def request_timeout(self, timeout: Optional[float]) -> None:
        self._session.timeout = timeout

    def sent(self) -> list[tuple[str, Optional[bytes], Optional[float]]]:
        """Return name, id and deadline of each pending request, in the order of sending."""
        requests = self._with_held(False)
        return [(request.name, request.mid, request.deadline) for request in requests]

    def waits_for_greeting(self) -> bool:
        """Return whether requests are held back until the device has greeted."""
        return self._session.requester.held is not None

    def held(self) -> list[str]:
        """Return the names of the requests that wait for the device's greeting."""
        return [request.name for request in self._with_held(True)]

    def _with_held(self, is_held: bool) -> list[PendingRequest]:
        """Return the pending requests that wait for the greeting, or the others."""
        requests = self.pending._pending.values()
        return [
            request
            for request in requests
            if (request.key is request and request.queue is None) is is_held
        ]

    def leftovers(self) -> dict[str, Any]:
        """Return what a stopped client still holds, and should not."""
        pending = self.pending
        held = {
            "pending": pending._pending,
            "names": self.names_awaited,
            "ids of abandoned requests": pending._abandoned_mids,
            "held requests": self._session.requester.held,
            "timer": self.timer,
            "connection": self.connection,
            "threads in stop()": self._run.stop_waiters,
            "waiters": [event for event in self.events.values() if event._waiting],
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
            mock.patch.object(katcp._net.dial, "_SOCKET_OPTIONS", ()),
            mock.patch.object(katcp._runtime.waiter, "LOOP_CHECK_INTERVAL", FOR_EVER),
            mock.patch.object(katcp.client._session, "BUSY_LOOP_MARGIN", FOR_EVER),
            # Every deadline is looked at when it is over.
            mock.patch.object(katcp.client._requester, "_REST_PER_REQUEST", 1e-12),
        ):
            yield
    finally:
        Resolver.configure(None)


def observers(sensor: katcp.Sensor) -> list[Any]:
    """Return who is told of a sensor's readings."""
    return list(sensor._observers)


@contextlib.contextmanager
def watched_states(look: Callable[[Any, State], None]) -> Iterator[None]:
    """Call *look* with the client and its new state at each change of a state."""
    enter = Run._enter

    def enter_and_look(run: Run, state: State) -> None:
        enter(run, state)
        look(run._client, state)

    with mock.patch.object(Run, "_enter", enter_and_look):
        yield
