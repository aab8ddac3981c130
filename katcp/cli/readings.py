"""Sensors on the command line: filters, and formatting of readings."""

from __future__ import annotations

import datetime
import fnmatch
import math
import re
from typing import Any, Iterable, Mapping, Optional, Sequence, Union

from .._wire.arguments import read_timestamp
from ..client import RemoteSensor
from ..core import SEC_TS_KATCP_MAJOR, Message, ProtocolFlags, Reading
from .connect import NO_LIMIT, CommandClient, patiently
from .devices import Address
from .formats import Record, json_text
from .output import REFUSED, USAGE, CommandError, did_you_mean, printable

FILTER_HELP = """\
FILTER      which sensors: a name; a part of names, if no sensor has that name; a
            pattern of whole names, like 'rack*.temp?'; or a regular expression,
            like '/temp|volt/'. Default: all"""

# The keys of every reading for programs.
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

# The units of ages, each with the number of seconds from which it is used.
_UNITS_OF_AGE: tuple[tuple[Any, ...], ...] = (
    (86400, 86400, "d"),
    (3600, 3600, "h"),
    (120, 60, "min"),
    (0, 1, "s"),
)
_NO_TYPES: Mapping[bytes, str] = {}
_WILDCARDS = re.compile(r"[*?\[]")

# Understood by `katcp.client`: a name, a pattern like those of files, or a regex.
Pattern = Union[str, "re.Pattern[str]"]


# ---- filters ----


async def find_sensors(
    client: CommandClient, filters: Sequence[str], what: str = ""
) -> tuple[list[RemoteSensor], Pattern, list[str]]:
    """Return sensors like `choose_sensors`; raise `CommandError` if there is none."""
    work = client.sensors.async_find(timeout=NO_LIMIT)
    sensors = await patiently(client, Message.request("sensor-list"), work, what)
    chosen, pattern, problems = choose_sensors(sensors, filters)
    if not chosen:
        raise CommandError(f"{client.device}: {'; '.join(problems)}", REFUSED)
    return chosen, pattern, [f"{client.device}: {problem}" for problem in problems]


def choose_sensors(
    sensors: Sequence[RemoteSensor], filters: Sequence[str]
) -> tuple[list[RemoteSensor], Pattern, list[str]]:
    """Return the sensors that match any filter, sorted, or all; their pattern; the problems."""
    named = {sensor.name: sensor for sensor in sensors}
    patterns = [_pattern_of(text, named) for text in filters or ["*"]]
    chosen: set[str] = set()
    problems = []
    for text, pattern in zip(filters or ["*"], patterns):
        found = [name for name in named if _matches(pattern, name)]
        chosen.update(found)
        if not found:
            hint = did_you_mean(text, map(printable, named))
            problems.append(f"no sensor matches {text!r}{hint}")
    if not named:
        problems = ["the device has no sensors"]
    ordered = [named[name] for name in sorted(chosen, key=natural_key)]
    return ordered, _any_of(patterns), problems


def _any_of(patterns: Sequence[Pattern]) -> Pattern:
    """Return a pattern that matches if any of some patterns does."""
    if len(patterns) == 1:
        return patterns[0]
    sources = [
        rf"\A{fnmatch.translate(pattern)}" if isinstance(pattern, str) else pattern.pattern
        for pattern in patterns
    ]
    return re.compile("|".join(f"(?:{source})" for source in sources))


def _pattern_of(text: str, names: Iterable[str]) -> Pattern:
    """Return the pattern of a filter: see `FILTER_HELP`."""
    if len(text) > 1 and text.startswith("/") and text.endswith("/"):
        try:
            return re.compile(text[1:-1])
        except re.error as error:
            raise CommandError(f"bad regular expression {text}: {error}", USAGE) from None
    if text in names:
        return exact_pattern(text)
    return text if _WILDCARDS.search(text) else re.compile(re.escape(text))


def exact_pattern(name: str) -> Pattern:
    """Return the pattern of one name, whatever characters it has."""
    return re.compile(f"^{re.escape(name)}$") if _WILDCARDS.search(name) else name


def _matches(pattern: Pattern, name: str) -> bool:
    if isinstance(pattern, str):
        return fnmatch.fnmatchcase(name, pattern)
    return pattern.search(name) is not None


def natural_key(name: str) -> list[Union[tuple[int, str], tuple[int, int, str]]]:
    """Return a key that sorts ``antenna-2`` before ``antenna-10``."""
    return [
        (1, len(part.lstrip("0")), part.lstrip("0")) if part.isdigit() else (0, part)
        for part in re.split("([0-9]+)", name)
    ]


# ---- for people ----


def show_value(value: Any, sensor_type: str) -> str:
    """Format the value of a reading for people; a time as a date."""
    if sensor_type == "timestamp" and isinstance(value, float):
        shown = show_time(value)
        return str(value) if shown == "?" else shown
    if isinstance(value, tuple):
        host, port = value
        return host if port is None else str(Address(host, port))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else printable(str(value))


def show_time(timestamp: float) -> str:
    """Format a time as date and time of day in UTC, to the millisecond."""
    try:
        # Half a millisecond more, because isoformat() truncates.
        moment = datetime.datetime.fromtimestamp(timestamp + 0.0005, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return "?"
    return moment.replace(tzinfo=None).isoformat(" ", "milliseconds") + "Z"


def show_age(timestamp: float, now: float) -> str:
    """Format an age; clocks may differ, so it may be negative.

    A timestamp of 0 belongs to a sensor that was never read.
    """
    seconds = now - timestamp
    if not timestamp or not math.isfinite(seconds):
        return "?" if timestamp else "never"
    size, unit = next(rest for least, *rest in _UNITS_OF_AGE if abs(seconds) >= least)
    # 0.0 is added because a rounded number may be -0.0.
    number = round(seconds / size, 1 if abs(seconds) < 10 else 0) + 0.0
    return f"{number:.1f} {unit}" if abs(seconds) < 10 else f"{number:.0f} {unit}"


def parse_timestamp(text: bytes, protocol: Optional[ProtocolFlags]) -> float:
    """Parse a time in seconds since 1970; return NaN if it is invalid."""
    milliseconds = None if protocol is None else protocol.major < SEC_TS_KATCP_MAJOR
    try:
        return read_timestamp(text, milliseconds)
    except ValueError:
        return math.nan


def show_arguments(
    inform: Message, protocol: Optional[ProtocolFlags], types: Mapping[bytes, str] = _NO_TYPES
) -> list[bytes]:
    """Format the arguments of an inform for people; the times in readings as dates.

    *types* are those of sensors, by name.
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


# ---- for programs ----


def json_value(value: Any) -> Any:
    """Return a value for JSON: a number, a boolean, or text."""
    if isinstance(value, str):
        return json_text(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, tuple):
        return show_value(value, "address")
    # JSON has no infinity.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def json_time(timestamp: float) -> Optional[float]:
    """Return a time for JSON: None if it is invalid."""
    return round(timestamp, 6) if math.isfinite(timestamp) else None


def make_record(sensor: RemoteSensor, reading: Optional[Reading]) -> Record:
    """Return a reading as a record for programs."""
    return {
        "timestamp": None if reading is None else json_time(reading.timestamp),
        "name": printable(sensor.name),
        "status": None if reading is None else str(reading.status),
        "value": None if reading is None else json_value(reading.value),
        "units": printable(sensor.units),
    }
