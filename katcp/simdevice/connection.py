"""One client connected to the simulated device.

A `ClientConnection` is used once. It greets its client, reads its lines, passes every message to
the server of the device, and writes the output of the device, its requests and its sensors.

Output passes two stages. `ClientConnection.play` takes steps (see `katcp.simdevice.faults`) one
after another; a pause delays those behind it. Their bytes go through one queue, of which one piece
is written in each iteration of the loop: all output of the last iteration, unless faults have cut
it into pieces.

Rules
-----
- All of it runs in the loop's thread.
- The queue keeps its order, whatever the faults do.
- Once the end of the connection is queued, input is ignored; once it is reached, nothing is
  written. Reading goes on until the end of the stream; only then is the server notified.
- Nothing outlives the connection: no timer, no sampling.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import socket
import struct
import time
from typing import Any, Awaitable, Callable, Mapping, Optional, Protocol, Sequence, Union

from tornado import locks
from tornado.iostream import IOStream, StreamBufferFullError, StreamClosedError

from .._wire.arguments import write_timestamp
from .._wire.flags import VERSION_CONNECT_KATCP_MAJOR, ProtocolFlags
from .._wire.lines import LineSplitter
from .._wire.message import Message, make_message
from .._wire.parser import MessageParser
from ..errors import KatcpSyntaxError
from ..version import __version__
from .faults import End, Fault, Pause, Step, distort, find_hooks
from .sensors import Sensor
from .strategies import Sampling

logger = logging.getLogger("katcp.simdevice")

LOG_LEVELS = ("all", "trace", "debug", "info", "warn", "error", "fatal", "off")

# A longer line closes the connection, as in servers of katcp 0.9.3.
MAX_LINE_SIZE = 2 * 1024 * 1024
# A client that leaves more than this unread is reset.
MAX_WRITE_BUFFER_SIZE = 64 * 1024 * 1024
# How long a normal close waits for the client to read the output.
CLOSE_TIMEOUT = 1.0

_READ_SIZE = 64 * 1024
_FLUSH_SIZE = 64 * 1024


class Device(Protocol):
    """The device, as used by connections, requests and their handlers."""

    name: str
    echo_ids: bool
    log_level: str
    max_write_buffer_size: int

    @property
    def protocol(self) -> ProtocolFlags: ...
    @property
    def faults(self) -> tuple[Fault, ...]: ...
    @property
    def sensors(self) -> Mapping[str, Sensor]: ...
    def inform(self, message: Message) -> None: ...
    def log(self, level: str, text: str, logger_name: Optional[str] = None) -> None: ...


class Server(Protocol):
    """The server of the device, as used by a connection."""

    device: Device

    def spawn(self, awaitable: Awaitable[Any]) -> None: ...
    def notify(self) -> None: ...
    def on_message(self, client: ClientConnection, message: Message) -> None: ...
    def on_client_ended(self, client: ClientConnection) -> None: ...


class ClientConnection:
    """One client of the device.

    The methods must be called in the loop's thread.

    Attributes
    ----------
    address : str
        The client's address, ``host:port``.
    number : int
        The number of this connection; the first is 1.
    protocol : ProtocolFlags
        The protocol of this connection.
    samplings : dict
        The samplings of this client, by sensor name.
    """

    def __init__(self, server: Server, sock: socket.socket, address: str, number: int) -> None:
        self.address = address
        self.number = number
        self.protocol = server.device.protocol
        self.samplings: dict[str, Sampling] = {}
        # For the fault that changes the order of replies.
        self.held: list[Message] = []
        self._server = server
        self._device = server.device
        self._stream = IOStream(sock, max_write_buffer_size=self._device.max_write_buffer_size)
        self._parser = MessageParser()
        self._timers: set[asyncio.TimerHandle] = set()
        self._may_read = locks.Event()
        # Output to write, one piece in each iteration of the loop.
        self._queue: collections.deque[Union[bytearray, End]] = collections.deque()
        self._is_pumping = False
        self._is_muted = False
        # First the end is queued, and input is ignored; then it is reached, and nothing is written.
        self._end_is_queued = False
        self._has_ended = False

    def start(self, *, paused: bool) -> None:
        """Greet the client and read its messages."""
        self._stream.set_nodelay(True)
        # A paused connection must notice its end, too.
        self._stream.set_close_callback(self._may_read.set)
        self.set_paused(paused)
        for hook in find_hooks(self._device.faults, "connect"):
            hook(self)
        steps: list[Step] = [*self._greeting(is_v5(self.protocol))]
        for hook in find_hooks(self._device.faults, "greeting"):
            steps = hook(steps, self)
        self.play(steps)
        self._server.spawn(self._read())

    def play(self, steps: Sequence[Step]) -> None:
        """Take steps in order; a pause delays only those after it."""
        if self._has_ended:
            return
        for position, step in enumerate(steps):
            if isinstance(step, Pause):
                self.call_later(step.seconds, self.play, steps[position + 1 :])
                return
            self._put(step)

    def send_raw(self, data: bytes) -> None:
        """Send bytes unchanged."""
        self._enqueue([data])

    def log(self, level: str, text: str, logger_name: Optional[str] = None) -> None:
        """Send a ``#log`` inform, if the device's level permits."""
        if LOG_LEVELS.index(level) < LOG_LEVELS.index(self._device.log_level):
            return
        timestamp = write_timestamp(time.time(), self.protocol.major)
        source = logger_name or self._device.name
        self.play([Message.inform("log", level, timestamp, source, text)])

    def end(self, reason: Optional[str]) -> None:
        """Close the connection after all output, with or without ``#disconnect``."""
        if reason is not None:
            self.play([Message.inform("disconnect", reason)])
        self._put(End.CLOSE)

    def reset(self) -> None:
        """Break the connection with RST instead of FIN; unsent output is lost."""
        if not self._stream.closed():
            linger = struct.pack("ii", 1, 0)
            self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._has_ended = True
        self._stream.close()

    def set_paused(self, paused: bool) -> None:
        """Stop or resume reading."""
        if paused and not self._has_ended:
            self._may_read.clear()
        else:
            self._may_read.set()

    def call_later(self, delay: float, function: Callable[..., None], *args: object) -> None:
        """Call a function later, if the connection still exists."""

        def call() -> None:
            self._timers.discard(timer)
            function(*args)

        timer = asyncio.get_running_loop().call_later(delay, call)
        self._timers.add(timer)

    def sample(self, sampling: Sampling) -> None:
        """Set the sampling of a sensor, replacing the previous one."""
        self.unsample(sampling.sensor.name)
        if sampling.is_none:
            return
        self.samplings[sampling.sensor.name] = sampling
        sampling.start()

    def unsample(self, name: str) -> None:
        """End the sampling of a sensor, if there is one."""
        sampling = self.samplings.pop(name, None)
        if sampling is not None:
            sampling.stop()

    def send_status(self, arguments: list[bytes]) -> None:
        inform = make_message(Message.INFORM, "sensor-status", arguments, None)
        self.play(distort(self._device.faults, inform))

    def versions(self) -> list[tuple[str, ...]]:
        """Return the versions in the greeting of version 5 and in ``?version-list``."""
        name = self._device.name
        return [
            ("katcp-protocol", str(self.protocol)),
            ("katcp-library", f"katcp-simdevice-{__version__}"),
            ("katcp-device", f"{name}-1.0", f"{name}-{__version__}"),
        ]

    # ---- for faults ----

    def hold(self, data: bytes, seconds: float) -> list[bytes]:
        """Hold data back to write it later in one piece; return what to write now."""
        self._enqueue([data], seconds)
        return []

    def mute(self) -> list[Step]:
        """Write nothing from now on; return the steps to take."""
        self._is_muted = True
        return []

    def other_greeting(self) -> list[Message]:
        """Return the greeting of the other protocol version."""
        return self._greeting(not is_v5(self.protocol))

    # ---- reading ----

    async def _read(self) -> None:
        """Handle the input until the connection ends; the whole life of the reader."""
        splitter = LineSplitter()
        try:
            while True:
                data = await self._stream.read_bytes(_READ_SIZE, partial=True)
                await self._may_read.wait()
                # Ignored input is still read, to notice the end.
                if not self._end_is_queued:
                    self._on_data(splitter, data)
        except StreamClosedError:
            pass
        finally:
            self._on_end()

    def _on_data(self, splitter: LineSplitter, data: bytes) -> None:
        for line in splitter.feed(data, MAX_LINE_SIZE):
            self._on_line(line)
        self._server.notify()
        if splitter.overflowed:
            self.log("error", f"A line is longer than {MAX_LINE_SIZE} bytes.")
            self.end("Line too long.")

    def _on_line(self, line: bytes) -> None:
        if self._end_is_queued:
            return
        try:
            message = self._parser.parse(line)
        except KatcpSyntaxError as error:
            self.log("error", f"Bad line: {error}")
        else:
            self._server.on_message(self, message)

    def _on_end(self) -> None:
        """Clean up when the connection is over."""
        self._has_ended = True
        self._stream.close()
        for sampling in self.samplings.values():
            sampling.stop()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._server.on_client_ended(self)

    # ---- writing ----

    def _greeting(self, v5: bool) -> list[Message]:
        """Return the greeting of version 5, or that of version 4."""
        if v5:
            return [Message.inform("version-connect", *version) for version in self.versions()]
        name = self._device.name
        return [
            Message.inform("version", f"{name}-1.0"),
            Message.inform("build-state", f"{name}-{__version__}"),
        ]

    def _put(self, step: Union[Message, bytes, End]) -> None:
        """Enqueue a step, with its bytes changed by the faults."""
        if isinstance(step, End):
            self._end_is_queued = True
            self._enqueue([step])
            return
        pieces = [bytes(step) + b"\n" if isinstance(step, Message) else step]
        for hook in find_hooks(self._device.faults, "output"):
            pieces = [part for piece in pieces for part in hook(piece, self)]
        self._enqueue(pieces)

    def _enqueue(self, pieces: Sequence[Union[bytes, End]], delay: float = 0.0) -> None:
        """Write a piece together with the others of this iteration; several pieces one in each."""
        if self._has_ended:
            return
        queue = self._queue
        for piece in pieces:
            if isinstance(piece, End):
                queue.append(piece)
            elif len(pieces) == 1 and queue and isinstance(queue[-1], bytearray):
                queue[-1] += piece
            else:
                queue.append(bytearray(piece))
        if len(queue) == 1 and isinstance(queue[0], bytearray) and len(queue[0]) >= _FLUSH_SIZE:
            self._write(queue.popleft())
        self._pump_later(delay)

    def _pump_later(self, delay: float = 0.0) -> None:
        if self._queue and not self._is_pumping:
            self._is_pumping = True
            self.call_later(delay, self._pump)

    def _pump(self) -> None:
        """Write the first piece of the queue, and the next one in the next iteration."""
        self._is_pumping = False
        if self._queue:
            self._write(self._queue.popleft())
        self._pump_later()

    def _write(self, piece: Union[bytearray, End]) -> None:
        """Pass a piece to the stream, or end the connection."""
        if self._has_ended:
            return
        if piece is End.RESET:
            self.reset()
        elif piece is End.CLOSE:
            self._has_ended = True
            self._server.spawn(self._close_when_written())
        elif not self._is_muted:
            self._write_bytes(memoryview(piece))

    def _write_bytes(self, data: memoryview) -> None:
        """Pass bytes to the stream; a client that never reads is dropped."""
        try:
            self._stream.write(data)
        except StreamClosedError:
            # The reader notices it, too, and ends the connection.
            logger.debug("%s has gone: %d bytes were not sent.", self.address, len(data))
        except StreamBufferFullError:
            logger.warning(
                "%s does not read: it is dropped with more than %d bytes unread.",
                self.address,
                self._device.max_write_buffer_size,
            )
            self.reset()

    async def _close_when_written(self) -> None:
        """Close the connection when the client has read everything, or after a while."""
        try:
            if not self._stream.closed():
                written = self._stream.write(b"")
                _, unwritten = await asyncio.wait([written], timeout=CLOSE_TIMEOUT)
                if unwritten:
                    logger.debug("%s did not read all before the end.", self.address)
        finally:
            self._stream.close()


def is_v5(protocol: ProtocolFlags) -> bool:
    """Return whether this is version 5 of the protocol or later."""
    return protocol.major >= VERSION_CONNECT_KATCP_MAJOR


def is_multi_client(protocol: ProtocolFlags) -> bool:
    """Return whether a device serves several clients at once; version 4 always does."""
    return protocol.multi_client or not is_v5(protocol)
