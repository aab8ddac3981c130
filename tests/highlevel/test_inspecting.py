"""`InspectingClientAsync`: what it knows of a device, and what it tells of that."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from tornado import gen
from tornado.util import TimeoutError as TornadoTimeoutError

import katcp
from katcp import FailReply, KatcpUsageError, Sensor
from katcp.inspecting_client import (
    ExponentialRandomBackoff,
    InspectingClientAsync,
    InspectingClientStateType,
    RequestType,
    SyncError,
)
from tests.support.helpers import PATIENCE, TestDevice
from tests.support.resources import Heard, in_ioloop, quiet, requests_of, until

VERSIONS = ["4", "5.0-M", "5.1-MIBT"]
SOON = 0.05


@pytest.fixture(params=VERSIONS)
def versions(request):
    with TestDevice(protocol=request.param, sensors=[quiet("a.b"), quiet("c", "float")]) as device:
        yield device


@pytest.fixture
def device():
    with TestDevice(sensors=[quiet("a.b"), quiet("c", "float")]) as device:
        yield device


@contextlib.asynccontextmanager
async def running(device, cls=InspectingClientAsync, **options):
    client = cls(*device.address, **options)
    client.katcp_client.auto_reconnect_delay = 0.02
    await client.connect(timeout=PATIENCE)
    try:
        yield client
    finally:
        client.stop()
        await client.until_stopped(timeout=PATIENCE)


@contextlib.asynccontextmanager
async def synced(device, cls=InspectingClientAsync, **options):
    async with running(device, cls, **options) as client:
        await client.until_synced(timeout=PATIENCE)
        yield client


def names_of(state):
    return [name for name in state._fields if getattr(state, name)]


# ---- states ----


@in_ioloop
async def test_states_are_told_with_what_has_changed(versions):
    client, heard = InspectingClientAsync(*versions.address), Heard()
    client.set_state_callback(heard)
    assert client.state == InspectingClientStateType(False, False, False, False)
    await client.start()
    told = []
    while not told or "synced" not in told[-1][0]:
        state, changes = await heard.next()
        told.append((names_of(state), changes))
    states = [names for names, _ in told]
    assert [names for i, names in enumerate(states) if names != states[i - 1]] == [
        [],
        ["connected"],
        ["connected", "model_changed", "data_synced"],
        ["connected", "synced", "data_synced"],
    ]
    (changes,) = [changes for _, changes in told if changes]
    assert changes.sensors == {"added": {"a.b", "c"}, "removed": set()}
    assert changes.requests.added == set(client.requests) >= {"help", "sensor-list"}
    assert (client.connected, client.synced, client.is_connected()) == (True, True, True)
    assert client.sensors == ["a.b", "c"]
    client.stop()
    await client.until_stopped(timeout=PATIENCE)
    assert names_of((await heard.next())[0]) == []


@in_ioloop
async def test_waiting_for_states(device):
    client = InspectingClientAsync(*device.address)
    with pytest.raises(TornadoTimeoutError):
        await client.until_synced(timeout=SOON)
    assert await client.until_not_synced(timeout=PATIENCE) is True
    waiting = [client.until_synced(), client.until_data_synced(), client.until_data_synced()]
    await client.connect(timeout=PATIENCE)
    assert client.connected
    assert await gen.multi(waiting) == [True] * 3
    assert await client.until_connected(timeout=PATIENCE) is None
    assert await client.until_state(client.state, timeout=PATIENCE) is True
    with pytest.raises(ValueError, match="State must be one of"):
        client.until_state("synced")
    waiting = client.until_not_synced()
    device.close_clients()
    assert await waiting is True
    client.close()
    await client.until_stopped(timeout=PATIENCE)


@in_ioloop
async def test_it_may_be_started_again_but_not_twice(device):
    async with synced(device) as client:
        with pytest.raises(KatcpUsageError, match="already started"):
            await client.start()
        client.stop()
        await client.until_stopped(timeout=PATIENCE)
        assert not client.connected
        reply, informs = await client.simple_request("echo")
        assert (str(reply.copy()).split()[:2], informs) == (["!echo", "fail"], [])
        await client.start()
        await client.until_synced(timeout=PATIENCE)


@in_ioloop
async def test_nobody_is_there(refused_address, logs):
    client = InspectingClientAsync(*refused_address)
    with pytest.raises(TornadoTimeoutError):
        await client.connect(timeout=SOON)
    client.stop()
    await client.until_stopped(timeout=PATIENCE)
    logs.expect("Failed to connect")


def test_set_ioloop_sets_the_attribute(ioloop, device):
    client = InspectingClientAsync(*device.address)
    client.set_ioloop(ioloop)
    assert client.ioloop is ioloop
    assert client.bind_address == device.address
    assert client.bind_address_string == "{}:{}".format(*device.address)


@in_ioloop
async def test_a_callback_is_waited_for_and_may_raise(device, logs):
    client, states, gate = InspectingClientAsync(*device.address), [], asyncio.Event()

    async def callback(state, changes):
        states.append(state)
        if changes:
            await gate.wait()
            raise ValueError("callback is bad")

    client.set_state_callback(callback)
    await client.start()
    await client.until_state(InspectingClientStateType(True, False, True, True))
    with pytest.raises(TornadoTimeoutError):
        await client.until_synced(timeout=SOON)
    gate.set()
    await client.until_synced(timeout=PATIENCE)
    logs.expect("callback is bad", level=40)

    def bad(state, changes):
        raise ValueError("worse")

    client.set_state_callback(bad)
    client.stop()
    await client.until_stopped(timeout=PATIENCE)
    logs.expect("worse", level=40)


# ---- what the device has ----


@in_ioloop
async def test_sensors_and_requests_may_be_asked_for(versions):
    async with synced(versions) as client:
        sensor = await client.future_get_sensor("c")
        assert isinstance(sensor, Sensor)
        assert (sensor.name, sensor.type, sensor.units) == ("c", "float", "units")
        assert await client.future_get_sensor("c") is sensor
        assert await client.future_check_sensor("c") is True
        request = await client.future_get_request("sensor-value")
        assert isinstance(request, RequestType)
        assert (request.name, request.timeout_hint) == ("sensor-value", None)
        versions.clear_received()
        for get in (client.future_get_sensor, client.future_get_request):
            assert await get("nope") is None
            assert await get("nope", update=False) is None
        assert await client.future_check_sensor("nope") is False
        assert await client.future_check_request("nope") is False
        assert requests_of(versions, "sensor-list") == ["?sensor-list nope"] * 2
        assert requests_of(versions, "help") == ["?help nope"] * 2


@in_ioloop
async def test_without_inspection_only_what_is_wanted_is_asked_for(device):
    async with synced(device, initial_inspection=False) as client:
        assert client.sensors == client.requests == []
        assert (await client.future_get_sensor("a.b")).name == "a.b"
        assert (await client.future_get_request("echo")).name == "echo"
        assert (client.sensors, client.requests) == (["a.b"], ["echo"])
        assert requests_of(device, "sensor-list") == ["?sensor-list a.b"]
        assert requests_of(device, "help") == ["?help echo"]


@in_ioloop
async def test_inspecting_tells_what_has_changed(device):
    listed = ["a.b", "c"]

    @device.request(name="sensor-list")
    def sensor_list(request, name=b""):
        """List, whatever is asked for."""
        for known in listed:
            request.inform(known, "A sensor", "units", "integer")
        return "ok", len(listed)

    async with synced(device) as client:
        assert await client.inspect() is None
        assert await client.inspect_sensors() is None
        assert await client.inspect_sensors("a.b") is None
        assert await client.inspect_sensors("/^a/") is None
        assert await client.inspect_requests("echo") is None
        listed.clear()
        assert await client.inspect_sensors("a.b") == {"added": set(), "removed": {"a.b"}}
        assert client.sensors == ["c"]
        assert await client.inspect_sensors() == {"added": set(), "removed": {"c"}}


@in_ioloop
async def test_changes_of_the_interface_are_told(device):
    client, heard = InspectingClientAsync(*device.address), Heard()
    await client.start()
    await client.until_synced(timeout=PATIENCE)
    old = await client.future_get_sensor("c")
    client.set_state_callback(lambda state, changes: changes and heard(changes))
    device.add_sensor(quiet("new"))
    assert (await heard.next())[0] == {"sensors": {"added": {"new"}, "removed": set()}}
    device.remove_sensor("new")
    assert (await heard.next())[0].sensors.removed == {"new"}
    device.request(device.echo, name="new-request")
    assert (await heard.next())[0] == {"requests": {"added": {"new-request"}, "removed": set()}}
    device.send_raw(b"#interface-changed\n#device-changed\n#interface-changed sensor-list\n")
    await client.until_synced(timeout=PATIENCE)
    assert await client.future_get_sensor("c") is old
    device.close_clients()
    await client.until_not_synced(timeout=PATIENCE)
    device.stop()
    await until(lambda: not client.connected)
    device.remove_sensor("c")
    device.add_sensor(quiet("c", "string", "text"))
    device.start()
    assert (await heard.next())[0].sensors == {"added": {"c"}, "removed": {"c"}}
    await client.until_synced(timeout=PATIENCE)
    assert (await client.future_get_sensor("c")).type == "string"
    client.stop()
    await client.until_stopped(timeout=PATIENCE)


@in_ioloop
async def test_what_cannot_be_had_raises_or_is_tried_again(device, logs):
    @device.request(name="sensor-list")
    def sensor_list(request, name=b""):
        """Refuse."""
        raise FailReply("broken")

    async with running(device) as client:
        await until(lambda: client.resync_delay is not None)
        client.resync_delay._delay = client.resync_delay.delay_max = 0.01
        await until(lambda: logs.matching("!sensor-list"))
        with pytest.raises(SyncError, match="!sensor-list.* fail broken"):
            await client.inspect_sensors()
        with pytest.raises(SyncError):
            await client.inspect()
        device.request(device.silent, name="help")
        with pytest.raises(SyncError, match="timed out"):
            await client.inspect_requests(timeout=SOON)
    for record in logs.matching("Error syncing"):
        logs.records.remove(record)


def test_delays_grow_and_are_cut_by_chance():
    delays = ExponentialRandomBackoff(2, 10, 2, 0)
    seen = [delays.delay]
    for _ in range(3):
        delays.failed()
        seen.append(delays.delay)
    assert seen == [2, 4, 8, 10]
    delays.success()
    assert delays.delay == 2
    delays = ExponentialRandomBackoff()
    for longest in (1, 3, 9, 27, 81, 90, 90):
        assert 0.05 * longest <= delays.delay <= longest
        delays.failed()


# ---- readings ----


@in_ioloop
async def test_updates_set_the_sensors(versions):
    class Subclass(InspectingClientAsync):
        updates = Heard()

        def update_sensor(self, name, timestamp, status, value):
            self.updates(name, timestamp, status, value)
            return super().update_sensor(name, timestamp, status, value)

    Subclass.updates = heard = Heard()
    async with synced(versions, Subclass) as client:
        sensor = await client.future_get_sensor("a.b")

        class Observer:
            def update(self, sensor, reading):
                heard(sensor, reading)

        sensor.attach(Observer())
        await client.simple_request("sensor-sampling", "a.b", "event")
        versions.set_sensor("a.b", 6, "warn", timestamp=1.6e9)
        seconds = b"1600000000.000000" if versions.protocol.major >= 5 else b"1600000000000"
        while (update := await heard.next()) != ("a.b", seconds, b"warn", b"6"):
            assert update[0] in ("a.b", sensor)
        assert await heard.next() == (sensor, (1.6e9, Sensor.WARN, 6))
        assert sensor.read() == (1.6e9, Sensor.WARN, 6)


@pytest.mark.parametrize(
    "line",
    [
        b"#sensor-status",
        b"#sensor-status 1",
        b"#sensor-status 1 0",
        b"#sensor-status 1 2 a.b nominal 8",
        b"#sensor-status 1 1 a.b strange 5",
        b"#sensor-status 1 1 a.b nominal x",
        b"#sensor-status x 1 a.b nominal 5",
        b"#sensor-status 1 1 nope nominal 5",
    ],
)
@in_ioloop
async def test_a_bad_update_is_dropped(device, line, logs):
    async with synced(device) as client:
        sensor = await client.future_get_sensor("a.b")
        before = sensor.read()
        device.send_raw(line + b"\n")
        await client.simple_request("echo")
        assert sensor.read() == before
        device.send_raw(b"#sensor-status 1 2 a.b nominal 7 c nominal 0.5\n")
        await until(lambda: sensor.value() == 7)
        if line.count(b" ") == 5 and b"1 2" not in line:
            logs.expect("an update")


@in_ioloop
async def test_updates_of_a_sensor_that_was_not_asked_for_yet(device):
    async with synced(device, initial_inspection=False) as client:
        device.send_raw(b"#sensor-status 1 1 a.b nominal 7\n")
        await until(lambda: "a.b" in client.sensors)
        assert (await client.future_get_sensor("a.b")).value() == 7


@in_ioloop
async def test_values_are_taken_in_if_the_program_says_so(device):
    async with synced(device) as client:
        sensor = await client.future_get_sensor("a.b")
        device.set_sensor("a.b", 5)
        await client.simple_request("sensor-value", "a.b")
        assert sensor.value() == 0
        client.handle_sensor_value()
        reply, informs = await client.simple_request("sensor-value", "a.b")
        assert (reply.reply_ok(), len(informs), sensor.value()) == (True, 1, 5)


# ---- requests ----


@in_ioloop
async def test_requests(device):
    async with synced(device) as client:
        reply, informs = await client.simple_request("count", 2, timeout=PATIENCE)
        assert (reply.arguments, len(informs)) == ([b"ok", b"2"], 2)
        reply, _ = await client.simple_request("echo", "a b", mid=77, nonsense=1)
        assert (reply.mid, reply.arguments) == (b"77", [b"ok", b"a b"])
        reply, _ = await client.simple_request("echo", use_mid=False)
        assert reply.mid is None
        reply, _ = await client.simple_request("silent", timeout=SOON)
        assert isinstance(reply.local_error, katcp.KatcpClientTimeout)
        with pytest.raises(katcp.KatcpSyntaxError):
            client.simple_request("not_a_name")
    with pytest.raises(KatcpUsageError):
        InspectingClientAsync(*device.address).simple_request("echo")


@in_ioloop
async def test_factories_make_what_is_returned(device):
    calls = []

    class Client(katcp.AsyncClient):
        """Made by the factory."""

    class Subclass(InspectingClientAsync):
        def inform_hook_client_factory(self, host, port, *args, **kwargs):
            calls.append(sorted(kwargs))
            return Client(host, port, *args, **kwargs)

    async with running(device, Subclass) as client:
        client.sensor_factory = lambda **about: about
        client.request_factory = lambda **about: about
        assert isinstance(client.katcp_client, Client)
        assert calls == [["auto_reconnect", "logger"]]
        assert await client.future_get_sensor("c") == {
            "sensor_type": Sensor.FLOAT,
            "name": "c",
            "description": "A sensor",
            "units": "units",
            "params": [],
        }
        request = await client.future_get_request("echo")
        assert sorted(request) == ["description", "name", "timeout_hint"]
