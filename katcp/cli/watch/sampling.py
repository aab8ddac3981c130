"""A client that samples sensors, and the sensors that it samples."""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import math
import queue
from typing import Any, Optional, Sequence

from ...core import Message
from ..devices import Address
from ..follow import Events, FollowingClient
from ..output import REFUSED, CommandError, printable
from ..readings import (
    FEW,
    NUMBER_TYPES,
    USABLE_STATUSES,
    Description,
    Reading,
    choose_sensors,
    format_period,
    natural_key,
    parse_descriptions,
    parse_number,
    parse_readings,
    show_value,
)

# So many readings of a sensor are kept for its plot: more than any terminal is wide.
PLOTTED_READINGS = 500
# How many names are in one request, where the device takes several.
BULK = 500
# So many requests may wait for their replies.
IN_FLIGHT = 200


class WatchedSensor:
    """A sensor, and its last readings.

    Attributes
    ----------
    client : WatchClient
        Whose sensor it is.
    description : Description
        What the device says of it.
    key : tuple
        What sensors are sorted by.
    reading : Reading or None
        The last one.
    shown_value : str
        Its value, for people.
    numbers : collections.deque
        The last values, if they are numbers; not a number where there was none.
    """

    def __init__(self, client: WatchClient, description: Description) -> None:
        self.client = client
        self.description = description
        self.name = printable(description.name)
        self.key = (str(client.device), natural_key(description.name))
        self.reading: Optional[Reading] = None
        self.shown_value = ""
        self.numbers: collections.deque[float] = collections.deque(maxlen=PLOTTED_READINGS)

    def update(self, reading: Reading) -> None:
        """Take in a reading."""
        self.reading = reading
        self.shown_value = show_value(reading, self.description.type, self.client.protocol_flags)
        if self.description.type in NUMBER_TYPES:
            is_usable = reading.status in USABLE_STATUSES
            self.numbers.append(parse_number(reading.value) if is_usable else math.nan)


class WatchClient(FollowingClient):
    """A client that samples sensors, and notes their readings.

    It notes a list of `WatchedSensor` for each connection, and then `Reading` objects.

    Parameters
    ----------
    options, device, events
        As for `FollowingClient`.
    filters : sequence of str
        Which sensors; none means all.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        device: Address,
        events: Events,
        filters: Sequence[str],
    ) -> None:
        super().__init__(options, device, events)
        self._period: Optional[float] = options.period
        self._needs_event: bool = options.event
        self._filters = filters
        self._sampled: list[bytes] = []

    def inform_sensor_status(self, msg: Message) -> None:
        """Note an update."""
        for reading in parse_readings(msg, self.protocol_flags):
            self.note(reading)

    def inform_interface_changed(self, msg: Message) -> Any:
        """Find the sensors again."""
        return self.set_up_again()

    async def set_up(self) -> None:
        """Find the sensors, read them, and sample them."""
        *informs, _ = await self.fetch("sensor-list")
        chosen, problems = choose_sensors(parse_descriptions(informs), self._filters)
        self.note([WatchedSensor(self, description) for description in chosen])
        if not chosen:
            raise CommandError(f"{self.device}: {'; '.join(problems)}", REFUSED)
        for problem in problems:
            self.note(f"{self.device}: {problem}")
        names = [description.name for description in chosen]
        # Not all devices tell the first reading by themselves.
        few = names if len(names) <= FEW else [b""]
        for name in few:
            with contextlib.suppress(CommandError):
                for inform in await self.fetch("sensor-value", *filter(None, [name])):
                    self.inform_sensor_status(inform)
        self._sampled = names
        await self._sample_all(names)

    def stop_sampling(self) -> tuple[queue.SimpleQueue[Message], int]:
        """Ask the device to sample no more; return the queue of its replies and their number."""
        replies: queue.SimpleQueue[Message] = queue.SimpleQueue()
        groups = self._groups(self._sampled) if self.is_connected() else []
        if len(groups) > IN_FLIGHT:
            # It would take too long, and a device forgets sampling with the connection.
            groups = []
        for group in groups:
            request = Message.request("sensor-sampling", b",".join(group), "none")
            self.callback_request(request, replies.put)
        return replies, len(groups)

    async def _sample_all(self, names: Sequence[bytes]) -> None:
        """Set the sampling of all sensors, or raise the first `CommandError`."""
        if self._period is not None:
            strategies = [["period", format_period(self._period, self.protocol_flags)]]
        else:
            # Every device has to know "auto", but not "event".
            strategies = [["event"]] if self._needs_event else [["event"], ["auto"]]
        for strategy in strategies:
            names, errors = await self._sample(self._groups(names), strategy)
            if len(names) > len(errors):
                # Refused together: perhaps not all of them would be.
                names, errors = await self._sample([[name] for name in names], strategy)
            if not errors:
                return
        raise errors[0]

    async def _sample(
        self, groups: Sequence[Sequence[bytes]], strategy: Sequence[str]
    ) -> tuple[list[bytes], list[CommandError]]:
        """Set the sampling of groups of sensors; return those that it failed for, and why."""
        names: list[bytes] = []
        errors: list[CommandError] = []
        for some in _batches(groups, IN_FLIGHT):
            requests = [self.fetch("sensor-sampling", b",".join(it), *strategy) for it in some]
            results = await asyncio.gather(*requests, return_exceptions=True)
            for group, result in zip(some, results):
                if isinstance(result, CommandError):
                    names += group
                    errors.append(result)
        return names, errors

    def _groups(self, names: Sequence[bytes]) -> list[Sequence[bytes]]:
        """Return names in groups that the device takes in one request."""
        flags = self.protocol_flags
        return _batches(names, BULK if flags and flags.bulk_set_sensor_sampling else 1)


def _batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
