"""The command ``katcp``.

Every subcommand has a module with a function that adds its parser, and one that runs it, which is
the parser's default ``run`` and returns the exit code, or raises `katcp.cli.output.CommandError`.
To add a subcommand, write such a module and add the first function to `_SUBCOMMANDS`.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, Callable, Optional, Sequence

from ..version import __version__
from .commands import completion, demo, help, log, record, replay, request, sensors, simulate
from .formats import print_json
from .options import Parser, SubcommandParser, parse
from .output import EXIT_CODES, FAILED, INTERRUPTED, CommandError, tell
from .shell import command as shell
from .watch import command as watch

DESCRIPTION = "Talk to devices that speak KATCP."

EPILOG = f"""\
first steps:
  katcp simulate                    a device to try things with, in another terminal
  katcp sensors                     its sensors
  katcp request sensor-value        one request
  katcp shell                       many requests
  katcp help request                all about 'katcp request', with examples

A device is HOST[:PORT] or a nickname; without one, it is $KATCP_DEVICE or localhost:7147.

{EXIT_CODES}"""


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
    completion.complete(_make_parser)
    parser, commands = _make_parser()
    form = ""
    try:
        options = parse(parser, commands, arguments)
        form = getattr(options, "output", "")
        _never_fail_to_encode()
        code: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except CommandError as error:
        return _report(error, form)
    except BrokenPipeError:
        # The reader of our output has gone.
        _drop_output()
        return FAILED
    except OSError as error:
        _drop_output()
        tell(f"cannot write the output: {error.strerror or error}")
        return FAILED
    return code


def _report(error: CommandError, form: str) -> int:
    """Report an error, in the output too if that is JSON; return the exit code."""
    if form in ("json", "jsonl") and not error.is_in_output:
        print_json({"ok": False, "error": str(error), "code": error.code})
    sys.stdout.flush()
    tell(str(error))
    return error.code


def _drop_output() -> None:
    """Prevent a complaint of Python at exit, when it flushes the output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _never_fail_to_encode() -> None:
    """Escape characters that the terminal's encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _make_parser() -> tuple[Parser, Any]:
    """Return the main parser, and its subcommands."""
    parser = Parser(
        prog="katcp",
        usage="katcp COMMAND [...]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"katcp {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", prog="katcp", parser_class=SubcommandParser
    )
    parser.set_defaults(run=help.run, parser=parser, commands=commands.choices)
    for add_subcommand in _SUBCOMMANDS:
        add_subcommand(commands)
    return parser, commands


_SUBCOMMANDS: tuple[Callable[[Any], None], ...] = (
    request.add_subcommand,
    shell.add_subcommand,
    sensors.add_subcommand,
    watch.add_subcommand,
    log.add_subcommand,
    simulate.add_subcommand,
    record.add_subcommand,
    replay.add_subcommand,
    demo.add_subcommand,
    completion.add_subcommand,
    help.add_subcommand,
)
