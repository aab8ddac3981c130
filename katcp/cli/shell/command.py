"""``katcp shell``: requests typed by a person, or read from a file, one per line.

Strategy
--------
On a terminal, `katcp.cli.shell.prompt` is used; it needs prompt_toolkit. Otherwise every line is a
request, and the output is plain.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ...core import KatcpClientTimeout, Message
from ..connect import code_of, connected, reason_of, show_request
from ..devices import split_devices
from ..options import DEVICE_HELP, add_device_options
from ..output import HOW_TO_INSTALL, OK, USAGE, CommandError, is_terminal, show_seconds, tell
from ..quoting import BadWords
from ..requests import Answer, Asking, ShellClient, parse_line, text_of

DESCRIPTION = """\
Send the requests that you type, and show what the device says. Tab completes, Ctrl-C
gives up a request, Ctrl-D ends. A line that begins with # is a comment. A word with
blanks is quoted: "two words"; \\xff is a byte, and '...' is taken as it is.

If the standard input or output is not a terminal, each line is a request, too, and a
reply is waited for as long as --timeout says."""

EXAMPLES = """
shell
shell correlator:7147
shell < commands.txt
"""


def add_subcommand(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "shell",
        help="type requests, with completion, help and history",
        description=DESCRIPTION,
        usage="[DEVICE]",
        words=DEVICE_HELP,
        examples=EXAMPLES,
    )
    add_device_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # There are no other words.
    (device, *others), _ = split_devices([*options.device, *options.words], [])
    if others:
        raise CommandError("a shell is for one device", USAGE)
    if not (sys.stdin.isatty() and is_terminal(sys.stdout)):
        return _run_plain(ShellClient(options, device), options.timeout)
    try:
        from .prompt import run_prompt
    except ImportError:
        raise CommandError(f"for a shell on a terminal, {HOW_TO_INSTALL}", USAGE) from None
    return run_prompt(options, device)


def _run_plain(client: ShellClient, timeout: float) -> int:
    code = OK
    with connected(client):
        for number, data in enumerate(sys.stdin.buffer, 1):
            line = data.decode("utf-8", "surrogateescape").rstrip("\r\n")
            try:
                request = parse_line(line)
            except BadWords as error:
                tell(f"line {number}: {error}")
                code = code or USAGE
                continue
            if request is not None:
                # The first failure counts; the lines after it are sent all the same.
                its_code = _ask(client, request, timeout)
                code = code or its_code
    return code


def _ask(client: ShellClient, request: Message, timeout: float) -> int:
    """Make a request, and return the exit code for its reply."""
    reply = Asking(client, request, timeout, _show_reply).wait().reply
    if reply.local_error is not None:
        reason = reason_of(reply, request)
        if isinstance(reply.local_error, KatcpClientTimeout):
            reason = f"no reply within {show_seconds(timeout)}"
        text = f"{show_request(client, request)}: {reason}"
        if not client.is_connected():
            raise CommandError(text, code_of(reply))
        tell(text)
    return code_of(reply)


def _show_reply(answer: Answer) -> None:
    if answer.reply.local_error is None:
        print(text_of(answer.reply), flush=True)
