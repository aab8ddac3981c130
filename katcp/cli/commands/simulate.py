"""``katcp simulate``: a simulated device, optionally with faults."""

from __future__ import annotations

import argparse
from typing import Any

from ...simdevice import command as simdevice
from ..devices import DEFAULT_PORT, Address
from ..listen import cannot_listen
from ..options import add_listen_option
from ..output import OK, USAGE, CommandError

EXAMPLES = """
simulate
simulate --listen 0.0.0.0:7147 --protocol 4
simulate --fault no-reply:watchdog --fault late-reply:read=0.5
"""


def add_subcommand(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "simulate",
        help="run a simulated device, optionally with faults",
        description="Run a simulated device until Ctrl-C or ?halt. One line says where it listens.",
        examples=EXAMPLES,
    )
    add_listen_option(parser, Address("127.0.0.1", DEFAULT_PORT))
    simdevice.add_behaviour_arguments(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.words:
        raise CommandError(f"unexpected argument {options.words[0]!r}", USAGE)
    options.host, options.port = options.listen[:2]
    try:
        simdevice.run(options)
    except ValueError as error:
        raise CommandError(str(error), USAGE) from None
    except simdevice.CannotListen as error:
        raise cannot_listen(options.listen, error) from None
    return OK
