"""``katcp request``: make one request, and show its informs and its reply."""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from typing import Any, Iterator, Sequence

from ..._wire.message import Message
from ...errors import KatcpSyntaxError
from ..connect import CommandClient, answers, code_of, connected, reason_of
from ..options import add_device_arguments
from ..output import OK, USAGE, CommandError, paint, printable, printable_lines

# A wider cell pushes the cells to its right, and no other line's.
MAX_CELL_WIDTH = 40


def add_subcommand(subparsers: Any) -> None:
    """Add ``katcp request``."""
    parser = subparsers.add_parser(
        "request",
        help="make one request, and show the answer",
        description="Make one request, and show its informs and its reply.",
        allow_abbrev=False,
    )
    add_device_arguments(parser)
    parser.add_argument("name", metavar="NAME", help="the request, like sensor-value")
    parser.add_argument(
        "arguments",
        metavar="ARG",
        nargs="*",
        help="its arguments; - is what the standard input holds, whatever the bytes; "
        "put -- before arguments that begin with a dash",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object; bytes that are not UTF-8 become {'base64': ...}",
    )
    form.add_argument(
        "--raw", action="store_true", help="print the lines of the protocol as they come"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    request = _make_request(options.name, options.arguments)
    show = _show_json if options.json else _show_raw if options.raw else _show_text
    with connected(options, CommandClient) as client:
        reply = show(answers(client, request, options.timeout))
    if reply.local_error is not None:
        raise CommandError(f"?{request.name}: {reason_of(reply)}", code_of(reply))
    return code_of(reply)


def _make_request(name: str, arguments: Sequence[str]) -> Message:
    if arguments.count("-") > 1:
        raise CommandError("only one argument can be - (the standard input)", USAGE)
    values = [
        sys.stdin.buffer.read() if argument == "-" else os.fsencode(argument)
        for argument in arguments
    ]
    try:
        return Message.request(name[1:] if name.startswith("?") else name, *values)
    except KatcpSyntaxError as error:
        raise CommandError(str(error), USAGE) from error


# ---- the three forms; each returns the reply ----


def _show_raw(messages: Iterator[Message]) -> Message:
    """Print lines, each as soon as it is there."""
    for message in messages:
        # What the client made up is no line of the protocol.
        if message.local_error is None:
            sys.stdout.buffer.write(bytes(message) + b"\n")
            sys.stdout.buffer.flush()
    return message


def _show_json(messages: Iterator[Message]) -> Message:
    *informs, reply = messages
    made_up = reply.local_error is not None
    answer = {
        "ok": code_of(reply) == OK,
        "reply": None if made_up else _json_arguments(reply),
        "informs": [_json_arguments(inform) for inform in informs],
        "error": reason_of(reply) if made_up else None,
    }
    print(json.dumps(answer, ensure_ascii=False))
    return reply


def _json_arguments(message: Message) -> list[Any]:
    return [_json_argument(argument) for argument in message.arguments]


def _json_argument(argument: bytes) -> Any:
    try:
        return argument.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(argument).decode("ascii")}


def _show_text(messages: Iterator[Message]) -> Message:
    """Print the informs as a table, and the reply."""
    *informs, reply = messages
    for line in _table([inform.arguments for inform in informs]):
        print(line)
    if reply.local_error is None:
        # A reply without a code is against the protocol, but is shown.
        code, *values = reply.arguments or [b""]
        colour = "green" if code_of(reply) == OK else "red"
        first, *others = _table([values])
        print("  ".join(filter(None, [paint(printable(code), colour), first])))
        for line in others:
            print(line)
    return reply


def _table(rows: Sequence[Sequence[bytes]]) -> list[str]:
    """Return rows as lines; the columns are aligned."""
    cells = [[printable_lines(cell) if cell else ['""'] for cell in row] for row in rows]
    widths: list[int] = []
    for row in cells:
        for column, lines in enumerate(row[:-1]):
            widths += [0] * (column + 1 - len(widths))
            if len(lines[0]) <= MAX_CELL_WIDTH:
                widths[column] = max(widths[column], len(lines[0]))
    return [line for row in cells for line in _row_lines(row, widths)]


def _row_lines(row: Sequence[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    """Yield the lines of one row: more than one if a cell holds a text of several lines."""
    first = "  ".join(
        lines[0].ljust(width) for lines, width in zip(row, [*widths[: len(row) - 1], 0])
    )
    yield first
    for lines in row:
        for line in lines[1:]:
            yield f"    {line}".rstrip()
