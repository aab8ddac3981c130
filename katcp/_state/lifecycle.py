"""The states of a client, the transitions, and which events are set in each.

::

    STOPPED ------> STARTING ------> CONNECTING <------> WAITING
       ^               |              |    |             |   ^
       |               |              |    v             |   |
       |               |              |  CONNECTED ------|---+
       |               |              |    |             |
       |               v              v    v             v
       +----------- ================ STOPPING ================

WAITING is the pause between two attempts to connect. Every client ends through STOPPING, where
pending requests fail, in STOPPED.

Invariants, in every state:

- *disconnected* is set exactly if *connected* is not;
- *running* and *stopped* are never both set;
- *connected* is set only while *running* is.

docs/explanation/states.rst describes the states of clients and requests.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a client is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    STOPPING = "stopping"


MOVES: dict[State, frozenset[State]] = {
    State.STOPPED: frozenset([State.STARTING]),
    State.STARTING: frozenset([State.CONNECTING, State.STOPPING]),
    State.CONNECTING: frozenset([State.CONNECTED, State.WAITING, State.STOPPING]),
    State.CONNECTED: frozenset([State.WAITING, State.STOPPING]),
    State.WAITING: frozenset([State.CONNECTING, State.STOPPING]),
    State.STOPPING: frozenset([State.STOPPED]),
}

EVENTS: dict[State, frozenset[str]] = {
    State.STOPPED: frozenset(["disconnected", "stopped"]),
    State.STARTING: frozenset(["disconnected"]),
    State.CONNECTING: frozenset(["disconnected", "running"]),
    State.CONNECTED: frozenset(["connected", "running"]),
    State.WAITING: frozenset(["disconnected", "running"]),
    State.STOPPING: frozenset(["disconnected"]),
}

EVENT_NAMES = frozenset().union(*EVENTS.values())


class Lifecycle:
    """The state of one client, which changes by legal transitions only."""

    def __init__(self) -> None:
        self.state = State.STOPPED

    def move(self, state: State) -> None:
        """Go to *state*, or raise RuntimeError if there is no such transition."""
        if state not in MOVES[self.state]:
            raise RuntimeError(f"A client cannot go from {self.state.name} to {state.name}.")
        self.state = state

    @property
    def events(self) -> frozenset[str]:
        """The events that are set now."""
        return EVENTS[self.state]

    def holds(self, event: str) -> bool:
        """Return whether *event* is set now."""
        return event in self.events
