"""``katcp sensors``: a table of the sensors of devices."""

from __future__ import annotations

import argparse
import contextlib
import time
from typing import Any, NamedTuple, Optional, Sequence

from ...core import Message, ProtocolFlags
from ..connect import CommandClient, answers, ask_all, check_reply, started
from ..devices import Address, split_devices
from ..formats import RecordWriter
from ..options import FIRST_DEVICE_HELP, add_device_options, add_output_option
from ..output import OK, REFUSED, CommandError, printable, tell
from ..readings import (
    FEW,
    FILTER_HELP,
    RECORD_FIELDS,
    STATUS_COLOURS,
    Description,
    Reading,
    choose_sensors,
    make_record,
    parse_descriptions,
    parse_readings,
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
    """Add ``katcp sensors``."""
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
    """A sensor of a device, and its reading if it has one."""

    device: Address
    protocol: Optional[ProtocolFlags]
    description: Description
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
                rows += _read(client, filters)
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


def _read(client: CommandClient, filters: Sequence[str]) -> list[_Row]:
    """Return the sensors of a device, or raise `CommandError`."""
    device = client.device
    informs = ask_all(client, "sensor-list", what=f"Listing sensors of {device}")
    chosen, problems = choose_sensors(parse_descriptions(informs), filters)
    if not chosen:
        raise CommandError(f"{device}: {'; '.join(problems)}", REFUSED)
    for problem in problems:
        tell(f"{device}: {problem}")
    if len(chosen) > FEW or not filters:
        informs = ask_all(client, "sensor-value", what=f"Reading sensors of {device}")
    else:
        informs = [inform for one in chosen for inform in _read_one(client, one.name)]
    protocol = client.protocol_flags
    readings: dict[bytes, Reading] = {}
    for inform in informs:
        readings.update((reading.name, reading) for reading in parse_readings(inform, protocol))
    return [_Row(device, protocol, one, readings.get(one.name)) for one in chosen]


def _read_one(client: CommandClient, name: bytes) -> list[Message]:
    """Return the readings of a sensor; none if it was removed a moment ago."""
    request = Message.request("sensor-value", name)
    *informs, reply = answers(client, request)
    if reply.local_error is not None:
        check_reply(client, request, reply)
    return informs


def _record(row: _Row, is_only: bool) -> dict[str, Any]:
    record = make_record(row.description, row.reading, row.protocol)
    record |= {"type": row.description.type, "description": row.description.text}
    return record if is_only else {"device": str(row.device), **record}


def _print_table(rows: Sequence[_Row], is_only: bool) -> None:
    now = time.time()
    first = 1 if is_only else 0
    print_table(COLUMNS[first:], [_cells(row, now)[first:] for row in rows])


def _cells(row: _Row, now: float) -> list[str]:
    description, reading = row.description, row.reading
    if reading is None:
        # Removed a moment ago, or told in a way that nobody understands.
        status, value, age = "no reading", "", ""
    else:
        status = reading.status
        value = show_value(reading, description.type, row.protocol)
        age = show_age(reading.timestamp, now)
    return [
        str(row.device),
        printable(description.name),
        status,
        value,
        description.units,
        age,
        description.type,
        description.text,
    ]
