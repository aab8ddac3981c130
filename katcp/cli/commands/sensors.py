"""``katcp sensors``: a table of the sensors of devices."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from typing import Any, NamedTuple, Optional, Sequence

from ...client import RemoteSensor
from ...core import Message, Reading
from ..connect import NO_LIMIT, CommandClient, patiently, started
from ..devices import Address, split_devices
from ..formats import Record, RecordWriter
from ..options import FIRST_DEVICE_HELP, add_device_options, add_output_option
from ..output import OK, CommandError, printable, tell
from ..readings import (
    FILTER_HELP,
    RECORD_FIELDS,
    STATUS_COLOURS,
    find_sensors,
    make_record,
    show_age,
    show_value,
)
from ..tables import Column, print_table

COLUMNS = (
    Column("DEVICE"),
    Column("NAME", least=20),
    Column("STATUS", colours=STATUS_COLOURS),
    Column("VALUE", least=12),
    Column("UNITS"),
    Column("AGE", is_right=True),
    Column("TYPE", is_optional=True),
    Column("DESCRIPTION", least=12, is_optional=True),
)

EXAMPLES = """
sensors
sensors localhost:7147 temp 'rack*.volt?'
sensors -d antenna1 -d antenna2 mode -o csv
"""


def add_subcommand(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "sensors",
        help="show the sensors of devices, with their readings",
        description="Show the sensors of one or more devices: name, status, value, units, how\n"
        "long ago the value was read, type and description. What does not fit a narrow\n"
        "terminal is cut or left out.",
        usage="[DEVICE...] [FILTER...]",
        words=f"{FIRST_DEVICE_HELP}\n{FILTER_HELP}",
        examples=EXAMPLES,
    )
    add_output_option(parser)
    add_device_options(parser, has_several=True)
    parser.set_defaults(run=_run)


class _Row(NamedTuple):
    """A sensor of a device, and its reading; None if it was just removed."""

    device: Address
    sensor: RemoteSensor
    reading: Optional[Reading]


def _run(options: argparse.Namespace) -> int:
    devices, filters = split_devices(options.device, options.words, most=None)
    is_only = len(devices) == 1
    rows: list[_Row] = []
    errors: list[CommandError] = []
    with contextlib.ExitStack() as stack:
        # All connect at the same time.
        clients = [
            stack.enter_context(started(CommandClient(options, device))) for device in devices
        ]
        for client in clients:
            try:
                client.wait_ready()
                rows += asyncio.run(_read(client, filters))
            except CommandError as error:
                errors.append(error)
    if len(errors) == len(devices):
        raise errors[0]
    for problem in errors:
        tell(str(problem))
    if options.output == "table":
        _print_table(rows, is_only)
    else:
        fields = [*RECORD_FIELDS, "type", "description"]
        writer = RecordWriter(options.output, fields if is_only else ["device", *fields])
        writer.write_all([_record(row, is_only) for row in rows])
    return errors[0].code if errors else OK


async def _read(client: CommandClient, filters: Sequence[str]) -> list[_Row]:
    """Return the sensors of a device, or raise `CommandError`."""
    chosen, pattern, problems = await find_sensors(
        client, filters, f"Listing sensors of {client.device}"
    )
    for problem in problems:
        tell(problem)
    readings = await patiently(
        client,
        Message.request("sensor-value"),
        client.sensors.async_read(pattern, timeout=NO_LIMIT),
        f"Reading sensors of {client.device}",
    )
    return [_Row(client.device, sensor, readings.get(sensor.name)) for sensor in chosen]


def _record(row: _Row, is_only: bool) -> Record:
    record = make_record(row.sensor, row.reading)
    record |= {"type": row.sensor.type, "description": printable(row.sensor.description)}
    return record if is_only else {"device": str(row.device), **record}


def _print_table(rows: Sequence[_Row], is_only: bool) -> None:
    now = time.time()
    first = 1 if is_only else 0
    print_table(COLUMNS[first:], [_cells(row, now)[first:] for row in rows])


def _cells(row: _Row, now: float) -> list[str]:
    sensor, reading = row.sensor, row.reading
    read = ["no reading", "", ""]
    if reading is not None:
        value, age = show_value(reading.value, sensor.type), show_age(reading.timestamp, now)
        read = [str(reading.status), value, age]
    texts = map(printable, (sensor.name, sensor.units, sensor.type, sensor.description))
    name, units, sensor_type, description = texts
    status, value, age = read
    return [str(row.device), name, status, value, units, age, sensor_type, description]
