"""``katcp log``: the log messages of devices."""

from __future__ import annotations

import argparse
import queue
import sys
from typing import Any, Optional

from ...core import Message
from ..devices import Address, split_devices
from ..follow import Events, FollowingClient, following, text_of_event
from ..formats import RecordWriter, json_text
from ..loglines import LEVELS, LogLine, parse_log, show_log
from ..options import DEVICE_HELP, add_device_options, add_output_option
from ..output import INTERRUPTED, CommandError, paint, printable, tell
from ..readings import json_time

FIELDS = ("timestamp", "level", "logger", "message")

EXAMPLES = """
log
log localhost:7147 --level warn
log -d antenna1 -d antenna2 --set-level debug -o jsonl
"""


def add_subcommand(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "log",
        help="show the log messages of devices, until Ctrl-C",
        description="Show the log messages of devices, until Ctrl-C; times are UTC. A lost\n"
        "connection is restored.",
        usage="[DEVICE...]",
        words=DEVICE_HELP,
        examples=EXAMPLES,
    )
    add_output_option(parser)
    parser.add_argument(
        "--level",
        choices=LEVELS[1:-1],
        metavar="LEVEL",
        help=f"show only messages of this level and above: {', '.join(LEVELS[1:-1])}; the device "
        "is not told",
    )
    parser.add_argument(
        "--set-level",
        choices=LEVELS,
        metavar="LEVEL",
        help="make the device send messages of this level and above, or all, or off; this "
        "concerns all its clients, and stays when you leave",
    )
    add_device_options(parser, has_several=True)
    parser.set_defaults(run=_run)


class _LogClient(FollowingClient):
    """A client that passes on the device's log messages, and sets its level."""

    def __init__(self, options: argparse.Namespace, device: Address, events: Events) -> None:
        super().__init__(options, device, events)
        self._set_level: Optional[str] = options.set_level
        self._shown_level: Optional[str] = options.level

    def inform_log(self, msg: Message) -> None:
        """Pass on a log message."""
        self.note(parse_log(msg, self.protocol_flags))

    async def set_up(self) -> None:
        """Set the level of the device, or query it."""
        arguments = [] if self._set_level is None else [self._set_level]
        try:
            answer = await self.fetch("log-level", *arguments)
        except CommandError as error:
            if arguments:
                raise
            self.note(f"{error}; waiting for log messages nevertheless")
            return
        level = printable(b"".join(answer.arguments[:1])).lower()
        hint = ""
        if level in LEVELS and not _is_wanted(self._shown_level or level, level):
            hint = f"; --set-level {self._shown_level} changes that, for all its clients"
        self.note(f"{self.device} sends {level} and above{hint}. Ctrl-C ends.")


def _run(options: argparse.Namespace) -> int:
    # There are no other words: each is a device.
    devices, _ = split_devices([*options.device, *options.words], [])
    events: Events = queue.SimpleQueue()
    clients = [_LogClient(options, device, events) for device in devices]
    is_only = len(clients) == 1
    fields = FIELDS if is_only else ("device", *FIELDS)
    writer = None if options.output == "table" else RecordWriter(options.output, fields)
    try:
        with following(clients):
            while True:
                client, event = events.get()
                if isinstance(event, LogLine):
                    if _is_wanted(event.level, options.level):
                        _show(event, "" if is_only else str(client.device), writer)
                elif text := text_of_event(clients, client, event):
                    tell(text)
    except KeyboardInterrupt:
        return INTERRUPTED


def _is_wanted(level: str, least: Optional[str]) -> bool:
    # Devices may have their own levels, which may be important.
    return least is None or level not in LEVELS or LEVELS.index(level) >= LEVELS.index(least)


def _show(line: LogLine, device: str, writer: Optional[RecordWriter]) -> None:
    if writer is None:
        print(f"{paint(device, 'cyan')} {show_log(line)}" if device else show_log(line))
    else:
        record = {
            "timestamp": json_time(line.timestamp),
            "level": line.level,
            "logger": line.logger,
            "message": json_text(line.text),
        }
        writer.write({"device": device, **record} if device else record)
    sys.stdout.flush()
