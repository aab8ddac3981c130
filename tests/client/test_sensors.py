"""`client.sensors`: what a device has, its readings, and subscriptions that last."""

from __future__ import annotations

import asyncio
import enum
import gc
import re
import threading
import time

import pytest

import katcp
from katcp import (
    AsyncClient,
    BlockingClient,
    FailReply,
    KatcpArgumentError,
    KatcpClientDisconnected,
    KatcpClientStopped,
    KatcpClientTimeout,
    KatcpReplyError,
    KatcpSensorError,
    KatcpThreadError,
    KatcpTypeError,
    KatcpUsageError,
    Message,
    Status,
)
from katcp._runtime.events import AsyncEvent
from katcp.client import _tracker
from katcp.simdevice import Sensor, default_sensors
from katcp.simdevice.requests import STANDARD_REQUESTS
from tests.support.helpers import (
    PATIENCE,
    Recorder,
    TestDevice,
    in_loop,
    in_thread,
    start_client,
    until_answered,
)

VERSIONS = ["4", "5.0-M", "5.1-MI", "5.1-MIB"]


def quiet(name="quiet", sensor_type="integer", value=0, **options):
    """A sensor that changes only when it is set."""
    return Sensor(name, sensor_type, "A sensor", "units", value=value, timestamp=1.5e9, **options)


def watched_by(device):
    """Return what the device samples for its clients, by sensor."""
    return {
        name: b" ".join(sampling.arguments).decode()
        for client in device.clients
        for name, sampling in client.samplings.items()
    }


def until_sampled(device, expected):
    """Wait until the device samples just this."""
    device.wait_until(lambda: watched_by(device) == expected, PATIENCE, f"sampling {expected}")


def requests_of(device, name):
    """Return the requests of this name that the device was sent, without their ids."""
    return [
        str(message.copy())
        for message in device.received
        if message.mtype == Message.REQUEST and message.name == name
    ]


@pytest.fixture(params=VERSIONS)
def versions(request):
    """A device of each version, with one sensor of each type."""
    with TestDevice(protocol=request.param, sensors=default_sensors(1.5e9)) as device:
        yield device


@pytest.fixture
def quiet_device():
    """A device with two sensors that change only when they are set."""
    with TestDevice(sensors=[quiet("a"), quiet("b", "float", 0.5)]) as device:
        yield device


# ---- what there is, and single readings ----


def test_sensors_tell_what_the_device_says_of_them(versions):
    client = start_client(versions)
    temperature = client.sensors["temperature"]
    assert (temperature.name, temperature.type, temperature.units, temperature.description) == (
        "temperature",
        "float",
        "degC",
        "Temperature of the enclosure",
    )
    assert temperature.options == []
    assert client.sensors["mode"].options == ["idle", "track", "slew"]
    assert repr(temperature) == "<RemoteSensor temperature: float in degC>"
    assert repr(client.sensors["label"]) == "<RemoteSensor label: string>"
    assert repr(client.sensors) == "<Sensors of {}:{}>".format(*versions.address)


def test_readings_have_values_of_their_types(versions):
    client = start_client(versions)
    sensors = client.sensors
    values = {name: sensors[name].read().value for name in sensors}
    is_v5 = versions.protocol.major >= 5
    assert isinstance(values.pop("counter"), int)
    assert isinstance(values.pop("temperature"), float)
    assert values == {
        "enabled": True,
        "pll-lock": "nominal",
        "mode": "idle",
        "label": "simulated device",
        "start-time": 1.5e9,
        "gateway": ("10.0.0.1", 7148) if is_v5 else "10.0.0.1:7148",
    }
    reading = sensors["mode"].read()
    assert reading.timestamp == 1.5e9
    assert reading.status is Status.NOMINAL
    assert reading.status == katcp.Sensor.NOMINAL
    assert f"{reading.status}" == "nominal"


def test_whether_a_sensor_is_there_asks_for_that_one(quiet_device):
    client = start_client(quiet_device)
    assert "a" in client.sensors
    assert "c" not in client.sensors
    assert 5 not in client.sensors
    assert requests_of(quiet_device, "sensor-list") == ["?sensor-list a", "?sensor-list c"]


