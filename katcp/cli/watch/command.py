"""``katcp watch``: sensors as they change."""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import sys
import time
from typing import Any, Sequence

from ..._wire.arguments import write_timestamp
from ..._wire.message import Message
from ..connect import GREETING_PATIENCE, ListeningClient, ask, connected
from ..options import add_device_arguments, parse_seconds
from ..output import INTERRUPTED, NOT_CONNECTED, REFUSED, CommandError, is_terminal, printable, tell
from ..readings import (
    Description,
    SensorFilter,
    is_pattern,
    list_sensors,
    natural_key,
    parse_readings,
)
from .outputs import CsvOutput, JsonOutput, LineOutput, Output, WatchedSensor

# Seconds between two looks.
REFRESH_INTERVAL = 0.25
# How long the device may take to switch the sampling off, when we want to go.
PARTING_PATIENCE = 1.0


def add_subcommand(subparsers: Any) -> None:
    """Add ``katcp watch``."""
    parser = subparsers.add_parser(
        "watch",
        help="show sensors as they change, until Ctrl-C",
        description="Show sensors as they change, with a plot of each that is a number, until "
        "Ctrl-C. A lost connection is made again. Into a pipe goes a line for each reading.",
        allow_abbrev=False,
    )
    add_device_arguments(parser)
    parser.add_argument(
        "sensors",
        metavar="SENSOR",
        nargs="+",
        help="the name of a sensor, or a pattern of names, like 'rack*.temp?'",
    )
    strategy = parser.add_mutually_exclusive_group()
    strategy.add_argument(
        "--period",
        metavar="SECONDS",
        type=parse_seconds,
        help="let the device tell the reading every so many seconds",
    )
    strategy.add_argument(
        "--event",
        action="store_true",
        help="let it tell each change (default; a device that cannot tells when it likes)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--csv", action="store_true", help="print comma-separated values, with a heading"
    )
    form.add_argument("--jsonl", action="store_true", help="print a JSON object in each line")
    parser.set_defaults(run=_run)


class _WatchClient(ListeningClient):
    """A client that notes the updates of sensors."""

    def inform_sensor_status(self, msg: Message) -> None:
        """Note an update."""
        self.events.put(msg)


def _run(options: argparse.Namespace) -> int:
    with connected(options, _WatchClient, auto_reconnect=True) as client:
        sensors = [
            WatchedSensor(description)
            for description in _find_sensors(client, options.sensors, options.timeout)
        ]
        watch = _Watch(options, client, sensors)
        try:
            with contextlib.suppress(KeyboardInterrupt), _make_output(options, sensors) as output:
                watch.run(output)
        finally:
            watch.stop_sampling()
    return INTERRUPTED


def _find_sensors(
    client: _WatchClient, names: Sequence[str], timeout: float
) -> Sequence[Description]:
    """Return what the device says of sensors, or raise `CommandError` if one is missing."""
    found: dict[bytes, Description] = {}
    for name in names:
        if is_pattern(name):
            known = list_sensors(client, [], timeout)
            matching = sorted(filter(SensorFilter(name).matches, known), key=natural_key)
        else:
            known = list_sensors(client, [os.fsencode(name)], timeout)
            # Some devices describe all whose names begin so: asked for one, take one.
            matching = [sensor for sensor in known if sensor == os.fsencode(name)]
        if not matching:
            raise CommandError(f"no such sensor: {printable(os.fsencode(name))}", REFUSED)
        found.update((sensor, known[sensor]) for sensor in matching)
    return list(found.values())


def _make_output(options: argparse.Namespace, sensors: Sequence[WatchedSensor]) -> Output:
    if options.csv:
        return CsvOutput()
    if options.jsonl:
        return JsonOutput()
    if not is_terminal(sys.stdout):
        return LineOutput(sensors)
    try:
        from .table import LiveTable
    except ImportError:
        tell("for a live table: pip install 'katcp[cli]'")
        return LineOutput(sensors)
    return LiveTable(str(options.address), sensors)


class _Watch:
    """Sampling, from the first connection to the end."""

    def __init__(
        self, options: argparse.Namespace, client: _WatchClient, sensors: Sequence[WatchedSensor]
    ) -> None:
        self._options = options
        self._client = client
        self._sensors = {sensor.description.name: sensor for sensor in sensors}
        self._connections = 0
        # Those that have not told anything since the connection was made.
        self._silent: set[bytes] = set()

    def run(self, output: Output) -> None:
        """Show what comes, for ever."""
        while True:
            next_look = time.monotonic() + REFRESH_INTERVAL
            with contextlib.suppress(queue.Empty):
                while (patience := next_look - time.monotonic()) > 0:
                    self._handle(self._client.events.get(timeout=patience), output)
            self._read_silent(output)
            output.refresh()

    def stop_sampling(self) -> None:
        """Switch the sampling off, if the device is there and does it soon."""
        if not self._client.is_connected():
            return
        replies: queue.SimpleQueue[Message] = queue.SimpleQueue()
        for name in self._sensors:
            request = Message.request("sensor-sampling", name, "none")
            self._client.callback_request(request, replies.put)
        deadline = time.monotonic() + PARTING_PATIENCE
        with contextlib.suppress(queue.Empty):
            for _ in self._sensors:
                replies.get(timeout=max(deadline - time.monotonic(), 0))

    def _handle(self, event: Any, output: Output) -> None:
        if isinstance(event, Message):
            self._show(event, output)
        elif not event:
            output.on_connection(False)
        else:
            self._on_connected(output)

    def _show(self, msg: Message, output: Output) -> None:
        protocol = self._client.protocol_flags
        for reading in parse_readings(msg, protocol):
            sensor = self._sensors.get(reading.name)
            self._silent.discard(reading.name)
            if sensor is not None:
                sensor.update(reading, protocol)
                output.show(sensor, reading)

    def _on_connected(self, output: Output) -> None:
        """Set the sampling up: a device forgets it with the connection."""
        self._connections += 1
        if self._connections == 1:
            self._sample_all()
            return
        output.on_connection(True)
        try:
            self._client.wait_protocol(GREETING_PATIENCE)
            self._sample_all()
        except CommandError as error:
            # A connection that was lost again is told of by its own event.
            if error.code != NOT_CONNECTED:
                output.tell(str(error))

    def _sample_all(self) -> None:
        self._silent = set(self._sensors)
        for name in self._sensors:
            self._sample(name)

    def _read_silent(self, output: Output) -> None:
        """Ask for the readings that did not come: not all devices tell the first by themselves."""
        silent, self._silent = self._silent, set()
        for name in (name for name in self._sensors if name in silent):
            _, informs = self._client.blocking_request(Message.request("sensor-value", name))
            for inform in informs:
                self._show(inform, output)

    def _sample(self, name: bytes) -> None:
        options = self._options
        if options.period is not None:
            ask(self._client, "sensor-sampling", name, "period", self._period())
            return
        try:
            ask(self._client, "sensor-sampling", name, "event")
        except CommandError as error:
            # Every device has to know "auto", but not "event".
            if options.event or error.code != REFUSED:
                raise
            ask(self._client, "sensor-sampling", name, "auto")

    def _period(self) -> str:
        """Return the period as the device wants it; one that does not say is of version 4."""
        protocol = self._client.protocol_flags
        major = 4 if protocol is None else protocol.major
        text = write_timestamp(self._options.period, major).decode("ascii")
        return text.rstrip("0").rstrip(".") if "." in text else text
