"""``katcp help``: the same as ``--help``."""

from __future__ import annotations

import argparse
from typing import Any

from ..output import OK, USAGE, CommandError, did_you_mean


def add_subcommand(commands: Any) -> None:
    parser = commands.add_parser(
        "help",
        help="show the help of a command",
        description="Show the help of a command, or list the commands.",
        usage="[COMMAND]",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show the help of a command, or the general one."""
    if not options.words:
        print(options.parser.format_help(), end="")
        return OK
    name = options.words[0]
    if name not in options.commands:
        raise CommandError(f"unknown command {name!r}{did_you_mean(name, options.commands)}", USAGE)
    print(options.commands[name].format_help(), end="")
    return OK
