"""A simulated device: a real KATCP server on real sockets, for tests and examples.

Strategy
--------
`SimulatedDevice` is what users handle: it owns the sensors, the memory, the
table of requests and the log level, listens, and may be called from any
thread. Every connected client has one `ClientConnection`, which reads lines,
samples sensors and writes. Every request that comes in is one `DeviceRequest`,
which is what request handlers get; the standard requests at the end of this
module are written exactly as a user writes his own.

All state belongs to the thread of the loop. Only the list of received messages
is shared, under a lock, so that other threads can wait for it.

The way out: a handler's answer becomes a message, the faults (`katcp.simfaults`)
turn it into steps, `ClientConnection.play` takes the steps one after another,
and everything that is written goes through one queue, so that order is kept
whatever the faults do.

As a process: ``python -m katcp.simdevice --port 7147 --protocol 5.1-MIB``.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import datetime
import functools
import inspect
import logging
import math
import re
import signal
import socket
import struct
import sys
import threading
import time
from typing import (
    Any,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Union,
)

from tornado import gen, locks
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamBufferFullError, StreamClosedError
from tornado.netutil import add_accept_handler
from tornado.util import TimeoutError as TornadoTimeoutError

from .errors import FailReply, KatcpSyntaxError, KatcpThreadError, KatcpUsageError
from .ioloop_manager import IOLoopManager
from .message import Message, shorten
from .parser import LineSplitter, MessageParser
from .protocol import (
    INTERFACE_CHANGED_KATCP_MAJOR,
    SEC_TS_KATCP_MAJOR,
    VERSION_CONNECT_KATCP_MAJOR,
    ProtocolFlags,
)
from .simfaults import End, Fault, Pause, Step, list_faults
from .simsensor import (
    Reading,
    Sensor,
    Strategy,
    default_sensors,
    format_timestamp,
    parse_strategy,
)
from .threadsafe import call_in_loop
from .version import __version__

logger = logging.getLogger(__name__)

LOG_LEVELS = ("all", "trace", "debug", "info", "warn", "error", "fatal", "off")

# A longer line closes the connection, as in katcp's own servers.
MAX_LINE_SIZE = 2 * 1024 * 1024
# A client that leaves more than this unread is dropped, with a reset.
MAX_WRITE_BUFFER_SIZE = 64 * 1024 * 1024
# So many received messages are remembered for tests; older ones are forgotten.
MAX_RECEIVED = 100_000
# So long an orderly close waits for the client to read what was written.
CLOSE_TIMEOUT = 1.0
# So long a device is away when it was asked to restart.
RESTART_DELAY = 0.05

DEFAULT_MEMORY: Mapping[str, Union[int, bytes]] = {
    "sys_board_id": b"\0\0\xb0\x01",
    "sys_scratchpad": 4,
    "bram": 64 * 1024,
}

_READ_SIZE = 64 * 1024
_FLUSH_SIZE = 64 * 1024
_INTEGER_RE = re.compile(rb"[0-9]+|0[xX][0-9a-fA-F]+")
_PROTOCOL_RE = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:-(.*))?", re.DOTALL)

Handler = Callable[..., Any]


class _Entry(NamedTuple):
    """A request that the device knows."""

    name: str
    handler: Handler
    signature: inspect.Signature
    help: str
    timeout_hint: float
    is_available: Callable[[ProtocolFlags], bool]


class SimulatedDevice:
    """A KATCP device on a TCP port, for testing programs that talk to devices.

    Parameters
    ----------
    host : str, optional
        Where to listen.
    port : int, optional
        The port. Default: any free one; see `address`. A device that is
        stopped and started again keeps its port.
    protocol : str or ProtocolFlags, optional
        Version and flags: ``"4"``, ``"5.0"``, ``"5.0-IM"``, ``"5.1-MIBT"``, ...
        Without ``M`` a newcomer evicts the client before it; version 4 serves
        several clients.
    name : str, optional
        The name of the device in its greeting.
    sensors : iterable of Sensor, optional
        Default: one example of each type, see
        `katcp.simsensor.default_sensors`. ``()`` for none.
    memory : mapping, optional
        Register names, each with its size or its first content, for ``?read``
        and ``?write``. Default: `DEFAULT_MEMORY`.
    faults : iterable of Fault or str, optional
        What the device does wrong, see `katcp.simfaults.list_faults`.
    echo_ids : bool, optional
        Whether the id of a request is echoed although the protocol has no
        ids. katcp's own servers do that; those in C do not.
    log_level : str, optional
        The level of ``#log`` informs: one of `LOG_LEVELS`.
    max_write_buffer_size : int, optional
        A client that leaves more bytes than this unread is dropped.
    receive_buffer_size : int, optional
        The size of the kernel's receive buffers; with a small one a client's
        writes pile up soon after `pause_reading`.

    Notes
    -----
    All methods and attributes may be used from any thread. ``wait_x`` blocks
    and must not be called in the loop's thread; ``until_x`` is awaited there.

    Examples
    --------
    In a thread of its own:

    >>> with SimulatedDevice(protocol="5.1-MIB") as device:
    ...     @device.request
    ...     def add(request, a, b):
    ...         "Add two numbers."
    ...         return "ok", int(a) + int(b)
    ...     host, port = device.address

    In a loop that runs already::

        device = SimulatedDevice()
        device.start_in(IOLoop.current())
        ...
        device.stop()
        await device.until_stopped()
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        protocol: Union[str, ProtocolFlags] = "5.1-MIB",
        name: str = "simulated-device",
        sensors: Optional[Iterable[Sensor]] = None,
        memory: Optional[Mapping[str, Union[int, bytes]]] = None,
        faults: Iterable[Union[Fault, str]] = (),
        echo_ids: bool = True,
        log_level: str = "warn",
        max_write_buffer_size: int = MAX_WRITE_BUFFER_SIZE,
        receive_buffer_size: Optional[int] = None,
    ) -> None:
        self.name = name
        self.echo_ids = echo_ids
        self.max_write_buffer_size = max_write_buffer_size
        self.protocol = protocol
        self.faults = faults
        self.log_level = log_level
        self._host = host
        self._port = port
        self._receive_buffer_size = receive_buffer_size
        self._memory = _Memory(DEFAULT_MEMORY if memory is None else memory)
        self._sensors: dict[str, Sensor] = {}
        for sensor in default_sensors(time.time()) if sensors is None else sensors:
            self._sensors[sensor.name] = sensor
        self._requests: dict[str, _Entry] = dict(_STANDARD_REQUESTS)
        self._init_run_state()

    def _init_run_state(self) -> None:
        self._manager: Optional[IOLoopManager] = None
        self._ioloop: Optional[IOLoop] = None
        # What ends the listening; empty when the device does not listen.
        self._listeners: list[Callable[[], None]] = []
        self._clients: list[ClientConnection] = []
        self._tasks: set[asyncio.Future[Any]] = set()
        self._stopping: Optional[asyncio.Future[None]] = None
        self._paused = False
        self._connection_count = 0
        self._received: collections.deque[Message] = collections.deque(maxlen=MAX_RECEIVED)
        # Threads wait for the first, coroutines for the second.
        self._changed = threading.Condition()
        self._wakers: list[asyncio.Future[None]] = []

    # ---- running ----

    def start(self) -> None:
        """Start the device in a loop and thread of its own; it listens on return.

        Raises
        ------
        KatcpUsageError
            If it runs already.
        OSError
            If it cannot listen on its port.
        """
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
        """Start the device in a given loop; it listens on return.

        Parameters
        ----------
        ioloop : tornado.ioloop.IOLoop
            A loop that runs in this or in another thread, or not yet.

        Raises
        ------
        KatcpUsageError
            If it runs already.
        OSError
            If it cannot listen on its port.
        """
        self._refuse_if_running()
        _run_in(ioloop, self._open, ioloop)

    def stop(self, timeout: float = 5.0, *, orderly: bool = True) -> None:
        """Stop the device; it may be started again.

        In another thread it returns when all has ended, in the loop's own
        thread at once: `until_stopped` waits there. Does nothing if the device
        does not run.

        Parameters
        ----------
        timeout : float in seconds, optional
            How long to wait.
        orderly : bool, optional
            Whether clients are told by ``#disconnect``; otherwise their
            connections are closed without a word.
        """
        reason = "The device is stopping." if orderly else None
        ioloop, manager = self._ioloop, self._manager
        if ioloop is not None:
            _run_in(ioloop, self._begin_stop, reason, timeout=timeout)
        if manager is not None and not (ioloop is not None and _is_inside(ioloop)):
            manager.stop()
            manager.join(timeout)
            self._manager = None

    async def until_stopped(self) -> None:
        """Wait in the loop until the device has stopped, by `stop` or ``?halt``."""
        await self.until(lambda: self._ioloop is None)

    def __enter__(self) -> SimulatedDevice:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    async def __aenter__(self) -> SimulatedDevice:
        self.start_in(IOLoop.current())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.stop()
        await self.until_stopped()

    @property
    def running(self) -> bool:
        """Whether the device was started and has not stopped."""
        return self._ioloop is not None

    @property
    def listening(self) -> bool:
        """Whether clients can connect now; not so during a ``?restart``."""
        return bool(self._listeners)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; the port is known after the first start."""
        return self._host, self._port

    # ---- what it is ----

    @property
    def protocol(self) -> ProtocolFlags:
        """The protocol of the next connections; may be set to text too."""
        return self._protocol

    @protocol.setter
    def protocol(self, protocol: Union[str, ProtocolFlags]) -> None:
        flags = protocol if isinstance(protocol, ProtocolFlags) else _parse_protocol(protocol)
        self._protocol = flags

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What the device does wrong from now on; may be set to faults or their texts."""
        return self._faults

    @faults.setter
    def faults(self, faults: Iterable[Union[Fault, str]]) -> None:
        if isinstance(faults, str):
            raise TypeError("The faults must be a sequence of faults, not one text.")
        self._faults = tuple(
            fault if isinstance(fault, Fault) else Fault.parse(fault) for fault in faults
        )

    @property
    def log_level(self) -> str:
        """The level of ``#log`` informs, for all clients."""
        return self._log_level

    @log_level.setter
    def log_level(self, level: str) -> None:
        if level not in LOG_LEVELS:
            raise ValueError(f"There is no log level {level!r}: use one of {LOG_LEVELS}.")
        self._log_level = level

    @property
    def sensors(self) -> dict[str, Sensor]:
        """The sensors by name, as a copy."""
        return dict(self._sensors)

    def add_sensor(self, sensor: Sensor) -> None:
        """Add a sensor, or replace the one of its name.

        Connected clients of protocol 5 get an ``#interface-changed``.

        Parameters
        ----------
        sensor : Sensor
            The sensor.
        """
        self._in_loop(self._add_sensor, sensor)

    def remove_sensor(self, name: str) -> None:
        """Remove a sensor and all its samplings, with an ``#interface-changed``.

        Parameters
        ----------
        name : str
            Its name.
        """
        self._in_loop(self._remove_sensor, name)

    def set_sensor(
        self,
        name: str,
        value: Any,
        status: Optional[str] = None,
        timestamp: Optional[float] = None,
    ) -> None:
        """Set the reading of a sensor; clients that sample it hear of it.

        Parameters
        ----------
        name : str
            The name of the sensor.
        value : object
            The value; bytes are sent as they are, whatever the type.
        status : str, optional
            Default: what the ranges of the sensor say, else ``nominal``.
        timestamp : float, optional
            Seconds since 1970. Default: now.
        """
        self._in_loop(self._set_sensor, name, value, status, timestamp)

    def request(
        self,
        function: Union[Handler, str, None] = None,
        *,
        name: Optional[str] = None,
        timeout_hint: float = 0.0,
    ) -> Any:
        """Decorate a function that answers a request; as a method, see `add_request`.

        Parameters
        ----------
        function : callable or str, optional
            The function, or the name of the request.
        name : str, optional
            The name of the request. Default: that of the function, with
            dashes.
        timeout_hint : float, optional
            Seconds, for ``?request-timeout-hint``.

        Returns
        -------
        callable
        """
        if callable(function):
            self.add_request(function, name, timeout_hint=timeout_hint)
            return function
        return functools.partial(self.request, name=function or name, timeout_hint=timeout_hint)

    def add_request(
        self, function: Handler, name: Optional[str] = None, *, timeout_hint: float = 0.0
    ) -> None:
        """Let *function* answer a request, also in place of a standard one.

        It is called in the loop's thread with a `DeviceRequest` and the
        arguments as bytes. Its docstring is the help text. What it returns is
        the reply: one argument or a tuple of them, a whole `Message`, None for
        no reply at all, or an awaitable of these; other requests are served
        meanwhile. An exception becomes a ``fail`` reply; all but `FailReply`
        are logged.

        Parameters
        ----------
        function : callable
            The function.
        name : str, optional
            The name of the request. Default: that of the function, with
            dashes.
        timeout_hint : float, optional
            Seconds, for ``?request-timeout-hint``.
        """
        entry = _make_entry(function, name, timeout_hint=timeout_hint)
        self._in_loop(self._add_request, entry)

    def remove_request(self, name: str) -> None:
        """Remove a request; it is answered ``invalid`` then.

        Parameters
        ----------
        name : str
            Its name.
        """
        self._in_loop(self._remove_request, name)

    def memory(self, register: str) -> bytes:
        """Return the content of a register.

        Parameters
        ----------
        register : str
            Its name.

        Returns
        -------
        bytes
        """
        content: bytes = self._in_loop(self._memory.content, register)
        return content

    # ---- speaking to clients ----

    def inform(self, message: Message) -> None:
        """Send a message to all clients.

        Parameters
        ----------
        message : Message
            An inform, or whatever a test wants to see sent.
        """
        self._in_loop(self._send_to_all, message)

    def log(self, level: str, text: str, logger_name: Optional[str] = None) -> None:
        """Send a ``#log`` inform to all clients, if the log level permits.

        Parameters
        ----------
        level : str
            One of `LOG_LEVELS`.
        text : str
            The message.
        logger_name : str, optional
            The source. Default: the name of the device.
        """
        self._in_loop(self._log_to_all, level, text, logger_name)

    def send_raw(self, data: bytes, client: Optional[ClientConnection] = None) -> None:
        """Send bytes as they are.

        Parameters
        ----------
        data : bytes
            The bytes, line ends included.
        client : ClientConnection, optional
            Default: all clients.
        """
        self._in_loop(self._send_raw, data, client)

    def disconnect_clients(self, reason: str = "The device closes the connection.") -> None:
        """Close all connections in order: ``#disconnect``, then the end.

        Parameters
        ----------
        reason : str, optional
            What the clients are told.
        """
        self._in_loop(self._end_all, reason)

    def close_clients(self) -> None:
        """Close all connections without a word, when what was written is out."""
        self._in_loop(self._end_all, None)

    def reset_clients(self) -> None:
        """Break all connections with a TCP reset."""
        self._in_loop(self._reset_all)

    def pause_reading(self) -> None:
        """Read no more, so that what clients write piles up."""
        self._in_loop(self._set_paused, True)

    def resume_reading(self) -> None:
        """Read again."""
        self._in_loop(self._set_paused, False)

    # ---- what tests look at ----

    @property
    def clients(self) -> list[ClientConnection]:
        """The connected clients, the oldest first."""
        return list(self._clients)

    @property
    def client_count(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    @property
    def connection_count(self) -> int:
        """How many clients ever connected."""
        return self._connection_count

    @property
    def received(self) -> list[Message]:
        """All messages that came, in order; the last `MAX_RECEIVED` of them."""
        with self._changed:
            return list(self._received)

    def clear_received(self) -> None:
        """Forget all received messages."""
        with self._changed:
            self._received.clear()

    def received_requests(self, name: str) -> list[Message]:
        """Return the received requests of a name, in order.

        Parameters
        ----------
        name : str
            The name.

        Returns
        -------
        list of Message
        """
        return [
            message
            for message in self.received
            if message.name == name and message.mtype == Message.REQUEST
        ]

    def wait_for_request(self, name: str, timeout: float = 5.0, count: int = 1) -> Message:
        """Wait until *count* requests of a name have come, and return the last of these.

        Requests that came before the call count too; see `clear_received`.

        Parameters
        ----------
        name : str
            The name.
        timeout : float in seconds, optional
            How long to wait.
        count : int, optional
            How many.

        Returns
        -------
        Message

        Raises
        ------
        TimeoutError
            If they do not come in time.
        """
        self.wait_until(
            lambda: len(self.received_requests(name)) >= count, timeout, f"{count} x ?{name}"
        )
        return self.received_requests(name)[count - 1]

    def wait_for_client(self, count: int = 1, timeout: float = 5.0) -> None:
        """Wait until exactly *count* clients are connected.

        Parameters
        ----------
        count : int, optional
            How many; 0 waits for the last one to go.
        timeout : float in seconds, optional
            How long to wait.

        Raises
        ------
        TimeoutError
            If it does not happen in time.
        """
        self.wait_until(lambda: self.client_count == count, timeout, f"{count} clients")

    def wait_for_connection(self, count: int, timeout: float = 5.0) -> None:
        """Wait until *count* connections were made since the device was made.

        Parameters
        ----------
        count : int
            How many; `connection_count` tells how many there were so far.
        timeout : float in seconds, optional
            How long to wait.

        Raises
        ------
        TimeoutError
            If it does not happen in time.
        """
        self.wait_until(
            lambda: self.connection_count >= count, timeout, f"connection number {count}"
        )

    def wait_until(
        self, predicate: Callable[[], bool], timeout: float = 5.0, what: str = "what was expected"
    ) -> None:
        """Wait until a condition holds; it is looked at when something has happened.

        Parameters
        ----------
        predicate : callable
            The condition.
        timeout : float in seconds, optional
            How long to wait.
        what : str, optional
            What is waited for, for the text of the error.

        Raises
        ------
        TimeoutError
            If it does not happen in time.
        """
        if self._ioloop is not None and _is_inside(self._ioloop):
            raise KatcpThreadError("Do not block the loop's thread: await until(...) there.")
        with self._changed:
            if self._changed.wait_for(predicate, timeout):
                return
        raise TimeoutError(
            f"{what} did not come within {timeout} s; clients: {self.client_count}, last "
            f"messages: {[shorten(str(message), 100) for message in self.received[-5:]]}"
        )

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait in the loop until a condition holds, like `wait_until`.

        Parameters
        ----------
        predicate : callable
            The condition.
        """
        while not predicate():
            waker = asyncio.get_running_loop().create_future()
            self._wakers.append(waker)
            await waker

    # ---- in the loop: start and stop ----

    def _in_loop(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the loop, or right here as long as there is none."""
        ioloop = self._ioloop
        if ioloop is None or _is_inside(ioloop):
            return function(*args)
        return _run_in(ioloop, function, *args)

    def _notify(self) -> None:
        """Let those who wait look again."""
        with self._changed:
            self._changed.notify_all()
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            if not waker.done():
                waker.set_result(None)

    def _refuse_if_running(self) -> None:
        if self._ioloop is not None or self._manager is not None:
            raise KatcpUsageError("The simulated device runs already: stop it first.")

    def _open(self, ioloop: IOLoop) -> None:
        self._listen()
        self._ioloop = ioloop
        self._stopping = None

    def _listen(self) -> None:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = socket.create_server((self._host, self._port), family=family, backlog=1024)
        sock.setblocking(False)
        if self._receive_buffer_size is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_size)
        self._port = sock.getsockname()[1]
        self._listeners = [add_accept_handler(sock, self._on_accept), sock.close]
        self._notify()

    def _stop_listening(self) -> None:
        for undo in self._listeners:
            undo()
        self._listeners = []

    def _begin_stop(self, reason: Optional[str]) -> asyncio.Future[None]:
        """Begin to stop, once; the result is done when all has ended."""
        if self._stopping is None:
            self._stop_listening()
            self._end_all(reason)
            self._stopping = asyncio.ensure_future(self._until_ended())
        return self._stopping

    async def _until_ended(self) -> None:
        await self.until(lambda: not self._clients)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A restart may have been under way.
        self._stop_listening()
        self._ioloop = None
        self._notify()

    def _begin_restart(self) -> None:
        self._stop_listening()
        self._end_all("The device is restarting.")
        self._spawn(self._come_back())

    async def _come_back(self) -> None:
        await self.until(lambda: not self._clients)
        await asyncio.sleep(RESTART_DELAY)
        self._listen()

    def _spawn(self, awaitable: Awaitable[Any]) -> None:
        """Run an awaitable until it is done, or the device stops."""
        task = asyncio.ensure_future(awaitable)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("A task of the simulated device failed.", exc_info=task.exception())

    # ---- in the loop: clients ----

    def _on_accept(self, sock: socket.socket, peer: Any) -> None:
        client = ClientConnection(self, sock, _format_peer(peer))
        if _is_multi_client(client.protocol):
            self._send_to_all(Message.inform("client-connected", client.address))
        else:
            self._end_all(f"New client connected from {client.address}")
        self._clients.append(client)
        self._connection_count += 1
        client.start(paused=self._paused)
        self._notify()

    def _on_client_ended(self, client: ClientConnection) -> None:
        self._clients.remove(client)
        self._notify()

    def _on_message(self, client: ClientConnection, message: Message) -> None:
        with self._changed:
            self._received.append(message)
        if message.mtype == Message.REQUEST:
            self._on_request(DeviceRequest(self, client, message))
        self._notify()

    def _on_request(self, request: DeviceRequest) -> None:
        for hook in self._hooks("request", request.message.name):
            steps = hook(request)
            if steps is not None:
                request.connection.play(steps)
                return
        entry = self._requests.get(request.message.name)
        if entry is None or not entry.is_available(request.connection.protocol):
            request.reply("invalid", f"Unknown request '{request.message.name}'.")
        else:
            request.run(entry)

    def _hooks(self, point: str, name: Optional[str] = None) -> Iterator[Callable[..., Any]]:
        """Return what the faults of this moment do at a point."""
        for fault in self._faults:
            hook = fault.hook(point, name)
            if hook is not None:
                yield functools.partial(hook, fault)

    def _send_to_all(self, message: Message) -> None:
        for client in self.clients:
            client.play([message])

    def _send_raw(self, data: bytes, client: Optional[ClientConnection]) -> None:
        for receiver in self.clients if client is None else [client]:
            receiver.send_raw(data)

    def _log_to_all(self, level: str, text: str, logger_name: Optional[str]) -> None:
        for client in self.clients:
            client.log(level, text, logger_name)

    def _end_all(self, reason: Optional[str]) -> None:
        for client in self.clients:
            client.end(reason)

    def _reset_all(self) -> None:
        for client in self.clients:
            client.reset()

    def _set_paused(self, paused: bool) -> None:
        self._paused = paused
        for client in self.clients:
            client.set_paused(paused)

    def _interface_changed(self, kind: str, name: str, change: str) -> None:
        for client in self.clients:
            if client.protocol.major >= INTERFACE_CHANGED_KATCP_MAJOR:
                client.play([Message.inform("interface-changed", kind, name, change)])

    # ---- in the loop: sensors and requests ----

    def _add_sensor(self, sensor: Sensor) -> None:
        change = "modified" if sensor.name in self._sensors else "added"
        self._unsample(sensor.name)
        self._sensors[sensor.name] = sensor
        self._interface_changed("sensor", sensor.name, change)

    def _remove_sensor(self, name: str) -> None:
        del self._sensors[name]
        self._unsample(name)
        self._interface_changed("sensor", name, "removed")

    def _find_sensor(self, name: bytes) -> Sensor:
        """Return a sensor, or raise FailReply."""
        sensor = self._sensors.get(_text(name))
        if sensor is None:
            raise FailReply(f"Unknown sensor '{_text(name)}'.")
        return sensor

    def _find_sensors(self, name: bytes) -> list[Sensor]:
        """Return the sensor of that name, or all that match a ``/regex/``, sorted."""
        if len(name) < 2 or name[:1] + name[-1:] != b"//":
            return [self._find_sensor(name)]
        try:
            regex = re.compile(_text(name[1:-1]))
        except re.error as error:
            raise FailReply(f"Bad regular expression '{_text(name)}': {error}.") from error
        return [sensor for key, sensor in sorted(self._sensors.items()) if regex.search(key)]

    def _unsample(self, name: str) -> None:
        for client in self.clients:
            client.unsample(name)

    def _set_sensor(
        self, name: str, value: Any, status: Optional[str], timestamp: Optional[float]
    ) -> None:
        now = time.time() if timestamp is None else timestamp
        self._sensors[name].set(value, status, timestamp=now)
        for client in self.clients:
            sampling = client.samplings.get(name)
            if sampling is not None:
                sampling.poll()

    def _add_request(self, entry: _Entry) -> None:
        change = "modified" if entry.name in self._requests else "added"
        self._requests[entry.name] = entry
        self._interface_changed("request", entry.name, change)

    def _remove_request(self, name: str) -> None:
        del self._requests[name]
        self._interface_changed("request", name, "removed")


