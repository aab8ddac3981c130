"""The options that subcommands share, and the types of their arguments."""

from __future__ import annotations

import argparse
import math
import re
from typing import NamedTuple

from .output import EXIT_CODES

# Seconds to wait for a connection, and for each reply.
DEFAULT_TIMEOUT = 5.0

_ADDRESS_RE = re.compile(r"(?:\[(?P<ipv6>[^]\s]+)\]|(?P<host>[^]:[\s]+)):(?P<port>[0-9]{1,5})")


class Address(NamedTuple):
    """Where a device listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return the address that *text* names: the type of an argument.

    Parameters
    ----------
    text : str
        Such as ``localhost:7147``, ``10.0.0.1:7147`` or ``[::1]:7147``.

    Returns
    -------
    Address
    """
    match = _ADDRESS_RE.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        hint = "; put an IPv6 address in brackets: [::1]:7147" if text.count(":") > 1 else ""
        raise argparse.ArgumentTypeError(f"{text!r} is not an address like localhost:7147{hint}")
    return Address(match["ipv6"] or match["host"], int(match["port"]))


def parse_seconds(text: str) -> float:
    """Return the number of seconds that *text* names: the type of an argument."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, greater than 0")
    return seconds


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every subcommand that connects to a device has.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the subcommand; `connected` understands the options.
    """
    parser.add_argument(
        "address", metavar="HOST:PORT", type=parse_address, help="the device, like localhost:7147"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=parse_seconds,
        default=DEFAULT_TIMEOUT,
        help="how long to wait for the connection, and how long the device may be silent "
        "when something was asked (default: %(default)g)",
    )
    parser.add_argument(
        "--tls", action="store_true", help="encrypt, and trust the authorities of this system"
    )
    parser.add_argument(
        "--ca", metavar="FILE", help="encrypt, and trust the authorities in this PEM file"
    )
    parser.epilog = EXIT_CODES
