"""Log messages of a device, and their formatting as lines."""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

from ..core import Message, ProtocolFlags
from .output import paint, printable, printable_lines
from .readings import parse_timestamp, show_time

# From the lowest to the highest; the first and the last are settings only.
LEVELS = ("all", "trace", "debug", "info", "warn", "error", "fatal", "off")
_LEVEL_COLOURS = {
    "trace": "dim",
    "debug": "dim",
    "info": "green",
    "warn": "yellow",
    "warning": "yellow",
    "error": "red",
    "fatal": "red",
}


class LogLine(NamedTuple):
    """The content of a ``#log``; any part may be missing. The timestamp is in seconds."""

    level: str
    moment: bytes
    timestamp: float
    logger: str
    text: bytes


def parse_log(msg: Message, protocol: Optional[ProtocolFlags]) -> LogLine:
    """Parse a ``#log``."""
    level = printable(msg.arguments[0]).lower() if msg.arguments else "?"
    moment = b"".join(msg.arguments[1:2])
    timestamp = parse_timestamp(moment, protocol) if moment else math.nan
    *names, text = msg.arguments[2:] or [b""]
    return LogLine(level, moment, timestamp, ": ".join(map(printable, names)), text)


def show_log(line: LogLine) -> str:
    """Format a log message for people: time (UTC), level, logger and text."""
    shown_time = show_time(line.timestamp)
    head = [
        (printable(line.moment) or "-") if shown_time == "?" else shown_time,
        paint(line.level.upper().ljust(5), _LEVEL_COLOURS.get(line.level)),
        *([f"{line.logger}:"] if line.logger else []),
    ]
    first, *others = printable_lines(line.text)
    return "\n    ".join([" ".join([*head, first]), *others])
