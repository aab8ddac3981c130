"""Sensors as the command line shows them: reading what a device tells, and its words.

Everything here is lenient: a device that describes one sensor oddly shall not
cost the user the others.
"""

from __future__ import annotations

import datetime
import fnmatch
import math
import re
import sys
import time
from typing import Any, NamedTuple, Optional, Sequence, Union

from .._wire.arguments import read_float, read_timestamp
from .._wire.flags import SEC_TS_KATCP_MAJOR, ProtocolFlags
from .._wire.message import Message
from .connect import CommandClient, answers, check_reply
from .output import is_terminal, printable

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

# Seconds between two looks of the progress.
_PROGRESS_INTERVAL = 0.1
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


class Reading(NamedTuple):
    """What a sensor shows; the timestamp is in seconds, or not a number."""

    name: bytes
    timestamp: float
    status: str
    value: bytes


class SensorFilter:
    """Which sensors are meant.

    Parameters
    ----------
    text : str
        ``/regex/`` is for the device to understand. A text with one of ``*?[`` is
        a pattern for whole names, as in a shell. Any other text is a part of a name.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        is_regex = len(text) > 1 and text.startswith("/") and text.endswith("/")
        self.arguments = [text] if is_regex else []
        self._is_pattern = is_pattern(text)

    def matches(self, name: bytes) -> bool:
        """Return whether a sensor is meant; those of a regex the device has chosen."""
        if self.arguments:
            return True
        text = printable(name)
        if self._is_pattern:
            return fnmatch.fnmatchcase(text, self._text)
        return self._text in text


class Progress:
    """How far a long answer is, on the standard error, if that is a terminal.

    Parameters
    ----------
    what : str
        What is going on.
    total : int, optional
        How many lines there will be.
    """

    def __init__(self, what: str, total: Optional[int] = None) -> None:
        self._what = what
        self._of_total = f" of {total}" if total else ""
        self._is_shown = is_terminal(sys.stderr)
        self._is_dirty = False
        self._next_time = time.monotonic() + _PROGRESS_INTERVAL

    def show(self, count: int) -> None:
        """Tell that *count* lines are there, now and then."""
        if self._is_shown and time.monotonic() >= self._next_time:
            self._next_time = time.monotonic() + _PROGRESS_INTERVAL
            self._write(f"{self._what}: {count}{self._of_total}")
            self._is_dirty = True

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._is_dirty:
            self._write("")

    def _write(self, text: str) -> None:
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)


# ---- asking ----


def ask_all(
    client: CommandClient,
    name: str,
    arguments: Sequence[Union[str, bytes]],
    timeout: float,
    progress: Progress,
) -> list[Message]:
    """Return the informs of a request that succeeds, or raise `CommandError`."""
    informs = []
    try:
        for message in answers(client, Message.request(name, *arguments), timeout):
            if message.mtype == Message.REPLY:
                check_reply(message, f"?{name}")
            else:
                informs.append(message)
                progress.show(len(informs))
    finally:
        progress.clear()
    return informs


def list_sensors(
    client: CommandClient, arguments: Sequence[Union[str, bytes]], timeout: float
) -> dict[bytes, Description]:
    """Return the descriptions of sensors by name, or raise `CommandError`."""
    informs = ask_all(client, "sensor-list", arguments, timeout, Progress("Listing sensors"))
    found = map(parse_description, informs)
    return {description.name: description for description in found if description is not None}


# ---- reading ----


def parse_description(inform: Message) -> Optional[Description]:
    """Return what a ``#sensor-list`` says, or None if it says too little."""
    if len(inform.arguments) < 4:
        return None
    name, _, units, sensor_type = inform.arguments[:4]
    return Description(name, printable(units), printable(sensor_type))


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


def show_age(seconds: float) -> str:
    """Return how long ago something was; clocks may differ, so it may be negative."""
    if not math.isfinite(seconds):
        return "?"
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


def is_pattern(text: str) -> bool:
    """Return whether *text* is a pattern of names, not a name."""
    return any(character in text for character in "*?[")


def shorten_cell(text: str, width: int) -> str:
    """Return *text*, cut to *width* characters; what was cut is shown by dots."""
    return text if len(text) <= width else f"{text[: max(width - 3, 0)]}..."[:width]
