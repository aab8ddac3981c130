"""``katcp shell``: requests typed by a person, or read from a file, one a line.

Strategy
--------
On a terminal, `katcp.cli.shell.prompt` does it all; it needs prompt_toolkit. Without one,
the lines are requests and nothing else, and the output is plain.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..._wire.message import Message
from ..connect import code_of, connected, reason_of
from ..options import add_device_arguments
from ..output import OK, USAGE, CommandError, is_terminal, tell
from ..quoting import BadWords
from ..requests import Answer, Asking, ShellClient, parse_line, text_of


def add_subcommand(subparsers: Any) -> None:
    """Add ``katcp shell``."""
    parser = subparsers.add_parser(
        "shell",
        help="type requests, with completion, help and history",
        description="Send the requests that you type, and show what the device says. Tab completes "
        "the names of requests and sensors, Ctrl-C gives up a request, Ctrl-D ends. A word with "
        "blanks is quoted: \"two words\"; \\xff is a byte, '...' is taken as it is. If the "
        "standard input or output is no terminal, each line is a request, # begins a comment, "
        "and a reply is waited for as long as --timeout says.",
        allow_abbrev=False,
    )
    add_device_arguments(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if not (sys.stdin.isatty() and is_terminal(sys.stdout)):
        return _run_plain(options)
    try:
        from .prompt import run_prompt
    except ModuleNotFoundError as error:
        raise CommandError(
            f"the shell needs {error.name}: pip install 'katcp[cli]'", USAGE
        ) from None
    return run_prompt(options)


def _run_plain(options: argparse.Namespace) -> int:
    code = OK
    with connected(options, ShellClient) as client:
        for number, data in enumerate(sys.stdin.buffer, 1):
            line = data.decode("utf-8", "surrogateescape").rstrip("\r\n")
            if line.lstrip().startswith("#"):
                continue
            try:
                request = parse_line(line)
            except BadWords as error:
                tell(f"line {number}: {error}")
                code = code or USAGE
                continue
            if request is not None:
                # The first failure tells; what follows it is asked all the same.
                its_code = _ask(client, request, options.timeout)
                code = code or its_code
    return code


def _ask(client: ShellClient, request: Message, timeout: float) -> int:
    """Make a request, and return the exit code for its reply."""
    reply = Asking(client, request, timeout, _show_reply).wait().reply
    if reply.local_error is not None:
        reason = f"?{request.name}: {reason_of(reply)}"
        if not client.is_connected():
            raise CommandError(reason, code_of(reply))
        tell(reason)
    return code_of(reply)


def _show_reply(answer: Answer) -> None:
    if answer.reply.local_error is None:
        print(text_of(answer.reply), flush=True)
