"""The states of a client: legal moves, illegal moves, and what holds in each state."""

import pytest

from katcp._state.lifecycle import EVENT_NAMES, EVENTS, MOVES, Lifecycle, State

LEGAL = [
    (State.STOPPED, State.STARTING),
    (State.STARTING, State.CONNECTING),
    (State.STARTING, State.STOPPING),
    (State.CONNECTING, State.CONNECTED),
    (State.CONNECTING, State.WAITING),
    (State.CONNECTING, State.STOPPING),
    (State.CONNECTED, State.WAITING),
    (State.CONNECTED, State.STOPPING),
    (State.WAITING, State.CONNECTING),
    (State.WAITING, State.STOPPING),
    (State.STOPPING, State.STOPPED),
]


def lifecycle_in(state):
    lifecycle = Lifecycle()
    lifecycle.state = state
    return lifecycle


def way(start, goal):
    """Return the states of a shortest way by legal moves."""
    ways = [[start]]
    for path in ways:
        if path[-1] is goal:
            return path
        ways += [[*path, state] for state in MOVES[path[-1]] if state not in path]
    raise AssertionError(f"no way from {start} to {goal}")


def name_of(value):
    return value.name


def test_a_new_client_is_stopped():
    assert Lifecycle().state is State.STOPPED


@pytest.mark.parametrize(("before", "after"), LEGAL, ids=name_of)
def test_a_legal_move_is_made(before, after):
    lifecycle = lifecycle_in(before)
    lifecycle.move(after)
    assert lifecycle.state is after


@pytest.mark.parametrize("before", State, ids=name_of)
def test_every_other_move_raises_and_changes_nothing(before):
    for after in {state for state in State if (before, state) not in LEGAL}:
        lifecycle = lifecycle_in(before)
        with pytest.raises(RuntimeError) as raised:
            lifecycle.move(after)
        assert str(raised.value) == f"A client cannot go from {before.name} to {after.name}."
        assert lifecycle.state is before


@pytest.mark.parametrize("start", State, ids=name_of)
def test_every_state_can_be_reached_from_every_other(start):
    for goal in State:
        lifecycle = lifecycle_in(start)
        for state in way(start, goal)[1:]:
            lifecycle.move(state)
        assert lifecycle.state is goal


@pytest.mark.parametrize("state", State, ids=name_of)
def test_every_way_out_leads_through_stopping(state):
    assert (State.STOPPED in MOVES[state]) == (state is State.STOPPING)


@pytest.mark.parametrize(
    ("state", "events"),
    [
        (State.STOPPED, {"disconnected", "stopped"}),
        (State.STARTING, {"disconnected"}),
        (State.CONNECTING, {"disconnected", "running"}),
        (State.CONNECTED, {"connected", "running"}),
        (State.WAITING, {"disconnected", "running"}),
        (State.STOPPING, {"disconnected"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_events_that_hold_in_a_state(state, events):
    lifecycle = lifecycle_in(state)
    assert {event for event in EVENT_NAMES if lifecycle.holds(event)} == events


@pytest.mark.parametrize("state", State, ids=name_of)
def test_the_invariants_hold_in_every_state(state):
    holds = lifecycle_in(state).holds
    assert holds("disconnected") == (not holds("connected"))
    assert not (holds("running") and holds("stopped"))
    assert holds("running") or not holds("connected")


def test_the_tables_know_all_states_and_events():
    assert set(MOVES) == set(EVENTS) == set(State)
    assert set(EVENT_NAMES) == {"connected", "disconnected", "running", "stopped"}
