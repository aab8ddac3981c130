"""The requests that the simulated device answers.

A `DeviceRequest` is a request from a client: it is passed to the handler, and turns the handler's
result into messages, including ids. An `Entry` is a request that the device knows. The standard
requests (protocol.md, section 11) and those of the memory are in one table, `STANDARD_REQUESTS`, of
which every device has a copy; they are written like a user's.

Every message passes through the faults on its way to the connection.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
import struct
import time
from typing import Any, Awaitable, Callable, NamedTuple, Optional, Protocol, Sequence

from .._wire.flags import ProtocolFlags
from .._wire.message import Message
from .._wire.text import as_text, convert_method_name
from ..errors import FailReply
from . import connection
from .connection import LOG_LEVELS, ClientConnection, is_multi_client, is_v5
from .faults import distort, find_hooks
from .memory import Memory, parse_integer
from .sensors import Sensor
from .strategies import Sampling

logger = logging.getLogger("katcp.simdevice")

Handler = Callable[..., Any]


class Entry(NamedTuple):
    """A request that a device knows."""

    name: str
    handler: Handler
    # The error for a wrong number of arguments; "" for a right one.
    check: Callable[[int], str]
    help: str
    timeout_hint: float
    is_available: Callable[[ProtocolFlags], bool]


class Server(connection.Server, Protocol):
    """The server of the device, as used by a request."""

    sensors: dict[str, Sensor]
    requests: dict[str, Entry]
    memory: Memory
    clients: list[ClientConnection]

    def in_loop(self, function: Callable[..., Any], *args: Any) -> Any: ...
    def begin_stop(self, reason: Optional[str]) -> Any: ...
    def begin_restart(self) -> None: ...


class DeviceRequest:
    """A request from a client, as passed to a request handler.

    The methods may be called from any thread, even after the handler has returned: to reply later,
    or several times.

    Attributes
    ----------
    device : SimulatedDevice
        The device.
    connection, client : ClientConnection
        Where it came from; two names for the same object.
    message : Message
        The request.
    """

    def __init__(self, server: Server, connection: ClientConnection, message: Message) -> None:
        self.device = server.device
        self.connection = self.client = connection
        self.message = message
        self.server = server
        self.sensors = server.sensors
        # For the fault that sends informs after the reply.
        self.held: list[Message] = []
        self._informs = 0

    def inform(self, *args: Any) -> None:
        """Send an inform with the name and id of the request, and these arguments."""
        self._informs += 1
        self._send(self._make(Message.INFORM, args))

    def reply(self, *args: Any) -> None:
        """Send a reply with the name and the id of the request; the return code comes first."""
        self._send(self._make(Message.REPLY, args))

    def send_raw(self, data: bytes) -> None:
        """Send bytes unchanged to the client, including line ends."""
        self.server.in_loop(self.connection.send_raw, data)

    def counted(self) -> tuple[str, int]:
        """Return the ``ok`` reply of a list, with the number of informs sent."""
        return "ok", self._informs

    def available(self) -> list[Entry]:
        """Return the requests that this client can make, sorted by name."""
        protocol = self.connection.protocol
        entries = sorted(self.server.requests.items())
        return [entry for _, entry in entries if entry.is_available(protocol)]

    def handle(self) -> None:
        """Answer the request, or act as a fault requires; in the loop's thread."""
        for hook in find_hooks(self.device.faults, "request", self.message.name):
            steps = hook(self)
            if steps is not None:
                self.connection.play(steps)
                return
        # A fault may have changed the message.
        name, arguments = self.message.name, self.message.arguments
        entry = self.server.requests.get(name)
        if entry is None or not entry.is_available(self.connection.protocol):
            self.reply("invalid", f"Unknown request '{name}'.")
        elif mistake := entry.check(len(arguments)):
            self.reply("invalid", f"Wrong arguments for ?{name}: {mistake}.")
        else:
            try:
                self._answer(entry.handler(self, *arguments))
            except Exception as error:
                self._fail(error)

    def _answer(self, result: Any) -> None:
        """Send the result of a handler."""
        if isinstance(result, (tuple, list)):
            self.reply(*result)
        elif isinstance(result, Message):
            self._send(result)
        elif inspect.isawaitable(result):
            self.server.spawn(self._answer_later(result))
        elif result is not None:
            self.reply(result)

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
        message = Message(mtype, self.message.name, args)
        if self.connection.protocol.message_ids or self.device.echo_ids:
            message.mid = self.message.mid
        return message

    def _send(self, message: Message) -> None:
        self.server.in_loop(self._send_in_loop, message)

    def _send_in_loop(self, message: Message) -> None:
        self.connection.play(distort(self.device.faults, message, self))


