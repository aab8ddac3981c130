"""A client that watches sensors, and its sensors."""

from __future__ import annotations

import argparse
import asyncio
import collections
import math
from typing import Awaitable, Optional, Sequence

from ..._state.readings import Status
from ...client import RemoteSensor, SensorUpdates
from ...core import KatcpClientError, KatcpReplyError, Message, Reading
from ..connect import command_error
from ..devices import Address
from ..follow import Events, FollowingClient
from ..output import REFUSED, CommandError, printable
from ..readings import Pattern, exact_pattern, find_sensors, natural_key, show_value

# How many readings of a sensor are kept for its plot: more than any terminal is wide.
PLOTTED_READINGS = 500


class WatchedSensor:
    """A sensor, and its last readings.

    Attributes
    ----------
    client : WatchClient
        The client of its device.
    remote : RemoteSensor
        The sensor of the client.
    key : tuple
        The sort key.
    reading : Reading or None
        The last one.
    numbers : collections.deque
        The last values, if they are numbers; NaN where there was none.
    """

    def __init__(self, client: WatchClient, remote: RemoteSensor) -> None:
        self.client = client
        self.remote = remote
        self.name, self.units = printable(remote.name), printable(remote.units)
        self.key = (str(client.device), natural_key(remote.name))
        self.reading: Optional[Reading] = None
        self.numbers: collections.deque[float] = collections.deque(maxlen=PLOTTED_READINGS)

    @property
    def number(self) -> float:
        """The value, or NaN."""
        value = None if self.reading is None else self.reading.value
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return float(value or 0) if is_number else math.nan

    @property
    def shown_value(self) -> str:
        """The value, formatted for people."""
        return "" if self.reading is None else show_value(self.reading.value, self.remote.type)

    def update(self, reading: Reading) -> None:
        """Record a reading."""
        self.reading = reading
        if self.remote.type in ("integer", "float"):
            self.numbers.append(self.number if Status(reading.status).is_usable else math.nan)


class WatchClient(FollowingClient):
    """A client that watches sensors.

    It queues lists of new `WatchedSensor`, and pairs of such a sensor and a reading.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        device: Address,
        events: Events,
        filters: Sequence[str],
    ) -> None:
        super().__init__(options, device, events)
        # Every device has to know "auto", but not "event".
        self._strategies = ["event"] if options.event else ["event", "auto"]
        if options.period is not None:
            self._strategies = [f"period {options.period}"]
        self._filters = filters
        self._watched: dict[str, WatchedSensor] = {}
        self._updates: list[SensorUpdates] = []

    async def set_up(self) -> None:
        """Find the sensors and sample them, once: the library repeats it as needed."""
        if self._updates:
            return
        chosen, pattern, problems = await find_sensors(self, self._filters)
        for problem in problems:
            self.note(problem)
        self._introduce(chosen)
        try:
            await self._sample(pattern)
        except CommandError as error:
            if error.code != REFUSED:
                raise
            await self._sample_each(chosen, error)

    async def _sample(self, pattern: Pattern) -> None:
        """Sample sensors, or raise `CommandError`."""
        *others, last = self._strategies
        for strategy in (*others, last):
            updates = self.sensors.watch(pattern, strategy=strategy, callback=self._on_reading)
            try:
                await updates.async_open()
            except KatcpReplyError as error:
                updates.close()
                if strategy == last:
                    what = str(error).removeprefix(f"{self.device.location} ")
                    raise CommandError(f"{self.device} {printable(what)}", REFUSED) from None
            except KatcpClientError as error:
                updates.close()
                raise command_error(self, Message.request("sensor-sampling"), error) from None
            else:
                self._updates.append(updates)
                return

    async def _sample_each(self, remotes: Sequence[RemoteSensor], error: CommandError) -> None:
        """Sample each sensor by itself, because the device refuses one of them."""
        work = [self._sample(exact_pattern(remote.name)) for remote in remotes]
        failures = [it for it in await asyncio.gather(*work, return_exceptions=True) if it]
        if len(failures) == len(remotes):
            raise error
        for failure in failures:
            self.note(failure)

    def _introduce(self, remotes: Sequence[RemoteSensor]) -> None:
        """Queue new sensors."""
        new = {remote.name: WatchedSensor(self, remote) for remote in remotes}
        self._watched.update(new)
        self.note([*new.values()])

    def _on_reading(self, name: str, reading: Reading) -> Optional[Awaitable[None]]:
        """Queue a reading."""
        sensor = self._watched.get(name)
        if sensor is None:
            return self._on_first_reading(name, reading)
        self.note((sensor, reading))
        return None

    async def _on_first_reading(self, name: str, reading: Reading) -> None:
        """Queue a new sensor, and its reading."""
        remote = await self.sensors.async_get(name)
        if name not in self._watched:
            self._introduce([remote])
        self.note((self._watched[name], reading))
