"""The strategies of sampling, in virtual time: what is reported, and when.

The times and texts are those of katcp 0.9.3, unless a test says otherwise.
"""

from __future__ import annotations

import logging
import math
import threading

import pytest

from katcp import Sensor
from katcp.core import Reading
from katcp.sampling import (
    SampleAuto,
    SampleDifferential,
    SampleDifferentialRate,
    SampleEvent,
    SampleEventRate,
    SampleNone,
    SamplePeriod,
    SampleStrategy,
    format_inform_v4,
    format_inform_v5,
    update_in_ioloop,
)
from tests.support.peek import observers
from tests.support.virtual import ThreadCall, VirtualLoop


class World:
    """A sensor that is sampled, and what is reported of it: (seconds, value)."""

    def __init__(self):
        self.loop = VirtualLoop()
        self.ioloop = self.loop.make_ioloop()
        self.start = self.loop.now
        self.sensor = Sensor.float("n")
        self.reports = []
        # What the callback does besides.
        self.do = lambda sensor, reading: None

    def sample(self, name, *params):
        strategy = SampleStrategy.get_strategy(
            name, self.report, self.sensor, *params, ioloop=self.ioloop
        )
        strategy.start()
        return strategy

    def report(self, sensor, reading):
        assert sensor is self.sensor
        self.reports.append((self.now, reading.value))
        self.do(sensor, reading)

    @property
    def now(self):
        return round(self.loop.now - self.start, 6)

    def until(self, seconds):
        """Let time pass, from timer to timer."""
        self.loop.run_until_idle()
        while self.loop.next_timer is not None and self.loop.next_timer <= self.start + seconds:
            self.loop.now = max(self.loop.next_timer, self.loop.now)
            self.loop.run_until_idle()
        self.loop.now = max(self.start + seconds, self.loop.now)
        self.loop.run_until_idle()

    def set_at(self, seconds, value, status=Sensor.NOMINAL):
        """Set the sensor in the loop's thread, at a time."""
        self.until(seconds)
        self.ioloop.add_callback(self.sensor.set_value, value, status)
        self.loop.run_until_idle()

    def play(self, updates, end):
        """Set the sensor at times, and return all that was reported until the end."""
        for seconds, *update in updates:
            self.set_at(seconds, *update)
        self.until(end)
        return self.reports


@pytest.fixture
def world():
    world = World()
    yield world
    world.ioloop.close()


# ---- what is reported, and when ----


def test_none(world):
    world.sample("none")
    assert world.play([(1, 1), (2, 2)], 9) == []


def test_auto_reports_each_update(world):
    world.sample("auto")
    assert world.play([(1, 1), (1.5, 1), (2, 2, Sensor.WARN)], 9) == [
        *((0, 0.0), (1, 1), (1.5, 1), (2, 2)),
    ]


def test_event_reports_each_change(world):
    world.sample("event")
    updates = [(1, 1), (1.5, 1), (2, 1, Sensor.WARN), (2.5, 1, Sensor.WARN), (3, 2)]
    assert world.play(updates, 9) == [(0, 0.0), (1, 1), (2, 1), (3, 2)]


def test_event_takes_nan_as_the_same_as_nan(world):
    """Other than katcp 0.9.3, which reported each."""
    world.sample("event")
    assert [value for _, value in world.play([(1, math.nan), (2, math.nan), (3, 1)], 9)] == [
        0.0,
        pytest.approx(math.nan, nan_ok=True),
        1,
    ]


def test_period(world):
    world.sample("period", b"2")
    assert world.play([(1, 1), (3, 2), (3.5, 3)], 8) == [(0, 0.0), (2, 1), (4, 3), (6, 3), (8, 3)]


def test_a_period_that_was_missed_is_not_made_up_for(world):
    """The loop was busy from 2.5 to 7.3."""
    world.sample("period", 1)
    world.until(2.5)
    world.loop.now = world.start + 7.3
    world.until(9.5)
    assert [seconds for seconds, _ in world.reports] == [0, 1, 2, 7.3, 8.3, 9.3]


