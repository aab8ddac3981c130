"""Staying awake until a reply arrives."""

import threading
import time

import pytest

from katcp import DeviceClient, spinning
from katcp.spinning import Spinner


class Limits:
    MAX_SPIN_TIME = 60.0


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Let this thread be the only one that waits for replies, for long enough."""
    monkeypatch.setattr(spinning, "TIME_ALONE", 0.0)
    monkeypatch.setattr(spinning, "_waiting", (threading.get_ident(), 0.0))


@pytest.fixture
def spinner():
    return Spinner(Limits())


def test_who_begins_stays_awake_for_the_time_that_the_limit_says(spinner, monkeypatch):
    monkeypatch.setattr(spinning.time, "monotonic", lambda: 1000.0)
    assert spinner.begin() == 1060.0


def test_a_limit_of_zero_says_never():
    limits = Limits()
    limits.MAX_SPIN_TIME = 0
    assert Spinner(limits).begin() == 0.0


def test_the_limit_may_be_changed_at_any_time():
    assert 0 < DeviceClient.MAX_SPIN_TIME < 0.001
    limits = Limits()
    spinner = Spinner(limits)
    assert spinner.begin()
    limits.MAX_SPIN_TIME = 0
    assert not spinner.begin()


def left_out(spinner):
    """Return how many attempts are left out before the next."""
    count = 0
    while not spinner.begin():
        count += 1
    return count


def test_after_attempts_that_did_not_pay_more_and_more_are_left_out(spinner):
    counts = []
    for _ in range(9):
        counts.append(left_out(spinner))
        spinner.end(False)
    assert counts == [0, 0, 1, 3, 7, 15, 31, 31, 31]
    assert left_out(spinner) == 31
    spinner.end(True)
    assert left_out(spinner) == 0


def test_one_failure_among_successes_counts_for_nothing(spinner):
    for has_paid in (True, False, True, False, True):
        assert left_out(spinner) == 0
        spinner.end(has_paid)


def test_nobody_stays_awake_while_several_threads_wait(spinner):
    others = []
    assert spinner.begin()
    thread = threading.Thread(target=lambda: others.append(spinner.begin()))
    thread.start()
    thread.join()
    assert others == [0.0]
    assert not spinner.begin()
    assert spinner.begin()


def test_a_thread_must_have_been_the_only_one_for_some_time(spinner, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(spinning.time, "monotonic", lambda: now)
    monkeypatch.setattr(spinning, "TIME_ALONE", 5.0)
    monkeypatch.setattr(spinning, "_waiting", (0, 999.0))
    assert not spinner.begin()
    now = 1004.0
    assert not spinner.begin()
    now = 1005.0
    assert spinner.begin()


def test_waiting_for_data_ends_when_it_is_there(spinner, ends):
    ours, theirs = ends
    thread = threading.Thread(target=theirs.send, args=[b"!ok\n"])
    thread.start()
    spinner.wait_for_data(ours, None)  # or it would be a minute
    thread.join()
    assert ours.recv(9) == b"!ok\n"
    assert left_out(spinner) == 0


def test_waiting_for_data_ends_with_the_connection(spinner, ends):
    ours, theirs = ends
    theirs.close()
    spinner.wait_for_data(ours, None)
    assert ours.recv(9) == b""


def test_waiting_for_data_ends_with_the_time(spinner, ends, monkeypatch):
    monkeypatch.setattr(Limits, "MAX_SPIN_TIME", 0.0001)
    for _ in range(2):
        spinner.wait_for_data(ends[0], None)
    assert left_out(spinner) == 1


def test_who_does_not_stay_awake_does_not_look(spinner, ends, monkeypatch):
    monkeypatch.setattr(spinning, "_waiting", (0, 0.0))
    monkeypatch.setattr(spinning.select, "poll", None)
    spinner.wait_for_data(ends[0], None)


def test_waiting_for_data_ends_at_the_deadline(spinner, ends):
    for deadline in (0.0, time.monotonic() + 0.001):
        spinner.wait_for_data(ends[0], deadline)  # or it would be a minute


def test_nobody_waits_for_data_of_a_closed_socket(spinner, ends):
    ends[0].close()
    spinner.wait_for_data(ends[0], None)
