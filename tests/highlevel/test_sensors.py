"""Sensors of a `KATCPClientResource`: readings, listeners, strategies, waiting."""

from __future__ import annotations

import asyncio

import pytest
from tornado.util import TimeoutError as TornadoTimeoutError

from katcp import FailReply, Sensor
from katcp.resource import KATCPSensorError, KATCPSensorReading, SensorResultTuple
from katcp.resource_client import KATCPClientResource
from katcp.simdevice import default_sensors
from katcp.simdevice.requests import STANDARD_REQUESTS
from tests.support.helpers import PATIENCE, TestDevice
from tests.support.resources import (
    Heard,
    in_ioloop,
    quiet,
    requests_of,
    spec_of,
    synced,
    until,
    watched_by,
)

VERSIONS = ["4", "5.0-M", "5.1-MI", "5.1-MIB"]
SOON = 0.05


@pytest.fixture(params=VERSIONS)
def versions(request):
    with TestDevice(protocol=request.param, sensors=[quiet("a.b"), quiet("c", "float")]) as device:
        yield device


@pytest.fixture
def device():
    with TestDevice(sensors=[quiet("a.b"), quiet("c", "float"), quiet("d", "boolean")]) as device:
        yield device


def refusing(device, *names):
    """Let the device sample some sensors never; return their names, to be changed."""
    refused = set(names)
    real = STANDARD_REQUESTS["sensor-sampling"].handler

    @device.request(name="sensor-sampling")
    def sensor_sampling(request, names, *strategy):
        """Refuse some sensors."""
        if strategy and refused & set(names.decode().split(",")):
            raise FailReply("I will not")
        return real(request, names, *strategy)

    return refused


# ---- readings ----


@pytest.mark.parametrize("protocol", VERSIONS)
@in_ioloop
async def test_values_are_of_the_types_of_the_old_package(protocol):
    with TestDevice(protocol=protocol, sensors=default_sensors(1.5e9)) as device:
        async with synced(device) as resource:
            values = {name: await sensor.get_value() for name, sensor in resource.sensor.items()}
            assert isinstance(values.pop("counter"), int)
            assert isinstance(values.pop("temperature"), float)
            assert values == {
                "enabled": True,
                "pll_lock": Sensor.LRU_NOMINAL,
                "mode": "idle",
                "label": "simulated device",
                "start_time": 1.5e9,
                # Version 4 does not know addresses.
                "gateway": "10.0.0.1:7148" if protocol == "4" else ("10.0.0.1", 7148),
            }
            mode = resource.sensor.mode
            assert (mode.name, mode.type, mode.parent_name) == ("mode", "discrete", "dev")
            assert resource.sensor.pll_lock.normalised_name == "pll_lock"
            assert resource.sensor.temperature.units == "degC"


@in_ioloop
async def test_readings_tell_when_and_how_good(versions):
    async with synced(versions) as resource:
        sensor = resource.sensor.a_b
        assert sensor.reading == (0, 0, Sensor.UNKNOWN, None)
        assert (sensor.value, sensor.status) == (None, "unknown")
        versions.set_sensor("a.b", 7, "warn", timestamp=1.6e9)
        reading = await sensor.get_reading()
        assert isinstance(reading, KATCPSensorReading)
        assert reading[1:] == (1.6e9, Sensor.WARN, 7)
        assert reading.received_timestamp > 1.6e9
        assert await sensor.get_status() == "warn"
        assert (sensor.reading[1:], sensor.value, sensor.status) == (reading[1:], 7, "warn")


@in_ioloop
async def test_a_sensor_that_has_failed_is_reported_whatever_its_value(device):
    async with synced(device) as resource:
        sensor = resource.sensor.a_b
        await sensor.get_value()
        device.set_sensor("a.b", b"broken", "failure", timestamp=1.6e9)
        assert (await sensor.get_reading())[1:] == (1.6e9, Sensor.FAILURE, 0)


