"""``katcp sensors``: a table of the sensors of a device."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from typing import Any, NamedTuple, Optional, Sequence

from ..._wire.flags import ProtocolFlags
from ..connect import CommandClient, connected
from ..options import add_device_arguments
from ..output import OK, REFUSED, CommandError, is_terminal, paint, printable
from ..readings import (
    STATUS_COLOURS,
    Description,
    Progress,
    Reading,
    SensorFilter,
    ask_all,
    list_sensors,
    natural_key,
    parse_readings,
    shorten_cell,
    show_age,
    show_value,
)

HEADINGS = ("NAME", "STATUS", "VALUE", "UNITS", "AGE")
# A narrow terminal cuts values first, then names, to no less than this.
LEAST_WIDTHS = {"VALUE": 12, "NAME": 20}
GAP = "  "


class _Row(NamedTuple):
    """A line of the table."""

    name: str
    status: str
    value: str
    units: str
    age: str


def add_subcommand(subparsers: Any) -> None:
    """Add ``katcp sensors``."""
    parser = subparsers.add_parser(
        "sensors",
        help="show the sensors of a device, with their readings",
        description="Show the sensors of a device: name, status, value, units, and how long ago "
        "the value was read.",
        allow_abbrev=False,
    )
    add_device_arguments(parser)
    parser.add_argument(
        "filter",
        metavar="FILTER",
        nargs="?",
        type=SensorFilter,
        default=SensorFilter(""),
        help="which sensors: a part of their names; a pattern of whole names, like 'rack*.temp?'; "
        "or /regex/, if the device understands it",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    chosen = options.filter
    with connected(options, CommandClient) as client:
        described = list_sensors(client, chosen.arguments, options.timeout)
        described = {name: described[name] for name in described if chosen.matches(name)}
        if not described:
            raise CommandError("no such sensor", REFUSED)
        progress = Progress("Reading sensors", None if chosen.arguments else len(described))
        informs = ask_all(client, "sensor-value", chosen.arguments, options.timeout, progress)
        protocol = client.protocol_flags
    readings: dict[bytes, Reading] = {}
    for inform in informs:
        readings.update((reading.name, reading) for reading in parse_readings(inform, protocol))
    now = time.time()
    _print_table(
        [
            _make_row(described[name], readings.get(name), protocol, now)
            for name in sorted(described, key=natural_key)
        ]
    )
    return OK


def _make_row(
    description: Description,
    reading: Optional[Reading],
    protocol: Optional[ProtocolFlags],
    now: float,
) -> _Row:
    name = printable(description.name)
    if reading is None:
        # Removed a moment ago, or told in a way that nobody understands.
        return _Row(name, "no reading", "", description.units, "")
    value = show_value(reading, description.type, protocol)
    return _Row(name, reading.status, value, description.units, show_age(now - reading.timestamp))


def _print_table(rows: Sequence[_Row]) -> None:
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows)]
    if is_terminal(sys.stdout):
        _fit(widths, shutil.get_terminal_size().columns)
    print(paint(_line(HEADINGS, widths, None), "bold"))
    for row in rows:
        print(_line(row, widths, STATUS_COLOURS.get(row.status)))


def _fit(widths: list[int], available: int) -> None:
    """Make columns narrower, until the table fits or is as narrow as it may be."""
    for heading, least in LEAST_WIDTHS.items():
        column = HEADINGS.index(heading)
        excess = sum(widths) + len(GAP) * (len(widths) - 1) - available
        if excess > 0:
            widths[column] = min(widths[column], max(widths[column] - excess, least))


def _line(cells: Sequence[str], widths: Sequence[int], colour: Optional[str]) -> str:
    name, status, value, units, age = map(shorten_cell, cells, widths)
    padded = [
        name.ljust(widths[0]),
        paint(status.ljust(widths[1]), colour),
        value.ljust(widths[2]),
        units.ljust(widths[3]),
        age.rjust(widths[4]),
    ]
    return GAP.join(padded).rstrip()
