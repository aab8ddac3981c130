"""Sampling of sensors for clients, with the strategies of `katcp.sampling`."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Callable, Optional, Sequence

from .._sensor import Sensor as KatcpSensor
from .._state.readings import Reading as KatcpReading
from .._wire.arguments import read_timestamp
from .._wire.flags import SEC_TS_KATCP_MAJOR, ProtocolFlags
from .._wire.text import as_text
from ..sampling import SampleStrategy
from .sensors import Sensor, as_reading


class Sampling:
    """One sensor sampled for one client; in the loop's thread.

    The arguments are those of ``?sensor-sampling`` after the name of the sensor; invalid ones raise
    ValueError. *send* is called with those of ``#sensor-status``.
    """

    def __init__(
        self,
        sensor: Sensor,
        arguments: Sequence[bytes],
        protocol: ProtocolFlags,
        send: Callable[[list[bytes]], None],
    ) -> None:
        self.sensor = sensor
        self.arguments = arguments
        self._major = protocol.major
        self._send = send
        self._strategy = make_strategy(sensor, arguments, protocol, self._report)
        self._timer: Optional[asyncio.TimerHandle] = None
        self._is_silent = False

    @property
    def is_none(self) -> bool:
        """Whether nothing is sent."""
        return self._strategy.get_sampling() == SampleStrategy.NONE

    def start(self) -> None:
        """Send the present reading, and updates as the strategy requires."""
        self._read_source(self.sensor.read)
        # Version 4 does not promise a reading at once.
        self._is_silent = self._major < SEC_TS_KATCP_MAJOR
        self._strategy.start_in_loop()
        self._is_silent = False

    def stop(self) -> None:
        """Stop sending."""
        self._strategy.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _read_source(self, read: Callable[[float], Any]) -> None:
        """Read a sensor that changes by itself, now and after each interval."""
        if self.sensor.source is not None:
            read(time.time())
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.sensor.interval, self._read_source, self.sensor.look)

    def _report(self, observed: KatcpSensor, reading: KatcpReading) -> None:
        if not self._is_silent:
            self._send(self.sensor.status_arguments(as_reading(reading), self._major))


def make_strategy(
    sensor: Sensor,
    arguments: Sequence[bytes],
    protocol: ProtocolFlags,
    report: Callable[[KatcpSensor, KatcpReading], None],
) -> SampleStrategy:
    """Make the strategy described by the arguments, for the current loop and not started.

    It calls *report*; invalid arguments raise ValueError.
    """
    name, *params = arguments
    if not protocol.strategy_allowed(name):
        raise ValueError(f"Unknown sampling strategy {as_text(name)!r}.")
    if protocol.major < SEC_TS_KATCP_MAJOR:
        # Its times are in milliseconds. A difference comes first, and is a time for timestamps
        # only.
        first = 1 if name.startswith(b"differential") and sensor.type != "timestamp" else 0
        params[first:] = map(_to_seconds, params[first:])
    return SampleStrategy.get_strategy(name, report, sensor.observed, *params)


def _to_seconds(param: bytes) -> Any:
    """Convert milliseconds to seconds; invalid times are refused elsewhere."""
    try:
        return read_timestamp(param, milliseconds=True)
    except ValueError:
        return param
