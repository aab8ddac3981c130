"""What a device logs, as the lines of a log."""

from __future__ import annotations

from typing import Optional

from .._wire.flags import ProtocolFlags
from .._wire.message import Message
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


def level_of(msg: Message) -> str:
    """Return the level of a ``#log``, in lower case; ``?`` if it has none."""
    return printable(msg.arguments[0]).lower() if msg.arguments else "?"


def show_log(msg: Message, protocol: Optional[ProtocolFlags]) -> str:
    """Return a ``#log`` as lines: time (UTC), level, logger and text; any may be missing."""
    level = level_of(msg)
    moment = b"".join(msg.arguments[1:2])
    *names, text = msg.arguments[2:] or [b""]
    shown_time = show_time(parse_timestamp(moment, protocol))
    head = [
        (printable(moment) or "-") if shown_time == "?" else shown_time,
        paint(level.upper().ljust(5), _LEVEL_COLOURS.get(level)),
        *(f"{printable(name)}:" for name in names),
    ]
    first, *others = printable_lines(text)
    return "\n    ".join([" ".join([*head, first]), *others])