def test_asking_for_one_sensor_asks_for_that_one(quiet_device):
    client = start_client(quiet_device)
    assert client.sensors["a"].read().value == 0
    assert client.sensors["a"].read().value == 0
    assert requests_of(quiet_device, "sensor-list") == ["?sensor-list a"]
    assert requests_of(quiet_device, "sensor-value") == ["?sensor-value a"] * 2


@pytest.mark.parametrize(
    ("protocol", "expected"), [("5.1-MIB", "?sensor-list /^a.*$/"), ("4", "?sensor-list")]
)
def test_a_pattern_is_left_to_the_device_where_it_can_do_that(protocol, expected):
    with TestDevice(protocol=protocol, sensors=[quiet("a1"), quiet("a2"), quiet("b")]) as device:
        client = start_client(device)
        assert [sensor.name for sensor in client.sensors.find("a*")] == ["a1", "a2"]
        assert requests_of(device, "sensor-list") == [expected]


def test_all_sensors_are_asked_for_once(quiet_device):
    client = start_client(quiet_device)
    assert list(client.sensors) == ["a", "b"]
    assert len(client.sensors) == 2
    assert "a" in client.sensors
    assert "c" not in client.sensors
    assert client.sensors["a"].name == "a"
    assert requests_of(quiet_device, "sensor-list") == ["?sensor-list"]


def test_a_regular_expression_is_searched_for(quiet_device):
    client = start_client(quiet_device)
    assert [sensor.name for sensor in client.sensors.find(re.compile("^b"))] == ["b"]


def test_a_device_that_refuses_regular_expressions_is_asked_for_all(quiet_device):
    real = STANDARD_REQUESTS["sensor-list"].handler

    @quiet_device.request(name="sensor-list")
    def sensor_list(request, name=b"//"):
        if name.startswith(b"/^"):
            raise FailReply("no regular expressions here")
        return real(request, name)

    client = start_client(quiet_device)
    assert [sensor.name for sensor in client.sensors.find("b*")] == ["b"]
    assert requests_of(quiet_device, "sensor-list") == ["?sensor-list /^b.*$/", "?sensor-list"]


def test_a_sensor_that_is_not_there_raises(quiet_device):
    client = start_client(quiet_device)
    with pytest.raises(KatcpSensorError, match=r"127\.0\.0\.1:\d+ has no sensor 'c'.*Unknown"):
        client.sensors["c"]
    list(client.sensors)
    with pytest.raises(KatcpSensorError, match=r"has no sensor 'c'$"):
        client.sensors["c"]
    with pytest.raises(KatcpSensorError, match=r"has no sensor like 'c\*'"):
        client.sensors.watch("c*").open()
    assert client.sensors.find("c*") == []


def test_a_sensor_that_has_vanished_raises(quiet_device):
    client = start_client(quiet_device)
    sensor = client.sensors["a"]
    quiet_device.remove_sensor("a")
    with pytest.raises(KatcpSensorError, match="has no sensor 'a'"):
        sensor.read()


def test_an_attribute_that_does_not_exist_raises(quiet_device):
    client = start_client(quiet_device)
    sensor = client.sensors["a"]
    updates = sensor.watch()
    for thing in (sensor, updates):
        with pytest.raises(AttributeError):
            thing.interval = 1


def test_a_value_that_does_not_fit_its_type_is_an_error(quiet_device):
    client = start_client(quiet_device)
    sensor = client.sensors["a"]
    quiet_device.set_sensor("a", b"seven")
    with pytest.raises(KatcpSensorError, match="sensor a: b'seven' is no value of type integer"):
        sensor.read()
    # What a broken sensor shows is of no interest.
    quiet_device.set_sensor("a", b"seven", status="failure")
    assert sensor.read()[1:] == (Status.FAILURE, None)


def test_a_discrete_sensor_may_show_what_it_has_not_listed(logs):
    with TestDevice(sensors=[quiet("mode", "discrete", "on", params=["on", "off"])]) as device:
        client = start_client(device)
        device.set_sensor("mode", b"standby")
        assert client.sensors["mode"].read().value == "standby"
    assert "sensor mode: an option that it has not listed: 'standby'" in logs.expect("mode")


