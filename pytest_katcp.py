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

# How long a device may take to greet a client, in seconds.
GREETING_TIMEOUT = 10.0


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "katcp_device(protocol=..., faults=[...], sensors=[...], ...): configure the "
        "simulated devices of a test, with the keywords of katcp.simdevice.SimulatedDevice",
    )
    config.addinivalue_line(
        "markers",
        "katcp_client(timeout=..., ...): what the clients of a test are like; takes the "
        "keywords of katcp.BlockingClient",
    )


@pytest.fixture
def make_katcp_device(request: pytest.FixtureRequest) -> Iterator[Callable[..., SimulatedDevice]]:
    """Return a function that starts simulated KATCP devices, all stopped after the test.

    It takes the keywords of SimulatedDevice; those of the marker are the defaults.
    """
    from katcp.simdevice import SimulatedDevice

    with contextlib.ExitStack() as devices:

        def make_katcp_device(**options: Any) -> SimulatedDevice:
            device = SimulatedDevice(**{**_options_of_device(request.node), **options})
            return devices.enter_context(device)

        yield make_katcp_device


@pytest.fixture
def katcp_device(make_katcp_device: Callable[..., SimulatedDevice]) -> SimulatedDevice:
    """Return a simulated KATCP device that listens on a free port of this computer.

    The marker katcp_device configures it.
    """
    with _blaming("katcp_device"):
        return make_katcp_device()


@pytest.fixture
def make_katcp_client(
    request: pytest.FixtureRequest, make_katcp_device: object
) -> Iterator[Callable[..., BlockingClient]]:
    """A function that connects clients to simulated devices, all stopped after the test.

    It takes a device, and the keywords of BlockingClient; those of the marker are the
    defaults.
    """
    from katcp import BlockingClient

    with contextlib.ExitStack() as clients:

        def make_katcp_client(device: SimulatedDevice, **options: Any) -> BlockingClient:
            options = {**_options_of_marker(request.node, "katcp_client"), **options}
            client = BlockingClient(*device.address, **options)
            client.start()
            clients.callback(client.stop)
            if not client.wait_protocol(GREETING_TIMEOUT):
                faults = ", ".join(map(str, device.faults)) or "none"
                pytest.fail(
                    f"katcp_client was not greeted by {device!r}; faults: {faults}", pytrace=False
                )
            return client

        yield make_katcp_client


@pytest.fixture
def katcp_client(
    katcp_device: SimulatedDevice, make_katcp_client: Callable[..., BlockingClient]
) -> BlockingClient:
    """A client that is connected to katcp_device and knows its protocol.

    The marker katcp_client says what it is like.
    """
    with _blaming("katcp_client"):
        return make_katcp_client(katcp_device)


@contextlib.contextmanager
def _blaming(marker: str) -> Iterator[None]:
    """Fail the test if its marker makes no sense."""
    try:
        yield
    except (TypeError, ValueError) as error:
        pytest.fail(f"@pytest.mark.{marker}: {error}", pytrace=False)


def _options_of_device(node: pytest.Item) -> dict[str, Any]:
    """Return the keywords of the markers, with sensors that no other test has."""
    options = _options_of_marker(node, "katcp_device")
    if options.get("sensors") is not None:
        options["sensors"] = [copy.copy(sensor) for sensor in options["sensors"]]
    return options


def _options_of_marker(node: pytest.Item, name: str) -> dict[str, Any]:
    """Return the keywords of the markers; those of the test come before its class's."""
    options: dict[str, Any] = {}
    for mark in node.iter_markers(name):
        if mark.args:
            raise TypeError(f"the marker takes keywords only, not {mark.args[0]!r}")
        options = {**mark.kwargs, **options}
    return options
