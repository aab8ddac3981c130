"""Sensors and sampling strategies, without sockets and without a clock."""

import math

import pytest

from katcp._wire.flags import ProtocolFlags
from katcp.simdevice.sensors import (
    STATUSES,
    TYPES,
    Reading,
    Sensor,
    default_sensors,
    format_timestamp,
    parse_strategy,
)

V4 = ProtocolFlags(4, 0)
V5 = ProtocolFlags(5, 1, "MIB")


def test_repr():
    assert repr(Sensor("gain", "float", "Gain", "dB")) == "<Sensor gain float dB>"
    assert repr(Sensor("mode", "discrete", params="ab")) == "<Sensor mode discrete>"


@pytest.mark.parametrize(
    ("sensor_type", "value", "major", "wire"),
    [
        ("integer", -7, 5, b"-7"),
        ("integer", 2.0, 5, b"2"),
        ("integer", 2**70, 5, b"1180591620717411303424"),
        ("float", 0.1, 5, b"0.1"),
        ("float", 3, 5, b"3.0"),
        ("float", math.inf, 5, b"inf"),
        ("float", math.nan, 5, b"nan"),
        ("boolean", True, 5, b"1"),
        ("boolean", 0, 5, b"0"),
        ("lru", "error", 5, b"error"),
        ("lru", True, 5, b"nominal"),
        ("lru", False, 5, b"error"),
        ("discrete", "b", 5, b"b"),
        ("string", "d\u00e9j\u00e0 vu", 5, b"d\xc3\xa9j\xc3\xa0 vu"),
        ("timestamp", 1.5, 5, b"1.500000"),
        ("timestamp", 1.5, 4, b"1500.000"),
        ("address", "10.0.0.1:80", 5, b"10.0.0.1:80"),
        ("address", ("10.0.0.1", 80), 5, b"10.0.0.1:80"),
        ("address", ("::1", 80), 5, b"[::1]:80"),
        ("address", ("::1", None), 5, b"[::1]"),
        ("integer", b"rubbish", 5, b"rubbish"),
    ],
)
def test_values_on_the_wire(sensor_type, value, major, wire):
    params = ("a", "b") if sensor_type == "discrete" else ()
    sensor = Sensor("s", sensor_type, params=params)
    sensor.set(value, timestamp=12.0)
    assert sensor.status_arguments(sensor.read(99.0), major)[4] == wire


@pytest.mark.parametrize(
    ("sensor_type", "value"),
    [
        ("integer", 1.5),
        ("integer", "x"),
        ("integer", math.inf),
        ("float", "x"),
        ("lru", "fine"),
        ("discrete", "c"),
        ("timestamp", "x"),
        ("address", 5),
    ],
)
def test_a_value_that_the_type_cannot_have_is_refused(sensor_type, value):
    params = ("a", "b") if sensor_type == "discrete" else ()
    sensor = Sensor("s", sensor_type, params=params)
    with pytest.raises(ValueError, match="is no value for the"):
        sensor.set(value, timestamp=0.0)
    with pytest.raises(ValueError, match="is no value for the"):
        Sensor("s", sensor_type, params=params, value=value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("a b", "integer"), "cannot be the name"),
        (("", "integer"), "cannot be the name"),
        (("a", "int"), "no sensor type"),
        (("a", "discrete"), "needs options"),
        (("a", "float", "", "", (1, 2, 3)), "2 or 4 numbers"),
    ],
)
def test_a_sensor_that_makes_no_sense_is_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        Sensor(*arguments)


def test_a_sensor_that_was_never_set_is_unknown():
    for sensor_type in TYPES:
        sensor = Sensor("s", sensor_type, params=("a",) if sensor_type == "discrete" else ())
        reading = sensor.read(5.0)
        assert (reading.timestamp, reading.status) == (0.0, "unknown")
        assert sensor.status_arguments(reading, 5)[3] == b"unknown"


def test_the_first_value_has_its_timestamp():
    assert Sensor("s", "integer", value=3, timestamp=7.0).read(9.0) == (7.0, "nominal", 3)


@pytest.mark.parametrize(
    ("params", "value", "status"),
    [
        ((), 1e9, "nominal"),
        ((0, 10), 10, "nominal"),
        ((0, 10), 11, "error"),
        ((0, 10, -5, 15), 11, "warn"),
        ((0, 10, -5, 15), -6, "error"),
        ((0, 10), b"raw", "nominal"),
    ],
)
def test_ranges_give_the_status(params, value, status):
    sensor = Sensor("s", "float", params=params)
    sensor.set(value, timestamp=1.0)
    assert sensor.read(2.0) == Reading(1.0, status, value)


