"""`KATCPClientResource`: its states, its requests, and a device that changes."""

from __future__ import annotations

import asyncio

import pytest
from tornado import gen
from tornado.ioloop import IOLoop
from tornado.util import TimeoutError as TornadoTimeoutError

import katcp
from katcp import FailReply, KatcpUsageError, ProtocolFlags
from katcp.core import AsyncEvent
from katcp.resource import KATCPDummyRequest, KATCPResourceInactive
from katcp.resource_client import (
    KATCPClientResource,
    KATCPClientResourceRequest,
    monitor_resource_sync_state,
)
from katcp.simdevice.requests import STANDARD_REQUESTS
from tests.support.helpers import PATIENCE, TestDevice
from tests.support.resources import (
    Heard,
    in_ioloop,
    quiet,
    requests_of,
    running,
    spec_of,
    synced,
    until,
    watched_by,
)

VERSIONS = ["4", "5.0-M", "5.1-MI", "5.1-MIBT"]
SOON = 0.05


@pytest.fixture(params=VERSIONS)
def versions(request):
    with TestDevice(protocol=request.param, sensors=[quiet("a.b-c"), quiet("d")]) as device:
        yield device


@pytest.fixture
def device():
    with TestDevice(sensors=[quiet("a.b-c"), quiet("d", "float", 0.5)]) as device:
        yield device


# ---- what it is ----


def test_the_spec_says_what_it_is():
    spec = {"name": "dev", "address": ("localhost", 7147), "description": "A device."}
    parent = KATCPClientResource({"name": "father", "address": ("h", 1)})
    resource = KATCPClientResource(spec, parent=parent)
    assert (resource.name, resource.host, resource.port) == ("dev", "localhost", 7147)
    assert resource.address == ("localhost", 7147)
    assert resource.address_string == "localhost:7147"
    assert resource.description == "A device."
    assert (resource.parent, resource.parent_name) == (parent, "father")
    assert resource.children == resource.req == resource.sensor == {}
    assert (resource.controlled, resource.dummy_unknown_requests) == (False, False)
    assert repr(resource).startswith("<katcp.resource_client.KATCPClientResource(name=dev) at 0x")


@pytest.mark.parametrize("missing", ["name", "address"])
def test_a_spec_needs_name_and_address(missing):
    spec = {"name": "dev", "address": ("localhost", 7147)}
    del spec[missing]
    with pytest.raises(KeyError, match=missing):
        KATCPClientResource(spec)


def test_the_package_has_the_names_that_programs_import():
    from katcp.resource_client import KATCPClientResourceContainer

    assert katcp.KATCPClientResource is KATCPClientResource
    assert katcp.KATCPClientResourceContainer is KATCPClientResourceContainer
    assert katcp.resource_client.KATCPClientResource.__module__ == "katcp.resource_client"


# ---- states ----


@in_ioloop
async def test_states(versions):
    resource = KATCPClientResource(spec_of(versions))
    assert (resource.state, resource.synced, resource.is_connected()) == (
        "disconnected",
        False,
        False,
    )
    assert await resource.until_not_synced(timeout=PATIENCE) is True
    resource.start()
    assert await resource.wait_connected(timeout=PATIENCE) is True
    assert resource.is_connected()
    assert await resource.until_synced(timeout=PATIENCE) is True
    assert await resource.until_state("synced", timeout=PATIENCE) is True
    assert (resource.state, resource.synced, resource.is_connected()) == ("synced", True, True)
    assert sorted(resource.sensor) == ["a_b_c", "d"]
    assert {"help", "sensor_list", "echo"} <= set(resource.req)
    assert ("katcp-protocol" in resource.versions) == (versions.protocol.major >= 5)
    assert isinstance(resource.last_connect_time, float)
    for waiting in (
        resource.until_not_synced(timeout=SOON),
        resource.until_state("syncing", timeout=SOON),
    ):
        with pytest.raises(TornadoTimeoutError):
            await waiting
    with pytest.raises(ValueError, match="State must be one of"):
        resource.until_state("nonsense")
    resource.stop()
    await resource.until_stopped(timeout=PATIENCE)
    assert resource.state == "disconnected"


@in_ioloop
async def test_all_that_wait_are_told(device):
    resource = KATCPClientResource(spec_of(device))
    waiting = [resource.until_synced(timeout=PATIENCE) for _ in range(5)]
    resource.start()
    assert await gen.multi(waiting) == [True] * 5
    waiting = [resource.until_not_synced(timeout=PATIENCE) for _ in range(5)]
    device.close_clients()
    assert await gen.multi(waiting) == [True] * 5
    resource.stop()
    await resource.until_stopped(timeout=PATIENCE)


