"""The server of a simulated device: its loop, its socket, its clients, and its tasks.

All state belongs to the loop's thread; other threads use `DeviceServer.in_loop`. Every change that
may fulfil a condition of a waiter calls `DeviceServer.notify`.
"""

from __future__ import annotations

import asyncio
import collections
import inspect
import logging
import socket
import threading
import time
from typing import Any, Awaitable, Callable, Iterable, Optional, Union

from tornado.ioloop import IOLoop
from tornado.netutil import add_accept_handler

from .._runtime.portal import LoopPortal
from .._wire.arguments import write_address
from .._wire.flags import INTERFACE_CHANGED_KATCP_MAJOR
from .._wire.message import Message
from ..errors import KatcpThreadError, KatcpUsageError
from ..ioloop_manager import IOLoopManager
from .connection import ClientConnection, Device, is_multi_client
from .memory import Memory
from .requests import STANDARD_REQUESTS, DeviceRequest, Entry
from .sensors import Sensor

logger = logging.getLogger("katcp.simdevice")

# How many received messages are kept for tests; older ones are dropped.
MAX_RECEIVED = 100_000
# How long a device is down during a restart.
RESTART_DELAY = 0.05


class DeviceServer:
    """Runs one device; may be started again after it has stopped."""

    def __init__(
        self,
        device: Device,
        address: tuple[str, int],
        sensors: Iterable[Sensor],
        memory: Memory,
        receive_buffer_size: Optional[int],
    ) -> None:
        self.device = device
        self.address = address
        self.sensors: dict[str, Sensor] = {}
        for sensor in sensors:
            self._put_sensor(sensor)
        self.memory = memory
        self.requests: dict[str, Entry] = dict(STANDARD_REQUESTS)
        self.clients: list[ClientConnection] = []
        self.connection_count = 0
        self.received: collections.deque[Message] = collections.deque(maxlen=MAX_RECEIVED)
        self._receive_buffer_size = receive_buffer_size
        # The thread started by the device, and the portal of the loop while it runs.
        self._manager: Optional[IOLoopManager] = None
        self._portal: Optional[LoopPortal] = None
        # Ends the listening; empty when the device does not listen.
        self._listeners: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Future[Any]] = set()
        self._stopping: Optional[asyncio.Future[None]] = None
        self._is_paused = False
        # The wake-up functions of waiting threads and coroutines.
        self._events: list[Union[threading.Event, asyncio.Event]] = []

    # ---- start and stop ----

    @property
    def is_running(self) -> bool:
        """Whether the device was started and has not stopped."""
        return self._portal is not None

    @property
    def is_listening(self) -> bool:
        """Whether clients can connect now."""
        return bool(self._listeners)

    def start(self) -> None:
        """Start in its own loop and thread; any thread."""
        self._refuse_if_running()
        manager = IOLoopManager(logger=logger)
        manager.setDaemon(True)
        manager.start()
        try:
            self.start_in(manager.get_ioloop())
        except BaseException:
            manager.stop()
            manager.join()
            raise
        self._manager = manager

    def start_in(self, ioloop: IOLoop) -> None:
        """Start in a loop; any thread."""
        self._refuse_if_running()
        portal = LoopPortal(ioloop)
        _run(portal, self._open, portal)

    def stop(self, reason: Optional[str], timeout: float) -> None:
        """Stop, and wait until everything has ended, except in the loop's own thread."""
        portal, manager = self._portal, self._manager
        if portal is not None:
            _run(portal, self.begin_stop, reason, timeout=timeout)
        if manager is not None and not (portal is not None and portal.in_loop()):
            manager.stop()
            manager.join(timeout)
            self._manager = None

    def begin_stop(self, reason: Optional[str]) -> asyncio.Future[None]:
        """Begin to stop, once; return a future that is done when everything has ended."""
        if self._stopping is None:
            self._stop_listening()
            self.call_clients(ClientConnection.end, reason)
            self._stopping = asyncio.ensure_future(self._until_ended())
        return self._stopping

    def begin_restart(self) -> None:
        """Begin to close all connections, and listen again soon."""
        self._stop_listening()
        self.call_clients(ClientConnection.end, "The device is restarting.")
        self.spawn(self._come_back())

    def _refuse_if_running(self) -> None:
        if self.is_running or self._manager is not None:
            raise KatcpUsageError("The simulated device runs already: stop it first.")

    def _open(self, portal: LoopPortal) -> None:
        self._listen()
        self._portal = portal
        self._stopping = None

    def _listen(self) -> None:
        host, port = self.address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family, backlog=1024)
        sock.setblocking(False)
        if self._receive_buffer_size is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_size)
        self.address = host, sock.getsockname()[1]
        self._listeners = [add_accept_handler(sock, self._on_accept), sock.close]
        self.notify()

    def _stop_listening(self) -> None:
        for undo in self._listeners:
            undo()
        self._listeners = []

    async def _until_ended(self) -> None:
        await self.until(lambda: not self.clients)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A restart may have been under way.
        self._stop_listening()
        self._portal = None
        self.notify()

    async def _come_back(self) -> None:
        await self.until(lambda: not self.clients)
        await asyncio.sleep(RESTART_DELAY)
        self._listen()

    # ---- the loop and its tasks ----

    def in_loop(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the loop's thread, or right here if there is no loop."""
        portal = self._portal
        if portal is None or portal.in_loop():
            return function(*args)
        return _run(portal, function, *args)

    def spawn(self, awaitable: Awaitable[Any]) -> None:
        """Run an awaitable until it is done, or the device stops."""
        task = asyncio.ensure_future(awaitable)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("A task of the simulated device failed.", exc_info=task.exception())

    # ---- waiting ----

    def notify(self) -> None:
        """Wake all waiters to check their conditions; in the loop's thread."""
        for event in tuple(self._events):
            event.set()

    def wait_until(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait until a condition holds; return whether it does. Any thread but the loop's."""
        if self._portal is not None and self._portal.in_loop():
            raise KatcpThreadError("Do not block the loop's thread: await until(...) there.")
        deadline = time.monotonic() + timeout
        changed = threading.Event()
        self._events.append(changed)
        try:
            while not predicate():
                if not changed.wait(deadline - time.monotonic()):
                    return predicate()
                changed.clear()
            return True
        finally:
            self._events.remove(changed)

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait in the loop until a condition holds."""
        changed = asyncio.Event()
        self._events.append(changed)
        try:
            while not predicate():
                await changed.wait()
                changed.clear()
        finally:
            self._events.remove(changed)

    # ---- clients ----

    def call_clients(self, method: Callable[..., object], *args: Any) -> None:
        """Call a method of all clients; any thread."""
        self.in_loop(lambda: [method(client, *args) for client in list(self.clients)])

    def set_paused(self, paused: bool) -> None:
        """Stop or resume reading from all clients, including future ones; any thread."""
        self._is_paused = paused
        self.call_clients(ClientConnection.set_paused, paused)

    def on_message(self, client: ClientConnection, message: Message) -> None:
        """Record a message of a client, and answer it if it is a request."""
        self.received.append(message)
        if message.mtype == Message.REQUEST:
            DeviceRequest(self, client, message).handle()

    def on_client_ended(self, client: ClientConnection) -> None:
        """Forget a client whose connection has ended."""
        self.clients.remove(client)
        self.notify()

    def _on_accept(self, sock: socket.socket, peer: Any) -> None:
        self.connection_count += 1
        client = ClientConnection(
            self, sock, write_address(peer[:2]).decode("ascii"), self.connection_count
        )
        if is_multi_client(client.protocol):
            inform = Message.inform("client-connected", client.address)
            self.call_clients(ClientConnection.play, [inform])
        else:
            reason = f"New client connected from {client.address}"
            self.call_clients(ClientConnection.end, reason)
        self.clients.append(client)
        client.start(paused=self._is_paused)
        self.notify()

    # ---- sensors and requests; in the loop ----

    def add_sensor(self, sensor: Sensor) -> None:
        change = "modified" if sensor.name in self.sensors else "added"
        self.call_clients(ClientConnection.unsample, sensor.name)
        self._put_sensor(sensor)
        self._send_interface_changed("sensor", sensor.name, change)

    def remove_sensor(self, name: str) -> None:
        """Remove a sensor and all its samplings."""
        del self.sensors[name]
        self.call_clients(ClientConnection.unsample, name)
        self._send_interface_changed("sensor", name, "removed")

    def add_request(self, entry: Entry) -> None:
        change = "modified" if entry.name in self.requests else "added"
        self.requests[entry.name] = entry
        self._send_interface_changed("request", entry.name, change)

    def remove_request(self, name: str) -> None:
        del self.requests[name]
        self._send_interface_changed("request", name, "removed")

    def _put_sensor(self, sensor: Sensor) -> None:
        sensor.in_loop = self.in_loop
        self.sensors[sensor.name] = sensor

    def _send_interface_changed(self, *change: str) -> None:
        inform = Message.inform("interface-changed", *change)
        for client in list(self.clients):
            if client.protocol.major >= INTERFACE_CHANGED_KATCP_MAJOR:
                client.play([inform])


def _run(portal: LoopPortal, function: Callable[..., Any], *args: Any, timeout: float = 5.0) -> Any:
    """Call a function in a loop, even in one that only runs now and then."""
    if portal.asyncio_loop.is_running():
        return portal.call(function, *args, timeout=timeout)

    async def call() -> Any:
        result = function(*args)
        return await result if inspect.isawaitable(result) else result

    return portal.ioloop.run_sync(call, timeout)