def test_a_type_that_nobody_knows_is_shown_as_text(quiet_device):
    @quiet_device.request(name="sensor-list")
    def sensor_list(request, name=b""):
        request.inform("a", "A sensor", "", "quaternion", 1, 2)
        return "ok", 1

    client = start_client(quiet_device)
    assert client.sensors["a"].type == "quaternion"
    assert client.sensors["a"].read().value == "0"


class Mode(enum.Enum):
    IDLE = "idle"
    TRACK = "track"


def test_discrete_values_may_be_members_of_an_enumeration():
    with TestDevice(sensors=default_sensors(1.5e9)) as device:
        client = start_client(device)
        mode = client.sensors["mode"].use_enum(Mode)
        assert mode.read().value is Mode.IDLE
        device.set_sensor("mode", "track")
        assert mode.wait_for(Mode.TRACK, timeout=PATIENCE).value is Mode.TRACK
        device.set_sensor("mode", "slew")
        with pytest.raises(KatcpSensorError, match="sensor mode: 'slew' is no value of Mode"):
            mode.read()


def test_reading_has_a_timeout(quiet_device):
    client = start_client(quiet_device)
    sensor = client.sensors["a"]
    quiet_device.request(quiet_device.silent, name="sensor-value")
    with pytest.raises(KatcpClientTimeout):
        sensor.read(timeout=0.05)
    with pytest.raises(KatcpTypeError):
        sensor.read(timeout="soon")


@pytest.mark.parametrize(("count", "alone"), [(3, 3), (100, 0)])
def test_many_readings_need_one_request(count, alone):
    sensors = [quiet(f"s{number}", value=number) for number in range(count)]
    with TestDevice(sensors=[*sensors, quiet("other")]) as device:
        client = start_client(device)
        readings = client.sensors.read("s*", timeout=PATIENCE)
        assert {name: reading.value for name, reading in readings.items()} == {
            f"s{number}": number for number in range(count)
        }
        assert len(requests_of(device, "sensor-value")) == (alone or 1)
        assert len(asyncio.run(client.sensors.async_read())) == count + 1


def test_readings_that_make_no_sense_cost_no_others(quiet_device, logs):
    @quiet_device.request("sensor-value")
    def sensor_value(request, name):
        """Have no a, and a value of b that is none."""
        if name == b"a":
            return "fail", "gone"
        request.inform(1.5, 1, "b", "nominal", "many")
        return "ok", 1

    readings = start_client(quiet_device).sensors.read()
    assert {name: reading[1:] for name, reading in readings.items()} == {
        "b": (Status.UNKNOWN, None)
    }
    logs.expect("sensor b: b'many' is no value of type float")


def test_who_gives_up_in_another_loop_leaves_nothing_to_log(quiet_device):
    """Whatever comes of it later; conftest looks for log records."""
    quiet_device.faults = ["no-reply:sensor-list"]
    client = start_client(quiet_device)

    async def give_up():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.sensors.async_find(), 0.05)

    asyncio.run(give_up())
    client.stop()


def test_a_greeting_that_never_comes_is_waited_for_once(quiet_device, monkeypatch):
    waits = []
    wait = AsyncEvent.until_set

    def until_set(event, timeout=None, *args):
        waits.append(timeout)
        return wait(event, timeout, *args)

    monkeypatch.setattr(_tracker, "GREETING_TIMEOUT", 0.05)
    monkeypatch.setattr(AsyncEvent, "until_set", until_set)
    quiet_device.faults = ["no-greeting"]
    client = start_client(quiet_device, wait="connected")
    client.sensors.find()
    client.sensors.read()
    assert waits.count(0.05) == 1


def test_without_a_connection_reading_fails(quiet_device):
    client = start_client(quiet_device)
    sensor = client.sensors["a"]
    quiet_device.stop()
    assert client.wait_disconnected(PATIENCE)
    with pytest.raises(KatcpClientDisconnected):
        sensor.read()
    client.stop(PATIENCE)
    with pytest.raises((KatcpUsageError, KatcpClientStopped)):
        sensor.read()


