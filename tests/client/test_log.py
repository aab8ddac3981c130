"""Log records that a device causes: as many as the limit allows, and the truth about the rest."""

import logging

import pytest

from katcp.client._log import PERIOD, RateLimitedLog


class Limits:
    """Whoever says how much is logged."""

    def __init__(self, rate):
        self.MAX_LOG_RATE = rate


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock):
    return RateLimitedLog(logging.getLogger("tests.device_log"), Limits(3), clock)


def admitted(log, kind, times):
    return [log.admits(kind) for _ in range(times)].count(True)


def test_up_to_the_limit_all_is_logged_and_nothing_else(log):
    assert admitted(log, "bad", 3) == 3
    log.end_period()


def test_more_is_left_out_and_both_its_beginning_and_its_number_are_logged(log, logs):
    assert admitted(log, "bad", 10) == 3
    logs.expect("More than MAX_LOG_RATE (3) records like 'bad' in a minute: more are left out.")
    log.end_period()
    logs.expect("7 records like 'bad' were left out.")


def test_kinds_do_not_touch_each_other(log, logs):
    assert admitted(log, "bad", 4) == admitted(log, "worse", 3) == 3
    logs.expect("More than MAX_LOG_RATE (3) records like 'bad'")


def test_each_minute_counts_anew(log, clock, logs):
    assert admitted(log, "bad", 2) == 2
    clock.now += PERIOD
    assert admitted(log, "bad", 5) == 3
    logs.expect("More than MAX_LOG_RATE")
    clock.now += PERIOD - 0.1
    assert admitted(log, "bad", 5) == 0
    clock.now += 0.2
    assert admitted(log, "bad", 1) == 1
    logs.expect("7 records like 'bad' were left out.")


def test_warnings_are_limited_by_their_text_without_arguments(log, logs):
    for number in range(5):
        log.warning("number %d", number)
    for number in range(3):
        logs.expect(f"number {number}")
    logs.expect("More than MAX_LOG_RATE (3) records like 'number %d'")


def test_a_limit_of_zero_lets_nothing_through(clock, logs):
    log = RateLimitedLog(logging.getLogger("tests.device_log"), Limits(0), clock)
    assert admitted(log, "bad", 2) == 0
    logs.expect("More than MAX_LOG_RATE (0)")
