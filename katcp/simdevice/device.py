"""`SimulatedDevice`: the public interface of a simulated device.

It holds the settings, and delegates the work to its `DeviceServer` (`katcp.simdevice.server`).
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
from typing import Any, Callable, Iterable, Mapping, Optional, Union

from tornado.ioloop import IOLoop

from .._wire.flags import ProtocolFlags
from .._wire.message import Message
from .._wire.text import shorten
from .connection import LOG_LEVELS, MAX_WRITE_BUFFER_SIZE, ClientConnection
from .faults import Fault
from .memory import DEFAULT_MEMORY, Memory
from .requests import Handler, make_entry
from .sensors import Sensor, default_sensors
from .server import DeviceServer

# How many of the last requests are shown when another was expected.
_SHOWN_REQUESTS = 20

_PROTOCOL_RE = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:-(.*))?", re.DOTALL)


class SimulatedDevice:
    """A KATCP device on a TCP port, for testing programs that talk to devices.

    Parameters
    ----------
    host : str, optional
        The address on which to listen.
    port : int, optional
        The port. Default: any free one; see `address`. A device keeps its port when it is stopped
        and started again.
    protocol : str or ProtocolFlags, optional
        Version and flags: ``"4"``, ``"5.0"``, ``"5.0-IM"``, ``"5.1-MIBT"``, ... Without ``M`` a new
        client evicts the previous one; version 4 serves several clients.
    name : str, optional
        The name of the device in its greeting.
    sensors : iterable of Sensor, optional
        Default: one example of each type, see `default_sensors`. ``()`` for none.
    memory : mapping, optional
        Register names, each with its size or its initial content, for ``?read`` and ``?write``.
        Default: `DEFAULT_MEMORY`.
    faults : iterable of Fault or str, optional
        The faults of the device, see `list_faults`.
    echo_ids : bool, optional
        Whether ids are echoed although the protocol has none. Servers of katcp 0.9.3 do that; those
        in C do not.
    log_level : str, optional
        The level of ``#log`` informs: one of `LOG_LEVELS`.
    max_write_buffer_size : int, optional
        A client that leaves more bytes than this unread is dropped.
    receive_buffer_size : int, optional
        The size of the kernel's receive buffers in bytes; if it is small, a client's writes pile up
        soon after `pause_reading`.

    Notes
    -----
    All methods and attributes may be used from any thread. ``wait_x`` blocks, raises `TimeoutError`
    after *timeout* seconds, and raises `KatcpThreadError` in the loop's thread; ``until_x`` is
    awaited there.

    Examples
    --------
    In its own thread:

    >>> with SimulatedDevice(protocol="5.1-MIB") as device:
    ...     @device.request
    ...     def add(request, a, b):
    ...         "Add two numbers."
    ...         return "ok", int(a) + int(b)
    ...     host, port = device.address

    In a running loop::

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
        self._server = DeviceServer(
            self,
            (host, port),
            default_sensors(time.time()) if sensors is None else sensors,
            Memory(DEFAULT_MEMORY if memory is None else memory),
            receive_buffer_size,
        )

    # ---- running ----

    def start(self) -> None:
        """Start the device in its own loop and thread; it listens on return.

        Raises
        ------
        KatcpUsageError
            If it is already running.
        OSError
            If it cannot listen on its port.
        """
        self._server.start()

    def start_in(self, ioloop: IOLoop) -> None:
        """Start the device in a given loop; otherwise like `start`.

        Parameters
        ----------
        ioloop : tornado.ioloop.IOLoop
            The loop; it may run in this or another thread, or not yet.
        """
        self._server.start_in(ioloop)

    def stop(self, timeout: float = 5.0, *, orderly: bool = True) -> None:
        """Stop the device; it may be started again.

        In the loop's thread this returns at once, and `until_stopped` waits; in other threads it
        returns when everything has ended. Does nothing if the device does not run.

        Parameters
        ----------
        timeout : float in seconds, optional
            How long to wait.
        orderly : bool, optional
            Whether ``#disconnect`` is sent to the clients before their connections are
            closed.
        """
        self._server.stop("The device is stopping." if orderly else None, timeout)

    async def until_stopped(self) -> None:
        """Wait in the loop until the device has stopped, by `stop` or ``?halt``."""
        await self.until(lambda: not self.running)

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
        host, port = self.address
        state = f"{self.client_count} connected" if self.running else "stopped"
        return f"<SimulatedDevice {host}:{port} {self.protocol} {state}>"

    @property
    def running(self) -> bool:
        """Whether the device was started and has not stopped."""
        return self._server.is_running

    @property
    def listening(self) -> bool:
        """Whether clients can connect now; False during a ``?restart``."""
        return self._server.is_listening

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; the port is known after the first start."""
        return self._server.address

    # ---- settings ----

    @property
    def protocol(self) -> ProtocolFlags:
        """The protocol of new connections; may also be set to text."""
        return self._protocol

    @protocol.setter
    def protocol(self, protocol: Union[str, ProtocolFlags]) -> None:
        flags = protocol if isinstance(protocol, ProtocolFlags) else _parse_protocol(protocol)
        self._protocol = flags

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults from now on; may also be set to their texts."""
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
        """The sensors by name, as a copy; a sensor may be set from any thread."""
        return dict(self._server.sensors)

    def add_sensor(self, sensor: Sensor) -> None:
        """Add a sensor, or replace the one with its name.

        Connected clients of protocol 5 get ``#interface-changed``, as for the methods below.

        Parameters
        ----------
        sensor : Sensor
            The sensor.
        """
        self._server.in_loop(self._server.add_sensor, sensor)

    def remove_sensor(self, name: str) -> None:
        """Remove a sensor by name, and all its samplings."""
        self._server.in_loop(self._server.remove_sensor, name)

    def set_sensor(
        self,
        name: str,
        value: Any,
        status: Optional[str] = None,
        timestamp: Optional[float] = None,
    ) -> None:
        """Set the reading of a sensor by name; see `Sensor.set_value`."""
        self._server.sensors[name].set_value(value, status, timestamp)

    def request(
        self,
        function: Union[Handler, str, None] = None,
        *,
        name: Optional[str] = None,
        timeout_hint: float = 0.0,
    ) -> Any:
        """Decorate a function that answers a request; see `add_request`.

        Use it as ``@request``, or as ``@request(name)`` with the arguments of `add_request`.
        """
        if callable(function):
            self.add_request(function, name, timeout_hint=timeout_hint)
            return function
        return functools.partial(self.request, name=function or name, timeout_hint=timeout_hint)

    def add_request(
        self, function: Handler, name: Optional[str] = None, *, timeout_hint: float = 0.0
    ) -> None:
        """Answer a request with a function, which may replace a standard one.

        It is called in the loop's thread with a `DeviceRequest` and the arguments as bytes. Its
        docstring is the help text. It returns the reply: one argument or a tuple of them, a whole
        `Message`, None for no reply, or an awaitable of these, during which other requests are
        served. An exception becomes a ``fail`` reply; all but `FailReply` are logged.

        Parameters
        ----------
        function : callable
            The function.
        name : str, optional
            The name of the request. Default: that of the function, with dashes.
        timeout_hint : float, optional
            Seconds, for ``?request-timeout-hint``.
        """
        entry = make_entry(function, name, timeout_hint=timeout_hint)
        self._server.in_loop(self._server.add_request, entry)

    def remove_request(self, name: str) -> None:
        """Remove a request by name; it is then answered ``invalid``."""
        self._server.in_loop(self._server.remove_request, name)

    def memory(self, register: str) -> bytes:
        """Return the content of a register."""
        content: bytes = self._server.in_loop(self._server.memory.content, register)
        return content

    # ---- sending to clients ----

    def inform(self, message: Message) -> None:
        """Send a `Message`, usually an inform, to all clients."""
        self._server.call_clients(ClientConnection.play, [message])

    def log(self, level: str, text: str, logger_name: Optional[str] = None) -> None:
        """Send a ``#log`` inform to all clients, if the log level permits.

        The level is one of `LOG_LEVELS`; *logger_name* defaults to the device's name.
        """
        self._server.call_clients(ClientConnection.log, level, text, logger_name)

    def send_raw(self, data: bytes, client: Optional[ClientConnection] = None) -> None:
        """Send bytes unchanged, including line ends, to one of `clients` or to all."""
        if client is None:
            self._server.call_clients(ClientConnection.send_raw, data)
        else:
            self._server.in_loop(client.send_raw, data)

    def disconnect_clients(self, reason: str = "The device closes the connection.") -> None:
        """Close all connections normally: ``#disconnect`` with a reason, then the end."""
        self._server.call_clients(ClientConnection.end, reason)

    def close_clients(self) -> None:
        """Close all connections without ``#disconnect``, after all output."""
        self._server.call_clients(ClientConnection.end, None)

    def reset_clients(self) -> None:
        """Break all connections with a TCP reset."""
        self._server.call_clients(ClientConnection.reset)

    def pause_reading(self) -> None:
        """Stop reading, so that the clients' output piles up."""
        self._server.set_paused(True)

    def resume_reading(self) -> None:
        """Resume reading."""
        self._server.set_paused(False)

    # ---- observation ----

    @property
    def clients(self) -> list[ClientConnection]:
        """The connected clients, the oldest first."""
        return list(self._server.clients)

    @property
    def client_count(self) -> int:
        """The number of connected clients."""
        return len(self._server.clients)

    @property
    def connection_count(self) -> int:
        """The number of connections so far."""
        return self._server.connection_count

    @property
    def received(self) -> list[Message]:
        """All received messages in order; the last `MAX_RECEIVED` of them."""
        return list(self._server.received.copy())

    def clear_received(self) -> None:
        """Forget all received messages."""
        self._server.received.clear()

    def received_requests(self, name: str) -> list[Message]:
        """Return the received requests with a name, in order."""
        return [
            message
            for message in self.received
            if message.name == name and message.mtype == Message.REQUEST
        ]

    def wait_for_request(self, name: str, timeout: float = 5.0, count: int = 1) -> Message:
        """Wait until *count* requests with a name have come, and return the last of these.

        Earlier requests count too; see `clear_received`.
        """
        self.wait_until(
            lambda: len(self.received_requests(name)) >= count, timeout, f"{count} x ?{name}"
        )
        return self.received_requests(name)[count - 1]

    def assert_asked(
        self, name: str, *args: Any, count: Optional[int] = None, timeout: float = 0.0
    ) -> list[Message]:
        """Fail if a request has not come; the error shows those that have.

        Parameters
        ----------
        name : str
            The name of the request.
        *args
            All its arguments. Default: any.
        count : int, optional
            Exactly how many times; 0: never. Default: at least once.
        timeout : float in seconds, optional
            How long to wait for it. Default: do not wait; enough if the program under test has had
            its reply.

        Returns
        -------
        list of Message
            The requests with this name and these arguments.

        Raises
        ------
        AssertionError
            If the request has not come, or not as often.
        """
        # pytest then shows the line of the test, not this function.
        __tracebackhide__ = True
        # Converts the arguments to bytes as a client does.
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
        """Wait until exactly *count* clients are connected."""
        self.wait_until(lambda: self.client_count == count, timeout, f"{count} clients")

    def wait_for_connection(self, count: int, timeout: float = 5.0) -> None:
        """Wait until there were *count* connections; see `connection_count`."""
        self.wait_until(
            lambda: self.connection_count >= count, timeout, f"connection number {count}"
        )

    def wait_until(
        self, predicate: Callable[[], bool], timeout: float = 5.0, what: str = "what was expected"
    ) -> None:
        """Wait until a condition holds, checking it after each event.

        Parameters
        ----------
        predicate : callable
            The condition.
        timeout : float in seconds, optional
            How long to wait.
        what : str, optional
            The name of the condition in the error.
        """
        if not self._server.wait_until(predicate, timeout):
            raise TimeoutError(
                f"{what} did not come within {timeout} s; clients: {self.client_count}, last "
                f"messages: {[shorten(str(message), 100) for message in self.received[-5:]]}"
            )

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait in the loop until a condition holds, like `wait_until`."""
        await self._server.until(predicate)


def _parse_protocol(text: str) -> ProtocolFlags:
    match = _PROTOCOL_RE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no protocol: use a text like '5.1-MIB' or '4'.")
    return ProtocolFlags(int(match[1]), int(match[2] or 0), match[3])


def _describe_requests(messages: Iterable[Message]) -> str:
    """Return the requests, one line for each, without ids."""
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
