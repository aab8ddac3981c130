"""One client that is connected to the simulated device.

Strategy
--------
A `ClientConnection` is used once. It greets its client, reads its lines and
hands every message up to the device; it writes what the device and the requests
have to say, and it samples sensors, each with a `Sampling`.

The way out has three stages. `ClientConnection.play` takes steps (see
`katcp.simdevice.faults`) one after another; a pause puts off those behind it. Faults
may cut the bytes of a step into pieces, and these go through one queue. What
is written in one turn of the loop is handed to the stream at its end.

Rules
-----
- All of it runs in the loop's thread.
- The queue keeps the order, whatever the faults do: nothing is written past it
  as long as anything waits in it.
- Once the end is queued up, the client is not listened to; once it has come,
  nothing is written. The reader lives on until it sees the end of the stream,
  and only then the device is told.
- Nothing outlives the connection: no timer, no sampling.

Of the device it uses what anybody may, and `_spawn`, `_on_message` and
`_on_client_ended`.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import socket
import struct
import time
from typing import TYPE_CHECKING, Callable, Optional, Sequence, Union

from tornado import locks
from tornado.iostream import IOStream, StreamBufferFullError, StreamClosedError

from .. import _sensor as katcp_sensor
from .._state import readings as katcp_readings
from .._wire.arguments import write_timestamp
from .._wire.flags import VERSION_CONNECT_KATCP_MAJOR, ProtocolFlags
from .._wire.lines import LineSplitter
from .._wire.message import Message
from .._wire.parser import MessageParser
from ..errors import KatcpSyntaxError
from ..sampling import SampleStrategy
from ..version import __version__
from .faults import End, Pause, Step, distort, find_hooks
from .sensors import Sensor, as_reading, make_strategy

if TYPE_CHECKING:
    from .device import SimulatedDevice

logger = logging.getLogger("katcp.simdevice")

LOG_LEVELS = ("all", "trace", "debug", "info", "warn", "error", "fatal", "off")

# A longer line closes the connection, as in katcp's own servers.
MAX_LINE_SIZE = 2 * 1024 * 1024
# A client that leaves more than this unread is dropped, with a reset.
MAX_WRITE_BUFFER_SIZE = 64 * 1024 * 1024
# So long an orderly close waits for the client to read what was written.
CLOSE_TIMEOUT = 1.0

_READ_SIZE = 64 * 1024
_FLUSH_SIZE = 64 * 1024


class ClientConnection:
    """One client of the device, and all that belongs to its connection.

    Its methods must be called in the loop's thread.

    Attributes
    ----------
    address : str
        The client's address, ``host:port``.
    number : int
        Which connection of the device this is; the first has number 1.
    protocol : ProtocolFlags
        What this connection speaks.
    samplings : dict
        The samplings that this client has set, by sensor name.
    """

    def __init__(self, device: SimulatedDevice, sock: socket.socket, address: str) -> None:
        self.address = address
        self.number = device.connection_count + 1
        self.protocol = device.protocol
        self.samplings: dict[str, Sampling] = {}
        # For the fault that changes the order of replies.
        self.held: list[Message] = []
        self._device = device
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
        for hook in find_hooks(self._device.faults, "connect"):
            hook(self)
        greeting = self._greeting_v5() if is_v5(self.protocol) else self._greeting_v4()
        steps: list[Step] = [*greeting]
        for hook in find_hooks(self._device.faults, "greeting"):
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
        timestamp = write_timestamp(time.time(), self.protocol.major)
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
            self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._is_ending = True
        self._stream.close()

    def set_paused(self, paused: bool) -> None:
        """Read no more, or again."""
        if paused and not self._is_ending:
            self._may_read.clear()
        else:
            self._may_read.set()

    def call_later(
        self, delay: float, function: Callable[..., None], *args: object
    ) -> asyncio.TimerHandle:
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

    def sample(self, sampling: Sampling) -> None:
        """Set the sampling of a sensor, in place of the one before."""
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
        """Send ``#sensor-status``."""
        self.play(distort(self._device.faults, Message.inform("sensor-status", *arguments)))

    def versions(self) -> list[tuple[str, ...]]:
        """Return what the greeting of version 5 and ``?version-list`` tell."""
        name = self._device.name
        return [
            ("katcp-protocol", str(self.protocol)),
            ("katcp-library", f"katcp-simdevice-{__version__}"),
            ("katcp-device", f"{name}-1.0", f"{name}-{__version__}"),
        ]

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
        return self._greeting_v4() if is_v5(self.protocol) else self._greeting_v5()

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

    def _greeting_v4(self) -> list[Message]:
        name = self._device.name
        return [
            Message.inform("version", f"{name}-1.0"),
            Message.inform("build-state", f"{name}-{__version__}"),
        ]

    def _greeting_v5(self) -> list[Message]:
        return [Message.inform("version-connect", *version) for version in self.versions()]

    def _put(self, step: Union[Message, bytes, End]) -> None:
        """Queue a step up after the faults have had their way with its bytes."""
        if isinstance(step, End):
            self._is_deaf = True
            self._queue_up([step])
            return
        pieces = [bytes(step) + b"\n" if isinstance(step, Message) else step]
        for hook in find_hooks(self._device.faults, "output"):
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
        """Write the first piece of the queue, or all pieces up to the end of the connection."""
        self._is_pumping = False
        self._write(self._queue.popleft())
        while together and self._queue and isinstance(self._queue[0], bytes):
            self._write(self._queue.popleft())
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
            if not self._stream.closed():
                written = self._stream.write(b"")
                _, unwritten = await asyncio.wait([written], timeout=CLOSE_TIMEOUT)
                if unwritten:
                    logger.debug("%s did not read all before the end.", self.address)
        finally:
            self._stream.close()


