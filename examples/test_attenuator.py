"""Test a program against a simulated device: pytest examples/test_attenuator.py

katcp brings a plugin for pytest. Its fixture katcp_device is a real server on a
free port; katcp_client is a client that is connected to it.
"""

import pytest

from katcp import KatcpReplyError
from katcp.simdevice import Sensor

# ---- the program, which would be in a module of its own ----


def fade(client, decibels):
    """Set the attenuation in steps of at most 10 dB, to spare the receiver."""
    now = client.sensors["attenuation"].read().value
    while now != decibels:
        now += max(-10, min(decibels - now, 10))
        client.ask("attenuate", now)


# ---- its tests ----


@pytest.fixture
def attenuator(katcp_device):
    """Make an attenuator of the simulated device."""
    sensor = Sensor("attenuation", "integer", "Attenuation", "dB", value=0)
    katcp_device.add_sensor(sensor)

    @katcp_device.request
    def attenuate(request, decibels):
        "Set the attenuation (?attenuate dB)."
        if not 0 <= int(decibels) <= 60:
            return "fail", "From 0 to 60 dB."
        sensor.set_value(int(decibels))
        return "ok", decibels

    return katcp_device


def test_it_fades_in_steps(attenuator, katcp_client):
    fade(katcp_client, 25)
    asked = attenuator.received_requests("attenuate")
    assert [msg.get_int(0) for msg in asked] == [10, 20, 25]


def test_it_does_nothing_if_there_is_nothing_to_do(attenuator, katcp_client):
    fade(katcp_client, 0)
    attenuator.assert_asked("attenuate", count=0)


def test_it_stops_where_the_device_refuses(attenuator, katcp_client):
    with pytest.raises(KatcpReplyError, match="From 0 to 60"):
        fade(katcp_client, 100)
    attenuator.assert_asked("attenuate", 70, count=1)


@pytest.mark.katcp_device(protocol="4")
def test_an_old_device_will_do(attenuator, katcp_client):
    fade(katcp_client, 5)
    attenuator.assert_asked("attenuate", 5)