def test_blocking_in_the_loops_thread_is_refused(quiet_device):
    client = start_client(quiet_device)
    sensor = client.sensors["a"]

    async def main():
        for function in (sensor.read, client.sensors.find, sensor.watch().open):
            with pytest.raises(KatcpThreadError):
                function()
        return (await sensor.async_read()).value

    assert in_loop(client, main) == 0


def test_any_asyncio_loop_may_await(quiet_device):
    async def main():
        async with AsyncClient(*quiet_device.address) as client:
            sensor = await client.sensors.async_get("b")
            assert [found.name for found in await client.sensors.async_find()] == ["a", "b"]
            async with sensor.watch() as updates:
                name, reading = await updates.__anext__()
                return name, reading.value, (await sensor.async_read()).value

    assert asyncio.run(main()) == ("b", 0.5, 0.5)
    client = start_client(quiet_device)

    async def elsewhere():
        sensor = await client.sensors.async_get("a")
        return (await sensor.async_wait_for(0, timeout=PATIENCE)).value

    assert asyncio.run(elsewhere()) == 0


# ---- watching ----


def test_updates_come_in_their_order(versions):
    versions.add_sensor(quiet("a"))
    client = start_client(versions)
    with client.sensors["a"].watch(timeout=PATIENCE) as updates:
        for value in (1, 2, 3):
            versions.set_sensor("a", value, timestamp=1.6e9 + value)
        assert next(updates) == ("a", (1.5e9, Status.NOMINAL, 0))
        for value in (1, 2, 3):
            assert next(updates) == ("a", (1.6e9 + value, Status.NOMINAL, value))
    until_sampled(versions, {})


def test_a_callback_is_called_in_the_ioloop(quiet_device):
    client = start_client(quiet_device)
    calls = Recorder()

    def callback(name, reading):
        calls(name, reading.value, threading.get_ident())

    with client.sensors.watch("*", callback=callback):
        quiet_device.set_sensor("b", 1.5)
        expected = [("a", 0), ("b", 0.5), ("b", 1.5)]
        thread = client.ioloop_thread_id
        assert calls.wait(3) == [(*call, thread) for call in expected]
    until_sampled(quiet_device, {})
    quiet_device.set_sensor("b", 2.5)
    client.sensors["b"].read()
    assert len(calls.calls) == 3


def test_a_callback_that_raises_is_logged(quiet_device, logs):
    client = start_client(quiet_device)

    def callback(name, reading):
        raise ValueError("out of order")

    with client.sensors["a"].watch(callback=callback):
        logs.expect("Callback update a FAIL: ", level=40)


def test_several_consumers_share_one_sampling(quiet_device):
    client = start_client(quiet_device)
    slow = client.sensors.watch("a", strategy="period 100")
    fast = client.sensors["a"].watch("event", timeout=PATIENCE)
    with slow:
        until_sampled(quiet_device, {"a": "period 100.000000"})
        with fast:
            until_sampled(quiet_device, {"a": "event"})
            quiet_device.set_sensor("a", 7)
            for updates in (slow, fast):
                while next(updates)[1].value != 7:
                    pass
        until_sampled(quiet_device, {"a": "period 100.000000"})
    until_sampled(quiet_device, {})


def test_a_late_consumer_sees_the_present_reading(quiet_device):
    client = start_client(quiet_device)
    with client.sensors["a"].watch(timeout=PATIENCE) as first:
        assert next(first)[1].value == 0
        with client.sensors["a"].watch(timeout=PATIENCE) as second:
            assert next(second)[1].value == 0


def test_what_a_program_drops_is_no_longer_sampled(quiet_device):
    client = start_client(quiet_device)
    updates = client.sensors["a"].watch()
    updates.open()
    until_sampled(quiet_device, {"a": "event"})
    del updates
    gc.collect()
    until_sampled(quiet_device, {})


def test_a_strategy_that_the_device_refuses_raises_and_is_not_remembered(quiet_device):
    real = STANDARD_REQUESTS["sensor-sampling"].handler

    @quiet_device.request(name="sensor-sampling")
    def sensor_sampling(request, name, *strategy):
        if strategy == (b"event",) and b"b" in name:
            raise FailReply("too fast for me")
        return real(request, name, *strategy)

    client = start_client(quiet_device)
    with client.sensors["b"].watch("period 100"):
        with pytest.raises(KatcpReplyError, match=r"sensor b cannot.* 'event': .*too fast") as info:
            client.sensors.watch("*").open()
        assert info.value.reply.arguments[1] == b"too fast for me"
        until_sampled(quiet_device, {"b": "period 100.000000"})
    until_sampled(quiet_device, {})


