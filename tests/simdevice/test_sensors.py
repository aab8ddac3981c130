"""Sensors and sampling strategies, without sockets and without a clock."""

import contextlib
import copy
import math
import time
from unittest import mock

import pytest

import katcp
from katcp._wire.flags import ProtocolFlags
from katcp.simdevice.sensors import (
    STATUSES,
    TYPES,
    Reading,
    Sensor,
    default_sensors,
)
from katcp.simdevice.strategies import make_strategy
from tests.support.virtual import VirtualLoop

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
        ("timestamp", 1.5, 4, b"1500"),
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


def test_a_sensor_is_set_as_a_katcp_sensor_is():
    sensor = Sensor("s", "integer", params=(0, 10))
    before = time.time()
    sensor.set_value(5)
    timestamp, *rest = sensor.read(0.0)
    assert before <= timestamp <= time.time()
    assert rest == ["nominal", 5]
    sensor.set_value(11, katcp.Sensor.FAILURE, 7.5)
    assert sensor.read(0.0) == Reading(7.5, "failure", 11)
    sensor.set_value(11)
    assert sensor.read(0.0).status == "error"
    for status in (7, -1, "fine"):
        with pytest.raises(ValueError, match="no sensor status"):
            sensor.set_value(5, status)


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
    assert sensor.status_arguments(sensor.read(0), 4) == [b"1000", b"1", b"s", b"unknown", b"5"]


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


def test_there_is_a_default_sensor_of_each_type():
    sensors = default_sensors(100.0)
    assert sorted(sensor.type for sensor in sensors) == sorted(TYPES)
    assert {sensor.name for sensor in sensors if sensor.source} == {"counter", "temperature"}
    for sensor in sensors:
        reading = sensor.read(101.0)
        assert reading.status == "nominal"
        assert sensor.status_arguments(reading, 5)[4] == sensor.format_value(reading.value, 5)
    assert sensors[0].read(101.0).value == 10


def test_who_observes_a_sensor_hears_of_its_readings():
    class Observer:
        def __init__(self):
            self.readings = []

        def update(self, sensor, reading):
            self.readings.append((sensor.name, *reading))

    observer = Observer()
    sensor = Sensor("s", "float", params=(0, 10), source=lambda now: now * 2)
    sensor.observed.attach(observer)
    sensor.read(1.0)
    sensor.read(8.0)
    sensor.set(b"rubbish", "failure", timestamp=9.0)
    assert observer.readings == [
        *(("s", 1.0, 1, 2.0), ("s", 8.0, 3, 16.0), ("s", 9.0, 4, b"rubbish")),
    ]


def test_a_copy_is_a_sensor_of_its_own():
    sensor = Sensor("s", "discrete", "text", "m", ("a", "b"), value="b", timestamp=3.0)
    observer = mock.Mock()
    sensor.observed.attach(observer)
    copied = copy.copy(sensor)
    assert copied.read(9.0) == Reading(3.0, "nominal", "b")
    assert copied.list_arguments(5) == sensor.list_arguments(5)
    copied.set("a", timestamp=4.0)
    assert sensor.read(9.0) == Reading(3.0, "nominal", "b")
    assert observer.update.mock_calls == []


def test_a_source_is_not_looked_at_by_everybody_who_samples():
    calls = []
    sensor = Sensor("s", "integer", source=lambda now: len(calls), interval=1.0)
    sensor.observed.attach(mock.Mock(update=lambda sensor, reading: calls.append(reading)))
    for now in (10.0, 10.25, 10.5, 10.75, 11.0, 11.25):
        sensor.look(now)
    assert [reading.timestamp for reading in calls] == [10.0, 10.75]
    sensor.set(5, timestamp=20.0)
    sensor.look(30.0)
    assert calls[2:] == [(20.0, 1, 5)]


# ---- strategies ----


class Sampled:
    """A sensor that is sampled in a loop in virtual time, and the values that are reported."""

    def __init__(self, *strategy, protocol=V5, sensor_type="integer"):
        self.sensor = Sensor("s", sensor_type)
        self.loop = VirtualLoop()
        self.ioloop = self.loop.make_ioloop()
        self.values = []

        async def start():
            made = make_strategy(self.sensor, strategy, protocol, self.report)
            made.start_in_loop()

        try:
            self.loop.run_until_complete(start())
        except BaseException:
            self.close()
            raise

    def report(self, observed, reading):
        assert observed is self.sensor.observed
        self.values.append(reading.value)

    def close(self):
        self.ioloop.close()

    def set(self, value):
        self.sensor.set(value, timestamp=1.0)

    @property
    def seconds_to_next(self):
        self.loop.run_until_idle()
        return self.loop.next_timer - self.loop.now


@pytest.fixture
def sample():
    with contextlib.ExitStack() as made:
        yield lambda *args, **kwargs: made.enter_context(
            contextlib.closing(Sampled(*args, **kwargs))
        )


def test_strategies_report_readings_of_the_katcp_sensor(sample):
    sampled = sample(b"differential", b"2")
    for value in (1, 2, 5, b"rubbish", b"rubbish", 5):
        sampled.set(value)
    # The second because its status was new.
    assert sampled.values == [0, 1, 5, b"rubbish", 5]


@pytest.mark.parametrize(
    ("protocol", "strategy", "seconds"),
    [
        (V5, [b"period", b"500"], 500),
        (V4, [b"period", b"500"], 0.5),
        (V4, [b"period", b"0.5"], 0.0005),
        (V5, [b"event-rate", b"1", b"4000"], 4000),
        (V5, [b"differential-rate", b"3", b"1", b"4"], 4),
    ],
)
def test_times_are_milliseconds_in_version_4(sample, protocol, strategy, seconds):
    assert sample(*strategy, protocol=protocol).seconds_to_next == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("sensor_type", "protocol", "values"),
    [
        ("float", V4, [0.0, 1.0, 1501.0]),
        ("timestamp", V4, [0.0, 1.0, 2.75, 1501.0]),
        ("timestamp", V5, [0.0, 1.0, 1501.0]),
    ],
)
def test_a_difference_is_of_the_type_of_the_sensor(sample, sensor_type, protocol, values):
    sampled = sample(b"differential", b"1400", protocol=protocol, sensor_type=sensor_type)
    for value in (1.0, 2.0, 2.75, 1501.0):
        sampled.set(value)
    assert sampled.values == values


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        ([b"sometimes"], "Unknown sampling strategy 'sometimes'"),
        ([b"\xff"], "Unknown sampling strategy"),
        ([b"none", b"1"], "takes no parameters"),
        ([b"period"], "takes one parameter"),
        ([b"period", b"0"], "positive float"),
        ([b"period", b"1_0"], "could not convert"),
        ([b"differential", b"1.0"], "invalid literal for int"),
        ([b"event-rate", b"2", b"1"], "shortest and longest periods"),
    ],
)
@pytest.mark.parametrize("protocol", [V4, V5])
def test_strategies_that_make_no_sense_are_refused(sample, strategy, text, protocol):
    if strategy[0] == b"event-rate" and protocol is V4:
        text = "Unknown sampling strategy"
    with pytest.raises(ValueError, match=text):
        sample(*strategy, protocol=protocol)


def test_only_numbers_have_differences(sample):
    with pytest.raises(ValueError, match="only valid for float, integer and timestamp"):
        sample(b"differential", b"1", sensor_type="string")


@pytest.mark.parametrize("name", [b"event-rate", b"differential-rate"])
def test_version_4_has_no_rates(sample, name):
    with pytest.raises(ValueError, match="Unknown sampling strategy"):
        sample(name, b"1", b"1", b"1", protocol=V4)
