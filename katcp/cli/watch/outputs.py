"""The sensors that ``katcp watch`` shows, and three plain ways to show them.

An output is told of each reading (`show`), of what the user should know (`tell`)
and of the connection (`on_connection`), and is asked a few times a second to let it
be seen (`refresh`). It is a context manager. `LineOutput` and those that record are
here; the live table, which needs ``rich``, is in `katcp.cli.watch.table`.
"""

from __future__ import annotations

import collections
import csv
import json
import math
import sys
from typing import Any, Iterable, Mapping, Optional

from ..._wire.arguments import decoder
from ..._wire.flags import ProtocolFlags
from ..connect import CONNECTED_AGAIN, CONNECTION_LOST
from ..output import paint, printable, tell
from ..readings import (
    NUMBER_TYPES,
    STATUS_COLOURS,
    USABLE_STATUSES,
    Description,
    Reading,
    parse_number,
    show_time,
    show_value,
)

# So many readings of a sensor are kept for its plot: more than any terminal is wide.
PLOTTED_READINGS = 500
PLOT_LEVELS = "▁▂▃▄▅▆▇█"
ASCII_PLOT_LEVELS = "_.-=+*%#"

# A longer number is recorded as text: nobody could read it as a number.
_MAX_DIGITS = 300
_RECORDED = ("timestamp", "name", "status", "value", "units")


class WatchedSensor:
    """A sensor, and its last readings.

    Parameters
    ----------
    description : Description
        What the device says of it.

    Attributes
    ----------
    description : Description
        As given.
    reading : Reading or None
        The last one.
    shown_value : str
        Its value, for people.
    numbers : collections.deque
        The last values, if they are numbers; not a number where there was none.
    """

    def __init__(self, description: Description) -> None:
        self.description = description
        self.name = printable(description.name)
        self.reading: Optional[Reading] = None
        self.shown_value = ""
        self.numbers: collections.deque[float] = collections.deque(maxlen=PLOTTED_READINGS)

    def update(self, reading: Reading, protocol: Optional[ProtocolFlags]) -> None:
        """Take in a reading."""
        self.reading = reading
        self.shown_value = show_value(reading, self.description.type, protocol)
        if self.description.type in NUMBER_TYPES:
            is_usable = reading.status in USABLE_STATUSES
            self.numbers.append(parse_number(reading.value) if is_usable else math.nan)


class Output:
    """What all outputs have; this one says nothing but to the user."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exception: object) -> None:
        """End."""

    def show(self, sensor: WatchedSensor, reading: Reading) -> None:
        """Show a reading that *sensor* has taken in."""

    def tell(self, text: str) -> None:
        """Tell the user something that is no reading."""
        tell(text)

    def on_connection(self, connected: bool) -> None:
        """Tell that the connection was lost or made again."""
        self.tell(CONNECTED_AGAIN if connected else CONNECTION_LOST)

    def refresh(self) -> None:
        """Let be seen what was shown."""
        sys.stdout.flush()


class LineOutput(Output):
    """A line for each reading: for pipes, and where ``rich`` is missing.

    Parameters
    ----------
    sensors : iterable of WatchedSensor
        All that will be shown.
    """

    def __init__(self, sensors: Iterable[WatchedSensor]) -> None:
        self._name_width = max(len(sensor.name) for sensor in sensors)

    def show(self, sensor: WatchedSensor, reading: Reading) -> None:
        """Print a line."""
        cells = [
            show_time(reading.timestamp).ljust(len("2026-11-22 19:38:41.250Z")),
            sensor.name.ljust(self._name_width),
            paint(reading.status.ljust(len("nominal")), STATUS_COLOURS.get(reading.status)),
            sensor.shown_value,
            sensor.description.units,
        ]
        print("  ".join(cells).rstrip())


class CsvOutput(Output):
    """Comma-separated values, with a heading."""

    def __init__(self) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._writer.writerow(_RECORDED)

    def show(self, sensor: WatchedSensor, reading: Reading) -> None:
        """Print a line; a time that is none is left out."""
        has_time = math.isfinite(reading.timestamp)
        self._writer.writerow(
            [
                f"{reading.timestamp:.6f}" if has_time else "",
                sensor.name,
                reading.status,
                printable(reading.value),
                sensor.description.units,
            ]
        )


class JsonOutput(Output):
    """A JSON object in each line."""

    def show(self, sensor: WatchedSensor, reading: Reading) -> None:
        """Print a line; a time that is none is null."""
        record: Mapping[str, Any] = {
            "timestamp": round(reading.timestamp, 6) if math.isfinite(reading.timestamp) else None,
            "name": sensor.name,
            "status": reading.status,
            "value": json_value(reading, sensor.description.type),
            "units": sensor.description.units,
        }
        print(json.dumps(record, ensure_ascii=False))


def json_value(reading: Reading, sensor_type: str) -> Any:
    """Return a value as a number or a boolean, if it is one that JSON knows, else as text."""
    text = printable(reading.value)
    if reading.status not in USABLE_STATUSES or len(reading.value) > _MAX_DIGITS:
        return text
    if sensor_type not in (*NUMBER_TYPES, "boolean"):
        return text
    try:
        value = decoder(sensor_type)(reading.value)
    except ValueError:
        return text
    # JSON knows no infinity.
    return text if isinstance(value, float) and not math.isfinite(value) else value


def plot(numbers: Iterable[float], width: int, levels: str) -> str:
    """Return the last *width* numbers as a line of characters, the highest as the last level.

    Parameters
    ----------
    numbers : iterable of float
        What to plot; what is not finite leaves a gap.
    width : int
        The number of characters.
    levels : str
        The characters, from low to high.

    Returns
    -------
    str
        As many characters as there are numbers, at most *width*.
    """
    shown = list(numbers)[-width:] if width > 0 else []
    low, high = extent(shown)
    # Halves, for the difference of two numbers can be too large for one.
    span = high / 2 - low / 2

    def level(number: float) -> str:
        if not math.isfinite(number):
            return " "
        if span <= 0:
            return levels[0]
        part = (number / 2 - low / 2) / span
        return levels[min(int(part * len(levels)), len(levels) - 1)]

    return "".join(map(level, shown))


def extent(numbers: Iterable[float]) -> tuple[float, float]:
    """Return the lowest and the highest number; not a number if there is none."""
    finite = [number for number in numbers if math.isfinite(number)]
    return (min(finite), max(finite)) if finite else (math.nan, math.nan)