# ---- the standard requests ----

STANDARD_REQUESTS: dict[str, Entry] = {}


def make_entry(
    function: Handler,
    name: Optional[str] = None,
    *,
    timeout_hint: float = 0.0,
    is_available: Callable[[ProtocolFlags], bool] = lambda protocol: True,
) -> Entry:
    """Make the entry of a request handler, by default named after the function."""
    name = name or convert_method_name("", function.__name__)
    # An invalid name is refused now.
    Message.request(name)
    check = functools.lru_cache(functools.partial(_check_count, inspect.signature(function)))
    return Entry(name, function, check, inspect.getdoc(function) or "", timeout_hint, is_available)


def _check_count(signature: inspect.Signature, count: int) -> str:
    """Return the error for a number of arguments; "" for a right one."""
    try:
        signature.bind(*[None] * (1 + count))
    except TypeError as error:
        return str(error)
    return ""


def _standard(
    name: str, is_available: Callable[[ProtocolFlags], bool] = lambda protocol: True
) -> Callable[[Handler], Handler]:
    """Add the decorated function to the table of standard requests."""

    def enter(function: Handler) -> Handler:
        STANDARD_REQUESTS[name] = make_entry(function, name, is_available=is_available)
        return function

    return enter


@_standard("help")
def _help(request: DeviceRequest, name: Optional[bytes] = None) -> Any:
    """Describe one request, or all (?help [name])."""
    for entry in request.available() if name is None else [_find_entry(request, name)]:
        request.inform(entry.name, entry.help)
    return request.counted()


@_standard("halt")
def _halt(request: DeviceRequest) -> None:
    """Stop the device (?halt)."""
    request.reply("ok")
    request.server.begin_stop("The device is halting.")


@_standard("restart")
def _restart(request: DeviceRequest) -> None:
    """Restart the device: all connections are closed (?restart)."""
    request.reply("ok")
    request.server.begin_restart()


@_standard("watchdog")
def _watchdog(request: DeviceRequest) -> Any:
    """Tell that the device is alive (?watchdog)."""
    return "ok"


@_standard("version-list", is_v5)
def _version_list(request: DeviceRequest) -> Any:
    """List the versions of protocol, library and device (?version-list)."""
    for version in request.connection.versions():
        request.inform(*version)
    return request.counted()


@_standard("log-level")
def _log_level(request: DeviceRequest, level: Optional[bytes] = None) -> Any:
    """Query or set the level of #log informs (?log-level [level])."""
    if level is not None:
        if as_text(level) not in LOG_LEVELS:
            raise FailReply(f"Unknown log level '{as_text(level)}'.")
        request.device.log_level = as_text(level)
    return "ok", request.device.log_level


@_standard("sensor-list")
def _sensor_list(request: DeviceRequest, name: bytes = b"//") -> Any:
    """Describe sensors (?sensor-list [name or /regex/])."""
    for sensor in _find_sensors(request, name):
        request.inform(*sensor.list_arguments(request.connection.protocol.major))
    return request.counted()


@_standard("sensor-value")
def _sensor_value(request: DeviceRequest, name: bytes = b"//") -> Any:
    """Tell the readings of sensors (?sensor-value [name or /regex/])."""
    for sensor in _find_sensors(request, name):
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
    sensors = [_find_sensor(request, one) for one in names]
    if not strategy:
        present = client.samplings.get(sensors[0].name)
        return ("ok", name, *(present.arguments if present else [b"none"]))
    try:
        # All or nothing: errors are found before anything is set.
        samplings = [
            Sampling(sensor, strategy, client.protocol, client.send_status) for sensor in sensors
        ]
    except ValueError as error:
        raise FailReply(str(error)) from error
    for sampling in samplings:
        client.sample(sampling)
    return ("ok", name, *strategy)