@in_ioloop
async def test_a_value_that_cannot_be_read_is_dropped(device, logs):
    async with synced(device) as resource:
        sensor = resource.sensor.a_b
        await sensor.get_value()
        device.set_sensor("a.b", b"seven")
        assert await sensor.get_value() == 0
    assert "sensor a.b: an update that cannot be read" in logs.expect("seven")


@in_ioloop
async def test_what_the_device_refuses_raises(device):
    async with synced(device) as resource:
        sensor = resource.sensor.a_b

        @device.request(name="sensor-value")
        def sensor_value(request, name):
            """Refuse."""
            raise FailReply("not now")

        for ask in (sensor.get_value, sensor.get_status, sensor.get_reading):
            with pytest.raises(
                KATCPSensorError, match=r"Error polling sensor a\.b: \n!sensor-value"
            ):
                await ask()
        device.stop()
        await resource.until_not_synced(timeout=PATIENCE)
        with pytest.raises(KATCPSensorError, match="Error polling sensor a.b"):
            await sensor.get_value()


@in_ioloop
async def test_a_poll_takes_back_no_newer_reading(device):
    """The value, its reply and a newer reading come in one segment."""
    async with synced(device) as resource:
        sensor = resource.sensor.a_b

        @device.request(name="sensor-value")
        def sensor_value(request, name):
            """Answer, and send what comes next with it."""
            (client,) = device.clients
            mid = b"[%s]" % request.message.mid
            device.send_raw(
                b"#sensor-value%s 1 1 a.b nominal 1\n!sensor-value%s ok 1\n"
                b"#sensor-status 2 1 a.b nominal 2\n" % (mid, mid),
                client,
            )

        await sensor.get_value()
        await until(lambda: sensor.reading.timestamp == 2)
        assert sensor.value == 2


@in_ioloop
async def test_values_of_a_raw_request_are_taken_in(device):
    async with synced(device) as resource:
        reply = await resource.req.sensor_value()
        assert len(reply.informs) == 3
        assert (resource.sensor.a_b.value, resource.sensor.d.value) == (0, False)


# ---- listeners ----


@in_ioloop
async def test_listeners_are_called_in_either_way(versions):
    async with synced(versions) as resource:
        sensor, old, new = resource.sensor.a_b, Heard(), Heard()
        sensor.register_listener(old)
        sensor.register_listener(old)
        sensor.register_listener(new, reading=True)
        await sensor.set_strategy("event")
        versions.set_sensor("a.b", 6, "warn", timestamp=1.6e9)
        while True:
            received, *told = await old.next()
            of, reading = await new.next()
            assert of is sensor
            assert reading == (received, told[0], Sensor.STATUS_NAMES[told[1]], told[2])
            if told == [1.6e9, "warn", 6]:
                break
        assert old.nothing()
        assert sensor.is_listener(old)
        sensor.unregister_listener(old)
        sensor.unregister_listener(old)
        assert not sensor.is_listener(old)
        sensor.clear_listeners()
        assert not sensor.is_listener(new)


@in_ioloop
async def test_updates_are_told_in_their_order(device):
    async with synced(device) as resource:
        heard = Heard()
        resource.sensor.a_b.register_listener(heard)
        lines = [b"#sensor-status 1 1 a.b nominal %d\n" % number for number in range(20)]
        device.send_raw(b"".join(lines))
        assert [await heard.next_value() for _ in lines] == list(range(20))


@in_ioloop
async def test_a_bad_listener_does_not_keep_others_from_being_called(device, logs):
    async with synced(device) as resource:
        sensor, heard = resource.sensor.a_b, Heard()

        def bad(*args):
            raise ValueError("listener is bad")

        async def coroutine(sensor, reading):
            heard(reading)

        sensor.register_listener(bad)
        sensor.register_listener(coroutine, reading=True)
        await sensor.get_value()
        assert await heard.next_value() == 0
    assert "Unhandled exception calling KATCPSensor callback" in logs.expect(
        "listener is bad", level=40
    )


