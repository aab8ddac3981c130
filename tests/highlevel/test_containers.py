"""Several devices: `KATCPClientResourceContainer` and `ClientGroup`."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from tornado.ioloop import IOLoop
from tornado.util import TimeoutError as TornadoTimeoutError

from katcp import KatcpClientTimeout
from katcp.resource import KATCPResourceInactive, KATCPSensorError
from katcp.resource_client import (
    ClientGroup,
    GroupRequest,
    GroupResults,
    KATCPClientResource,
    KATCPClientResourceContainer,
)
from tests.support.helpers import PATIENCE, TestDevice
from tests.support.resources import Heard, in_ioloop, quiet, spec_of, until, watched_by

SOON = 0.05


@pytest.fixture
def devices():
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(TestDevice(protocol=protocol, sensors=[quiet("a.b")]))
            for name, protocol in (("one", "5.1-MIB"), ("two.x", "4"), ("three", "5.0-M"))
        }


def spec(devices, **more):
    clients = {name: spec_of(device) for name, device in devices.items()}
    return {"name": "top", "clients": clients, **more}


@contextlib.asynccontextmanager
async def synced(devices, **more):
    container = KATCPClientResourceContainer(spec(devices, **more))
    container.set_ioloop(IOLoop.current())
    container.start()
    try:
        await container.until_synced(timeout=PATIENCE)
        yield container
    finally:
        container.stop()
        await container.until_stopped(timeout=PATIENCE)


def test_the_spec_says_what_there_is(devices):
    container = KATCPClientResourceContainer(
        spec(devices, description="All", groups={"g-1": ["one"]})
    )
    assert (container.name, container.description, container.address) == ("top", "All", None)
    assert sorted(container.children) == ["one", "three", "two_x"]
    child = container.children.two_x
    assert (child.name, child.parent, child.parent_name) == ("two.x", container, "top")
    assert container.groups.g_1.clients == (container.children.one,)
    assert container.req == container.sensor == {}
    assert repr(container).startswith("<katcp.resource_client.KATCPClientResourceContainer(name=")


@pytest.mark.parametrize(
    "bad", [{"name": "top"}, {"clients": {}}, {"name": "t", "clients": {"a": {}}}]
)
def test_a_spec_must_be_complete(bad):
    with pytest.raises(KeyError):
        KATCPClientResourceContainer(bad)


def test_a_group_has_known_clients(devices):
    with pytest.raises(KeyError):
        KATCPClientResourceContainer(spec(devices, groups={"g": ["nobody"]}))


@in_ioloop
async def test_names_come_before_those_of_requests_and_sensors(devices):
    async with synced(devices) as container:
        assert container.is_connected()
        assert await container.req.one_echo(1)
        assert await container.sensor.two_x_a_b.get_value() == 0
        assert sorted(container.sensors) == ["one_a_b", "three_a_b", "two_x_a_b"]
        assert await container.set_sampling_strategy("two.x_a.b", "event") == {"two_x_a_b": "event"}
        assert await container.set_sampling_strategy("nope", "event") == {}
        done = await container.set_sampling_strategies("^t", "auto")
        assert done == {"three_a_b": "auto", "two_x_a_b": "auto"}
        assert watched_by(devices["two.x"]) == {"a.b": "auto"}
        heard = Heard()
        assert await container.set_sensor_listener("three_a_b", heard) == {"three_a_b": heard}
        assert await container.set_sensor_listener("nope", heard) == {}
        devices["three"].set_sensor("a.b", 5)
        assert await heard.next_value() == 5
        assert await container.wait("three_a_b", 5, timeout=PATIENCE)
        with pytest.raises(KATCPSensorError, match="top has no sensor 'nope'"):
            await container.wait("nope", 5)
        listed = await container.list_sensors("^t", strategy=True)
        assert [found.python_identifier for found in listed] == ["three_a_b", "two_x_a_b"]


@in_ioloop
async def test_waiting_for_states(devices):
    async with synced(devices) as container:
        assert await container.until_all_children_in_state("synced", timeout=PATIENCE) is None
        assert await container.until_any_child_in_state("synced", timeout=PATIENCE) is True
        with pytest.raises(TornadoTimeoutError):
            await container.until_not_synced(timeout=SOON)
        with pytest.raises(TornadoTimeoutError):
            await container.until_any_child_in_state("disconnected", timeout=SOON)
        waiting = container.until_not_synced(timeout=PATIENCE)
        devices["one"].close_clients()
        assert await waiting is None
        await container.until_synced(timeout=PATIENCE)


@in_ioloop
async def test_devices_and_groups_may_be_added(devices):
    with TestDevice() as fourth:
        async with synced(devices) as container:
            child = container.add_child_resource_client("four", spec_of(fourth))
            assert container.children.four is child
            await container.until_synced(timeout=PATIENCE)
            assert await container.req.four_echo(4)
            container.add_group("new", ["one", "four"])
            assert sorted(await container.groups.new.req.echo(1)) == ["four", "one"]


# ---- groups ----


@contextlib.asynccontextmanager
async def group_of(devices):
    clients = [KATCPClientResource(spec_of(device, name=name)) for name, device in devices.items()]
    group = ClientGroup("all", clients)
    assert not group.is_connected()
    assert group.req == {}
    for client in clients:
        client.start()
    try:
        for client in clients:
            await client.until_synced(timeout=PATIENCE)
        yield group
    finally:
        for client in clients:
            client.stop()
        for client in clients:
            await client.until_stopped(timeout=PATIENCE)


@in_ioloop
async def test_a_request_of_a_group_is_made_of_all_that_have_it(devices):
    devices["one"].request(devices["one"].echo, name="only-one")
    async with group_of(devices) as group:
        assert group.is_connected()
        request = group.req.echo
        assert isinstance(request, GroupRequest)
        assert (request.name, request.group) == ("echo", group)
        result = await request(1)
        assert isinstance(result, GroupResults)
        assert list(result) == ["one", "two.x", "three"]
        assert result
        assert result.succeeded
        result = await group.req.only_one()
        assert (result["two.x"], bool(result["one"]), bool(result)) == (None, True, False)
        devices["two.x"].request(devices["two.x"].silent, name="echo")
        result = await group.req.echo(timeout=SOON)
        assert isinstance(result["two.x"].reply.local_error, KatcpClientTimeout)
        assert not result
        group.client_updated(group.clients[0])
        group.clients[0].set_active(False)
        with pytest.raises(KATCPResourceInactive):
            await group.req.only_one()


@pytest.mark.parametrize(
    ("quorum", "is_enough"),
    [(None, False), (0, True), (2, True), (3, False), (0.5, True), (1.0, False)],
)
@in_ioloop
async def test_a_group_waits_for_a_quorum(devices, quorum, is_enough):
    async with group_of(devices) as group:
        done = await group.set_sampling_strategy("a.b", "event")
        assert done == {key: {"a_b": "event"} for key in devices}
        assert await group.set_sampling_strategies("nope", "event") == {key: {} for key in devices}
        for name in ("one", "three"):
            devices[name].set_sensor("a.b", 7)
        result = await group.wait("a.b", 7, timeout=0.5, quorum=quorum, max_grace_period=SOON)
        assert result == {"one": True, "two.x": False, "three": True}
        assert bool(result) is is_enough
        waiting = group.wait("a.b", 8, timeout=PATIENCE, quorum=quorum, max_grace_period=PATIENCE)
        for device in devices.values():
            device.set_sensor("a.b", 8)
        assert await asyncio.wait_for(waiting, PATIENCE)
        await until(lambda: all(not client.sensor.a_b._listeners for client in group.clients))


@in_ioloop
async def test_what_a_group_cannot_wait_for(devices):
    async with group_of(devices) as group:
        with pytest.raises(KATCPSensorError):
            await group.wait("nope", 0)
        with pytest.raises(KATCPSensorError, match="does not have a strategy"):
            await group.wait("a.b", 0)
