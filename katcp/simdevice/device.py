"""A simulated device: a real KATCP server on real sockets, for tests and examples.

Strategy
--------
`SimulatedDevice` is what users handle: it owns the sensors, the memory, the
table of requests and the log level, listens, and may be called from any
thread. Every connected client has one `ClientConnection` (`katcp.simdevice.connection`),
which reads lines, samples sensors and writes. Every request that comes in is
one `DeviceRequest` (`katcp.simdevice.requests`), which is what request handlers get.

The way in: a connection hands its messages to the device, which notes them and
finds the handler. The way out: a handler's answer becomes a message, the faults
(`katcp.simdevice.faults`) turn it into steps, and the connection plays them.

Rules
-----
- All state belongs to the thread of the loop. Public methods go there by
  `_in_loop`. Only the list of received messages is shared, under a lock, so
  that other threads can wait for it.
- Whatever may end somebody's waiting calls `_notify`.
- The rooms below know the device only by its public side and by the few private
  methods that their heads name.

As a process: ``python -m katcp.simdevice --port 7147 --protocol 5.1-MIB``.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import functools
import inspect
import logging
import re
import signal
import socket
import sys
import threading
import time
from typing import Any, Awaitable, Callable, Iterable, Mapping, Optional, Sequence, Union

from tornado.ioloop import IOLoop
from tornado.netutil import add_accept_handler

from .._runtime.portal import call_in_loop
from .._wire.flags import INTERFACE_CHANGED_KATCP_MAJOR, ProtocolFlags
from .._wire.message import Message
from .._wire.text import shorten
from ..errors import KatcpThreadError, KatcpUsageError
from ..ioloop_manager import IOLoopManager
from .connection import (
    LOG_LEVELS,
    MAX_WRITE_BUFFER_SIZE,
    ClientConnection,
    is_multi_client,
)
from .faults import Fault, find_hooks, list_faults
from .requests import (
    DEFAULT_MEMORY,
    STANDARD_REQUESTS,
    DeviceRequest,
    Entry,
    Handler,
    Memory,
    make_entry,
)
from .sensors import Sensor, default_sensors

logger = logging.getLogger("katcp.simdevice")

# So many received messages are remembered for tests; older ones are forgotten.
MAX_RECEIVED = 100_000
# So long a device is away when it was asked to restart.
RESTART_DELAY = 0.05
# So many of the last requests are shown when another was expected.
_SHOWN_REQUESTS = 20

_PROTOCOL_RE = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:-(.*))?", re.DOTALL)


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
        `default_sensors`. ``()`` for none.
    memory : mapping, optional
        Register names, each with its size or its first content, for ``?read``
        and ``?write``. Default: `DEFAULT_MEMORY`.
    faults : iterable of Fault or str, optional
        What the device does wrong, see `list_faults`.
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
        self._memory = Memory(DEFAULT_MEMORY if memory is None else memory)
        self._sensors: dict[str, Sensor] = {}
        for sensor in default_sensors(time.time()) if sensors is None else sensors:
            self._sensors[sensor.name] = sensor
        self._requests: dict[str, Entry] = dict(STANDARD_REQUESTS)
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

    def __repr__(self) -> str:
        state = f"{self.client_count} connected" if self.running else "stopped"
        return f"<SimulatedDevice {self._host}:{self._port} {self.protocol} {state}>"

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
        entry = make_entry(function, name, timeout_hint=timeout_hint)
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

    def assert_asked(
        self, name: str, *args: Any, count: Optional[int] = None, timeout: float = 0.0
    ) -> list[Message]:
        """Fail if a request has not come; the error shows what has.

        Parameters
        ----------
        name : str
            The name of the request.
        *args
            Its arguments, all of them. Default: any.
        count : int, optional
            How many times exactly; 0 if it must not have come. Default: once
            or more.
        timeout : float in seconds, optional
            How long to wait for it. Default: it must be there already, as it
            is when the program under test has had its reply.

        Returns
        -------
        list of Message
            The requests that came with this name and these arguments.

        Raises
        ------
        AssertionError
            If it has not come, or not so many times.
        """
        # pytest shows the line of the test then, and not this function.
        __tracebackhide__ = True
        # It makes bytes of the arguments as a client does.
        expected = Message.request(name, *args)

        def find() -> list[Message]:
            requests = self.received_requests(name)
            return [r for r in requests if not args or r.arguments == expected.arguments]

        if timeout > 0:
            with contextlib.suppress(TimeoutError):
                self.wait_until(lambda: len(find()) >= (count or 1), timeout)
        found = find()
        if found if count is None else len(found) == count:
            return found
        verdict = "not asked" if count is None else f"asked {len(found)} x, not {count} x"
        raise AssertionError(
            f"{shorten(str(expected), 100)} was {verdict}; {_describe_requests(self.received)}"
        )

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
        if is_multi_client(client.protocol):
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
        for hook in find_hooks(self._faults, "request", request.message.name):
            steps = hook(request)
            if steps is not None:
                request.connection.play(steps)
                return
        entry = self._requests.get(request.message.name)
        if entry is None or not entry.is_available(request.connection.protocol):
            request.reply("invalid", f"Unknown request '{request.message.name}'.")
        else:
            request.run(entry)

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

    def _unsample(self, name: str) -> None:
        for client in self.clients:
            client.unsample(name)

    def _set_sensor(
        self, name: str, value: Any, status: Optional[str], timestamp: Optional[float]
    ) -> None:
        now = time.time() if timestamp is None else timestamp
        self._sensors[name].set(value, status, timestamp=now)

    def _add_request(self, entry: Entry) -> None:
        change = "modified" if entry.name in self._requests else "added"
        self._requests[entry.name] = entry
        self._interface_changed("request", entry.name, change)

    def _remove_request(self, name: str) -> None:
        del self._requests[name]
        self._interface_changed("request", name, "removed")


def _parse_protocol(text: str) -> ProtocolFlags:
    match = _PROTOCOL_RE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no protocol: use a text like '5.1-MIB' or '4'.")
    return ProtocolFlags(int(match[1]), int(match[2] or 0), match[3])


def _describe_requests(messages: Iterable[Message]) -> str:
    """Return what was asked, for a person: one line for each request, without its id."""
    lines = [
        f"\n    {shorten(str(message.copy()), 100)}"
        for message in messages
        if message.mtype == Message.REQUEST
    ]
    if not lines:
        return "nothing was asked."
    last = lines[-_SHOWN_REQUESTS:]
    which = "asked were" if len(last) == len(lines) else f"the last of {len(lines)} requests were"
    return f"{which}:{''.join(last)}"


def _format_peer(peer: Sequence[Any]) -> str:
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
    parser = argparse.ArgumentParser(
        prog="python -m katcp.simdevice", description="Run a simulated KATCP device."
    )
    add_arguments(parser)
    try:
        run(parser.parse_args(arguments))
    except ValueError as error:
        print(f"katcp.simdevice: {error}", file=sys.stderr)
        return 2
    except CannotListen as error:
        print(f"katcp.simdevice: cannot listen: {error}", file=sys.stderr)
        return 1
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line of a simulated device has.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser whose result `run` will be given.
    """
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="the port (any free one)")
    add_behaviour_arguments(parser)