class DeviceRequest:
    """A request that a client has sent: what a request handler gets.

    Its methods may be called from any thread, also after the handler has
    returned: to reply later, or several times.

    Attributes
    ----------
    device : SimulatedDevice
        The device.
    connection, client : ClientConnection
        Where it came from; two names for the same.
    message : Message
        The request.
    """

    def __init__(
        self, device: SimulatedDevice, connection: ClientConnection, message: Message
    ) -> None:
        self.device = device
        self.connection = connection
        self.client = connection
        self.message = message
        # For the fault that sends informs after the reply.
        self.held: list[Message] = []
        self._informs = 0

    def inform(self, *args: Any) -> None:
        """Send an inform that belongs to the request, with its name and id.

        Parameters
        ----------
        *args
            The arguments.
        """
        self._informs += 1
        self._send(self._make(Message.INFORM, args))

    def reply(self, *args: Any) -> None:
        """Send a reply, with the name and the id of the request.

        Parameters
        ----------
        *args
            The arguments, return code first.
        """
        self._send(self._make(Message.REPLY, args))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are to the client.

        Parameters
        ----------
        data : bytes
            The bytes, line ends included.
        """
        self.device.send_raw(data, self.connection)

    def available(self) -> list[_Entry]:
        """Return the requests that this client can make, sorted by name."""
        entries = self.device._requests.items()
        protocol = self.connection.protocol
        return [entry for _, entry in sorted(entries) if entry.is_available(protocol)]

    def counted(self) -> tuple[str, int]:
        """Return the ``ok`` reply of a list: with the number of informs sent.

        Returns
        -------
        tuple
        """
        return "ok", self._informs

    def run(self, entry: _Entry) -> None:
        """Let the handler answer; in the loop's thread."""
        arguments = self.message.arguments
        try:
            entry.signature.bind(self, *arguments)
        except TypeError as error:
            self.reply("invalid", f"Wrong arguments for ?{self.message.name}: {error}.")
            return
        try:
            self._answer(entry.handler(self, *arguments))
        except Exception as error:
            self._fail(error)

    def _answer(self, result: Any) -> None:
        """Send what a handler returned."""
        if result is None:
            return
        if inspect.isawaitable(result):
            self.device._spawn(self._answer_later(result))
        elif isinstance(result, Message):
            self._send(result)
        else:
            self.reply(*(result if isinstance(result, (tuple, list)) else [result]))

    async def _answer_later(self, awaitable: Awaitable[Any]) -> None:
        try:
            self._answer(await awaitable)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, FailReply):
            logger.error("The handler of ?%s failed.", self.message.name, exc_info=error)
        self.reply("fail", str(error) or type(error).__name__)

    def _make(self, mtype: int, args: Sequence[Any]) -> Message:
        echo = self.connection.protocol.message_ids or self.device.echo_ids
        return Message(mtype, self.message.name, args, mid=self.message.mid if echo else None)

    def _send(self, message: Message) -> None:
        self.device._in_loop(self._send_in_loop, message)

    def _send_in_loop(self, message: Message) -> None:
        steps: list[Step] = [message]
        for point, mtype in (("inform", Message.INFORM), ("reply", Message.REPLY)):
            for hook in self.device._hooks(point, self.message.name):
                steps = _replace_messages(steps, mtype, functools.partial(hook, self))
        self.connection.play(steps)


