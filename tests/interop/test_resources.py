"""Resource clients with devices of other packages, and beside the old resource client."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from katcp.simdevice import default_sensors
from tests.interop import observe_resource
from tests.interop.environments import python_of
from tests.interop.peers import KATCP_KINDS
from tests.support.helpers import PATIENCE, TestDevice
from tests.support.resources import Heard, in_ioloop, quiet, synced, until


class At:
    """A device at an address."""

    def __init__(self, address):
        self.address = address


def observe(python, port):
    """Return what the program that uses a device has noted."""
    command = [*python, observe_resource.__file__, str(port)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert run.returncode == 0, run.stderr.splitlines()[-1]
    return json.loads(run.stdout)


def old_python():
    """Return what runs the old package, untouched by the variables of this process."""
    return [str(python_of(pathlib.Path(os.environ["KATCP_PEERS"]), "katcp")), "-I"]


def test_the_same_program_has_the_same_results(start_peer, peer):
    """Each with a device of its own, since it changes the device."""
    expected = observe(old_python(), start_peer(peer.kind).port)
    assert observe([sys.executable], start_peer(peer.kind).port) == expected
    assert ["heard", [["a.count", "nominal", 7]]] in expected


@pytest.mark.parametrize("protocol", ["4", "5.0-MI", "5.1-MIBT"])
def test_the_same_program_has_the_same_results_with_our_device(protocol):
    def set_it(request, name, value):
        """Set a sensor."""
        request.device.set_sensor(name.decode(), int(value))
        return "ok"

    outcomes = []
    for python in (old_python(), [sys.executable]):
        sensors = [quiet("a.count"), quiet("b.count")]
        with TestDevice(protocol=protocol, sensors=sensors) as own:
            own.request(set_it, name="set")
            outcomes.append(observe(python, own.address[1]))
    assert outcomes[0] == outcomes[1]


@in_ioloop
async def test_a_device_that_starts_again(own_peer, start_peer, logs):
    async with synced(At(own_peer.address)) as resource:
        assert sorted(resource.sensor) == ["a_count", "b_count"]
        assert await resource.set_sampling_strategies("", "event") == {
            "a_count": "event",
            "b_count": "event",
        }
        heard = Heard()
        resource.sensor.a_count.register_listener(heard)
        own_peer.kill()
        await resource.until_not_synced(timeout=PATIENCE)
        start_peer(own_peer.kind, own_peer.port)
        await resource.until_synced(timeout=PATIENCE)
        await resource.req.set("a.count", 42)
        while await heard.next_value() != 42:
            pass
        assert await resource.wait("a.count", 42, timeout=PATIENCE)
    for text in ("Failed to connect", "closed with error", "Reconnected"):
        for record in logs.matching(text):
            logs.records.remove(record)


@pytest.mark.parametrize("kind", KATCP_KINDS, ids=lambda kind: kind.name)
@in_ioloop
async def test_integers_may_be_sampled_by_difference(start_peer, kind):
    """The old client wrote differences as floats, which devices refuse for integers."""
    async with synced(At(start_peer(kind).address)) as resource:
        assert await resource.sensor.a_count.set_strategy("differential", 5) == (
            True,
            ("differential", "5.0"),
        )


@in_ioloop
async def test_all_types_of_our_own_device():
    with TestDevice(sensors=default_sensors(1.5e9)) as device:
        async with synced(device) as resource:
            await resource.set_sampling_strategies("", "event")
            await until(lambda: all(s.value is not None for s in resource.sensor.values()))