def test_a_strategy_that_makes_no_sense_raises_before_anything_is_asked(quiet_device):
    client = start_client(quiet_device)
    with pytest.raises(KatcpArgumentError):
        client.sensors.watch("a", strategy="often")
    with pytest.raises(KatcpTypeError):
        client.sensors.watch()
    assert requests_of(quiet_device, "sensor-list") == []


@pytest.mark.parametrize(("protocol", "count"), [("5.1-MIB", 1), ("5.1-MI", 50), ("4", 50)])
def test_bulk_sampling_is_used_where_the_device_has_it(protocol, count):
    sensors = [quiet(f"s{number}") for number in range(50)]
    with TestDevice(protocol=protocol, sensors=sensors) as device:
        client = start_client(device)
        with client.sensors.watch("s*"):
            until_sampled(device, {sensor.name: "event" for sensor in sensors})
            assert len(requests_of(device, "sensor-sampling")) == count
        until_sampled(device, {})


def test_a_slow_iteration_loses_the_oldest_updates(quiet_device, logs):
    client = start_client(quiet_device)
    with client.sensors["a"].watch(maxsize=2, timeout=PATIENCE) as updates:
        seen = Recorder()
        with client.sensors["a"].watch(callback=seen):
            for value in range(1, 6):
                quiet_device.set_sensor("a", value)
            seen.wait(6)
        assert [next(updates)[1].value for _ in range(2)] == [4, 5]
        assert updates.dropped == 4
    logs.expect("dropped")


def test_waiting_for_an_update_may_have_a_limit(quiet_device):
    client = start_client(quiet_device)
    with client.sensors["a"].watch(timeout=0.05) as updates:
        assert next(updates)[1].value == 0
        with pytest.raises(KatcpClientTimeout):
            next(updates)
        quiet_device.set_sensor("a", 5)
        assert next(updates)[1].value == 5


def test_an_update_that_cannot_be_read_is_unknown_and_logged(quiet_device, logs):
    client = start_client(quiet_device)
    with client.sensors["a"].watch(timeout=PATIENCE) as updates:
        next(updates)
        quiet_device.set_sensor("a", b"seven")
        name, reading = next(updates)
        assert (name, reading.status, reading.value) == ("a", Status.UNKNOWN, None)
        logs.expect("sensor a: b'seven' is no value of type integer")
        quiet_device.set_sensor("a", 8)
        assert next(updates)[1].value == 8


@pytest.mark.parametrize(
    "line",
    [
        b"#sensor-status",
        b"#sensor-status 1 1 a",
        b"#sensor-status 1 2 a nominal 5",
        b"#sensor-status 1 x a nominal 5",
        b"#sensor-status 1 1 unknown nominal 5",
    ],
)
def test_malformed_updates_end_nothing(quiet_device, line):
    client = start_client(quiet_device)
    with client.sensors["a"].watch(timeout=PATIENCE) as updates:
        next(updates)
        quiet_device.send_raw(line + b"\n")
        quiet_device.set_sensor("a", 8)
        assert next(updates)[1].value == 8


def test_one_inform_may_have_several_readings(quiet_device):
    client = start_client(quiet_device)
    with client.sensors.watch("*", timeout=PATIENCE) as updates:
        assert [next(updates)[0] for _ in range(2)] == ["a", "b"]
        quiet_device.send_raw(b"#sensor-status 1600000000 2 a nominal 3 b warn 4.5\n")
        assert next(updates) == ("a", (1.6e9, Status.NOMINAL, 3))
        assert next(updates) == ("b", (1.6e9, Status.WARN, 4.5))


def test_stopping_the_client_ends_the_iteration(quiet_device):
    client = start_client(quiet_device)
    updates = client.sensors["a"].watch()
    updates.open()
    thread, outcome = in_thread(lambda: [reading[1:] for _, reading in updates])
    client.stop(PATIENCE)
    thread.join(PATIENCE)
    assert outcome == [[(Status.NOMINAL, 0), (Status.UNREACHABLE, 0)]]


