"""The pytest plugin of katcp: simulated devices as fixtures.

It is outside the package and imports it only when a fixture is used: pytest loads every installed
plugin in every run, and runs without devices must not pay for that. Moreover, coverage would miss
the lines of a package that is imported so early.
"""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any, Callable, Iterator

import pytest

if TYPE_CHECKING:
    from katcp import BlockingClient
    from katcp.simdevice import SimulatedDevice

# How long a device may take to greet `katcp_client`, in seconds.
GREETING_TIMEOUT = 10.0


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "katcp_device(protocol=..., faults=[...], sensors=[...], ...): configure the "
        "simulated devices of a test, with the keywords of katcp.simdevice.SimulatedDevice",
    )


@pytest.fixture
def make_katcp_device(request: pytest.FixtureRequest) -> Iterator[Callable[..., SimulatedDevice]]:
    """Return a function that starts simulated KATCP devices, all stopped after the test.

    It takes the keywords of SimulatedDevice; those of the marker are the defaults.
    """
    from katcp.simdevice import SimulatedDevice

    with contextlib.ExitStack() as devices:

        def make_katcp_device(**options: Any) -> SimulatedDevice:
            device = SimulatedDevice(**{**_options_of_marker(request.node), **options})
            return devices.enter_context(device)

        yield make_katcp_device


@pytest.fixture
def katcp_device(make_katcp_device: Callable[..., SimulatedDevice]) -> SimulatedDevice:
    """Return a simulated KATCP device that listens on a free port of this computer.

    The marker katcp_device configures it.
    """
    try:
        return make_katcp_device()
    except (TypeError, ValueError) as error:
        pytest.fail(f"@pytest.mark.katcp_device: {error}", pytrace=False)


@pytest.fixture
def katcp_client(katcp_device: SimulatedDevice) -> Iterator[BlockingClient]:
    """Return a client that is connected to katcp_device and knows its protocol."""
    from katcp import BlockingClient

    client = BlockingClient(*katcp_device.address)
    client.start()
    try:
        if not client.wait_protocol(GREETING_TIMEOUT):
            faults = ", ".join(map(str, katcp_device.faults)) or "none"
            pytest.fail(
                f"katcp_client was not greeted by {katcp_device!r}; faults: {faults}",
                pytrace=False,
            )
        yield client
    finally:
        client.stop()


def _options_of_marker(node: pytest.Item) -> dict[str, Any]:
    """Return the keywords of the markers; those of the test override its class's."""
    options: dict[str, Any] = {}
    for mark in node.iter_markers("katcp_device"):
        if mark.args:
            raise TypeError(f"the marker takes keywords only, not {mark.args[0]!r}")
        options = {**mark.kwargs, **options}
    if options.get("sensors") is not None:
        # Several tests may share the marker, but not the sensors: tests set them.
        options["sensors"] = [copy.copy(sensor) for sensor in options["sensors"]]
    return options