def test_a_period_that_is_late_keeps_its_times(world):
    world.sample("period", 1)
    world.until(0.5)
    world.loop.now = world.start + 1.4
    world.until(3)
    assert [seconds for seconds, _ in world.reports] == [0, 1.4, 2, 3]


def test_differential_reports_what_differs_by_more_from_the_last_report(world):
    world.sample("differential", b"2")
    updates = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5, Sensor.WARN), (6, 6, Sensor.WARN)]
    updates += [(7, 0, Sensor.WARN), (8, 2, Sensor.WARN), (9, -1, Sensor.WARN)]
    # The first one because its status is new.
    assert world.play(updates, 20) == [(0, 0.0), (1, 1), (4, 4), (5, 5), (7, 0)]


def test_differential_is_not_stuck_at_nan(world):
    """Other than katcp 0.9.3, which reported nothing after it."""
    world.sample("differential", b"2")
    updates = [(1, 1), (2, math.nan), (3, math.nan), (4, 5), (5, math.inf), (6, math.inf)]
    reports = world.play([*updates, (7, -math.inf)], 20)
    assert [seconds for seconds, _ in reports] == [0, 1, 2, 4, 5, 7]


def test_differential_reports_what_is_no_number(world):
    """In katcp 0.9.3 it raised in the one who set the sensor."""
    world.sample("differential", b"2")
    assert world.play([(1, 1), (2, "x"), (3, "x"), (4, 1)], 9) == [
        *((0, 0.0), (1, 1), (2, "x"), (4, 1)),
    ]


def test_event_rate_is_neither_too_fast_nor_too_slow(world):
    world.sample("event-rate", b"2", b"5")
    updates = [(1, 1), (3.5, 2), (4.5, 3), (4.7, 4)]
    assert world.play(updates, 16) == [
        # What changed at 1 waits, and what changed meanwhile is reported with it.
        *((0, 0.0), (2, 1), (4, 2), (6, 4), (11, 4), (16, 4)),
    ]


def test_event_rate_reports_the_reading_of_the_moment(world):
    """Also if it is the one that was reported last."""
    world.sample("event-rate", b"2", b"50")
    assert world.play([(3, 1), (4, 2), (4.5, 1)], 20) == [(0, 0.0), (3, 1), (5, 1)]


def test_event_rate_without_shortest_period(world):
    world.sample("event-rate", b"0", b"5")
    updates = [(1, 1), (1.1, 1), (1.2, 2), (1.3, 3)]
    assert world.play(updates, 7) == [(0, 0.0), (1, 1), (1.2, 2), (1.3, 3), (6.3, 3)]


def test_event_rate_without_longest_period(world):
    world.sample("event-rate", b"2", b"inf")
    assert world.play([(1, 1), (1.2, 2), (5, 2), (6, 9)], 999) == [(0, 0.0), (2, 2), (6, 9)]


def test_differential_rate_is_both(world):
    world.sample("differential-rate", b"2", b"2", b"6")
    updates = [(1, 1), (1.5, 2), (2.5, 3), (3, 4), (3.5, 9), (7, 10), (7.5, 10, Sensor.WARN)]
    assert world.play([*updates, (15, 11, Sensor.WARN)], 20) == [
        *((0, 0.0), (2, 2), (4, 9), (7.5, 10), (13.5, 10), (19.5, 11)),
    ]


def test_differential_rate_without_difference_is_event_rate(world):
    world.sample("differential-rate", b"0", b"2", b"6")
    assert world.play([(1, 0.25), (3, 0.25), (3.5, 0.5)], 5) == [(0, 0.0), (2, 0.25), (4, 0.5)]


# ---- what it is ----


