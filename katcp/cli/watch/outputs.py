"""Plain ways to show the readings of sensors.

An output gets each reading (`show`) and messages for the user (`tell`), and runs until Ctrl-C: a
few times a second it makes the watch handle events. The live table, which needs ``prompt_toolkit``,
is in `katcp.cli.watch.table`.
"""

from __future__ import annotations

import sys
import time
from typing import Callable, Iterable

from ..formats import RecordWriter
from ..output import paint, tell
from ..readings import RECORD_FIELDS, STATUS_COLOURS, make_record, show_time
from .sampling import WatchedSensor

# Seconds between two calls.
REFRESH_INTERVAL = 0.25


class Output:
    """The base of all outputs; it only shows messages."""

    def run(self, handle_events: Callable[[float], None]) -> None:
        """Run for ever; *handle_events* handles events until a time of `time.monotonic`."""
        while True:
            handle_events(time.monotonic() + REFRESH_INTERVAL)
            sys.stdout.flush()

    def find(self, sensors: Iterable[WatchedSensor]) -> None:
        """Update the list of sensors."""

    def show(self, sensor: WatchedSensor) -> None:
        """Show the last reading of *sensor*."""

    def tell(self, text: str) -> None:
        """Show the user a message that is not a reading."""
        tell(text)


class LineOutput(Output):
    """A line for each reading: for pipes, and where ``prompt_toolkit`` is missing."""

    def __init__(self, has_devices: bool) -> None:
        self._has_devices = has_devices
        self._widths = [0, 0]

    def find(self, sensors: Iterable[WatchedSensor]) -> None:
        """Update the widths of the columns."""
        for sensor in sensors:
            texts = (str(sensor.client.device), sensor.name)
            self._widths = [max(width, len(text)) for width, text in zip(self._widths, texts)]

    def show(self, sensor: WatchedSensor) -> None:
        reading = sensor.reading
        assert reading is not None
        status = str(reading.status)
        cells = [
            show_time(reading.timestamp).ljust(len("2026-11-22 19:38:41.250Z")),
            *([str(sensor.client.device).ljust(self._widths[0])] if self._has_devices else []),
            sensor.name.ljust(self._widths[1]),
            paint(status.ljust(len("nominal")), STATUS_COLOURS.get(status)),
            sensor.shown_value,
            sensor.units,
        ]
        print("  ".join(cells).rstrip())


class RecordOutput(Output):
    """JSON or CSV."""

    def __init__(self, form: str, has_devices: bool) -> None:
        self._has_devices = has_devices
        fields = ("device", *RECORD_FIELDS) if has_devices else RECORD_FIELDS
        self._writer = RecordWriter(form, fields)

    def show(self, sensor: WatchedSensor) -> None:
        record = make_record(sensor.remote, sensor.reading)
        if self._has_devices:
            record = {"device": str(sensor.client.device), **record}
        self._writer.write(record)
