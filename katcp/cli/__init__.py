"""The command ``katcp``.

Every subcommand is one function that adds its parser, with the function that
runs it as the default ``run``: to add a subcommand, write both in a module of
its own and add the first to `_SUBCOMMANDS`. What a subcommand returns is the
exit code; one that cannot go on raises `katcp.cli.output.CommandError`.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from typing import Any, Callable, Optional, Sequence

from ..version import __version__
from .commands import demo, log, record, replay, request, sensors, simulate
from .output import INTERRUPTED, CommandError
from .shell import command as shell
from .watch import command as watch


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line. Default: that of the process.

    Returns
    -------
    int
        The exit code.
    """
    parser = _make_argument_parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 0
    _never_fail_to_encode()
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except CommandError as error:
        print(f"katcp: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        # The reader of our output has gone. Python would complain at exit,
        # when it writes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _never_fail_to_encode() -> None:
    """Escape what the terminal's encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _make_argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="katcp", description="Talk to devices that speak KATCP.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"katcp {__version__}")
    parser.set_defaults(run=None)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add_subcommand in _SUBCOMMANDS:
        add_subcommand(subparsers)
    return parser


_SUBCOMMANDS: tuple[Callable[[Any], None], ...] = (
    demo.add_subcommand,
    request.add_subcommand,
    shell.add_subcommand,
    sensors.add_subcommand,
    watch.add_subcommand,
    log.add_subcommand,
    simulate.add_subcommand,
    record.add_subcommand,
    replay.add_subcommand,
)