# ---- waiting for a value ----


def test_waiting_for_a_value(versions):
    versions.add_sensor(quiet("a"))
    client = start_client(versions)
    sensor = client.sensors["a"]
    assert sensor.wait_for(0).value == 0
    thread, outcome = in_thread(lambda: sensor.wait_for(lambda r: r.value > 5, timeout=PATIENCE))
    until_sampled(versions, {"a": "event"})
    versions.set_sensor("a", 3)
    versions.set_sensor("a", 8)
    thread.join(PATIENCE)
    assert outcome[0].value == 8
    until_sampled(versions, {})


def test_waiting_for_a_value_has_a_timeout_for_the_whole(quiet_device):
    client = start_client(quiet_device)
    sensor = client.sensors["a"]
    with pytest.raises(KatcpClientTimeout, match=r"sensor a is 0 \(nominal\), not what"):
        sensor.wait_for(1, timeout=0.05)
    with pytest.raises(KatcpClientTimeout):
        sensor.wait_for(1, update_timeout=0.05)

    async def main():
        await sensor.async_wait_for(1, timeout=0.05)

    with pytest.raises(KatcpClientTimeout, match="sensor a is 0"):
        asyncio.run(main())


def test_waiting_for_a_value_ends_with_the_client(quiet_device):
    client = start_client(quiet_device)
    sensor = client.sensors["a"]
    seen = threading.Event()
    thread, outcome = in_thread(lambda: sensor.wait_for(lambda reading: seen.set()))
    assert seen.wait(PATIENCE)
    client.stop(PATIENCE)
    thread.join(PATIENCE)
    assert isinstance(outcome[0], KatcpClientStopped)
    assert "the client was stopped" in str(outcome[0])


def test_a_condition_that_raises_ends_the_wait(quiet_device):
    client = start_client(quiet_device)
    with pytest.raises(ZeroDivisionError):
        client.sensors["a"].wait_for(lambda reading: 1 / reading.value, timeout=PATIENCE)
    until_sampled(quiet_device, {})


# ---- reconnects and changes ----


def test_sampling_is_set_again_after_a_reconnect(versions):
    versions.add_sensor(quiet("a"))
    client = start_client(versions)
    with client.sensors["a"].watch(timeout=PATIENCE) as updates:
        next(updates)
        versions.close_clients()
        name, reading = next(updates)
        assert (name, reading.status, reading.value) == ("a", Status.UNREACHABLE, 0)
        assert abs(reading.timestamp - time.time()) < 60
        assert next(updates) == ("a", (1.5e9, Status.NOMINAL, 0))
        versions.set_sensor("a", 6)
        assert next(updates)[1].value == 6


def test_sampling_begins_with_each_connection(quiet_device, logs):
    client = start_client(quiet_device)
    with client.sensors["a"].watch("period 100"):
        for _ in range(3):
            until_sampled(quiet_device, {"a": "period 100.000000"})
            connections = quiet_device.connection_count
            quiet_device.reset_clients()
            logs.expect("ConnectionResetError")
            quiet_device.wait_for_connection(connections + 1, PATIENCE)
    until_sampled(quiet_device, {})


def test_closing_without_a_connection_is_not_forgotten(quiet_device):
    client = start_client(quiet_device)
    updates = client.sensors["a"].watch()
    updates.open()
    quiet_device.stop()
    while client.is_connected():
        client.wait_disconnected(PATIENCE)
    updates.close()
    quiet_device.start()
    until_answered(client)
    client.sensors["a"].read()
    assert watched_by(quiet_device) == {}


@pytest.mark.parametrize("turns", range(12))
def test_one_that_comes_while_the_sampling_is_switched_off_is_not_forgotten(quiet_device, turns):
    """It comes so many iterations of the loop after the reply that switches another one off."""
    replied = None

    class Client(AsyncClient):
        def handle_reply(self, msg):
            super().handle_reply(msg)
            replied.set()

    async def main():
        nonlocal replied
        replied = asyncio.Event()
        async with Client(*quiet_device.address) as client:
            await client.sensors.async_find()
            updates = client.sensors.watch("a")
            await updates.async_open()
            replied.clear()
            updates.close()
            await replied.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            updates = client.sensors.watch("b")
            await updates.async_open()
            assert watched_by(quiet_device) == {"b": "event"}

    asyncio.run(main())