def test_a_given_status_wins():
    sensor = Sensor("s", "integer", params=(0, 1))
    for status in STATUSES:
        sensor.set(5, status, timestamp=1.0)
        assert sensor.read(1.0).status == status
    with pytest.raises(ValueError, match="no sensor status 'fine'"):
        sensor.set(5, "fine", timestamp=1.0)


def test_statuses_that_version_4_lacks():
    sensor = Sensor("s", "integer")
    sensor.set(5, "inactive", timestamp=1.0)
    assert sensor.status_arguments(sensor.read(0), 5) == [
        b"1.000000",
        b"1",
        b"s",
        b"inactive",
        b"5",
    ]
    assert sensor.status_arguments(sensor.read(0), 4) == [b"1000.000", b"1", b"s", b"unknown", b"5"]


def test_a_source_makes_the_reading_until_the_sensor_is_set_by_hand():
    sensor = Sensor("s", "integer", params=(0, 50), source=lambda now: int(now * 10))
    assert sensor.read(1.0) == Reading(1.0, "nominal", 10)
    assert sensor.read(9.0) == Reading(9.0, "error", 90)
    sensor.set(7, timestamp=10.0)
    assert sensor.read(11.0) == Reading(10.0, "nominal", 7)
    assert sensor.source is None


@pytest.mark.parametrize(
    ("sensor", "v5", "v4"),
    [
        (Sensor("a", "integer", "text", "m"), [], [b"-2147483648", b"2147483647"]),
        (Sensor("a", "float"), [], [b"-1e+300", b"1e+300"]),
        (Sensor("a", "float", params=(1, 2)), [b"1.0", b"2.0"], [b"1.0", b"2.0"]),
        (
            Sensor("a", "integer", params=(1, 2, 0, 3)),
            [b"1", b"2", b"0", b"3"],
            [b"0", b"3"],
        ),
        (Sensor("a", "discrete", params=("x", "y")), [b"x", b"y"], [b"x", b"y"]),
        (Sensor("a", "string", params=("ignored",)), [], []),
    ],
)
def test_list_arguments(sensor, v5, v4):
    head = [b"a", sensor.description.encode(), sensor.units.encode(), sensor.type.encode()]
    assert sensor.list_arguments(5) == head + v5
    assert sensor.list_arguments(4) == head + v4


def test_version_4_has_no_addresses():
    sensor = Sensor("a", "address")
    assert sensor.list_arguments(5)[3] == b"address"
    assert sensor.list_arguments(4)[3] == b"string"


def test_timestamps():
    assert format_timestamp(1322206610.27, 5) == b"1322206610.270000"
    assert format_timestamp(1322206610.27, 4) == b"1322206610270.000"


def test_there_is_a_default_sensor_of_each_type():
    sensors = default_sensors(100.0)
    assert sorted(sensor.type for sensor in sensors) == sorted(TYPES)
    assert {sensor.name for sensor in sensors if sensor.source} == {"counter", "temperature"}
    for sensor in sensors:
        reading = sensor.read(101.0)
        assert reading.status == "nominal"
        assert sensor.status_arguments(reading, 5)[4] == sensor.format_value(reading.value, 5)
    assert sensors[0].read(101.0).value == 10


# ---- strategies ----


class Sampled:
    """A number that is sampled: asked at given times, it says what was sent."""

    def __init__(self, *arguments, value=0, sensor_type="integer", protocol=V5):
        self.sensor = Sensor("s", sensor_type, value=value)
        self.strategy = parse_strategy(self.sensor, arguments, protocol)
        self.strategy.start(0.0, self.sensor.read(0.0))

    def at(self, now, value=None, status=None):
        if value is not None:
            self.sensor.set(value, status, timestamp=now)
        return self.strategy.poll(now, self.sensor.read(now))


def test_none_is_no_strategy():
    assert parse_strategy(Sensor("s", "integer"), [b"none"], V5) is None


