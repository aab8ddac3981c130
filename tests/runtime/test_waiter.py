"""The latch, which any number of threads wait for. What a `Waiter` does is in test_portal.py."""

import threading

import pytest

from katcp._runtime.waiter import Latch
from tests.support.helpers import PATIENCE, in_thread


def test_a_latch_wakes_all_that_wait():
    latch = Latch()
    calls = [in_thread(lambda: latch.wait(PATIENCE)) for _ in range(5)]
    while len(latch._waiting) < 5:
        pass
    latch.set()
    for thread, outcome in calls:
        thread.join(PATIENCE)
        assert outcome == [True]
    assert latch.wait(0)


@pytest.mark.parametrize("timeout", [0, -1, 0.01])
def test_who_waits_no_longer_leaves_nothing_behind(timeout):
    latch = Latch()
    assert not latch.wait(timeout)
    assert not latch._waiting
    assert not latch.is_set


def set_while_threads_come():
    """Set a latch while threads begin to wait; return what they were told."""
    latch, begun = Latch(), threading.Barrier(4)
    calls = [in_thread(lambda: (begun.wait(PATIENCE), latch.wait(PATIENCE))) for _ in range(3)]
    begun.wait(PATIENCE)
    latch.set()
    for thread, _ in calls:
        thread.join(PATIENCE)
    return [outcome[0][1] for _, outcome in calls]


def test_no_thread_misses_a_latch_that_is_set_meanwhile():
    assert [set_while_threads_come() for _ in range(200)] == [[True] * 3] * 200
