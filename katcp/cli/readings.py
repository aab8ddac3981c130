"""Sensors as the command line shows them: reading what a device tells, and its words.

Everything here is lenient: a device that describes one sensor oddly does not cost the
user the others.
"""

from __future__ import annotations

import datetime
import fnmatch
import math
import re
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Optional, Sequence, Union

from .._wire.arguments import decoder, read_float, read_timestamp, write_timestamp
from ..core import DEFAULT_KATCP_MAJOR, SEC_TS_KATCP_MAJOR, Message, ProtocolFlags
from .formats import Record, json_text
from .output import USAGE, CommandError, did_you_mean, printable

FILTER_HELP = """\
FILTER      which sensors: a name; a part of names, if no sensor has that name; a
            pattern of whole names, like 'rack*.temp?'; or a regular expression,
            like '/temp|volt/'. Default: all"""

# Up to so many sensors are read one by one; more are chosen from the readings of all.
FEW = 20

# What every reading has for programs.
RECORD_FIELDS = ("timestamp", "name", "status", "value", "units")

STATUS_COLOURS = {
    "nominal": "green",
    "warn": "yellow",
    "error": "red",
    "failure": "red",
    "unreachable": "magenta",
    "inactive": "dim",
    "unknown": "dim",
}
# The statuses with which the value means something.
USABLE_STATUSES = ("nominal", "warn", "error")
NUMBER_TYPES = ("integer", "float")

_NO_TYPES: Mapping[bytes, str] = {}
# A longer number stays text: nobody could read it as a number.
_MAX_DIGITS = 300
# What the age of a reading is told in, from how many seconds on.
_UNITS_OF_AGE: tuple[tuple[Any, ...], ...] = (
    (86400, 86400, "d"),
    (3600, 3600, "h"),
    (120, 60, "min"),
    (0, 1, "s"),
)


class Description(NamedTuple):
    """What a device says of a sensor, once."""

    name: bytes
    units: str
    type: str
    text: str = ""


class Reading(NamedTuple):
    """What a sensor shows; the timestamp is in seconds, or not a number."""

    name: bytes
    timestamp: float
    status: str
    value: bytes


# ---- which sensors ----


class SensorFilter:
    """Which sensors are meant.

    Parameters
    ----------
    text : str
        The name of a sensor; a part of names, if no sensor has that name; a pattern of
        whole names with one of ``*?[``, as in a shell; or a ``/regex/``.

    Raises
    ------
    CommandError
        If the regular expression is malformed.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._matches: Callable[[str], Any] = lambda name: text in name
        if len(text) > 1 and text.startswith("/") and text.endswith("/"):
            try:
                self._matches = re.compile(text[1:-1]).search
            except re.error as error:
                raise CommandError(f"bad regular expression {text}: {error}", USAGE) from None
        elif any(character in text for character in "*?["):
            self._matches = re.compile(fnmatch.translate(text)).match

    def choose(self, names: Iterable[bytes]) -> list[bytes]:
        """Return the names that are meant."""
        shown = {name: printable(name) for name in names}
        exact = [name for name in shown if shown[name] == self._text]
        return exact or [name for name in shown if self._matches(shown[name])]


def choose_sensors(
    described: dict[bytes, Description], filters: Sequence[str]
) -> tuple[list[Description], list[str]]:
    """Return the sensors that any filter means, sorted, or all; and what is wrong.

    Parameters
    ----------
    described : dict
        All sensors by name.
    filters : sequence of str
        What `SensorFilter` understands.
    """
    chosen: set[bytes] = set() if filters else set(described)
    problems = []
    for text in filters:
        found = SensorFilter(text).choose(described)
        chosen.update(found)
        if not found:
            hint = did_you_mean(text, map(printable, described))
            problems.append(f"no sensor matches {text!r}{hint}")
    if not described:
        problems = ["the device has no sensors"]
    return [described[name] for name in sorted(chosen, key=natural_key)], problems


# ---- reading ----


def parse_descriptions(informs: Iterable[Message]) -> dict[bytes, Description]:
    """Return what ``#sensor-list`` informs say, by name; without those that say too little."""
    found = {}
    for inform in informs:
        if len(inform.arguments) >= 4:
            name, text, units, sensor_type = inform.arguments[:4]
            found[name] = Description(name, *map(printable, (units, sensor_type, text)))
    return found


def parse_readings(inform: Message, protocol: Optional[ProtocolFlags]) -> list[Reading]:
    """Return the readings in a ``#sensor-value`` or ``#sensor-status``; none if it is malformed."""
    head, triples = inform.arguments[:2], inform.arguments[2:]
    # The number of readings has few digits: a long text is never converted.
    if len(head) < 2 or not head[1].isdigit() or len(head[1]) > 9:
        return []
    if len(triples) != 3 * int(head[1]):
        return []
    timestamp = parse_timestamp(head[0], protocol)
    return [
        Reading(name, timestamp, printable(status), value)
        for name, status, value in zip(triples[::3], triples[1::3], triples[2::3])
    ]