@pytest.mark.parametrize(
    ("cls", "constant", "name", "params", "formatted"),
    [
        (SampleNone, 0, "none", (), []),
        (SampleAuto, 1, b"auto", (), []),
        (SamplePeriod, 2, "period", (0.5,), [b"0.5"]),
        (SampleEvent, 3, "event", (), []),
        (SampleDifferential, 4, "differential", (b"1.50",), [b"1.50"]),
        (SampleEventRate, 5, "event-rate", ("1", 5), [b"1", b"5"]),
        (SampleDifferentialRate, 6, "differential-rate", (3, b"1", b"5"), [b"3", b"1", b"5"]),
    ],
)
def test_strategies_say_what_they_are(world, cls, constant, name, params, formatted):
    strategy = world.sample(name, *params)
    assert type(strategy) is cls
    assert strategy.get_sampling() == constant
    assert strategy.get_sampling_formatted() == (
        name if isinstance(name, bytes) else name.encode(),
        formatted,
    )
    assert SampleStrategy.SAMPLING_LOOKUP_REV[SampleStrategy.SAMPLING_LOOKUP[constant]] == constant


def test_only_those_that_look_at_updates_observe(world):
    observing = [
        cls.__name__
        for cls in (SampleNone, SampleAuto, SamplePeriod, SampleEvent, SampleDifferential)
        if cls.OBSERVE_UPDATES
    ]
    assert observing == ["SampleAuto", "SampleEvent", "SampleDifferential"]
    assert SampleEventRate.OBSERVE_UPDATES
    assert SampleDifferentialRate.OBSERVE_UPDATES


def test_a_strategy_of_a_program_says_what_it_is(world):
    strategy = SampleStrategy(world.report, world.sensor, ioloop=world.ioloop)
    with pytest.raises(NotImplementedError):
        strategy.get_sampling_formatted()


KNOWN = (
    "Known strategies are [b'none', b'auto', b'period', b'event', b'differential', "
    "b'event-rate', b'differential-rate']."
)
PERIODS = "The shortest and longest periods must satisfy 0 <= shortest_period <= longest_period"


@pytest.mark.parametrize(
    ("sensor", "arguments", "text"),
    [
        (float, ("xx",), f"Unknown sampling strategy 'b'xx''. {KNOWN}"),
        (float, (b"NONE",), f"Unknown sampling strategy 'b'NONE''. {KNOWN}"),
        (float, (None,), f"Unknown sampling strategy 'None'. {KNOWN}"),
        (float, ("none", 1), "The 'none' strategy takes no parameters."),
        (float, ("auto", 1), "The 'auto' strategy takes no parameters."),
        (float, ("event", 1), "The 'event' strategy takes no parameters."),
        (float, ("period",), "The 'period' strategy takes one parameter."),
        (float, ("period", b"0"), "The period must be a positive float in seconds."),
        (float, ("period", -1), "The period must be a positive float in seconds."),
        (float, ("period", b"nan"), "The period must be a positive float in seconds."),
        (float, ("period", b"x"), "could not convert string to float: b'x'"),
        (float, ("period", b"1_0"), "could not convert string to float: b'1_0'"),
        (float, ("period", b" 1"), "could not convert string to float: b' 1'"),
        (float, ("differential",), "The 'differential' strategy takes one parameter."),
        (float, ("differential", b"0"), "The diff amount must be a positive float."),
        (float, ("differential", b"nan"), "The diff amount must be a positive float."),
        (int, ("differential", b"-1"), "The diff amount must be a positive integer."),
        (int, ("differential", b"1.5"), "invalid literal for int() with base 10: b'1.5'"),
        (
            str,
            ("differential", b"1"),
            "The 'differential' strategy is only valid for float, integer and timestamp sensors.",
        ),
        (
            Sensor.TIMESTAMP,
            ("differential", b"0"),
            "The diff amount must be a positive number of seconds.",
        ),
        (float, ("event-rate", b"1"), "The 'event-rate' strategy takes two parameters."),
        (float, ("event-rate", b"2", b"1"), PERIODS),
        (float, ("event-rate", b"-1", b"1"), PERIODS),
        (float, ("event-rate", b"nan", b"1"), PERIODS),
        (float, ("event-rate", b"0", b"0"), "The longest period must be greater than 0."),
        (float, ("event-rate", b"x", b"1"), "could not convert string to float: b'x'"),
        (
            float,
            ("differential-rate", 1),
            "The 'differential-rate' strategy takes three parameters.",
        ),
        (
            Sensor.TIMESTAMP,
            ("differential-rate", 1, 1, 5),
            "The differential-rate strategy can only be defined for integer or float sensors",
        ),
        (float, ("differential-rate", -1, 1, 5), "The diff amount must not be negative."),
        (float, ("differential-rate", b"nan", 1, 5), "The diff amount must not be negative."),
        (float, ("differential-rate", 1, 5, 1), PERIODS),
    ],
)
def test_strategies_that_make_no_sense_are_refused(world, sensor, arguments, text):
    world.sensor = Sensor(sensor, "n")
    with pytest.raises(ValueError, match=r"\S") as error:
        world.sample(*arguments)
    assert str(error.value) == text


