"""What several test modules need: a device with a few requests, and clients of it."""

from __future__ import annotations

import queue
import socket
import threading
from typing import Any, Callable, Optional

import katcp
from katcp import Message
from katcp.simdevice import DeviceRequest, SimulatedDevice

# How long an event that must come may take on a slow machine, in seconds.
PATIENCE = 10.0


class TestDevice(SimulatedDevice):
    """A simulated device with requests that tests need, and without sensors.

    ``?echo ARG...`` replies its arguments; ``?count N`` sends N informs; ``?hold``
    is answered when the test says so; ``?silent`` never is; ``?refuse`` fails.
    """

    __test__ = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"sensors": (), **kwargs})
        # Stopped before the device is: it would cut them off in the middle.
        self.started_clients: list[katcp.DeviceClient] = []
        self.held: queue.Queue[DeviceRequest] = queue.Queue()
        for function in (self.echo, self.count, self.hold, self.silent, self.refuse):
            self.request(function)

    def __exit__(self, *exception: object) -> None:
        for client in self.started_clients:
            client.stop(PATIENCE)
        super().__exit__(*exception)

    def echo(self, request: DeviceRequest, *args: bytes) -> Any:
        """Reply the arguments."""
        return ("ok", *args)

    def count(self, request: DeviceRequest, number: bytes) -> Any:
        """Send as many informs."""
        for position in range(int(number)):
            request.inform(position)
        return "ok", number

    def hold(self, request: DeviceRequest, *args: bytes) -> None:
        """Be answered when the test says so."""
        self.held.put(request)

    def silent(self, request: DeviceRequest, *args: bytes) -> None:
        """Be never answered."""

    def refuse(self, request: DeviceRequest) -> Any:
        """Fail."""
        return "fail", "not today"

    def next_held(self) -> DeviceRequest:
        """Return the next ``?hold``."""
        return self.held.get(timeout=PATIENCE)


class Recorder:
    """Callbacks that note what they are called with, for a test that waits for it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._changed = threading.Condition()

    def __call__(self, *args: Any) -> None:
        with self._changed:
            self.calls.append(args)
            self._changed.notify_all()

    def wait(self, count: int = 1) -> list[tuple[Any, ...]]:
        """Wait for as many calls and return all."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.calls) >= count, PATIENCE), self.calls
            return list(self.calls)

    @property
    def messages(self) -> list[Message]:
        """The first argument of each call."""
        return [call[0] for call in self.calls]


def start_client(
    device: TestDevice,
    cls: Callable[..., Any] = katcp.BlockingClient,
    *,
    wait: Optional[str] = "protocol",
    **kwargs: Any,
) -> Any:
    """Start a client of *device*, which will stop it, and wait until what *wait* names."""
    client = cls(*device.address, **kwargs)
    client.auto_reconnect_delay = 0.02
    device.started_clients.append(client)
    client.start()
    if wait is not None:
        assert client.wait_connected(PATIENCE)
        assert getattr(client, f"wait_{wait}")(PATIENCE)
    return client


def until_answered(client: Any) -> Message:
    """Ask until the device answers: the client has a connection (again)."""
    while True:
        reply, _ = client.blocking_request(Message.request("echo"))
        if reply.reply_ok() and client.wait_protocol(PATIENCE):
            return reply


def in_loop(client: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run *function* in the loop of *client* and return its result."""
    return client._loop_door.call(function, *args, timeout=PATIENCE, **kwargs)


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def texts(messages: list[Message]) -> list[str]:
    """Return messages as text, ids left out."""
    return [str(message.copy()) for message in messages]
