"""``katcp watch``: sensors as they change."""

from __future__ import annotations

import argparse
import contextlib
import queue
import sys
import time
from typing import Any, Sequence

from ...core import Reading
from ..devices import split_devices
from ..follow import Events, following, text_of_event
from ..options import FIRST_DEVICE_HELP, add_device_options, add_output_option, parse_positive
from ..output import HOW_TO_INSTALL, INTERRUPTED, is_terminal, tell
from ..readings import FILTER_HELP
from .outputs import LineOutput, Output, RecordOutput
from .sampling import WatchClient, WatchedSensor

EXAMPLES = """
watch
watch localhost:7147 temperature 'rack*.volt?'
watch -d antenna1 -d antenna2 /temp/ --period 1
watch temperature -o csv > temperature.csv
"""


def add_subcommand(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "watch",
        help="show sensors as they change, until Ctrl-C",
        description="Show sensors of one or more devices as they change, until Ctrl-C. On a\n"
        "terminal that is a table which scrolls and sorts, with a plot of each sensor that is\n"
        "a number; else a line for each reading. A lost connection is restored.",
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
        help="ask the devices for a reading at this interval",
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
    # The device ends the sampling with the connection.
    with following(clients), contextlib.suppress(KeyboardInterrupt):
        output.run(watch.handle_events)
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


class _Watch:
    """Sensors, and the events that concern them."""

    def __init__(
        self, clients: Sequence[WatchClient], events: Events, output: Output, shows_all: bool
    ) -> None:
        self._clients = clients
        self._events = events
        self._output = output
        self._shows_all = shows_all
        self._sensors: list[WatchedSensor] = []

    def handle_events(self, until: float) -> None:
        """Handle events, past and new ones, until a time of `time.monotonic`."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._handle(*self._events.get(timeout=max(until - time.monotonic(), 0)))

    def _handle(self, client: WatchClient, event: Any) -> None:
        if isinstance(event, tuple):
            self._show(*event)
        elif isinstance(event, list):
            self._sensors += event
            self._output.find(self._sensors)
        elif text := text_of_event(self._clients, client, event):
            self._output.tell(text)

    def _show(self, sensor: WatchedSensor, reading: Reading) -> None:
        # A device that was lost sends all readings again.
        if self._shows_all or reading != sensor.reading:
            sensor.update(reading)
            self._output.show(sensor)