@pytest.mark.parametrize("name", [b"auto", b"event"])
def test_event_sends_every_change_and_nothing_else(name):
    sampled = Sampled(name)
    assert sampled.strategy.deadline == math.inf
    assert not sampled.at(1.0)
    assert sampled.at(2.0, 1)
    assert not sampled.at(3.0, 1)
    assert sampled.at(3.0, 1, "warn")
    assert sampled.at(3.0, 2, "warn")
    assert sampled.strategy.deadline == math.inf


def test_event_takes_nan_as_equal_to_itself():
    sampled = Sampled(b"event", value=math.nan, sensor_type="float")
    assert not sampled.at(1.0)


def test_period_sends_change_or_not():
    sampled = Sampled(b"period", b"0.5")
    assert sampled.strategy.deadline == 0.5
    assert not sampled.at(0.4, 1)
    assert sampled.strategy.deadline == 0.5
    assert sampled.at(0.5)
    assert sampled.strategy.deadline == 1.0
    assert not sampled.at(0.9)
    assert sampled.at(1.2)
    assert sampled.strategy.deadline == 1.7


def test_periods_are_milliseconds_in_version_4():
    assert Sampled(b"period", b"500", protocol=V4).strategy.deadline == 0.5


def test_differential_sends_what_differs_by_more_from_the_last_sent():
    sampled = Sampled(b"differential", b"2")
    assert not sampled.at(1.0, 2)
    assert sampled.at(2.0, 3)
    assert not sampled.at(3.0, 1)
    assert sampled.at(4.0, 0)
    assert sampled.at(5.0, 0, "error")
    assert sampled.strategy.deadline == math.inf


def test_differential_of_a_float():
    sampled = Sampled(b"differential", b"0.5", sensor_type="float", value=1.0)
    assert not sampled.at(1.0, 1.5)
    assert sampled.at(1.0, 1.75)
    assert sampled.at(2.0, b"rubbish")
    assert not sampled.at(3.0, b"rubbish")


def test_event_rate_keeps_within_its_periods():
    sampled = Sampled(b"event-rate", b"1", b"5")
    assert sampled.strategy.deadline == 5.0
    # A change too soon waits; if it goes away again, nothing is sent.
    assert not sampled.at(0.5, 1)
    assert sampled.strategy.deadline == 1.0
    assert not sampled.at(1.0, 0)
    assert sampled.strategy.deadline == 5.0
    assert sampled.at(1.5, 2)
    assert not sampled.at(2.0, 3)
    assert sampled.strategy.deadline == 2.5
    assert sampled.at(2.5)
    assert sampled.strategy.deadline == 7.5
    assert sampled.at(7.5)


def test_differential_rate_is_both():
    sampled = Sampled(b"differential-rate", b"10", b"1", b"5")
    assert not sampled.at(2.0, 10)
    assert sampled.at(3.0, 11)
    assert not sampled.at(3.5, 30)
    assert sampled.strategy.deadline == 4.0
    assert sampled.at(4.0)
    assert sampled.at(9.0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([b"sometimes"], "Unknown sampling strategy 'sometimes'"),
        ([b"\xff"], "Unknown sampling strategy"),
        ([b"none", b"1"], "takes 0 parameters, not 1"),
        ([b"period"], "takes 1 parameters, not 0"),
        ([b"period", b"0"], "greater than 0"),
        ([b"period", b"-1"], "cannot be negative"),
        ([b"period", b"1_0"], "is not a number"),
        ([b"period", b" 1"], "is not a number"),
        ([b"period", b"nan"], "is not a number"),
        ([b"differential", b"1.0"], "no difference for a sensor of type integer"),
        ([b"differential", b"-1"], "no difference"),
        ([b"event-rate", b"2", b"1"], "longest period"),
        ([b"event-rate", b"0", b"0"], "longest period"),
        ([b"differential-rate", b"x", b"0", b"0"], "is not a number"),
    ],
)
def test_strategies_that_make_no_sense_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        parse_strategy(Sensor("s", "integer"), arguments, V5)


def test_only_numbers_have_differences():
    with pytest.raises(ValueError, match="is not a number"):
        parse_strategy(Sensor("s", "string"), [b"differential", b"1"], V5)


@pytest.mark.parametrize("name", [b"event-rate", b"differential-rate"])
def test_version_4_has_no_rates(name):
    with pytest.raises(ValueError, match="Unknown sampling strategy"):
        parse_strategy(Sensor("s", "integer"), [name, b"1", b"1", b"1"], V4)
