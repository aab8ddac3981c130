"""The command line: parsers of subcommands, and their common options."""

from __future__ import annotations

import argparse
import math
import re
import sys
import textwrap
from typing import Any, Callable, NoReturn, Optional, Sequence

from .devices import Address, parse_address
from .formats import FORMATS
from .output import USAGE, CommandError, did_you_mean

# Seconds to wait for a connection, and for each reply.
DEFAULT_TIMEOUT = 5.0
# Bytes of a line. Escaped, a byte takes up to two: a megabyte of zeros fits easily.
DEFAULT_MAX_MSG_SIZE = "64M"

DEVICE_HELP = "DEVICE      HOST[:PORT] or a nickname (default: $KATCP_DEVICE or localhost:7147)"
# For subcommands with further words.
FIRST_DEVICE_HELP = f"""\
{DEVICE_HELP};
            a host name without a port must follow -d"""

_SIZE_RE = re.compile(r"([0-9]{1,12})([kKmMgG]?)")
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_NUMBER_RE = re.compile(r"-\.?[0-9].*")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs["formatter_class"] = argparse.RawDescriptionHelpFormatter
        super().__init__(**kwargs, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise `CommandError`."""
        raise CommandError(f"{message}; see {self.prog} --help", USAGE)


class SubcommandParser(Parser):
    """The parser of a subcommand.

    Everything that is not an option is a word, wherever it is, and so is everything after ``--``.
    """

    def __init__(
        self, *, usage: str = "", words: str = "", examples: str = "", **kwargs: Any
    ) -> None:
        if words:
            kwargs["description"] += f"\n\narguments:\n{textwrap.indent(words, '  ')}"
        super().__init__(**kwargs)
        self.usage = " ".join(f"{self.prog} {usage} [options]".split())
        if examples:
            lines = [f"  katcp {line}" for line in examples.strip().splitlines()]
            self.epilog = "\n".join(["examples:", *lines])
        self.words = self.add_argument("words", nargs="*", help=argparse.SUPPRESS)

    def unknown_option(self, option: str) -> NoReturn:
        """Raise `CommandError`."""
        name = option.split("=")[0]
        hint = did_you_mean(name, self._option_string_actions)
        self.error(f"unknown option {name}{hint or '; put -- before words that begin with a dash'}")


def parse(parser: Parser, commands: Any, arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    """Parse a command line, by default that of the process; or raise `CommandError`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    first = given[0] if given else ""
    if first and not first.startswith("-") and first not in commands.choices:
        hint = did_you_mean(first, commands.choices)
        raise CommandError(f"unknown command {first!r}{hint or '; see katcp --help'}", USAGE)
    options, others = parser.parse_known_args(given[:end])
    for word in others:
        if word.startswith("-") and word != "-" and not _NUMBER_RE.fullmatch(word):
            if first in commands.choices:
                commands.choices[first].unknown_option(word)
            parser.error(f"unknown option {word}")
    options.words = [*(getattr(options, "words", None) or []), *others, *given[end + 1 :]]
    return options


# ---- types of arguments ----


def argument_type(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a type for argparse, which shows the text of its `ValueError`."""

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def parse_positive(text: str) -> float:
    """Parse a number greater than 0: the type of an argument."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number greater than 0")
    return number


def parse_count(text: str) -> int:
    """Parse an integer of at least 0: the type of an argument."""
    if not re.fullmatch("[0-9]{1,12}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def parse_size(text: str) -> int:
    """Parse a number of bytes: the type of an argument."""
    match = _SIZE_RE.fullmatch(text)
    size = 0 if match is None else int(match[1]) * _SIZE_UNITS[match[2].lower()]
    if not size:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500000, 512k or 8M")
    return size


# ---- options ----


def add_device_options(
    parser: argparse.ArgumentParser, has_several: bool = False, has_limit: bool = True
) -> None:
    """Add the options of every subcommand that connects to a device."""
    group = parser.add_argument_group("connection")
    group.add_argument(
        "-d",
        "--device",
        metavar="DEVICE",
        action="append",
        default=[],
        help="the device" + ("; may be given several times" if has_several else ""),
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=parse_positive,
        default=DEFAULT_TIMEOUT,
        help="how long to wait for the connection, and how long for an answer when a reply "
        "is due (default: %(default)g)",
    )
    if has_limit:
        group.add_argument(
            "--max-msg-size",
            metavar="BYTES",
            type=parse_size,
            default=DEFAULT_MAX_MSG_SIZE,
            help="the longest line that is sent or received, escapes included; 8M is 8 MiB "
            "(default: %(default)s)",
        )
    group.add_argument(
        "--tls", action="store_true", help="encrypt, and trust the authorities of this system"
    )
    group.add_argument(
        "--ca", metavar="FILE", help="encrypt, and trust the authorities in this PEM file"
    )


def add_output_option(parser: argparse.ArgumentParser, *more: str) -> None:
    """Add the option for the output format."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FORMAT",
        choices=[*FORMATS, *more],
        default="table",
        help=f"{', '.join([*FORMATS, *more][:-1])} or {[*FORMATS, *more][-1]} "
        "(default: %(default)s)",
    )


def add_listen_option(parser: argparse.ArgumentParser, default: Address) -> None:
    """Add the option for the address to listen on."""

    def parse_listen_address(text: str) -> Address:
        if text.isdigit():
            text = f":{text}"
        return parse_address(text, default.host, default.port)

    parser.add_argument(
        "-l",
        "--listen",
        metavar="[HOST:]PORT",
        type=argument_type(parse_listen_address),
        default=default,
        help="where to listen; port 0 is any free port (default: %(default)s)",
    )
