"""``katcp simulate``: run a simulated device, in order or with faults."""

from __future__ import annotations

from typing import Any

from ...simdevice import command as simdevice


def add_subcommand(subparsers: Any) -> None:
    """Add ``katcp simulate``."""
    parser = subparsers.add_parser(
        "simulate",
        help="run a simulated device, with faults if you like",
        description="Run a simulated device until Ctrl-C or ?halt. When it listens, one line tells "
        "its address.",
        allow_abbrev=False,
    )
    simdevice.add_arguments(parser)
    parser.set_defaults(run=simdevice.run)