@in_ioloop
async def test_a_listener_may_wait_for_its_sensor(device):
    resource, heard = KATCPClientResource(spec_of(device)), Heard()
    assert await resource.set_sensor_listener("new.one", heard) == {}
    resource.start()
    await resource.until_synced(timeout=PATIENCE)
    assert await resource.set_sensor_listener("a.b", heard) == {"a_b": heard}
    assert await resource.set_sensor_listener("a_b", heard) == {"a_b": heard}
    device.add_sensor(quiet("new.one"))
    await until(lambda: "new_one" in resource.sensor)
    device.send_raw(b"#sensor-status 1 1 new.one nominal 4\n#sensor-status 1 1 a.b nominal 5\n")
    assert [await heard.next_value(), await heard.next_value()] == [4, 5]
    resource.stop()
    await resource.until_stopped(timeout=PATIENCE)


# ---- strategies ----


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (("event",), ("event",)),
        (("event", None), ("event",)),
        (("period", 2.5), ("period", "2.5")),
        (("period", "2.5"), ("period", "2.5")),
        (("event-rate", "1 5"), ("event-rate", "1.0", "5.0")),
        (("event-rate", (1, 5)), ("event-rate", "1.0", "5.0")),
        (("differential", 2), ("differential", "2.0")),
        (("none",), ("none",)),
    ],
)
@in_ioloop
async def test_strategies(device, given, kept):
    async with synced(device) as resource:
        sensor = resource.sensor.a_b
        assert await sensor.set_strategy(*given) == (True, kept)
        assert sensor.sampling_strategy == kept
        together = " ".join([given[0], *kept[1:]])
        for same in (together, tuple(together.split())):
            assert await sensor.set_sampling_strategy(same) == (True, kept)
            assert await resource.set_sampling_strategy("a.b", same) == {"a_b": same}


@in_ioloop
async def test_periods_are_in_the_units_of_the_device(versions):
    async with synced(versions) as resource:
        await resource.sensor.c.set_strategy(
            "event-rate" if versions.protocol.major > 4 else "auto"
        )
        await resource.sensor.c.set_strategy("period", 250)
        await resource.sensor.a_b.set_strategy("period", 1000)
        is_v5 = versions.protocol.major >= 5
        assert requests_of(versions, "sensor-sampling")[-2:] == [
            f"?sensor-sampling c period {'250.000000' if is_v5 else '250'}",
            f"?sensor-sampling a.b period {'1000.000000' if is_v5 else '1000'}",
        ]
        assert resource.sensor.c.sampling_strategy == ("period", "250.0")


@in_ioloop
async def test_a_strategy_is_sent_each_time(device):
    async with synced(device) as resource:
        heard = Heard()
        resource.sensor.a_b.register_listener(heard)
        for _ in range(2):
            await resource.sensor.a_b.set_strategy("event")
            assert await heard.next_value() == 0
        await resource.sensor.d.set_strategy("none")
        assert requests_of(device, "sensor-sampling") == [
            "?sensor-sampling a.b event",
            "?sensor-sampling a.b event",
            "?sensor-sampling d none",
        ]


@in_ioloop
async def test_a_refused_strategy_is_told_and_forgotten(device, logs):
    refusing(device, "a.b")
    async with synced(device) as resource:
        sensor = resource.sensor.a_b
        ok, reason = await sensor.set_strategy("event")
        assert not ok
        assert reason.startswith("Error setting strategy for sensor a.b: \n!sensor-sampling")
        assert "I\\_will\\_not" in reason
        assert sensor.sampling_strategy == ("none",)
        assert await resource.set_sampling_strategy("a.b", "event") == {}
        assert "I\\_will\\_not" in logs.expect("dev: Error setting strategy", level=40)
        done = await resource.set_sampling_strategies("", "auto")
        assert done == {"c": "auto", "d": "auto"}
        logs.expect("dev: Error setting strategy", level=40)
        assert watched_by(device) == {"c": "auto", "d": "auto"}
        with pytest.raises(KATCPSensorError, match="does not have a strategy set"):
            await resource.wait("a.b", 0)