@in_ioloop
async def test_a_timeout_of_0_is_no_limit(device):
    resource = KATCPClientResource(spec_of(device))
    waiting = resource.until_synced(timeout=0)
    resource.start()
    assert await waiting is True
    resource.stop()
    await resource.until_stopped(timeout=PATIENCE)


@in_ioloop
async def test_before_the_start(device):
    resource = KATCPClientResource(spec_of(device))
    with pytest.raises(TornadoTimeoutError):
        await resource.until_synced(timeout=SOON)
    for use in (lambda: resource.versions, lambda: resource.last_connect_time):
        with pytest.raises(RuntimeError, match=r"have you called start\(\)\?"):
            use()
    with pytest.raises(KatcpUsageError):
        resource.until_stopped()
    resource.stop()
    resource.drop_sampling_strategy("a.b-c")
    assert await resource.list_sensors("") == []


@in_ioloop
async def test_a_second_start_is_refused(device):
    async with synced(device) as resource:
        with pytest.raises(RuntimeError, match="already started"):
            resource.start()
        assert device.client_count == 1


@in_ioloop
async def test_it_may_be_started_again(device):
    async with synced(device) as resource:
        await resource.set_sampling_strategy("d", "event")
        sensor, heard = resource.sensor.d, Heard()
        sensor.register_listener(heard)
        resource.stop()
        resource.start()
        await resource.until_not_synced(timeout=PATIENCE)
        await resource.until_synced(timeout=PATIENCE)
        assert resource.sensor.d is sensor
        assert sensor.sampling_strategy == ("event",)
        assert await heard.next_value() == 0.5
        assert await sensor.get_value() == 0.5


@in_ioloop
async def test_without_auto_reconnect_it_may_be_started_again(device):
    async with synced(device, auto_reconnect=False) as resource:
        device.close_clients()
        await resource.until_stopped(timeout=PATIENCE)
        reply = await resource.req.echo(1)
        assert not reply
        assert b"Not connected" in reply.reply.arguments[1]
        resource.start()
        await resource.until_synced(timeout=PATIENCE)


@in_ioloop
async def test_after_the_stop_requests_fail(device):
    async with synced(device) as resource:
        sensor = resource.sensor.d
    assert not await resource.req.echo(1)
    with pytest.raises(katcp.resource.KATCPSensorError, match="Error polling sensor d"):
        await sensor.get_value()


def test_it_may_be_started_before_the_loop_runs(device, ioloop):
    resource = KATCPClientResource(spec_of(device))
    resource.set_ioloop(ioloop)
    resource.start()

    async def use():
        await resource.until_synced(timeout=PATIENCE)
        value = await resource.sensor.d.get_value()
        resource.stop()
        await resource.until_stopped(timeout=PATIENCE)
        return value

    assert ioloop.run_sync(use, timeout=PATIENCE) == 0.5


# ---- requests ----


@in_ioloop
async def test_requests_may_be_awaited_or_yielded(versions):
    @gen.coroutine
    def old_style(resource):
        reply = yield resource.req.echo("a b", 1, 2.5, True, b"\x01")
        both = yield [resource.req.echo(2), resource.req["echo"](3)]
        named = yield {"a": resource.req.count(2)}
        return [reply, *both, named["a"]]

    async with synced(versions) as resource:
        replies = await old_style(resource)
        assert [reply.reply.arguments for reply in replies] == [
            [b"ok", b"a b", b"1", b"2.5", b"1", b"\x01"],
            [b"ok", b"2"],
            [b"ok", b"3"],
            [b"ok", b"2"],
        ]
        assert [inform.arguments for inform in replies[-1].informs] == [[b"0"], [b"1"]]
        assert all(replies)
        assert replies[-1].messages == [replies[-1].reply, *replies[-1].informs]
        called = asyncio.get_running_loop().create_future()
        resource.req.echo(8).add_done_callback(lambda future: called.set_result(future.result()))
        assert (await called).succeeded


@in_ioloop
async def test_a_request_that_fails_is_a_false_reply(device):
    async with synced(device) as resource:
        reply = await resource.req.refuse()
        assert not reply
        assert not reply.succeeded
        assert str(reply.reply.copy()) == "!refuse fail not\\_today"
        reply = await resource.req.silent(timeout=SOON)
        assert not reply
        assert b"timed out" in reply.reply.arguments[1]
        pending = resource.req.silent()
        device.close_clients()
        assert b"Connection closed" in (await pending).reply.arguments[1]


