"""Resource clients in other threads than the loop's."""

from __future__ import annotations

import concurrent.futures
import copy

import pytest

from katcp.ioloop_manager import IOLoopManager, IOLoopThreadWrapper
from katcp.resource import KATCPReply, KATCPResourceInactive, KATCPSensor, KATCPSensorError
from katcp.resource_client import (
    AttrMappingProxy,
    KATCPClientResource,
    KATCPClientResourceContainer,
    ThreadSafeKATCPClientResourceWrapper,
    ThreadSafeKATCPSensorWrapper,
)
from tests.support.helpers import PATIENCE, Recorder, TestDevice, in_thread
from tests.support.resources import quiet, spec_of, watched_by

SOON = 0.05


@pytest.fixture
def device():
    with TestDevice(sensors=[quiet("a.b"), quiet("c", "float")]) as device:
        yield device


@pytest.fixture
def wrapper():
    manager = IOLoopManager(managed_default=True)
    ioloop = manager.get_ioloop()
    manager.start(timeout=PATIENCE)
    yield IOLoopThreadWrapper(ioloop)
    manager.stop()
    manager.join(PATIENCE)


@pytest.fixture
def safe(device, wrapper):
    resource = KATCPClientResource(spec_of(device))
    resource.set_ioloop(wrapper.ioloop)
    safe = ThreadSafeKATCPClientResourceWrapper(resource, wrapper)
    safe.start()
    assert safe.until_synced(timeout=PATIENCE) is True
    yield safe
    safe.stop()
    safe.until_stopped(timeout=PATIENCE)


def test_it_looks_like_the_resource(safe, device):
    assert isinstance(safe, KATCPClientResource)
    assert (safe.name, safe.state, safe.synced, safe.address) == (
        "dev",
        "synced",
        True,
        device.address,
    )
    assert (safe.parent, dict(safe.children)) == (None, {})
    assert safe.is_connected() is True
    with pytest.raises(AttributeError):
        safe.nothing  # noqa: B018
    safe.my_own = 5
    assert safe.my_own == 5


def test_requests_wait_for_their_replies(safe):
    reply = safe.req.echo(1, "a b")
    assert isinstance(reply, KATCPReply)
    assert reply.reply.arguments == [b"ok", b"1", b"a b"]
    assert not safe.req.refuse()
    assert safe.req["echo"].issue_request(2).succeeded
    assert (safe.req.echo.name, safe.req.echo.timeout_hint) == ("echo", None)
    assert set(safe.req) == set(dir(safe.req)) >= {"echo", "help"}
    with pytest.raises(AttributeError, match="'AttrDict' object has no attribute 'nope'"):
        safe.req.nope  # noqa: B018
    safe.set_active(False)
    with pytest.raises(KATCPResourceInactive):
        safe.req.echo(1)


def test_what_takes_longer_than_its_timeout_raises(safe):
    safe.set_sampling_strategy("a.b", "event")
    sensor = safe.sensor.a_b
    for call in (
        lambda: safe.req.silent(timeout=SOON),
        lambda: safe.until_not_synced(timeout=SOON),
        lambda: safe.until_state("disconnected", timeout=SOON),
        lambda: safe.wait("a.b", 7, timeout=SOON),
        lambda: sensor.wait(7, timeout=SOON),
    ):
        with pytest.raises(concurrent.futures.TimeoutError):
            call()
    safe._client.katcp_client._session.timeout = SOON
    reply = safe.req.silent()
    assert b"timed out" in reply.reply.arguments[1]


def test_sensors(safe, device):
    sensor = safe.sensor.a_b
    assert isinstance(safe.sensor, AttrMappingProxy)
    assert type(sensor) is ThreadSafeKATCPSensorWrapper
    assert isinstance(sensor, KATCPSensor)
    assert sorted(safe.sensors) == ["a_b", "c"]
    assert (sensor.get_value(), sensor.get_status()) == (0, "nominal")
    assert sensor.reading[1:] == (1.5e9, 1, 0)
    assert (sensor.name, sensor.value, sensor.status) == ("a.b", 0, "nominal")
    assert sensor.set_strategy("event") == (True, ("event",))
    assert sensor.sampling_strategy == ("event",)
    assert sensor.wait(0, timeout=PATIENCE) is True
    assert safe.wait("a.b", 0) is True
    assert safe.set_sampling_strategies("c", "auto") == {"c": "auto"}
    assert [found.name for found in safe.list_sensors("")] == ["a.b", "c"]
    assert watched_by(device) == {"a.b": "event", "c": "auto"}
    recorder = Recorder()
    safe.set_sensor_listener("a.b", recorder)
    device.set_sensor("a.b", 9)
    (_, reading), *_ = recorder.wait(1)
    assert reading.value == 9


def test_many_threads(safe):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda number: safe.req.echo(number), range(200)))
    assert [int(reply.reply.arguments[1]) for reply in replies] == list(range(200))


def test_a_lost_connection(safe, device):
    sensor = safe.sensor.a_b
    thread, outcome = in_thread(lambda: safe.until_not_synced(timeout=PATIENCE))
    device.close_clients()
    thread.join(PATIENCE)
    assert outcome == [True]
    assert safe.until_synced(timeout=PATIENCE)
    safe.stop()
    safe.until_stopped(timeout=PATIENCE)
    assert not safe.req.echo(1)
    with pytest.raises(KATCPSensorError):
        sensor.get_value()


def test_in_the_loop_it_refuses_to_wait(safe, wrapper):
    for call in (lambda: safe.req.echo(1), safe.sensor.a_b.get_value, safe.until_synced):
        with pytest.raises(RuntimeError, match="from the ioloop"):
            wrapper.call_in_ioloop(call, (), {})


def test_a_request_that_is_not_wrapped_is_refused(safe):
    with pytest.raises(RuntimeError, match="must be called in the thread of the ioloop"):
        safe.__subject__.req.echo(1)


def test_containers_and_groups(device, wrapper):
    clients = {name: spec_of(device) for name in ("one", "two")}
    spec = {"name": "top", "clients": clients, "groups": {"both": ["one", "two"]}}
    container = KATCPClientResourceContainer(spec)
    container.set_ioloop(wrapper.ioloop)
    safe = ThreadSafeKATCPClientResourceWrapper(container, wrapper)
    safe.start()
    safe.until_synced(timeout=PATIENCE)
    assert safe.children.one.req.echo(1)
    assert safe.children["two"].sensor.a_b.get_value() == 0
    assert safe.children.one.parent.name == "top"
    assert safe.req.one_echo(1)
    assert safe.sensor.two_c.get_value() == 0.0
    group = safe.groups.both
    assert [client.name for client in group.clients] == ["one", "two"]
    assert group.clients[0].req.echo(1)
    assert group.req.echo(1).succeeded
    assert group.set_sampling_strategy("a.b", "event")["one"] == {"a_b": "event"}
    assert group.wait("a.b", 0, timeout=PATIENCE)
    safe.stop()
    safe.until_stopped(timeout=PATIENCE)


def test_a_proxy_is_a_mapping_that_follows_its_subject():
    mapping = {"a": 1}
    proxy = AttrMappingProxy(mapping, lambda value: ("wrapped", value))
    assert dict(proxy) == {"a": ("wrapped", 1)}
    mapping["b"] = 2
    assert (len(proxy), list(proxy), proxy["b"]) == (2, ["a", "b"], ("wrapped", 2))
    assert copy.copy(proxy)["a"] == ("wrapped", 1)
    with pytest.raises(KeyError):
        proxy["c"]