def test_one_that_leaves_while_the_sensors_are_listed_again_stays_away(quiet_device):
    client = start_client(quiet_device)
    updates = client.sensors.watch("a*")
    updates.open()
    list_sensors = STANDARD_REQUESTS["sensor-list"].handler
    quiet_device.request(quiet_device.hold, name="sensor-list")
    quiet_device.add_sensor(quiet("a2"))
    # First the new sensor is listed, then what matches the pattern.
    quiet_device.next_held().reply("ok", 0)
    held = quiet_device.next_held()
    updates.close()
    until_sampled(quiet_device, {})
    quiet_device.request(list_sensors, name="sensor-list")
    held.reply("ok", 0)
    assert client.sensors["b"].read().value == 0.5
    assert requests_of(quiet_device, "sensor-sampling")[-1] == "?sensor-sampling a none"


def test_a_sensor_that_appears_and_matches_is_watched(quiet_device):
    client = start_client(quiet_device)
    with client.sensors.watch("a*", timeout=PATIENCE) as updates:
        next(updates)
        quiet_device.add_sensor(quiet("a2", value=12))
        assert next(updates)[0] == "a2"
        quiet_device.add_sensor(quiet("c"))
        assert client.sensors["c"].read().value == 0
        until_sampled(quiet_device, {"a": "event", "a2": "event"})
    until_sampled(quiet_device, {})


def test_a_sensor_that_vanishes_is_unreachable_until_it_comes_back(quiet_device, logs):
    client = start_client(quiet_device)
    with client.sensors["a"].watch(timeout=PATIENCE) as updates:
        next(updates)
        quiet_device.remove_sensor("a")
        assert next(updates)[1][1:] == (Status.UNREACHABLE, 0)
        logs.expect("sensor a: the device does not have it any more")
        quiet_device.add_sensor(quiet("a", "float", 2.5))
        # With the type that it has now.
        assert next(updates)[1][1:] == (Status.NOMINAL, 2.5)


def test_a_restart_with_other_sensors(quiet_device, logs):
    client = start_client(quiet_device)
    with client.sensors.watch("*", timeout=PATIENCE) as updates:
        for _ in range(2):
            next(updates)
        quiet_device.stop()
        quiet_device.remove_sensor("a")
        quiet_device.add_sensor(quiet("c"))
        quiet_device.start()
        until_sampled(quiet_device, {"b": "event", "c": "event"})
        assert list(client.sensors) == ["b", "c"]
    logs.expect("sensor a: the device does not have it any more")
    logs.records.clear()  # perhaps it was tried in vain to connect meanwhile


def test_a_device_that_never_lists_its_sensors_keeps_nobody_waiting(quiet_device):
    quiet_device.request(quiet_device.silent, name="sensor-list")
    client = start_client(quiet_device, timeout=0.05)
    for ask in (lambda: client.sensors["a"], client.sensors.find):
        with pytest.raises(KatcpClientTimeout):
            ask()


def test_names_with_dots_and_dashes(logs):
    names = ["rx.l-band.temp-0", "rx.l-band.temp_1", "rx.u.temp"]
    with TestDevice(sensors=[quiet(name) for name in names]) as device:
        client = start_client(device)
        assert [sensor.name for sensor in client.sensors.find("rx.l-band.*")] == names[:2]
        assert client.sensors[names[0]].read().value == 0
        with client.sensors.watch("rx.l-band.temp?[01]"):
            until_sampled(device, dict.fromkeys(names[:2], "event"))


def test_only_blocking_and_async_clients_have_sensors(quiet_device):
    assert not hasattr(katcp.DeviceClient, "sensors")

    class Program(BlockingClient):
        def __init__(self, *args):
            super().__init__(*args)
            self.sensors = {"mine": 1}

    client = start_client(quiet_device, Program)
    assert client.sensors == {"mine": 1}