@in_ioloop
async def test_the_strategy_before_a_refused_one_stays(device):
    refused = refusing(device)
    async with synced(device) as resource:
        await resource.sensor.a_b.set_strategy("event")
        refused.add("a.b")
        assert not (await resource.sensor.a_b.set_strategy("auto"))[0]
        assert resource.sensor.a_b.sampling_strategy == ("event",)


@pytest.mark.parametrize("nonsense", ["nonsense", "period", "period x", "", None, b"event", 5])
@in_ioloop
async def test_a_strategy_that_makes_no_sense_is_not_sent(device, nonsense, logs):
    async with synced(device) as resource:
        ok, reason = await resource.sensor.a_b.set_sampling_strategy(nonsense)
        assert not ok
        assert reason.startswith("Error setting strategy for sensor a.b")
        assert await resource.set_sampling_strategy("a.b", nonsense) == {}
        assert requests_of(device, "sensor-sampling") == []
        assert resource.sensor.a_b.sampling_strategy == ("none",)
    logs.expect("Error setting strategy", level=40)


@in_ioloop
async def test_strategies_may_wait_for_the_device(device, logs):
    refusing(device, "d")
    resource = KATCPClientResource(spec_of(device))
    assert await resource.set_sampling_strategy("a.b", "event") == {}
    assert await resource.set_sampling_strategy("c", "period 5") == {}
    assert await resource.set_sampling_strategy("d", "event") == {}
    assert await resource.set_sampling_strategy("new.one", "auto") == {}
    assert await resource.set_sampling_strategies("", "event") == {}
    resource.start()
    await resource.until_synced(timeout=PATIENCE)
    assert watched_by(device) == {"a.b": "event", "c": "period 5.000000"}
    assert resource.sensor.d.sampling_strategy == ("none",)
    logs.expect("Error setting strategy for sensor d", level=40)
    device.add_sensor(quiet("new.one"))
    await until(lambda: watched_by(device).get("new.one") == "auto")
    resource.stop()
    await resource.until_stopped(timeout=PATIENCE)


@in_ioloop
async def test_strategies_are_set_again_after_a_reconnect(versions):
    async with synced(versions) as resource:
        await resource.sensor.a_b.set_strategy("event")
        versions.close_clients()
        await resource.until_not_synced(timeout=PATIENCE)
        assert resource.sensor.a_b.reading.value in (None, 0)
        await resource.until_synced(timeout=PATIENCE)
        assert watched_by(versions) == {"a.b": "event"}
        heard = Heard()
        resource.sensor.a_b.register_listener(heard)
        versions.set_sensor("a.b", 3)
        while await heard.next_value() != 3:
            pass


@in_ioloop
async def test_strategies_that_are_set_without_connection_wait_for_it(device, logs):
    async with synced(device) as resource:
        device.stop()
        await resource.until_not_synced(timeout=PATIENCE)
        ok, reason = await resource.sensor.a_b.set_strategy("event")
        assert not ok
        assert "Not connected to device" in reason
        assert await resource.set_sampling_strategy("c", "auto") == {"c": "auto"}
        device.start()
        await resource.until_synced(timeout=PATIENCE)
        assert watched_by(device) == {"a.b": "event", "c": "auto"}
    for record in logs.matching("Failed to connect"):
        logs.records.remove(record)


@in_ioloop
async def test_a_dropped_strategy_is_not_set_again(device):
    async with synced(device) as resource:
        for name in ("a.b", "c", "d"):
            await resource.set_sampling_strategy(name, "event")
        resource.drop_sampling_strategy("a.b")
        resource.sensor.c.drop_sampling_strategy()
        resource.drop_sampling_strategy("nope")
        assert set(watched_by(device)) == {"a.b", "c", "d"}
        assert resource.sensor.a_b.sampling_strategy == ("none",)
        device.close_clients()
        await resource.until_not_synced(timeout=PATIENCE)
        await resource.until_synced(timeout=PATIENCE)
        assert watched_by(device) == {"d": "event"}


