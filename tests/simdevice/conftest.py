"""Simulated devices as they come, with their own sensors, and a client that knows only bytes."""

import pytest

from katcp.simdevice import SimulatedDevice
from tests.support.helpers import RawClient


@pytest.fixture(params=["4", "5.0-IM", "5.1-MIBT"])
def any_device(request):
    with SimulatedDevice(protocol=request.param) as device:
        yield device


@pytest.fixture
def device():
    with SimulatedDevice(protocol="5.1-MIBT") as device:
        yield device


@pytest.fixture
def client(device):
    with RawClient(device.address) as client:
        client.until(b"#version-connect katcp-device")
        yield client
