"""``katcp log``: what a device logs, as a log."""

from __future__ import annotations

import argparse
from typing import Any

from ..._wire.message import Message
from ..connect import (
    CONNECTED_AGAIN,
    CONNECTION_LOST,
    GREETING_PATIENCE,
    ListeningClient,
    ask,
    connected,
)
from ..loglines import LEVELS, level_of, show_log
from ..options import add_device_arguments
from ..output import INTERRUPTED, NOT_CONNECTED, CommandError, printable, tell


def add_subcommand(subparsers: Any) -> None:
    """Add ``katcp log``."""
    parser = subparsers.add_parser(
        "log",
        help="show what a device logs, until Ctrl-C",
        description="Show what a device logs, until Ctrl-C; times are UTC. A lost connection is "
        "made again.",
        allow_abbrev=False,
    )
    add_device_arguments(parser)
    parser.add_argument(
        "--level",
        choices=LEVELS[1:-1],
        help="show messages of this level and above only; the device is not told",
    )
    parser.add_argument(
        "--set-level",
        choices=LEVELS,
        help="let the device send messages of this level and above. It does so to all its clients, "
        "and does not stop when you do",
    )
    parser.set_defaults(run=_run)


class _LogClient(ListeningClient):
    """A client that notes the log messages of the device."""

    def inform_log(self, msg: Message) -> None:
        """Note a log message."""
        self.events.put(msg)


def _run(options: argparse.Namespace) -> int:
    with connected(options, _LogClient, auto_reconnect=True) as client:
        log = _Log(options, client)
        try:
            while True:
                log.handle(client.events.get())
        except KeyboardInterrupt:
            return INTERRUPTED


class _Log:
    """What is shown of what happens."""

    def __init__(self, options: argparse.Namespace, client: _LogClient) -> None:
        self._options = options
        self._client = client
        self._connections = 0

    def handle(self, event: Any) -> None:
        """Show or do what *event* needs."""
        if isinstance(event, Message):
            self._show(event)
        elif not event:
            tell(CONNECTION_LOST)
        else:
            self._on_connected()

    def _on_connected(self) -> None:
        self._connections += 1
        if self._connections == 1:
            self._agree_on_level()
            return
        tell(CONNECTED_AGAIN)
        try:
            self._client.wait_protocol(GREETING_PATIENCE)
            self._agree_on_level()
        except CommandError as error:
            # A connection that was lost again is told of by its own event.
            if error.code != NOT_CONNECTED:
                tell(str(error))

    def _agree_on_level(self) -> None:
        """Let the device send what the user wants to see, or tell that it does not."""
        options = self._options
        if options.set_level is not None:
            ask(self._client, "log-level", options.set_level)
        elif options.level is not None:
            sent = ask(self._client, "log-level").arguments[1:2]
            level = printable(b"".join(sent)).lower()
            if level in LEVELS and LEVELS.index(level) > LEVELS.index(options.level):
                tell(
                    f"the device itself sends {level} and above only; "
                    "--set-level changes that, for all its clients"
                )

    def _show(self, msg: Message) -> None:
        if self._is_wanted(level_of(msg)):
            print(show_log(msg, self._client.protocol_flags), flush=True)

    def _is_wanted(self, level: str) -> bool:
        # What somebody calls by a name of his own may be important.
        least = self._options.level
        return least is None or level not in LEVELS or LEVELS.index(level) >= LEVELS.index(least)