@_standard("client-list", is_multi_client)
def _client_list(request: DeviceRequest) -> Any:
    """List the addresses of the connected clients (?client-list)."""
    for client in request.server.clients:
        request.inform(client.address)
    return request.counted()


@_standard("request-timeout-hint", lambda protocol: protocol.request_timeout_hints)
def _request_timeout_hint(request: DeviceRequest, name: Optional[bytes] = None) -> Any:
    """Tell how long requests may take (?request-timeout-hint [name])."""
    if name is None:
        entries = [entry for entry in request.available() if entry.timeout_hint]
    else:
        entries = [_find_entry(request, name)]
    for entry in entries:
        request.inform(entry.name, float(entry.timeout_hint))
    return request.counted()


def _find_entry(request: DeviceRequest, name: bytes) -> Entry:
    """Return the entry of a request that this client can make, or raise FailReply."""
    for entry in request.available():
        if entry.name == as_text(name):
            return entry
    raise FailReply(f"Unknown request '{as_text(name)}'.")


def _find_sensor(request: DeviceRequest, name: bytes) -> Sensor:
    """Return a sensor, or raise FailReply."""
    sensor = request.sensors.get(as_text(name))
    if sensor is None:
        raise FailReply(f"Unknown sensor '{as_text(name)}'.")
    return sensor


def _find_sensors(request: DeviceRequest, name: bytes) -> list[Sensor]:
    """Return the sensor with that name, or all that match a ``/regex/``, sorted."""
    if len(name) < 2 or name[:1] + name[-1:] != b"//":
        return [_find_sensor(request, name)]
    try:
        regex = re.compile(as_text(name[1:-1]))
    except re.error as error:
        raise FailReply(f"Bad regular expression '{as_text(name)}': {error}.") from error
    return [sensor for key, sensor in sorted(request.sensors.items()) if regex.search(key)]


# ---- requests of the memory ----


@_standard("listdev")
def _listdev(request: DeviceRequest, size: Optional[bytes] = None) -> Any:
    """List the registers of the memory (?listdev [size])."""
    for name, place in request.server.memory.registers.items():
        request.inform(name, *([] if size is None else [len(place)]))
    return request.counted()


@_standard("read")
def _read(
    request: DeviceRequest, register: bytes, offset: bytes = b"0", count: bytes = b"4"
) -> Any:
    """Read bytes from a register (?read register-or-address [offset [count]])."""
    memory = request.server.memory
    return "ok", memory.read(register, parse_integer(offset), parse_integer(count))


@_standard("write")
def _write(request: DeviceRequest, register: bytes, offset: bytes, data: bytes) -> Any:
    """Write bytes to a register (?write register-or-address offset bytes)."""
    request.server.memory.write(register, parse_integer(offset), data)
    return "ok"


@_standard("wordread")
def _wordread(
    request: DeviceRequest, register: bytes, offset: bytes = b"0", count: bytes = b"1"
) -> Any:
    """Read words of 32 bits from a register (?wordread register [word-offset [count]])."""
    start, size = 4 * parse_integer(offset), 4 * parse_integer(count)
    data = request.server.memory.read(register, start, size)
    return ("ok", *(f"0x{word:08x}" for (word,) in struct.iter_unpack(">I", data)))


@_standard("wordwrite")
def _wordwrite(request: DeviceRequest, register: bytes, offset: bytes, *words: bytes) -> Any:
    """Write words of 32 bits to a register (?wordwrite register word-offset word ...)."""
    data = b"".join(struct.pack(">I", parse_integer(word) & 0xFFFFFFFF) for word in words)
    request.server.memory.write(register, 4 * parse_integer(offset), data)
    return "ok"