@in_ioloop
async def test_watching_with_the_new_client_goes_beside_it(device):
    """Strategies of both are of one client: the finest is set."""
    async with synced(device) as resource:
        await resource.sensor.a_b.set_strategy("period", 100)
        sensors = resource._client.katcp_client.sensors
        async with sensors.watch("a.b", strategy="event", timeout=PATIENCE) as updates:
            await updates.__anext__()
            assert watched_by(device) == {"a.b": "event"}
            await resource.sensor.a_b.set_strategy("period", 50)
            assert watched_by(device) == {"a.b": "event"}
        await until(lambda: watched_by(device) == {"a.b": "period 50.000000"})


@in_ioloop
async def test_a_device_that_never_answers_a_strategy(device):
    device.request(device.silent, name="sensor-sampling")
    async with synced(device) as resource:
        resource._client.katcp_client._session.timeout = SOON
        ok, reason = await resource.sensor.a_b.set_strategy("event")
        assert not ok
        assert "timed out" in reason
        assert resource.sensor.a_b.sampling_strategy == ("event",)


# ---- waiting ----


@in_ioloop
async def test_waiting_for_a_value(versions):
    async with synced(versions) as resource:
        sensor = resource.sensor.a_b
        await sensor.set_strategy("event")
        await sensor.get_value()
        assert await resource.wait("a.b", 0, timeout=PATIENCE) is True
        assert await resource.wait("a_b", lambda reading: reading.value == 0) is True
        assert await resource.wait("a.b", 7, timeout=SOON) is False
        with pytest.raises(TornadoTimeoutError):
            await sensor.wait(7, timeout=SOON)
        waiting = [sensor.wait(8), resource.wait("a.b", lambda reading: reading.status == "warn")]
        versions.set_sensor("a.b", 8)
        versions.set_sensor("a.b", 9, "warn")
        assert [await asyncio.wait_for(future, PATIENCE) for future in waiting] == [True, True]
        assert not sensor._listeners


@in_ioloop
async def test_what_cannot_be_waited_for(device):
    async with synced(device) as resource:
        sensor = resource.sensor.a_b
        with pytest.raises(KATCPSensorError, match="does not have a strategy set"):
            sensor.wait(0)
        with pytest.raises(KATCPSensorError, match="dev has no sensor 'nope'"):
            await resource.wait("nope", 0)
        await sensor.set_strategy("event")
        with pytest.raises(NotImplementedError):
            sensor.wait([0, 1])
        with pytest.raises(ZeroDivisionError):
            await sensor.wait(lambda reading: 1 / 0)
        assert not sensor._listeners


# ---- listing ----


@in_ioloop
async def test_listing_sensors(device):
    device.add_sensor(quiet("B.x_y"))
    async with synced(device) as resource:
        await until(lambda: "B_x_y" in resource.sensor)

        async def names(*args, **kwargs):
            return [found.name for found in await resource.list_sensors(*args, **kwargs)]

        assert await names() == ["B.x_y", "a.b", "c", "d"]
        assert await names("^a_|c") == ["a.b", "c"]
        assert await names("^a\\.") == []
        assert await names("^a\\.", use_python_identifiers=False) == ["a.b"]
        await resource.sensor.a_b.set_strategy("event")
        assert await names(strategy=True) == ["a.b"]
        device.set_sensor("c", 1.5, "warn")
        assert await names(status="warn|error") == []
        assert await names(status="warn|error", refresh=True) == ["c"]
        (found,) = await resource.list_sensors("^c")
        assert isinstance(found, SensorResultTuple)
        sensor = resource.sensor.c
        about = (sensor, "c", "c", "A sensor", "float", "units")
        assert found == (*about, sensor.reading)
        (found,) = await resource.list_sensors("^c", tuple=True)
        received, timestamp, _, value = sensor.reading
        about = ("c", value, timestamp, "float", "units", received, "warn", ("none",))
        assert found == about