@in_ioloop
async def test_requests_say_what_they_are(device):
    async with synced(device) as resource:
        request = resource.req.sensor_value
        assert isinstance(request, KATCPClientResourceRequest)
        assert request.name == "sensor-value"
        assert request.description in request.__doc__
        assert request.timeout_hint is None
        assert request.is_active()
        assert (await request.issue_request("d")).succeeded
        with pytest.raises(AttributeError, match="'AttrDict' object has no attribute 'nope'"):
            resource.req.nope  # noqa: B018
        with pytest.raises(KeyError):
            resource.req["sensor-value"]


@in_ioloop
async def test_the_timeout_is_the_hint_of_the_device(logs):
    with TestDevice(protocol="5.1-MIT") as device:

        @device.request(name="request-timeout-hint")
        def request_timeout_hint(request, name=b"silent"):
            request.inform("silent", 0.05)
            request.inform("echo", "soon")
            request.inform("hold", 0)
            return "ok", 3

        async with synced(device) as resource:
            hints = {name: request.timeout_hint for name, request in resource.req.items()}
            assert hints["silent"] == 0.05
            assert hints["echo"] is hints["hold"] is None
            assert b"timed out after 0.0" in (await resource.req.silent()).reply.arguments[1]
            assert await resource.req.echo(1)
    logs.expect("soon")


@in_ioloop
async def test_an_inactive_resource_makes_no_requests(device):
    async with synced(device) as resource:
        resource.set_active(False)
        assert not resource.is_active()
        with pytest.raises(KATCPResourceInactive, match=r"Can't make \?echo request"):
            resource.req.echo(1)
        assert await resource.sensor.d.get_value() == 0.5
        resource.set_active(True)
        assert await resource.req.echo(1)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"controlled": False}, set()),
        ({"always_allowed_requests": ["echo", "sensor-value", "x"]}, {"echo", "sensor_value"}),
        ({"controlled": True, "always_excluded_requests": ["echo", "sensor-value"]}, None),
    ],
)
@in_ioloop
async def test_which_requests_may_be_made(device, spec, expected):
    async with synced(device, **{"controlled": False, **spec}) as resource:
        if expected is None:
            assert "help" in resource.req
            assert not {"echo", "sensor_value"} & set(resource.req)
        else:
            assert set(resource.req) == expected


@in_ioloop
async def test_dummies_stand_for_what_the_device_does_not_have(device):
    async with synced(device, dummy_unknown_requests=True) as resource:
        assert (await resource.req.echo(1)).reply.arguments == [b"ok", b"1"]
        dummy = resource.req.nope
        assert isinstance(dummy, KATCPDummyRequest)
        assert str(await dummy(1)) == "!fake ok"
        device.close_clients()
        await resource.until_not_synced(timeout=PATIENCE)
        await resource.until_synced(timeout=PATIENCE)
        assert resource.req.nope is dummy


@in_ioloop
async def test_names_may_be_those_of_methods_of_dicts():
    with TestDevice(sensors=[quiet("items"), quiet("get")]) as device:
        for name in ("get", "update", "clear", "keys"):
            device.request(device.echo, name=name)
        async with synced(device) as resource:
            for name in ("get", "update", "clear", "keys"):
                assert (await getattr(resource.req, name)(name)).reply.arguments[1] == name.encode()
            assert resource.sensor.items.name == "items"
            assert (await resource.list_sensors("get"))[0].object is resource.sensor.get
            device.close_clients()
            await resource.until_not_synced(timeout=PATIENCE)
            await resource.until_synced(timeout=PATIENCE)
            assert await resource.sensor.items.get_value() == 0


# ---- a device that changes ----


@in_ioloop
async def test_after_a_restart_it_has_what_the_device_has_then(versions, logs):
    async with synced(versions) as resource:
        kept, gone = resource.sensor.d, resource.sensor.a_b_c
        await resource.set_sampling_strategy("a.b-c", "event")
        versions.stop(orderly=False)
        await resource.until_not_synced(timeout=PATIENCE)
        assert sorted(resource.sensor) == ["a_b_c", "d"]
        versions.remove_sensor("a.b-c")
        versions.add_sensor(quiet("new.one"))
        versions.remove_request("refuse")
        versions.request(versions.echo, name="new-request")
        versions.start()
        await resource.until_synced(timeout=PATIENCE)
        assert sorted(resource.sensor) == ["d", "new_one"]
        assert resource.sensor.d is kept
        assert "refuse" not in resource.req
        assert await resource.req.new_request(1)
        with pytest.raises(katcp.resource.KATCPSensorError):
            await gone.get_value()
    logs.expect("sensor a.b-c has vanished")
    for record in logs.matching("Failed to connect"):
        logs.records.remove(record)


