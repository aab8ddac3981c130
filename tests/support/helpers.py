"""What several test modules need: a device with a few requests, and clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import socket
import threading
from typing import Any, Callable, Iterator, Optional

import katcp
from katcp import Message
from katcp.simdevice import DeviceRequest, SimulatedDevice
from tests.support.peek import Peek

# How long an event that must come may take on a slow machine, in seconds.
PATIENCE = 10.0


def current_loop() -> Optional[asyncio.AbstractEventLoop]:
    """Return the loop that is current in this thread, None if there is none."""
    try:
        return asyncio.get_event_loop()
    except RuntimeError:
        return None


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


class RawClient:
    """A blocking client that sends and receives lines as bytes."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self._data = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    @property
    def address(self) -> bytes:
        """Where it is, as devices tell it."""
        return "{}:{}".format(*self.socket.getsockname()).encode()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def line(self) -> bytes:
        """Return the next line, without its end; b"" at the end of the stream."""
        while b"\n" not in self._data:
            more = self.socket.recv(65536)
            if not more:
                assert self._data == b""
                return b""
            self._data += more
        line, _, self._data = self._data.partition(b"\n")
        return line

    def until(self, start: bytes) -> list[bytes]:
        """Return the lines up to the first that begins with *start*, which is the last."""
        lines = [self.line()]
        while not lines[-1].startswith(start):
            assert lines[-1] != b"", (start, lines)
            lines.append(self.line())
        return lines

    def ask(self, line: bytes) -> list[bytes]:
        """Send a request, skip what came before, and return its informs and its reply."""
        self.send(line + b"\n")
        head = re.match(rb"\?([a-zA-Z0-9-]+(\[\d+\])?)", line)
        assert head is not None
        answers = self.until(b"!" + head[1])
        return [answer for answer in answers if answer[1:].split(b" ")[0] == head[1]]

    def rest(self) -> bytes:
        """Return everything up to the end of the stream."""
        return self._data + b"".join(iter(lambda: self.socket.recv(65536), b""))


@contextlib.contextmanager
def simulated(**options: Any) -> Iterator[tuple[SimulatedDevice, RawClient]]:
    """A device, and a raw client that is connected to it."""
    with SimulatedDevice(**options) as device, RawClient(device.address) as client:
        yield device, client


def is_v5(device: SimulatedDevice) -> bool:
    """Return whether a device speaks version 5 or newer."""
    return device.protocol.major >= 5


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
    return Peek(client).portal.call(function, *args, timeout=PATIENCE, **kwargs)


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start *function* in a thread; return it and the list for its result or exception."""
    outcome = []

    def run() -> None:
        try:
            outcome.append(function())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def texts(messages: list[Message]) -> list[str]:
    """Return messages as text, ids left out."""
    return [str(message.copy()) for message in messages]