def add_behaviour_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line of a simulated device has, but for where it listens.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser whose result `run` will be given, with ``host`` and ``port``.
    """
    parser.add_argument(
        "--protocol",
        default="5.1-MIB",
        help="version, 4 or 5, and flags, like 4 or 5.1-MIBT (%(default)s)",
    )
    parser.add_argument("--name", default="simulated-device", help="its name (%(default)s)")
    parser.add_argument(
        "--log-level",
        default="warn",
        choices=LOG_LEVELS,
        help="level of #log informs (%(default)s)",
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[:REQUEST][=VALUE]",
        help="something to do wrong; may be given several times",
    )
    parser.add_argument("--list-faults", action="store_true", help="list the faults, and exit")


def run(options: argparse.Namespace) -> None:
    """Do what a command line of `add_arguments` asks for.

    Parameters
    ----------
    options : argparse.Namespace
        The parsed command line.

    Raises
    ------
    ValueError
        If an option is wrong.
    CannotListen
        If the device cannot listen.
    """
    if options.list_faults:
        for name, description in list_faults().items():
            print(f"{name:<28} {description}")
        return
    if _parse_protocol(options.protocol).major not in (4, 5):
        raise ValueError(f"{options.protocol!r} is not a version of KATCP: 4 and 5 are.")
    device = SimulatedDevice(
        options.host,
        options.port,
        protocol=options.protocol,
        name=options.name,
        faults=options.fault,
        log_level=options.log_level,
    )
    asyncio.run(_serve(device))


class CannotListen(OSError):
    """The device cannot listen where it should."""


async def _serve(device: SimulatedDevice) -> None:
    try:
        device.start_in(IOLoop.current())
    except OSError as error:
        raise CannotListen(error.errno, error.strerror or str(error)) from error
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, device.stop)
    host, port = device.address
    print(f"{device.name} listens on {host}:{port}", flush=True)
    await device.until_stopped()
