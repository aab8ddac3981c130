"""``katcp request``: one request, its informs and its reply."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from typing import Any, Iterator, Sequence

from ...core import KatcpSyntaxError, Message
from ..connect import (
    CommandClient,
    answers,
    ask_all,
    check_reply,
    code_of,
    connected,
    reason_of,
)
from ..devices import split_devices
from ..formats import RecordWriter, json_text, print_json
from ..options import (
    FIRST_DEVICE_HELP,
    add_device_options,
    add_output_option,
    parse_count,
    parse_positive,
)
from ..output import (
    OK,
    USAGE,
    CommandError,
    did_you_mean,
    is_terminal,
    paint,
    printable,
    printable_lines,
)
from ..readings import show_arguments
from ..tables import GAP, MAX_CELL_WIDTH, pad, text_width
from .repeat import repeat_request

WORDS = f"""\
{FIRST_DEVICE_HELP}
NAME        the request, like sensor-value
ARG         its arguments; - is what the standard input holds, whatever the bytes;
            put -- before arguments that begin with a dash"""

EXAMPLES = """
request sensor-value temperature
request localhost:7147 help -o json
request read bram 0 65536 --raw-output > bram.bin
request write bram 0 - < bram.bin
request watchdog --repeat 1000
"""


def add_subcommand(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "request",
        help="make one request, and show the answer",
        description="Make one request, and show its informs and its reply.",
        usage="[DEVICE] NAME [ARG...]",
        words=WORDS,
        examples=EXAMPLES,
    )
    add_output_option(parser, "lines")
    parser.add_argument(
        "-r",
        "--raw-output",
        action="store_true",
        help="write the raw arguments of the reply and nothing else",
    )
    parser.add_argument(
        "--repeat",
        metavar="COUNT",
        type=parse_count,
        help="make the request COUNT times, 0 until Ctrl-C, and show how long replies took",
    )
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=parse_positive,
        default=0.0,
        help="with --repeat: how long to wait after each reply (default: %(default)g)",
    )
    add_device_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    (device, *others), words = split_devices(options.device, options.words)
    if others:
        raise CommandError("a request goes to one device", USAGE)
    if not words:
        raise CommandError("which request? see katcp request --help", USAGE)
    request = _make_request(*words)
    with connected(CommandClient(options, device)) as client:
        if options.repeat is not None:
            return repeat_request(client, request, options)
        show = _show_raw_output if options.raw_output else _FORMS[options.output]
        reply = show(client, request, answers(client, request))
        try:
            check_reply(client, request, reply)
        except CommandError as error:
            hint = _hint(client, request, reply)
            text = f"{str(error).rstrip('.')}{hint}" if hint else str(error)
            raise CommandError(text, error.code, options.output in ("json", "jsonl")) from None
    return OK


def _make_request(name: str, *arguments: str) -> Message:
    if arguments.count("-") > 1:
        raise CommandError("only one argument can be - (the standard input)", USAGE)
    values = [
        sys.stdin.buffer.read() if argument == "-" else os.fsencode(argument)
        for argument in arguments
    ]
    try:
        return Message.request(name[1:] if name.startswith("?") else name, *values)
    except KatcpSyntaxError:
        hint = "a device has a port, or stands behind -d"
        raise CommandError(f"{name!r} is not the name of a request; {hint}", USAGE) from None


def _hint(client: CommandClient, request: Message, reply: Message) -> str:
    """Return a suggestion, if the device does not know the request."""
    if reply.arguments[:1] != [b"invalid"]:
        return ""
    try:
        informs = ask_all(client, "help")
    except CommandError:
        return ""
    known = [printable(argument) for inform in informs for argument in inform.arguments[:1]]
    return "" if request.name in known else did_you_mean(request.name, known)


# ---- output formats; each returns the reply ----


def _show_raw_output(
    client: CommandClient, request: Message, messages: Iterator[Message]
) -> Message:
    """Write the raw arguments of the reply, separated by line feeds."""
    *_, reply = messages
    data = b"\n".join(reply.arguments[1:]) if reply.reply_ok() else b""
    if is_terminal(sys.stdout) and not _is_text(data):
        raise CommandError("the reply is not text: redirect it to a file", USAGE)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return reply


def _is_text(data: bytes) -> bool:
    return all(map(str.isprintable, data.decode("utf-8", "surrogateescape").splitlines()))


def _show_lines(client: CommandClient, request: Message, messages: Iterator[Message]) -> Message:
    """Print the lines of the protocol, each as soon as it arrives."""
    for message in messages:
        # A local failure reply is not a line of the protocol.
        if message.local_error is None:
            sys.stdout.buffer.write(bytes(message) + b"\n")
            sys.stdout.buffer.flush()
    return message


def _show_json(client: CommandClient, request: Message, messages: Iterator[Message]) -> Message:
    *informs, reply = messages
    made_up = reply.local_error is not None
    print_json(
        {
            "ok": code_of(reply) == OK,
            "device": str(client.device),
            "request": request.name,
            "reply": None if made_up else [*map(json_text, reply.arguments)],
            "informs": [[*map(json_text, inform.arguments)] for inform in informs],
            "error": None if reply.reply_ok() else reason_of(reply, request),
        }
    )
    return reply


def _show_jsonl(client: CommandClient, request: Message, messages: Iterator[Message]) -> Message:
    """Print an object for each message, as soon as it arrives."""
    writer = RecordWriter("jsonl", [])
    for message in messages:
        if message.local_error is None:
            kind = "reply" if message.mtype == Message.REPLY else "inform"
            arguments = [*map(json_text, message.arguments)]
            writer.write({"type": kind, "name": message.name, "arguments": arguments})
    if message.local_error is not None:
        writer.write({"type": "error", "name": message.name, "error": reason_of(message, request)})
    return message


def _show_csv(client: CommandClient, request: Message, messages: Iterator[Message]) -> Message:
    """Print a row for each inform, and one for the reply."""
    *informs, reply = messages
    rows = [["inform", *map(json_text, inform.arguments)] for inform in informs]
    if reply.local_error is None:
        rows.append(["reply", *map(json_text, reply.arguments)])
    width = max(map(len, rows), default=1)
    fields = ["type", *(f"argument{number}" for number in range(1, width))]
    writer = RecordWriter("csv", fields)
    for row in rows:
        writer.write(dict(itertools.zip_longest(fields, row)))
    return reply


def _show_table(client: CommandClient, request: Message, messages: Iterator[Message]) -> Message:
    """Print the informs as a table, and the reply."""
    *informs, reply = messages
    protocol = client.protocol_flags
    for line in _table([show_arguments(inform, protocol) for inform in informs]):
        print(line)
    if reply.reply_ok():
        first, *others = _table([reply.arguments[1:]])
        print(GAP.join(filter(None, [paint("ok", "green"), first])))
        for line in others:
            print(line)
    return reply


_FORMS = {
    "table": _show_table,
    "json": _show_json,
    "jsonl": _show_jsonl,
    "csv": _show_csv,
    "lines": _show_lines,
}


def _table(rows: Sequence[Sequence[bytes]]) -> list[str]:
    """Return rows as lines with aligned columns."""
    cells = [[printable_lines(cell) if cell else ['""'] for cell in row] for row in rows]
    widths: list[int] = []
    for row in cells:
        for column, lines in enumerate(row[:-1]):
            widths += [0] * (column + 1 - len(widths))
            if text_width(lines[0]) <= MAX_CELL_WIDTH:
                widths[column] = max(widths[column], text_width(lines[0]))
    return [line for row in cells for line in _row_lines(row, widths)]


def _row_lines(row: Sequence[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    """Yield the lines of one row: several if a cell has several lines of text."""
    yield GAP.join(pad(lines[0], width) for lines, width in zip(row, [*widths[: len(row) - 1], 0]))
    for lines in row:
        for line in lines[1:]:
            yield f"    {line}".rstrip()