@in_ioloop
async def test_changes_of_the_interface_are_taken_in(device):
    async with synced(device) as resource:
        device.add_sensor(quiet("new.one"))
        await until(lambda: "new_one" in resource.sensor)
        device.remove_sensor("new.one")
        await until(lambda: "new_one" not in resource.sensor)
        device.request(device.echo, name="new-request")
        await until(lambda: "new_request" in resource.req)
        await resource.until_synced(timeout=PATIENCE)


@in_ioloop
async def test_a_sensor_that_changes_its_type_stays_the_same_object(device):
    async with synced(device) as resource:
        sensor, heard = resource.sensor.d, Heard()
        sensor.register_listener(heard)
        device.remove_sensor("d")
        device.add_sensor(quiet("d", "string", "text"))
        await until(lambda: sensor.type == "string" or resource.sensor.d is not sensor)
        await resource.until_synced(timeout=PATIENCE)
        assert await resource.sensor.d.get_value() == "text"


# ---- devices that are not as they should be ----


@in_ioloop
async def test_a_device_that_never_lists_its_sensors_is_asked_again(device, logs):
    device.request(device.silent, name="sensor-list")
    async with running(device) as resource:
        client = resource._client
        client.sync_timeout = client.resync_delay._delay = 0.05
        client.resync_delay.delay_max = 0.05
        with pytest.raises(TornadoTimeoutError):
            await resource.until_synced(timeout=0.3)
        assert resource.state == "syncing"
        assert resource.sensor == {}
        logs.expect("Error syncing with device")
        device.request(_list_of("d"), name="sensor-list")
        await resource.until_synced(timeout=PATIENCE)
        assert list(resource.sensor) == ["d"]
    logs.expect("Resynced with")
    for record in logs.matching("Error syncing"):
        logs.records.remove(record)


def _list_of(*names, description=("A sensor", "", "integer")):
    def sensor_list(request, name=b""):
        """List."""
        for known in names:
            request.inform(known, *description)
        return "ok", len(names)

    return sensor_list


@pytest.mark.parametrize(
    "description",
    [
        ("A sensor", "", "quaternion"),
        ("A sensor", "", "integer", 0, 1.5),
        ("A sensor", "s", "timestamp"),
        ("A sensor", "", "discrete"),
        (b"caf\xe9", b"\xb5m", "string"),
    ],
)
@in_ioloop
async def test_an_odd_sensor_does_not_spoil_the_others(device, description):
    device.request(_list_of("odd", "d", description=description), name="sensor-list")
    async with synced(device) as resource:
        assert sorted(resource.sensor) == ["d", "odd"]
        assert resource.sensor.odd.description in ("A sensor", "caf\\xe9")


@in_ioloop
async def test_a_refused_help_is_asked_for_again(device, logs):
    @device.request(name="help")
    def refuse_help(request, name=b""):
        """Refuse."""
        raise FailReply("no help")

    async with running(device) as resource:
        resource._client.resync_delay._delay = 0.02
        await device_was_asked(device, "help", 2)
        device.remove_request("help")
    logs.expect("!help")
    for record in logs.matching("Error syncing"):
        logs.records.remove(record)


async def device_was_asked(device, name, count):
    await until(lambda: len(device.received_requests(name)) >= count)


@pytest.mark.parametrize("name", ["help", "sensor-list", "sensor-sampling"])
@in_ioloop
async def test_a_connection_that_is_lost_while_it_syncs(device, name):
    """It begins anew with the next one, and says nothing of what it could not finish."""
    real, lost = STANDARD_REQUESTS[name].handler, []

    @device.request(name=name)
    def lose_the_first(request, *args):
        """Close the connection, twice."""
        if len(lost) < 2:
            lost.append(args)
            device.close_clients()
            return None
        return real(request, *args)

    resource = KATCPClientResource(spec_of(device))
    await resource.set_sampling_strategy("d", "event")
    await resource.set_sampling_strategy("a.b-c", "event")
    resource.start()
    await resource.until_synced(timeout=PATIENCE)
    assert len(lost) == 2
    assert watched_by(device) == {"d": "event", "a.b-c": "event"}
    resource.stop()
    await resource.until_stopped(timeout=PATIENCE)


