"""What tests of the resource clients need: a loop to run in, clients, listeners."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import Any, AsyncIterator, Callable, Coroutine

from katcp.resource_client import KATCPClientResource
from katcp.simdevice import Sensor, SimulatedDevice
from tests.support.helpers import PATIENCE

# What until_stopped(), and whatever else ends a test, may take.
_LIMIT = 5 * PATIENCE


def in_ioloop(function: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in a loop of its own."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(function(*args, **kwargs), _LIMIT))

    return run


def spec_of(device: SimulatedDevice, **spec: Any) -> dict[str, Any]:
    """Return how a resource client finds a device."""
    address = device.address
    return {
        "name": "dev",
        "address": address,
        "controlled": True,
        "auto_reconnect_delay": 0.02,
        **spec,
    }


@contextlib.asynccontextmanager
async def running(
    device: SimulatedDevice, cls: Callable[..., Any] = KATCPClientResource, **spec: Any
) -> AsyncIterator[Any]:
    """A resource client of a device, started."""
    resource = cls(spec_of(device, **spec))
    resource.start()
    try:
        yield resource
    finally:
        resource.stop()
        await resource.until_stopped(timeout=PATIENCE)


@contextlib.asynccontextmanager
async def synced(
    device: SimulatedDevice, cls: Callable[..., Any] = KATCPClientResource, **spec: Any
) -> AsyncIterator[Any]:
    """A resource client of a device, synced."""
    async with running(device, cls, **spec) as resource:
        await resource.until_synced(timeout=PATIENCE)
        yield resource


class Heard:
    """A listener of either kind, for a test that waits for what it is called with."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def __call__(self, *args: Any) -> None:
        self._queue.put_nowait(args)

    async def next(self) -> Any:
        """Return what it is called with next."""
        return await asyncio.wait_for(self._queue.get(), PATIENCE)

    async def next_value(self) -> Any:
        """Return the value of the next reading."""
        last = (await self.next())[-1]
        return getattr(last, "value", last)

    def nothing(self) -> bool:
        """Return whether it was not called again."""
        return self._queue.empty()


def quiet(name: str, sensor_type: str = "integer", value: Any = 0, **options: Any) -> Sensor:
    """Return a sensor that changes only when it is set."""
    return Sensor(name, sensor_type, "A sensor", "units", value=value, timestamp=1.5e9, **options)


def watched_by(device: SimulatedDevice) -> dict[str, str]:
    """Return what the device samples for its clients, by sensor."""
    return {
        name: b" ".join(sampling.arguments).decode()
        for client in device.clients
        for name, sampling in client.samplings.items()
    }


def requests_of(device: SimulatedDevice, name: str) -> list[str]:
    """Return the requests of this name that the device was sent, without their ids."""
    return [str(message.copy()) for message in device.received_requests(name)]


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something holds that no event tells of."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it never came to hold"
        await asyncio.sleep(0.005)
