"""Test a coroutine against a simulated device: pytest examples/test_in_asyncio.py

It needs pytest-asyncio. The fixtures are those of all tests: the device and its client have
threads of their own, and a coroutine may await the client.
"""

import pytest

from katcp import AsyncClient, KatcpClientTimeout

# ---- the program, which would be in a module of its own ----


async def warm_up(client, goal, timeout=10):
    """Heat until the temperature is reached; return it."""
    temperature = await client.sensors.async_get("temperature")
    await client.async_ask("heater", True)
    try:
        reading = await temperature.async_wait_for(
            lambda reading: reading.value >= goal, timeout=timeout
        )
    finally:
        await client.async_ask("heater", False)
    return reading.value


# ---- its tests ----

pytestmark = pytest.mark.asyncio


@pytest.fixture
def oven(katcp_device):
    """Make an oven of the simulated device."""
    temperature = katcp_device.sensors["temperature"]
    temperature.set_value(20.0)

    @katcp_device.request
    def heater(request, on):
        "Switch the heater (?heater 0|1)."
        if on == b"1":
            temperature.set_value(28.5)
        return "ok", on

    return katcp_device


async def test_it_heats_until_it_is_warm(oven, katcp_client):
    assert await warm_up(katcp_client, 25) == 28.5
    assert [msg.get_bool(0) for msg in oven.received_requests("heater")] == [True, False]


async def test_it_gives_up(oven, katcp_client):
    with pytest.raises(KatcpClientTimeout, match=r"temperature is 28\.5"):
        await warm_up(katcp_client, 50, timeout=0.1)
    oven.assert_asked("heater", False, count=1)


async def test_it_runs_in_the_loop_of_the_program(oven):
    async with AsyncClient(*oven.address) as client:
        assert await warm_up(client, 25) == 28.5
