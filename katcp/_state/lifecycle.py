"""The states of a client, the legal moves, and which events hold in each.

::

    STOPPED ------> STARTING ------> CONNECTING <------> WAITING
       ^               |              |    |             |   ^
       |               |              |    v             |   |
       |               |              |  CONNECTED ------|---+
       |               |              |    |             |
       |               v              v    v             v
       +----------- ================ STOPPING ================

A client waits (WAITING) between two attempts to connect. Every way out leads
through STOPPING, where what is still pending fails, to STOPPED.

Invariants, in every state:

- *disconnected* holds exactly if *connected* does not;
- *running* and *stopped* never hold together;
- *connected* holds only while *running* does.

What holds of client and requests besides is told in docs/explanation/states.rst.
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
    """The state of one client, which changes by legal moves only."""

    def __init__(self) -> None:
        self.state = State.STOPPED

    def move(self, state: State) -> None:
        """Go to *state*, or raise RuntimeError if there is no such move."""
        if state not in MOVES[self.state]:
            raise RuntimeError(f"A client cannot go from {self.state.name} to {state.name}.")
        self.state = state

    @property
    def events(self) -> frozenset[str]:
        """What holds now."""
        return EVENTS[self.state]

    def holds(self, event: str) -> bool:
        """Return whether *event* holds now."""
        return event in self.events
