"""The sensor: observers, threads, and where it does more than that of katcp 0.9.3.

What is the same is in tests/compat/test_kattypes_compat.py.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
import time

import pytest

import katcp
from katcp import Sensor
from katcp._wire.arguments import decoder
from katcp.core import Reading
from tests.support.helpers import PATIENCE


class Observer:
    """Notes what it is told, and does something then."""

    def __init__(self, do=lambda sensor: None):
        self.values = []
        self.do = do

    def update(self, sensor, reading):
        self.values.append(reading.value)
        self.do(sensor)


def test_names_and_places():
    assert Sensor is katcp.core.Sensor
    assert (Sensor.__module__, Reading.__module__) == ("katcp.core", "katcp.core")
    reading = pickle.loads(pickle.dumps(Reading(1.5, Sensor.WARN, 7)))
    assert (type(reading), reading) == (Reading, (1.5, 2, 7))


def test_repr():
    sensor = Sensor.float("wind", initial_status=Sensor.NOMINAL)
    sensor.set_value(1.5, timestamp=1)
    assert repr(sensor) == (
        "<Sensor 'wind' of type 'float': Reading(timestamp=1, status=1, value=1.5)>"
    )


def test_a_value_without_a_time_is_of_now():
    sensor = Sensor.integer("n")
    before = time.time()
    sensor.set_value(1)
    assert before <= sensor.read().timestamp <= time.time()


# ---- statuses that say that there is no value ----


@pytest.mark.parametrize("status", ["unknown", "failure", "unreachable", "inactive"])
@pytest.mark.parametrize("value", [b"", b"x", b"1_0"])
def test_a_status_without_a_value_is_taken_with_any(status, value):
    sensor = Sensor.integer("n", default=7)
    sensor.set_formatted(b"1.5", status.encode(), value)
    assert sensor.read() == Reading(1.5, Sensor.STATUS_NAMES[status], 7)
    # What can be read is read all the same.
    sensor.set_formatted(b"2.5", status.encode(), b"8")
    assert sensor.read() == Reading(2.5, Sensor.STATUS_NAMES[status], 8)


@pytest.mark.parametrize("status", ["nominal", "warn", "error"])
def test_a_status_with_a_value_is_refused_without_one(status):
    sensor = Sensor.integer("n", default=7)
    with pytest.raises(ValueError, match="as integer"):
        sensor.set_formatted(b"1.5", status.encode(), b"x")
    assert sensor.value() == 7


def test_a_value_that_is_no_bytes_is_refused_with_any_status():
    with pytest.raises(katcp.KatcpTypeError):
        Sensor.integer("n").set_formatted(b"1.5", b"unknown", 7)


# ---- what the wire says of a type ----


@pytest.mark.parametrize("major", [4, 5])
@pytest.mark.parametrize(
    ("sensor_type", "params", "data"),
    [
        ("integer", [], b"-5"),
        ("float", [b"0", b"10"], b"2.5"),
        ("boolean", [], b"1"),
        ("lru", [], b"error"),
        ("discrete", [b"on", b"off"], b"off"),
        ("string", [], b"two words"),
        ("timestamp", [], b"1500.5"),
        ("address", [], b"[::1]:80"),
    ],
)
def test_a_decoder_reads_what_a_sensor_of_that_type_does(sensor_type, params, data, major):
    number = Sensor.parse_type(sensor_type)
    sensor = Sensor(number, "n", params=Sensor.parse_params(number, params, major))
    assert sensor.formatted_params == [
        param + b".0" if sensor_type == "float" else param for param in params
    ]
    value = decoder(sensor_type, params, major)(data)
    assert (type(value), value) == (type(sensor.parse_value(data, major)), value)


# ---- observers ----


def test_observers_are_told_in_the_order_in_which_they_came():
    sensor, told = Sensor.integer("n"), []
    for number in range(20):
        sensor.attach(Observer(lambda sensor, number=number: told.append(number)))
    sensor.set_value(1)
    assert told == list(range(20))


def test_an_observer_may_leave_and_bring_others():
    newcomer = Observer()

    def change(sensor):
        sensor.detach(observer)
        sensor.attach(newcomer)

    sensor, observer = Sensor.integer("n"), Observer(change)
    sensor.attach(observer)
    sensor.set_value(1)
    sensor.set_value(2)
    assert (observer.values, newcomer.values) == ([1], [2])


def test_an_observer_may_set_the_sensor():
    def count_up(sensor):
        if sensor.value() < 3:
            sensor.set_value(sensor.value() + 1)

    sensor, observer = Sensor.integer("n"), Observer(count_up)
    sensor.attach(observer)
    sensor.set_value(1)
    assert observer.values == [1, 2, 3]


def test_notify_changes_nothing():
    sensor, observer = Sensor.integer("n"), Observer()
    sensor.attach(observer)
    sensor.notify(Reading(1, 1, 99))
    assert (observer.values, sensor.value()) == ([99], 0)


# ---- threads ----


def test_a_sensor_needs_no_loop():
    """In a thread that has none, and where a running one is not asked for."""
    failures = []

    def use():
        try:
            sensor, observer = Sensor.float("n"), Observer()
            sensor.attach(observer)
            sensor.set_value(1.5)
            assert observer.values == [1.5]
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(PATIENCE)
    assert failures == []


def test_observers_are_told_in_the_thread_that_sets_the_sensor():
    threads = []
    sensor = Sensor.integer("n")
    sensor.attach(Observer(lambda sensor: threads.append(threading.current_thread())))
    thread = threading.Thread(target=sensor.set_value, args=(1,))
    thread.start()
    thread.join(PATIENCE)
    assert threads == [thread]


def test_threads_may_set_and_observe_a_sensor_at_once():
    sensor, steady = Sensor.integer("n"), Observer()
    sensor.attach(steady)
    failures, begin = [], threading.Barrier(8)

    def set_values():
        for value in range(500):
            sensor.set_value(value)
            assert sensor.read().status == Sensor.NOMINAL

    def come_and_go():
        for _ in range(500):
            observer = Observer()
            sensor.attach(observer)
            sensor.detach(observer)

    def run(work):
        begin.wait(PATIENCE)
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in [set_values, come_and_go] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == []
    assert len(steady.values) == 4 * 500
    # All who came have gone.
    count = len(steady.values)
    sensor.set_value(-1)
    assert steady.values[count:] == [-1]