class Sampling:
    """One sensor sampled for one client.

    ValueError is raised if *arguments*, those of ``?sensor-sampling`` after the
    sensor's name, describe no strategy.
    """

    def __init__(
        self, client: ClientConnection, sensor: Sensor, arguments: Sequence[bytes]
    ) -> None:
        self.sensor = sensor
        self.arguments = arguments
        self._client = client
        self._strategy = make_strategy(sensor, arguments, client.protocol, self._report)
        self._timer: Optional[asyncio.TimerHandle] = None
        self._is_silent = False

    @property
    def is_none(self) -> bool:
        """Whether nothing is to be sent."""
        return self._strategy.get_sampling() == SampleStrategy.NONE

    def start(self) -> None:
        """Send the present reading, and then what the strategy says."""
        self.sensor.read(time.time())
        # Version 4 does not promise the reading at once.
        self._is_silent = not is_v5(self._client.protocol)
        self._strategy.start_in_loop()
        self._is_silent = False
        self._schedule()

    def stop(self) -> None:
        """Send nothing any more."""
        self._strategy.cancel()
        if self._timer is not None:
            self._client.cancel(self._timer)
            self._timer = None

    def _report(self, observed: katcp_sensor.Sensor, reading: katcp_readings.Reading) -> None:
        if not self._is_silent:
            major = self._client.protocol.major
            arguments = self.sensor.status_arguments(as_reading(reading), major)
            self._client.send_status(arguments)

    def _schedule(self) -> None:
        """Look again soon at a sensor that changes by itself."""
        if self.sensor.source is not None:
            self._timer = self._client.call_later(self.sensor.interval, self._look)

    def _look(self) -> None:
        self.sensor.look(time.time())
        self._schedule()


def is_v5(protocol: ProtocolFlags) -> bool:
    """Return whether this is version 5 of the protocol, or a later one."""
    return protocol.major >= VERSION_CONNECT_KATCP_MAJOR


def is_multi_client(protocol: ProtocolFlags) -> bool:
    """Return whether a device serves several clients at once; version 4 always does."""
    return protocol.multi_client or not is_v5(protocol)
