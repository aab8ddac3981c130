"""``katcp watch``: sensors as they change."""

from __future__ import annotations

import argparse
import contextlib
import queue
import sys
import time
from typing import Any, Sequence

from ..devices import split_devices
from ..follow import Events, following, text_of_event
from ..options import FIRST_DEVICE_HELP, add_device_options, add_output_option, parse_positive
from ..output import (
    HOW_TO_INSTALL,
    INTERRUPTED,
    is_terminal,
    tell,
)
from ..readings import FILTER_HELP, Reading
from .outputs import LineOutput, Output, RecordOutput
from .sampling import WatchClient, WatchedSensor

# How many seconds devices may take to switch the sampling off, when we want to go.
PARTING_PATIENCE = 0.5

EXAMPLES = """
watch
watch localhost:7147 temperature 'rack*.volt?'
watch -d antenna1 -d antenna2 /temp/ --period 1
watch temperature -o csv > temperature.csv
"""


def add_subcommand(subparsers: Any) -> None:
    """Add ``katcp watch``."""
    parser = subparsers.add_parser(
        "watch",
        help="show sensors as they change, until Ctrl-C",
        description="Show sensors of one or more devices as they change, until Ctrl-C. On a\n"
        "terminal that is a table which scrolls and sorts, with a plot of each sensor that is\n"
        "a number; else a line for each reading. A lost connection is made again.",
        usage="[DEVICE...] [FILTER...]",
        words=f"{FIRST_DEVICE_HELP}\n{FILTER_HELP}",
        examples=EXAMPLES,
    )
    add_output_option(parser)
    strategy = parser.add_mutually_exclusive_group()
    strategy.add_argument(
        "--period",
        metavar="SECONDS",
        type=parse_positive,
        help="ask the devices for a reading every so many seconds",
    )
    strategy.add_argument(
        "--event",
        action="store_true",
        help="ask them for each change; this is the default, but without the option, a device "
        "that refuses may send readings when it likes",
    )
    add_device_options(parser, has_several=True)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    devices, filters = split_devices(options.device, options.words, most=None)
    events: Events = queue.SimpleQueue()
    clients = [WatchClient(options, device, events, filters) for device in devices]
    output = _make_output(options, clients)
    watch = _Watch(clients, events, output, shows_all=options.period is not None)
    with following(clients):
        try:
            with contextlib.suppress(KeyboardInterrupt):
                output.run(watch.handle_events)
        finally:
            _stop_sampling(clients)
    return INTERRUPTED


def _make_output(options: argparse.Namespace, clients: Sequence[WatchClient]) -> Output:
    has_devices = len(clients) > 1
    if options.output != "table":
        return RecordOutput(options.output, has_devices)
    if not (is_terminal(sys.stdout) and sys.stdin.isatty()):
        return LineOutput(has_devices)
    try:
        from .table import LiveTable
    except ImportError:
        tell(f"for a live table, {HOW_TO_INSTALL}")
        return LineOutput(has_devices)
    return LiveTable(clients)


def _stop_sampling(clients: Sequence[WatchClient]) -> None:
    """Switch the sampling off, where devices do it soon."""
    waiting = [client.stop_sampling() for client in clients]
    deadline = time.monotonic() + PARTING_PATIENCE
    with contextlib.suppress(queue.Empty):
        for replies, count in waiting:
            for _ in range(count):
                replies.get(timeout=max(deadline - time.monotonic(), 0))


class _Watch:
    """What happens, and the sensors that it happens to."""

    def __init__(
        self, clients: Sequence[WatchClient], events: Events, output: Output, shows_all: bool
    ) -> None:
        self._clients = clients
        self._events = events
        self._output = output
        self._shows_all = shows_all
        self._sensors: dict[WatchClient, dict[bytes, WatchedSensor]] = {
            client: {} for client in clients
        }

    def handle_events(self, until: float) -> None:
        """Handle what has happened, and what happens until a time, as of `time.monotonic`."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._handle(*self._events.get(timeout=max(until - time.monotonic(), 0)))

    def _handle(self, client: WatchClient, event: Any) -> None:
        if isinstance(event, Reading):
            self._show(client, event)
        elif isinstance(event, list):
            self._find(client, event)
        elif text := text_of_event(self._clients, client, event):
            self._output.tell(text)

    def _show(self, client: WatchClient, reading: Reading) -> None:
        sensor = self._sensors[client].get(reading.name)
        # Asked for, and told by the device, too.
        if sensor is not None and (self._shows_all or reading != sensor.reading):
            sensor.update(reading)
            self._output.show(sensor)

    def _find(self, client: WatchClient, found: Sequence[WatchedSensor]) -> None:
        """Take in the sensors of a device; those that were there keep their readings."""
        known = self._sensors[client]
        self._sensors[client] = {
            sensor.description.name: old
            if (old := known.get(sensor.description.name)) and old.description == sensor.description
            else sensor
            for sensor in found
        }
        self._output.find(
            [sensor for sensors in self._sensors.values() for sensor in sensors.values()]
        )
