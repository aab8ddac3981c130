"""The requests that the simulated device answers.

Strategy
--------
A `DeviceRequest` is one request that has come: it is what a handler gets, and
it turns what the handler returns into messages, ids included. `Entry` is one
kind of request that a device knows. The standard requests (protocol.md, section
11) and those of the memory (``?read``, ``?write``, ...) stand in one table,
`STANDARD_REQUESTS`; every device begins with a copy of it. They are written
exactly as a user writes his own.

Rules
-----
- A handler raises `FailReply` with a text for the client; any other exception
  is logged, too.
- Arguments come as bytes; too few or too many are found by the handler's
  signature, before it is called.
- Every message passes the faults on its way to the connection.

Of the device this module uses what anybody may, and `_in_loop`, `_spawn`,
`_requests`, `_memory`, `_begin_stop` and `_begin_restart`.
"""

from __future__ import annotations

import inspect
import logging
import re
import struct
import time
from typing import (
    TYPE_CHECKING,
    Any,
    Awaitable,
    Callable,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Union,
)

from .._wire.flags import ProtocolFlags
from .._wire.message import Message
from ..errors import FailReply
from .connection import LOG_LEVELS, ClientConnection, Sampling, is_multi_client, is_v5
from .faults import distort
from .sensors import Sensor, to_text

if TYPE_CHECKING:
    from .device import SimulatedDevice

logger = logging.getLogger("katcp.simdevice")

DEFAULT_MEMORY: Mapping[str, Union[int, bytes]] = {
    "sys_board_id": b"\0\0\xb0\x01",
    "sys_scratchpad": 4,
    "bram": 64 * 1024,
}

_INTEGER_RE = re.compile(rb"[0-9]+|0[xX][0-9a-fA-F]+")

Handler = Callable[..., Any]


class Entry(NamedTuple):
    """A request that a device knows."""

    name: str
    handler: Handler
    signature: inspect.Signature
    help: str
    timeout_hint: float
    is_available: Callable[[ProtocolFlags], bool]


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

    def available(self) -> list[Entry]:
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

    def run(self, entry: Entry) -> None:
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
    """Return the entry of a request handler, named after the function if no name is given."""
    name = name or function.__name__.replace("_", "-")
    # Whoever misnames a request hears of it now.
    Message.request(name)
    return Entry(
        name,
        function,
        inspect.signature(function),
        inspect.getdoc(function) or "",
        timeout_hint,
        is_available,
    )


def _standard(
    name: str, is_available: Callable[[ProtocolFlags], bool] = lambda protocol: True
) -> Callable[[Handler], Handler]:
    """Enter the decorated function in the table of standard requests."""

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
        if to_text(level) not in LOG_LEVELS:
            raise FailReply(f"Unknown log level '{to_text(level)}'.")
        request.device.log_level = to_text(level)
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
        # All or nothing: whatever is wrong is found before anything is set.
        samplings = [Sampling(client, sensor, strategy) for sensor in sensors]
    except ValueError as error:
        raise FailReply(str(error)) from error
    for sampling in samplings:
        client.sample(sampling)
    return ("ok", name, *strategy)


@_standard("client-list", is_multi_client)
def _client_list(request: DeviceRequest) -> Any:
    """List the addresses of the connected clients (?client-list)."""
    for client in request.device.clients:
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
        if entry.name == to_text(name):
            return entry
    raise FailReply(f"Unknown request '{to_text(name)}'.")


def _find_sensor(request: DeviceRequest, name: bytes) -> Sensor:
    """Return a sensor, or raise FailReply."""
    sensor = request.device.sensors.get(to_text(name))
    if sensor is None:
        raise FailReply(f"Unknown sensor '{to_text(name)}'.")
    return sensor


def _find_sensors(request: DeviceRequest, name: bytes) -> list[Sensor]:
    """Return the sensor of that name, or all that match a ``/regex/``, sorted."""
    if len(name) < 2 or name[:1] + name[-1:] != b"//":
        return [_find_sensor(request, name)]
    try:
        regex = re.compile(to_text(name[1:-1]))
    except re.error as error:
        raise FailReply(f"Bad regular expression '{to_text(name)}': {error}.") from error
    return [sensor for key, sensor in sorted(request.device.sensors.items()) if regex.search(key)]


# ---- the memory ----


class Memory:
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
        if offset + count > len(place):
            raise FailReply(
                f"{count} bytes at {offset} are outside of register "
                f"'{to_text(register)}', which has {len(place)} bytes."
            )
        start = place.start + offset
        return slice(start, start + count)

    def _place(self, register: bytes) -> range:
        """Return where a register is; a number is an address in the whole memory."""
        place = self.registers.get(to_text(register))
        if place is not None:
            return place
        if not _INTEGER_RE.fullmatch(register):
            raise FailReply(f"Unknown register '{to_text(register)}'.")
        return range(_parse_integer(register), len(self._bytes))


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


def _parse_integer(text: bytes) -> int:
    """Return a decimal or hexadecimal number, or raise FailReply."""
    if not _INTEGER_RE.fullmatch(text):
        raise FailReply(f"'{to_text(text)}' is not a number.")
    return int(text, 16 if text[:2].lower() == b"0x" else 10)
