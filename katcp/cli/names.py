"""Completion: the names that fit at a position in a request.

The arguments of the protocol's requests are known; those of others are read from the device's help.
Two forms are understood: a usage, as in ``Read a register (?read register [offset [count]]).``, and
numpydoc's list of parameters.
"""

from __future__ import annotations

import re
from typing import Callable, Optional, Sequence

from .loglines import LEVELS
from .output import printable

# Names, each with a description.
Names = dict[str, str]
# Returns the names of one kind: REQUESTS, SENSORS or REGISTERS.
LookUp = Callable[[str], Names]

REQUESTS, SENSORS, REGISTERS = "help", "sensor-list", "listdev"

_STRATEGIES = dict.fromkeys(
    ["none", "auto", "event", "period", "differential", "event-rate", "differential-rate"], ""
)
_LEVELS = dict.fromkeys(LEVELS, "")

# The arguments of the protocol's requests.
_STANDARD: dict[str, Sequence[str]] = {
    "help": ("request",),
    "log-level": ("level",),
    "request-timeout-hint": ("request",),
    "sensor-list": ("sensor",),
    "sensor-sampling": ("sensor", "strategy", "params"),
    "sensor-value": ("sensor",),
    **dict.fromkeys(("client-list", "halt", "restart", "version-list", "watchdog"), ()),
}

# The kind of names for a word in the name of an argument, or in the help.
_KINDS = (
    ("register", REGISTERS),
    ("sensor", SENSORS),
    ("request", REQUESTS),
    ("command", REQUESTS),
)
# A parameter in numpydoc; its description is indented further.
_PARAMETER_RE = re.compile(r"^ {0,8}(\w[\w-]*) ?:", re.MULTILINE)


def candidates(before: Sequence[str], look_up: LookUp) -> Names:
    """Return the names that may follow some words of a request, with descriptions."""
    requests = look_up(REQUESTS)
    if not before:
        return requests
    name = before[0].removeprefix("?")
    parameters = _STANDARD.get(name)
    if parameters is None:
        parameters = read_parameters(name, requests.get(name, ""))
    if parameters is None:
        return look_up(SENSORS)
    if not parameters:
        return {}
    # The last one may be repeated.
    parameter = parameters[min(len(before), len(parameters)) - 1]
    if parameter.startswith("name"):
        # Of the subject of the request.
        parameter = f"{name} {requests[name].split('(')[0]}"
    for word, names in (("strategy", _STRATEGIES), ("level", _LEVELS)):
        if word in parameter:
            return names
    for word, kind in _KINDS:
        if word in parameter.lower():
            return look_up(kind)
    return {}


def read_parameters(name: str, help_text: str) -> Optional[Sequence[str]]:
    """Return the names of a request's arguments, or None if the help does not say."""
    usage = re.search(rf"\(\?{re.escape(name)}\b([^()]*)\)", help_text)
    if usage is not None:
        return re.sub(r"\bor /?\w+/?|[][<>.]", " ", usage[1]).split()
    _, _, section = help_text.partition("Parameters\n")
    section = re.split(r"\n *\w+\n *-+\n", section.partition("\n")[2])[0]
    return _PARAMETER_RE.findall(section) or None


def first_line(text: str) -> str:
    """Return the first line of a help text."""
    lines = text.strip().splitlines()
    return printable(" ".join(lines[0].split())) if lines else ""


def describe_sensor(description: str = "", units: str = "", kind: str = "", *_: str) -> str:
    """Return the description of a sensor to show with its name."""
    about = " ".join(filter(None, [kind, f"in {units}" if units else ""]))
    return f"{description} ({about})" if about else description


def make_names(kind: str, rows: Sequence[Sequence[str]]) -> Names:
    """Return the names in the informs of a request, whose arguments are *rows*."""
    describe = describe_sensor if kind == SENSORS else lambda *texts: " ".join(texts)
    return {name: describe(*texts) for name, *texts in filter(None, rows) if name}