def test_timestamps_have_differences_in_seconds(world):
    world.sensor = Sensor.timestamp("n", initial_status=Sensor.NOMINAL)
    world.sample("differential", b"1.5")
    assert world.play([(1, 1.5), (2, 1.75)], 9) == [(0, 0.0), (2, 1.75)]


def test_informs():
    sensor = Sensor.timestamp("n")
    assert str(format_inform_v5(sensor, 1.5, Sensor.FAILURE, 3.25)) == (
        "#sensor-status 1.500000 1 n failure 3.250000"
    )
    assert str(format_inform_v4(sensor, *Reading(1.5, Sensor.WARN, 3.25))) == (
        "#sensor-status 1500 1 n warn 3250"
    )


# ---- start and cancel ----

ALL = [
    ("auto",),
    ("event",),
    ("period", 1),
    ("differential", 2),
    ("event-rate", 1, 5),
    ("differential-rate", 2, 1, 5),
]


@pytest.mark.parametrize("sampling", ALL, ids=lambda sampling: sampling[0])
def test_start_reports_the_reading_of_that_turn_of_the_loop_once(world, sampling):
    world.sensor.set_value(1)
    world.sample(*sampling)
    world.sensor.set_value(10)
    assert world.reports == []
    world.loop.run_until_idle()
    assert world.reports == [(0, 10)]


@pytest.mark.parametrize("sampling", ALL, ids=lambda sampling: sampling[0])
def test_nothing_is_reported_after_cancel(world, sampling):
    strategy = world.sample(*sampling)
    world.set_at(1.5, 10)
    world.until(1.7)
    strategy.cancel()
    count = len(world.reports)
    assert world.play([(2, 20), (20, 30)], 99)[count:] == []
    # Nor is anything left of it.
    assert world.loop.next_timer is None
    assert observers(world.sensor) == []


@pytest.mark.parametrize("sampling", ALL, ids=lambda sampling: sampling[0])
def test_cancel_right_after_start(world, sampling):
    """In katcp 0.9.3 it went unheard."""
    world.sample(*sampling).cancel()
    assert world.play([(2, 20)], 99) == []
    assert observers(world.sensor) == []


@pytest.mark.parametrize("sampling", ALL, ids=lambda sampling: sampling[0])
def test_cancel_in_the_callback(world, sampling):
    """In katcp 0.9.3 the first callback was too early for it."""
    strategy = world.sample(*sampling)
    world.do = lambda sensor, reading: strategy.cancel()
    assert world.play([(2, 20)], 99) == [(0, 0.0)]