@in_ioloop
async def test_preset_flags_are_used_for_a_device_that_does_not_greet():
    flags = ProtocolFlags(5, 0, [ProtocolFlags.MESSAGE_IDS])
    with TestDevice(sensors=[quiet("d")], faults=["no-greeting"]) as device:
        async with synced(device, preset_protocol_flags=flags) as resource:
            assert await resource.sensor.d.get_value() == 0


# ---- thousands of sensors ----


@pytest.mark.parametrize("protocol", ["4", "5.1-MI", "5.1-MIB"])
@in_ioloop
async def test_thousands_of_sensors(protocol):
    sensors = [quiet(f"group-{n % 7}.item.{n:04}") for n in range(2000)]
    with TestDevice(protocol=protocol, sensors=sensors) as device:
        async with synced(device) as resource:
            assert len(resource.sensor) == 2000
            done = await resource.set_sampling_strategies("", "event")
            assert len(done) == 2000
            is_bulk = "B" in protocol
            assert len(requests_of(device, "sensor-sampling")) == (4 if is_bulk else 2000)
            heard = Heard()
            resource.sensor["group_3_item_0003"].register_listener(heard)
            device.set_sensor("group-3.item.0003", 7)
            assert await heard.next_value() == 7
            device.close_clients()
            await resource.until_not_synced(timeout=PATIENCE)
            await resource.until_synced(timeout=PATIENCE)
            assert sum(len(client.samplings) for client in device.clients) == 2000


# ---- following the state ----


@in_ioloop
async def test_the_sync_state_may_be_followed(device):
    heard, leave = Heard(), AsyncEvent()
    resource = KATCPClientResource(spec_of(device))
    following = monitor_resource_sync_state(resource, heard, leave)
    assert await heard.next() == (False,)
    resource.start()
    assert await heard.next() == (True,)
    device.close_clients()
    assert await heard.next() == (False,)
    assert await heard.next() == (True,)
    leave.set()
    assert await following is None
    resource.stop()
    await resource.until_stopped(timeout=PATIENCE)
    assert heard.nothing()


# ---- a program ----

MONITOR = '''
import logging

import tornado.gen
import tornado.ioloop

from katcp.resource_client import KATCPClientResource


class Monitor(object):
    """Written for katcp 0.9.3 and Python 2."""

    def __init__(self, host, port):
        self.client = KATCPClientResource(dict(
            name="device", address=(host, port), controlled=True))
        self.readings = []

    @tornado.gen.coroutine
    def start(self):
        self.client.set_ioloop(tornado.ioloop.IOLoop.current())
        self.client.set_sampling_strategy("d", "event")
        self.client.set_sensor_listener("d", self.on_reading)
        self.client.start()
        yield self.client.until_synced(timeout=10)

    def on_reading(self, sensor, reading):
        self.readings.append((sensor.name, reading.status, reading.value))

    @tornado.gen.coroutine
    def run(self):
        yield self.start()
        sensor = self.client.sensor.a_b_c
        sensor.register_listener(self.on_reading, reading=True)
        ok, strategy = yield sensor.set_strategy("event-rate", "0.01 5")
        assert ok, strategy
        reply = yield self.client.req.set_it("a.b-c", 5)
        if not reply.succeeded:
            raise RuntimeError(str(reply))
        yield self.client.wait("a.b-c", 5, timeout=10)
        yield sensor.wait(lambda reading: reading.value == 5, timeout=10)
        value = yield sensor.get_value()
        status = yield sensor.get_status()
        listed = yield self.client.list_sensors("", strategy=True)
        self.client.stop()
        yield self.client.until_stopped(timeout=10)
        raise tornado.gen.Return((value, status, [found.name for found in listed]))
'''


def test_a_monitor_that_was_written_for_the_old_package_runs_unchanged(device, ioloop):
    @device.request(name="set-it")
    def set_it(request, name, value):
        """Set a sensor."""
        request.device.set_sensor(name.decode(), int(value))
        return "ok"

    namespace = {}
    exec(MONITOR, namespace)
    monitor = namespace["Monitor"](*device.address)
    result = ioloop.run_sync(monitor.run, timeout=PATIENCE)
    assert result == (5, "nominal", ["a.b-c", "d"])
    assert ("d", "nominal", 0.5) in monitor.readings
    assert ("a.b-c", "nominal", 5) in monitor.readings


def test_the_current_loop_is_used_if_none_is_set(device):
    async def use():
        async with synced(device) as resource:
            resource.set_ioloop()
            return resource._client.ioloop is IOLoop.current()

    assert asyncio.run(use())