class ClientConnection:
    """One client of the device, and all that belongs to its connection.

    Its methods must be called in the loop's thread.

    Attributes
    ----------
    address : str
        The client's address, ``host:port``.
    protocol : ProtocolFlags
        What this connection speaks.
    samplings : dict
        The samplings that this client has set, by sensor name.
    """

    def __init__(self, device: SimulatedDevice, sock: socket.socket, address: str) -> None:
        self.address = address
        self.protocol = device.protocol
        self.samplings: dict[str, _Sampling] = {}
        self._device = device
        self._socket = sock
        self._stream = IOStream(sock, max_write_buffer_size=device.max_write_buffer_size)
        self._parser = MessageParser()
        self._timers: set[asyncio.TimerHandle] = set()
        self._may_read = locks.Event()
        # What waits to be written, a piece in each turn of the loop.
        self._queue: collections.deque[Union[bytes, End]] = collections.deque()
        self._is_pumping = False
        self._unsent = bytearray()
        self._is_muted = False
        # The end is queued up: what the client says no longer matters. Then it
        # has come: nothing is written any more.
        self._is_deaf = False
        self._is_ending = False

    def start(self, *, paused: bool) -> None:
        """Greet the client and read what it says."""
        self._stream.set_nodelay(True)
        # A paused connection must notice its end, too.
        self._stream.set_close_callback(self._may_read.set)
        self.set_paused(paused)
        for hook in self._device._hooks("connect"):
            hook(self)
        steps: list[Step] = [*self._greeting(self.protocol.major)]
        for hook in self._device._hooks("greeting"):
            steps = hook(self, steps)
        self.play(steps)
        self._device._spawn(self._read())

    def play(self, steps: Sequence[Step]) -> None:
        """Take steps one after another; a pause delays only those behind it."""
        if self._is_ending:
            return
        for position, step in enumerate(steps):
            if isinstance(step, Pause):
                self.call_later(step.seconds, self.play, steps[position + 1 :])
                return
            self._put(step)

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._queue_up([data])

    def log(self, level: str, text: str, logger_name: Optional[str] = None) -> None:
        """Send a ``#log`` inform, if the device's level permits."""
        if LOG_LEVELS.index(level) < LOG_LEVELS.index(self._device.log_level):
            return
        timestamp = format_timestamp(time.time(), self.protocol.major)
        source = logger_name or self._device.name
        self.play([Message.inform("log", level, timestamp, source, text)])

    def end(self, reason: Optional[str]) -> None:
        """Close the connection after all that was said, with or without ``#disconnect``."""
        if reason is not None:
            self.play([Message.inform("disconnect", reason)])
        self._put(End.CLOSE)

    def reset(self) -> None:
        """Break the connection: RST instead of FIN, and what was not sent is lost."""
        if not self._stream.closed():
            linger = struct.pack("ii", 1, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._is_ending = True
        self._stream.close()

    def set_paused(self, paused: bool) -> None:
        """Read no more, or again."""
        if paused and not self._is_ending:
            self._may_read.clear()
        else:
            self._may_read.set()

    def call_later(self, delay: float, function: Callable[..., None], *args: Any) -> Any:
        """Call a function later, if the connection still exists; return the timer."""

        def call() -> None:
            self._timers.discard(timer)
            function(*args)

        timer = asyncio.get_running_loop().call_later(delay, call)
        self._timers.add(timer)
        return timer

    def cancel(self, timer: asyncio.TimerHandle) -> None:
        """Forget a timer of `call_later`."""
        timer.cancel()
        self._timers.discard(timer)

    def sample(self, sensor: Sensor, arguments: Sequence[bytes]) -> None:
        """Set the sampling of a sensor; version 5 gets the reading at once."""
        strategy = parse_strategy(sensor, arguments, self.protocol)
        self.unsample(sensor.name)
        if strategy is not None:
            self.samplings[sensor.name] = _Sampling(self, sensor, strategy, arguments)

    def unsample(self, name: str) -> None:
        """End the sampling of a sensor, if there is one."""
        sampling = self.samplings.pop(name, None)
        if sampling is not None:
            sampling.stop()

    def send_status(self, arguments: list[bytes]) -> None:
        """Send ``#sensor-status``."""
        steps: list[Step] = [Message.inform("sensor-status", *arguments)]
        for hook in self._device._hooks("inform", "sensor-status"):
            steps = _replace_messages(steps, Message.INFORM, functools.partial(hook, None))
        self.play(steps)

    # ---- what faults use ----

    def hold(self, data: bytes, seconds: float) -> None:
        """Keep data back and write it in one piece with what follows."""
        self._queue.append(data)
        self._pump_later(seconds, together=True)

    def mute(self) -> None:
        """Say nothing from now on."""
        self._is_muted = True

    def other_greeting(self) -> list[Message]:
        """Return the greeting of the other protocol version."""
        return self._greeting(4 if self.protocol.major >= VERSION_CONNECT_KATCP_MAJOR else 5)

    # ---- reading ----

    async def _read(self) -> None:
        """Handle what the client sends until the connection ends; the reader's whole life."""
        splitter = LineSplitter()
        try:
            while True:
                data = await self._stream.read_bytes(_READ_SIZE, partial=True)
                await self._may_read.wait()
                # A deaf one reads on: it is how the end is seen.
                if not self._is_deaf:
                    self._on_data(splitter, data)
        except StreamClosedError:
            pass
        finally:
            self._on_end()

    def _on_data(self, splitter: LineSplitter, data: bytes) -> None:
        for line in splitter.feed(data, MAX_LINE_SIZE):
            self._on_line(line)
        if splitter.overflowed:
            self.log("error", f"A line is longer than {MAX_LINE_SIZE} bytes.")
            self.end("Line too long.")

    def _on_line(self, line: bytes) -> None:
        if self._is_deaf:
            return
        try:
            message = self._parser.parse(line)
        except KatcpSyntaxError as error:
            self.log("error", f"Bad line: {error}")
        else:
            self._device._on_message(self, message)

    def _on_end(self) -> None:
        """The connection is over: nothing of it is left."""
        self._is_ending = True
        self._stream.close()
        for sampling in self.samplings.values():
            sampling.stop()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._device._on_client_ended(self)

    # ---- writing ----

    def _greeting(self, major: int) -> list[Message]:
        name = self._device.name
        if major < VERSION_CONNECT_KATCP_MAJOR:
            return [
                Message.inform("version", f"{name}-1.0"),
                Message.inform("build-state", f"{name}-{__version__}"),
            ]
        return [
            Message.inform("version-connect", *version) for version in _versions(self._device, self)
        ]

    def _put(self, step: Union[Message, bytes, End]) -> None:
        """Queue a step up after the faults have had their way with its bytes."""
        if isinstance(step, End):
            self._is_deaf = True
            self._queue_up([step])
            return
        pieces = [bytes(step) + b"\n" if isinstance(step, Message) else step]
        for hook in self._device._hooks("output"):
            pieces = [part for piece in pieces for part in hook(self, piece)]
        self._queue_up(pieces)

    def _queue_up(self, pieces: Sequence[Union[bytes, End]]) -> None:
        """Write at once what is in one piece; the rest a piece in each turn of the loop."""
        if self._is_ending:
            return
        if len(pieces) == 1 and not self._is_pumping:
            self._write(pieces[0])
            return
        self._queue.extend(pieces)
        self._pump_later()

    def _pump_later(self, delay: float = 0.0, *, together: bool = False) -> None:
        if self._queue and not self._is_pumping:
            self._is_pumping = True
            self.call_later(delay, self._pump, together)

    def _pump(self, together: bool) -> None:
        """Write the first piece of the queue, or all of it in one."""
        self._is_pumping = False
        piece = self._queue.popleft()
        while together and self._queue and isinstance(piece, bytes):
            following = self._queue[0]
            if not isinstance(following, bytes):
                break
            piece += following
            self._queue.popleft()
        self._write(piece)
        self._pump_later()

    def _write(self, piece: Union[bytes, End]) -> None:
        if self._is_ending:
            return
        if piece is End.RESET:
            self.reset()
        elif piece is End.CLOSE:
            self._is_ending = True
            self._device._spawn(self._close_when_written())
        elif isinstance(piece, bytes) and not self._is_muted:
            self._write_bytes(piece)

    def _write_bytes(self, data: bytes) -> None:
        # What is said in one turn of the loop costs one call of the system.
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent += data
        if len(self._unsent) >= _FLUSH_SIZE:
            self._flush()

    def _flush(self) -> None:
        """Hand over to the stream what was written; a client that never reads is dropped."""
        data, self._unsent = bytes(self._unsent), bytearray()
        if not data:
            return
        try:
            self._stream.write(data)
        except StreamClosedError:
            # The reader sees it, too, and ends the connection.
            logger.debug("%s has gone: %d bytes were not sent.", self.address, len(data))
        except StreamBufferFullError:
            logger.warning(
                "%s does not read: it is dropped with more than %d bytes unread.",
                self.address,
                self._device.max_write_buffer_size,
            )
            self.reset()

    async def _close_when_written(self) -> None:
        """Close the connection when the client has read all, but do not wait for ever."""
        self._flush()
        try:
            written = self._stream.write(b"")
            await gen.with_timeout(
                datetime.timedelta(seconds=CLOSE_TIMEOUT), written, quiet_exceptions=IOError
            )
        except (StreamClosedError, TornadoTimeoutError) as error:
            logger.debug("%s did not read all before the end: %s", self.address, error)
        finally:
            self._stream.close()


class _Sampling:
    """One sensor sampled for one client."""

    def __init__(
        self,
        client: ClientConnection,
        sensor: Sensor,
        strategy: Strategy,
        arguments: Sequence[bytes],
    ) -> None:
        self.arguments = arguments
        self._client = client
        self._sensor = sensor
        self._strategy = strategy
        self._timer: Optional[asyncio.TimerHandle] = None
        reading = sensor.read(time.time())
        strategy.start(time.monotonic(), reading)
        # Version 4 does not promise the reading at once.
        if client.protocol.major >= SEC_TS_KATCP_MAJOR:
            self._send(reading)
        self._schedule()

    def poll(self) -> None:
        """Send the reading, if it is time to do so."""
        reading = self._sensor.read(time.time())
        if self._strategy.poll(time.monotonic(), reading):
            self._send(reading)
        self._schedule()

    def stop(self) -> None:
        """Send nothing any more."""
        if self._timer is not None:
            self._client.cancel(self._timer)
            self._timer = None

    def _send(self, reading: Reading) -> None:
        major = self._client.protocol.major
        self._client.send_status(self._sensor.status_arguments(reading, major))

    def _schedule(self) -> None:
        """Look again at the strategy's deadline, or when the sensor may have changed."""
        self.stop()
        delay = self._strategy.deadline - time.monotonic()
        if self._sensor.source is not None:
            delay = min(delay, self._sensor.interval)
        if delay < math.inf:
            self._timer = self._client.call_later(max(delay, 0.0), self.poll)


class _Memory:
    """Registers one behind the other in one piece of memory, as on an FPGA board."""

    def __init__(self, registers: Mapping[str, Union[int, bytes]]) -> None:
        self._bytes = bytearray()
        self.registers: dict[str, range] = {}
        for name, content in registers.items():
            start = len(self._bytes)
            self._bytes += bytes(content)
            self.registers[name] = range(start, len(self._bytes))

    def content(self, register: str) -> bytes:
        """Return all of a register."""
        place = self.registers[register]
        return bytes(self._bytes[place.start : place.stop])

    def read(self, register: bytes, offset: int, count: int) -> bytes:
        """Return a part of a register, or raise FailReply."""
        place = self._locate(register, offset, count)
        return bytes(self._bytes[place])

    def write(self, register: bytes, offset: int, data: bytes) -> None:
        """Change a part of a register, or raise FailReply."""
        self._bytes[self._locate(register, offset, len(data))] = data

    def _locate(self, register: bytes, offset: int, count: int) -> slice:
        place = self._place(register)
        if offset < 0 or count < 0 or offset + count > len(place):
            raise FailReply(
                f"{count} bytes at {offset} are outside of register "
                f"'{_text(register)}', which has {len(place)} bytes."
            )
        start = place.start + offset
        return slice(start, start + count)

    def _place(self, register: bytes) -> range:
        """Return where a register is; a number is an address in the whole memory."""
        place = self.registers.get(_text(register))
        if place is not None:
            return place
        if not _INTEGER_RE.fullmatch(register):
            raise FailReply(f"Unknown register '{_text(register)}'.")
        return range(_parse_integer(register), len(self._bytes))


# ---- the standard requests ----

_STANDARD_REQUESTS: dict[str, _Entry] = {}


def _make_entry(
    function: Handler,
    name: Optional[str] = None,
    *,
    timeout_hint: float = 0.0,
    is_available: Callable[[ProtocolFlags], bool] = lambda protocol: True,
) -> _Entry:
    """Return the entry of a request handler, named after the function if no name is given."""
    name = name or function.__name__.replace("_", "-")
    # Whoever misnames a request hears of it now.
    Message.request(name)
    return _Entry(
        name,
        function,
        inspect.signature(function),
        inspect.getdoc(function) or "",
        timeout_hint,
        is_available,
    )


def _standard(
    name: str,
    is_available: Callable[[ProtocolFlags], bool] = lambda protocol: True,
    timeout_hint: float = 0.0,
) -> Callable[[Handler], Handler]:
    def enter(function: Handler) -> Handler:
        _STANDARD_REQUESTS[name] = _make_entry(
            function, name, is_available=is_available, timeout_hint=timeout_hint
        )
        return function

    return enter


def _is_v5(protocol: ProtocolFlags) -> bool:
    return protocol.major >= VERSION_CONNECT_KATCP_MAJOR


def _is_multi_client(protocol: ProtocolFlags) -> bool:
    return protocol.multi_client or not _is_v5(protocol)


@_standard("help")
def _help(request: DeviceRequest, name: Optional[bytes] = None) -> Any:
    """Describe one request, or all (?help [name])."""
    entries = request.available()
    if name is not None:
        entries = [entry for entry in entries if entry.name == _text(name)]
        if not entries:
            raise FailReply(f"Unknown request '{_text(name)}'.")
    for entry in entries:
        request.inform(entry.name, entry.help)
    return request.counted()


@_standard("halt")
def _halt(request: DeviceRequest) -> None:
    """Stop the device (?halt)."""
    request.reply("ok")
    request.device._begin_stop("The device is halting.")


@_standard("restart")
def _restart(request: DeviceRequest) -> None:
    """Restart the device: all connections are closed (?restart)."""
    request.reply("ok")
    request.device._begin_restart()


@_standard("watchdog")
def _watchdog(request: DeviceRequest) -> Any:
    """Tell that the device is alive (?watchdog)."""
    return "ok"


@_standard("version-list", _is_v5)
def _version_list(request: DeviceRequest) -> Any:
    """List the versions of protocol, library and device (?version-list)."""
    for version in _versions(request.device, request.connection):
        request.inform(*version)
    return request.counted()


@_standard("log-level")
def _log_level(request: DeviceRequest, level: Optional[bytes] = None) -> Any:
    """Query or set the level of #log informs (?log-level [level])."""
    if level is not None:
        if _text(level) not in LOG_LEVELS:
            raise FailReply(f"Unknown log level '{_text(level)}'.")
        request.device.log_level = _text(level)
    return "ok", request.device.log_level


@_standard("sensor-list")
def _sensor_list(request: DeviceRequest, name: bytes = b"//") -> Any:
    """Describe sensors (?sensor-list [name or /regex/])."""
    for sensor in request.device._find_sensors(name):
        request.inform(*sensor.list_arguments(request.connection.protocol.major))
    return request.counted()


@_standard("sensor-value")
def _sensor_value(request: DeviceRequest, name: bytes = b"//") -> Any:
    """Tell the readings of sensors (?sensor-value [name or /regex/])."""
    for sensor in request.device._find_sensors(name):
        reading = sensor.read(time.time())
        request.inform(*sensor.status_arguments(reading, request.connection.protocol.major))
    return request.counted()


@_standard("sensor-sampling")
def _sensor_sampling(request: DeviceRequest, name: bytes, *strategy: bytes) -> Any:
    """Query or set the sampling of a sensor (?sensor-sampling name [strategy [params]])."""
    client = request.connection
    names = [name]
    if strategy and client.protocol.bulk_set_sensor_sampling:
        names = name.split(b",")
    sensors = [request.device._find_sensor(one) for one in names]
    if not strategy:
        sampling = client.samplings.get(sensors[0].name)
        return ("ok", name, *(sampling.arguments if sampling else [b"none"]))
    try:
        # All or nothing: whatever is wrong is found before anything is set.
        for sensor in sensors:
            parse_strategy(sensor, strategy, client.protocol)
    except ValueError as error:
        raise FailReply(str(error)) from error
    for sensor in sensors:
        client.sample(sensor, strategy)
    return ("ok", name, *strategy)


@_standard("client-list", _is_multi_client)
def _client_list(request: DeviceRequest) -> Any:
    """List the addresses of the connected clients (?client-list)."""
    for client in request.device.clients:
        request.inform(client.address)
    return request.counted()


@_standard("request-timeout-hint", lambda protocol: protocol.request_timeout_hints)
def _request_timeout_hint(request: DeviceRequest, name: Optional[bytes] = None) -> Any:
    """Tell how long requests may take (?request-timeout-hint [name])."""
    entries = request.available()
    if name is None:
        entries = [entry for entry in entries if entry.timeout_hint]
    else:
        entries = [entry for entry in entries if entry.name == _text(name)]
        if not entries:
            raise FailReply(f"Unknown request '{_text(name)}'.")
    for entry in entries:
        request.inform(entry.name, float(entry.timeout_hint))
    return request.counted()


@_standard("listdev")
def _listdev(request: DeviceRequest, size: Optional[bytes] = None) -> Any:
    """List the registers of the memory (?listdev [size])."""
    for name, place in request.device._memory.registers.items():
        request.inform(name, *([] if size is None else [len(place)]))
    return request.counted()


@_standard("read")
def _read(
    request: DeviceRequest, register: bytes, offset: bytes = b"0", count: bytes = b"4"
) -> Any:
    """Read bytes from a register (?read register-or-address [offset [count]])."""
    memory = request.device._memory
    return "ok", memory.read(register, _parse_integer(offset), _parse_integer(count))


@_standard("write")
def _write(request: DeviceRequest, register: bytes, offset: bytes, data: bytes) -> Any:
    """Write bytes to a register (?write register-or-address offset bytes)."""
    request.device._memory.write(register, _parse_integer(offset), data)
    return "ok"


@_standard("wordread")
def _wordread(
    request: DeviceRequest, register: bytes, offset: bytes = b"0", count: bytes = b"1"
) -> Any:
    """Read words of 32 bits from a register (?wordread register [word-offset [count]])."""
    start, size = 4 * _parse_integer(offset), 4 * _parse_integer(count)
    data = request.device._memory.read(register, start, size)
    return ("ok", *(f"0x{word:08x}" for (word,) in struct.iter_unpack(">I", data)))


@_standard("wordwrite")
def _wordwrite(request: DeviceRequest, register: bytes, offset: bytes, *words: bytes) -> Any:
    """Write words of 32 bits to a register (?wordwrite register word-offset word ...)."""
    data = b"".join(struct.pack(">I", _parse_integer(word) & 0xFFFFFFFF) for word in words)
    request.device._memory.write(register, 4 * _parse_integer(offset), data)
    return "ok"


def _versions(device: SimulatedDevice, client: ClientConnection) -> list[tuple[str, ...]]:
    """Return what the greeting of version 5 and ?version-list tell."""
    return [
        ("katcp-protocol", str(client.protocol)),
        ("katcp-library", f"katcp-simdevice-{__version__}"),
        ("katcp-device", f"{device.name}-1.0", f"{device.name}-{__version__}"),
    ]


def _replace_messages(
    steps: Sequence[Step], mtype: int, hook: Callable[[Message], list[Step]]
) -> list[Step]:
    """Return the steps, each message of a type replaced by what *hook* makes of it."""
    replaced: list[Step] = []
    for step in steps:
        if isinstance(step, Message) and step.mtype == mtype:
            replaced += hook(step)
        else:
            replaced.append(step)
    return replaced


def _parse_protocol(text: str) -> ProtocolFlags:
    match = _PROTOCOL_RE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no protocol: use a text like '5.1-MIB' or '4'.")
    return ProtocolFlags(int(match[1]), int(match[2] or 0), match[3])


def _parse_integer(text: bytes) -> int:
    """Return a decimal or hexadecimal number, or raise FailReply."""
    if not _INTEGER_RE.fullmatch(text):
        raise FailReply(f"'{_text(text)}' is not a number.")
    return int(text, 16 if text[:2].lower() == b"0x" else 10)


def _format_peer(peer: Sequence[Any]) -> str:
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _asyncio_loop(ioloop: IOLoop) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = ioloop.asyncio_loop  # type: ignore[attr-defined]
    return loop


def _run_in(ioloop: IOLoop, function: Callable[..., Any], *args: Any, timeout: float = 5.0) -> Any:
    """Call a function in a loop, also in one that is run only now and then."""
    if _asyncio_loop(ioloop).is_running():
        return call_in_loop(ioloop, function, *args, timeout=timeout)

    async def call() -> Any:
        result = function(*args)
        return await result if inspect.isawaitable(result) else result

    return ioloop.run_sync(call, timeout)


def _is_inside(ioloop: IOLoop) -> bool:
    """Return whether the calling thread is the one that runs the loop."""
    try:
        return asyncio.get_running_loop() is _asyncio_loop(ioloop)
    except RuntimeError:
        return False


# ---- as a process ----


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run a simulated device until SIGINT, SIGTERM or ``?halt``.

    One line with its address is printed when it listens.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line. Default: that of the process.

    Returns
    -------
    int
        The exit status.
    """
    options = _make_argument_parser().parse_args(arguments)
    if options.list_faults:
        for name, description in list_faults().items():
            print(f"{name:<28} {description}")
        return 0
    try:
        device = SimulatedDevice(
            options.host,
            options.port,
            protocol=options.protocol,
            name=options.name,
            faults=options.fault,
            log_level=options.log_level,
        )
    except ValueError as error:
        print(f"katcp.simdevice: {error}", file=sys.stderr)
        return 2
    try:
        asyncio.run(_serve(device))
    except OSError as error:
        print(f"katcp.simdevice: cannot listen: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(device: SimulatedDevice) -> None:
    device.start_in(IOLoop.current())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, device.stop)
    host, port = device.address
    print(f"{device.name} listens on {host}:{port}", flush=True)
    await device.until_stopped()


def _make_argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m katcp.simdevice", description="Run a simulated KATCP device."
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="the port (any free one)")
    parser.add_argument(
        "--protocol", default="5.1-MIB", help="version and flags, like 4 or 5.1-MIBT (%(default)s)"
    )
    parser.add_argument("--name", default="simulated-device", help="its name (%(default)s)")
    parser.add_argument(
        "--log-level", default="warn", choices=LOG_LEVELS, help="of #log informs (%(default)s)"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[:REQUEST][=VALUE]",
        help="something to do wrong; may be given several times",
    )
    parser.add_argument(
        "--list-faults", action="store_true", help="tell what can be done wrong, and exit"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