@pytest.mark.parametrize("sampling", ALL, ids=lambda sampling: sampling[0])
def test_start_again(world, sampling):
    """After cancel or not, it begins anew, with one report."""
    strategy = world.sample(*sampling)
    world.set_at(2.25, 10)
    world.until(3.5)
    before = len(world.reports)
    strategy.start()
    world.loop.run_until_idle()
    world.until(4.4)
    assert world.reports[before:] == [(3.5, 10)]
    strategy.cancel()
    strategy.start()
    world.until(5.3)
    # The shortest period has passed.
    assert [value for _, value in world.reports[before + 1 :]] == [10]
    strategy.cancel()
    assert world.play([(6, 20)], 99)[before + 2 :] == []


def test_cancel_before_start_does_nothing(world):
    SampleStrategy.get_strategy("event", world.report, world.sensor, ioloop=world.ioloop).cancel()
    assert world.play([(1, 1)], 9) == []


def test_what_the_callback_sets_is_reported(world):
    """In katcp 0.9.3 "event" missed it."""

    def count_up(sensor, reading):
        if reading.value < 3:
            sensor.set_value(reading.value + 1)

    world.do = count_up
    world.sample("event")
    assert world.play([], 9) == [(0, 0.0), (0, 1.0), (0, 2.0), (0, 3.0)]


@pytest.mark.parametrize("sampling", ALL, ids=lambda sampling: sampling[0])
def test_an_error_of_the_callback_is_logged(world, sampling, logs):
    def fail(sensor, reading):
        raise RuntimeError("boom")

    world.do = fail
    world.sample(*sampling)
    world.set_at(1.5, 20)
    world.until(2.5)
    for seconds, value in world.reports:
        text = logs.expect("boom", logging.ERROR)
        assert text.startswith("Unhandled exception trying to send Reading(timestamp=")
        assert "for sensor 'n' of type 'float'" in text.splitlines()[0]
        assert f"value={value})" in text, seconds
    assert world.reports[-1][1] == 20


# ---- threads ----


def test_an_update_of_the_loops_thread_is_reported_at_once(world):
    world.sample("event")
    world.loop.run_until_idle()
    world.sensor.set_value(1)
    assert world.reports == [(0, 0.0), (0, 1)]


def test_an_update_of_another_thread_is_reported_in_the_loops(world):
    threads = []
    world.do = lambda sensor, reading: threads.append(threading.current_thread())
    world.sample("event")
    world.loop.run_until_idle()
    ThreadCall(world.loop, world.sensor.set_value, 1).wait()
    assert len(world.reports) == 1
    world.loop.run_until_idle()
    assert world.reports == [(0, 0.0), (0, 1)]
    assert set(threads) == {threading.current_thread()}


@pytest.mark.parametrize("sampling", ALL, ids=lambda sampling: sampling[0])
def test_other_threads_may_start_and_cancel(world, sampling):
    strategy = SampleStrategy.get_strategy(
        sampling[0], world.report, world.sensor, *sampling[1:], ioloop=world.ioloop
    )
    ThreadCall(world.loop, strategy.start).wait()
    world.until(0.5)
    assert world.reports == [(0, 0.0)]
    ThreadCall(world.loop, strategy.cancel).wait()
    # Also what was on its way is not reported.
    ThreadCall(world.loop, world.sensor.set_value, 1).wait()
    assert world.play([(2, 20)], 99) == [(0, 0.0)]
    assert world.loop.next_timer is None


def test_an_observer_of_a_program_may_update_in_the_loop(world):
    class Sampled(SampleStrategy):
        OBSERVE_UPDATES = True

        @update_in_ioloop
        def update(self, sensor, reading):
            self.inform(reading._replace(value=reading.value * 2))

    strategy = Sampled(world.report, world.sensor, ioloop=world.ioloop)
    strategy.start()
    assert world.play([(1, 4)], 9) == [(0, 0.0), (1, 8)]


def test_the_loop_is_the_current_one_by_default(world):
    async def make():
        return SampleEvent(world.report, world.sensor)

    strategy = world.loop.run_until_complete(make())
    assert strategy.ioloop is world.ioloop