def parse_timestamp(text: bytes, protocol: Optional[ProtocolFlags]) -> float:
    """Return a time in seconds since 1970, or not a number."""
    milliseconds = None if protocol is None else protocol.major < SEC_TS_KATCP_MAJOR
    try:
        return read_timestamp(text, milliseconds)
    except ValueError:
        return math.nan


def parse_number(text: bytes) -> float:
    """Return the number that *text* is; what is none is not a number."""
    try:
        return read_float(text)
    except ValueError:
        return math.nan


# ---- words ----


def show_value(reading: Reading, sensor_type: str, protocol: Optional[ProtocolFlags]) -> str:
    """Return the value of a reading for people: a time as a date."""
    if sensor_type == "timestamp" and reading.status in USABLE_STATUSES:
        moment = parse_timestamp(reading.value, protocol)
        if not math.isnan(moment):
            return show_time(moment)
    return printable(reading.value)


def show_time(timestamp: float) -> str:
    """Return a time as date and time of day in UTC, to the millisecond."""
    try:
        # Half a millisecond more, because isoformat() cuts.
        moment = datetime.datetime.fromtimestamp(timestamp + 0.0005, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return "?"
    return moment.replace(tzinfo=None).isoformat(" ", "milliseconds") + "Z"


def show_age(timestamp: float, now: float) -> str:
    """Return how long ago something was; clocks may differ, so it may be negative.

    A timestamp of 0 is that of a sensor that was never read.
    """
    seconds = now - timestamp
    if not timestamp or not math.isfinite(seconds):
        return "?" if timestamp else "never"
    size, unit = next(rest for least, *rest in _UNITS_OF_AGE if abs(seconds) >= least)
    # 0.0 is added because a rounded number may be -0.0.
    number = round(seconds / size, 1 if abs(seconds) < 10 else 0) + 0.0
    return f"{number:.1f} {unit}" if abs(seconds) < 10 else f"{number:.0f} {unit}"


def natural_key(name: bytes) -> list[Union[tuple[int, bytes], tuple[int, int, bytes]]]:
    """Return a key that sorts ``antenna-2`` before ``antenna-10``."""
    return [
        (1, len(part.lstrip(b"0")), part.lstrip(b"0")) if part.isdigit() else (0, part)
        for part in re.split(rb"([0-9]+)", name)
    ]


def json_value(reading: Reading, sensor_type: str, protocol: Optional[ProtocolFlags]) -> Any:
    """Return a value as a number or a boolean, if it is one that JSON knows, else as text."""
    text = json_text(reading.value)
    if reading.status not in USABLE_STATUSES or len(reading.value) > _MAX_DIGITS:
        return text
    if sensor_type not in (*NUMBER_TYPES, "boolean", "timestamp"):
        return text
    major = DEFAULT_KATCP_MAJOR if protocol is None else protocol.major
    try:
        value = decoder(sensor_type, major=major)(reading.value)
    except ValueError:
        return text
    # JSON knows no infinity.
    return text if isinstance(value, float) and not math.isfinite(value) else value


def json_time(timestamp: float) -> Optional[float]:
    """Return a time as JSON has it: None for one that is none."""
    return round(timestamp, 6) if math.isfinite(timestamp) else None


def make_record(
    description: Description, reading: Optional[Reading], protocol: Optional[ProtocolFlags]
) -> Record:
    """Return a reading for programs."""
    return {
        "timestamp": None if reading is None else json_time(reading.timestamp),
        "name": printable(description.name),
        "status": None if reading is None else reading.status,
        "value": None if reading is None else json_value(reading, description.type, protocol),
        "units": description.units,
    }


def show_arguments(
    inform: Message, protocol: Optional[ProtocolFlags], types: Mapping[bytes, str] = _NO_TYPES
) -> list[bytes]:
    """Return the arguments of an inform for people: the times in readings as dates.

    Parameters
    ----------
    inform : Message
        The inform.
    protocol : ProtocolFlags or None
        What the device speaks.
    types : mapping, optional
        The types of sensors by name.
    """
    if inform.name not in ("sensor-value", "sensor-status"):
        return inform.arguments

    def show(text: bytes) -> bytes:
        moment = show_time(parse_timestamp(text, protocol))
        return text if moment == "?" else moment.replace(" ", "T").encode()

    shown = [show(text) if place == 0 else text for place, text in enumerate(inform.arguments)]
    for place in range(2, len(shown) - 2, 3):
        if types.get(shown[place]) == "timestamp":
            shown[place + 2] = show(shown[place + 2])
    return shown


def format_period(seconds: float, protocol: Optional[ProtocolFlags]) -> str:
    """Return a period as the device wants it; one that does not say is of version 4."""
    major = SEC_TS_KATCP_MAJOR - 1 if protocol is None else protocol.major
    text = write_timestamp(seconds, major).decode("ascii")
    return text.rstrip("0").rstrip(".") if "." in text else text
