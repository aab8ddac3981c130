"""Which sensors are sampled how: strategies, and what consumers want of a device."""

from __future__ import annotations

import pytest

from katcp import KatcpArgumentError, KatcpTypeError
from katcp._state.subscriptions import NONE, Strategy, Subscriptions, parse_strategy

EVENT = Strategy("event")
SLOW = Strategy("period", (10.0,))
FAST = Strategy("period", (0.1,))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("event", EVENT),
        ("period 0.1", FAST),
        (("period", 0.1), FAST),
        (["period", "0.1"], FAST),
        (FAST, FAST),
        ("event-rate 0.1 10", Strategy("event-rate", (0.1, 10.0))),
        ("differential 2", Strategy("differential", (2.0,))),
        ("differential-rate 2 0.1 10", Strategy("differential-rate", (2.0, 0.1, 10.0))),
        ("auto", Strategy("auto")),
        ("none", NONE),
    ],
)
def test_strategies_are_given_as_text_or_as_a_sequence(given, expected):
    assert parse_strategy(given) == expected


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("often", KatcpArgumentError, "no sampling strategy 'often'; there are auto, "),
        ("period", KatcpArgumentError, "'period' has 1 parameters, not 0"),
        ("event 1", KatcpArgumentError, "'event' has 0 parameters, not 1"),
        ("period -1", KatcpArgumentError, "0 or more"),
        ("period nan", KatcpArgumentError, "0 or more"),
        ("event-rate 10 0.1", KatcpArgumentError, "shortest period is longer"),
        ("period soon", KatcpTypeError, "must be numbers"),
        (("period", None), KatcpTypeError, "must be numbers"),
        ("", KatcpTypeError, "must be like"),
        (5, KatcpTypeError, "must be like"),
        ([], KatcpTypeError, "must be like"),
        ([1, 2], KatcpTypeError, "must be like"),
    ],
)
def test_a_strategy_that_makes_no_sense_is_refused(given, error, text):
    with pytest.raises(error, match=text):
        parse_strategy(given)


@pytest.mark.parametrize(
    ("strategy", "sensor_type", "major", "expected"),
    [
        ("event", "float", 5, [b"event"]),
        ("period 0.25", "float", 5, [b"period", b"0.250000"]),
        ("period 0.25", "float", 4, [b"period", b"250"]),
        ("event-rate 0.1 10", "float", 4, [b"event-rate", b"100", b"10000"]),
        ("differential 2", "integer", 5, [b"differential", b"2"]),
        ("differential 0.5", "float", 4, [b"differential", b"0.5"]),
        ("differential-rate 2 0.1 1", "integer", 4, [b"differential-rate", b"2", b"100", b"1000"]),
    ],
)
def test_arguments_are_in_the_units_of_the_version(strategy, sensor_type, major, expected):
    assert parse_strategy(strategy).arguments(sensor_type, major) == expected


def test_the_finest_strategy_that_anybody_wants_is_set():
    subscriptions = Subscriptions()
    subscriptions.add("a", "one", SLOW)
    assert subscriptions.take_changes() == {"a": SLOW}
    subscriptions.note_set("a", SLOW)
    subscriptions.add("a", "two", FAST)
    assert subscriptions.take_changes() == {"a": FAST}
    subscriptions.note_set("a", FAST)
    subscriptions.add("a", "three", SLOW)
    assert subscriptions.take_changes() == {}
    subscriptions.add("a", "four", EVENT)
    assert subscriptions.take_changes() == {"a": EVENT}
    assert subscriptions.consumers("a") == ("one", "two", "three", "four")


def test_what_nobody_wants_any_more_is_switched_off_and_forgotten():
    subscriptions = Subscriptions()
    subscriptions.add("a", "one", EVENT)
    subscriptions.add("a", "two", EVENT)
    subscriptions.take_changes()
    subscriptions.note_set("a", EVENT)
    subscriptions.remove("a", "one")
    assert subscriptions.take_changes() == {}
    subscriptions.remove("a", "two")
    assert subscriptions.take_changes() == {"a": NONE}
    assert subscriptions.sampled("a") == EVENT
    subscriptions.note_set("a", NONE)
    assert subscriptions.sampled("a") == NONE
    assert subscriptions.names() == []


def test_a_new_connection_knows_of_no_sampling():
    subscriptions = Subscriptions()
    for name in "ab":
        subscriptions.add(name, "one", EVENT)
        subscriptions.note_set(name, EVENT)
    subscriptions.remove("b", "one")
    subscriptions.note_connected()
    assert subscriptions.sampled("a") == NONE
    assert subscriptions.take_changes() == {"a": EVENT}


@pytest.mark.parametrize("names", [["a", "unknown"], None])
def test_what_the_device_may_have_changed_is_set_again_or_switched_off(names):
    subscriptions = Subscriptions()
    subscriptions.add("a", "one", EVENT)
    subscriptions.note_set("a", EVENT)
    subscriptions.take_changes()
    subscriptions.forget_sampling(names)
    assert subscriptions.take_changes() == {"a": EVENT}
    subscriptions.forget_sampling(names)
    subscriptions.remove("a", "one")
    assert subscriptions.take_changes() == {"a": NONE}
    subscriptions.note_set("a", NONE)
    subscriptions.forget_sampling(names)
    assert subscriptions.take_changes() == {}


def test_what_is_wanted_of_a_sensor():
    subscriptions = Subscriptions()
    assert subscriptions.wanted("a") == NONE
    subscriptions.add("a", "first", parse_strategy("period 5"))
    subscriptions.add("a", "second", parse_strategy("event"))
    assert subscriptions.wanted("a") == parse_strategy("event")
    subscriptions.remove("a", "second")
    assert subscriptions.wanted("a") == parse_strategy("period 5")


def test_removing_who_never_came_changes_nothing():
    subscriptions = Subscriptions()
    subscriptions.remove("a", "one")
    subscriptions.add("a", "one", EVENT)
    subscriptions.take_changes()
    subscriptions.note_set("a", EVENT)
    subscriptions.remove("a", "two")
    assert subscriptions.take_changes() == {}
    assert subscriptions.sampled("b") == NONE
    assert subscriptions.consumers("b") == ()
