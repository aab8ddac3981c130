"""What resource clients return and take, without a device."""

from __future__ import annotations

import asyncio

import pytest

from katcp import Message, Sensor
from katcp.resource import (
    KATCPReply,
    KATCPRequest,
    KATCPSensor,
    KATCPSensorReading,
    KATCPSensorsManager,
    escape_name,
    normalize_strategy_parameters,
)
from katcp.resource_client import GroupResults, transform_future
from tests.support.resources import Heard, in_ioloop

OK = Message.reply("do", "ok", "1", mid=3)
FAIL = Message.reply("do", "fail", "it is bad")


def test_replies():
    reply = KATCPReply(OK, [Message.inform("do", "x"), Message.inform("do", "y z")])
    assert repr(reply) == "!do ok 1\n#do x\n#do y z"
    assert str(reply) == "!do[3] ok 1\n#do x\n#do y\\_z"
    assert (bool(reply), reply.succeeded, len(reply)) == (True, True, 2)
    assert reply == KATCPReply(reply=OK, informs=reply.informs)
    message, informs = reply
    assert reply.messages == [message, *informs]
    assert not KATCPReply(FAIL, [])
    assert not KATCPReply(Message.reply("do"), [])


def test_readings():
    reading = KATCPSensorReading(10.5, 9.5, Sensor.NOMINAL, 42)
    assert reading._fields == ("received_timestamp", "timestamp", "istatus", "value")
    assert reading.status == "nominal"
    assert KATCPSensorReading(1, 2, None, 3).status == "unknown"


@pytest.mark.parametrize(
    ("name", "escaped"), [("a.b-c", "a_b_c"), ("a--b..c", "a__b__c"), ("A_B", "A_B"), ("", "")]
)
def test_names_are_escaped(name, escaped):
    assert escape_name(name) == escaped


@pytest.mark.parametrize(
    ("given", "normalized"),
    [
        ("event", ("event",)),
        (" period  5 ", ("period", "5.0")),
        (("period", 5), ("period", "5.0")),
        (["period", "2.5"], ("period", "2.5")),
        (("differential", 1e-7), ("differential", "1e-07")),
        ("period x", ("period", "x")),
        ("", ("",)),
    ],
)
def test_strategies_are_normalized(given, normalized):
    assert normalize_strategy_parameters(given) == normalized


@pytest.mark.parametrize("wrong", [None, 5, b"event", ("period", None)])
def test_strategies_of_a_wrong_type(wrong):
    with pytest.raises(TypeError):
        normalize_strategy_parameters(wrong)


def test_requests_need_a_full_description():
    class Request(KATCPRequest):
        """What it does."""

        def issue_request(self, *args, **kwargs):
            return args, kwargs

    about = {"name": "do-it", "description": "It does.", "timeout_hint": 5.0}
    request = Request(about)
    assert (request.name, request.description, request.timeout_hint) == tuple(about.values())
    assert request(1, timeout=2) == ((1,), {"timeout": 2})
    assert request.__doc__ == "It does.\n\nWhat it does."
    for key in about:
        with pytest.raises(ValueError, match=f"key '{key}' not present"):
            Request({other: about[other] for other in about if other != key})


class Manager(KATCPSensorsManager):
    """Notes what it is asked for."""

    resource_name = "dev"

    def __init__(self):
        self.strategy = ("event",)

    def time(self):
        return 1234.5

    def get_sampling_strategy(self, sensor_name):
        return self.strategy

    def set_sampling_strategy(self, sensor_name, strategy_and_parms):
        return sensor_name, strategy_and_parms

    def drop_sampling_strategy(self, sensor_name):
        self.strategy = ("none",)

    def reapply_sampling_strategies(self):
        raise NotImplementedError

    def poll_sensor(self, sensor_name):
        raise NotImplementedError


def sensor_of(sensor_type=Sensor.INTEGER, **about):
    return KATCPSensor({"name": "a.b-c", "sensor_type": sensor_type, **about}, Manager())


def test_sensors_may_be_set():
    sensor, heard = sensor_of(description="About it", units="m"), []
    assert (sensor.name, sensor.normalised_name, sensor.parent_name) == ("a.b-c", "a_b_c", "dev")
    assert (sensor.description, sensor.units, sensor.type) == ("About it", "m", "integer")
    sensor.register_listener(lambda *args: heard.append(args))
    sensor.set(100.5, Sensor.WARN, 7)
    sensor.set_value(8)
    sensor.set_value(9, Sensor.ERROR, 50)
    sensor.set_formatted(b"1000500", b"nominal", b"5", 4)
    sensor.call_listeners(KATCPSensorReading(1, 2, 3, 4))
    assert heard == [
        (1234.5, 100.5, "warn", 7),
        (1234.5, 1234.5, "nominal", 8),
        (1234.5, 50, "error", 9),
        (1234.5, 1000.5, "nominal", 5),
        (1, 2, "error", 4),
    ]
    assert sensor.reading == (1234.5, 1000.5, Sensor.NOMINAL, 5)
    with pytest.raises(ValueError, match="Could not parse"):
        sensor.set_formatted(b"1", b"nominal", b"x", 5)
    with pytest.raises(KeyError):
        sensor.set_formatted(b"1", b"strange", b"5", 5)
    assert sensor.parse_value(b"11") == 11


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        (("event",), "event"),
        (("event", ""), "event"),
        (("period", 5), "period 5"),
        (("event-rate", (1, 5)), "event-rate 1 5"),
        (("event-rate", "1 5"), "event-rate 1 5"),
    ],
)
def test_strategies_are_passed_on_to_the_manager(given, passed_on):
    sensor = sensor_of()
    assert sensor.set_strategy(*given) == ("a.b-c", passed_on)
    sensor.drop_sampling_strategy()
    assert sensor.sampling_strategy == ("none",)


@in_ioloop
async def test_a_condition_is_asked_no_more_once_it_is_met():
    sensor, heard = sensor_of(), Heard()
    waiting = sensor.wait(lambda reading: heard(reading.value) or reading.value == 2)
    for value in (1, 2, 3):
        sensor.set_value(value)
    assert await waiting is True
    assert [await heard.next() for _ in range(3)] == [(None,), (1,), (2,)]
    assert heard.nothing()
    waiting = sensor.wait(99)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not sensor._listeners


def test_results_of_groups():
    reply = KATCPReply(OK, [])
    assert GroupResults(a=reply, b=reply)
    assert not GroupResults(a=reply, b=KATCPReply(FAIL, []))
    assert not GroupResults(a=None)
    assert GroupResults()


@in_ioloop
async def test_futures_may_be_transformed():
    loop = asyncio.get_running_loop()
    future, failing, spoilt = (loop.create_future() for _ in range(3))
    doubled = transform_future(lambda value: value * 2, future)
    failed = transform_future(lambda value: value * 2, failing)
    broken = transform_future(lambda value: 1 / 0, spoilt)
    future.set_result(21)
    failing.set_exception(ValueError("no"))
    spoilt.set_result(1)
    assert await doubled == 42
    with pytest.raises(ValueError, match="no"):
        await failed
    with pytest.raises(ZeroDivisionError):
        await broken
