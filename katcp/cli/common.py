"""What the subcommands of the command ``katcp`` share.

An address on the command line becomes a connected client, or one line that says
why not and an exit code; bytes of a device become text that a terminal can show
without harm; colours are for terminals only.

A subcommand that cannot go on raises `CommandError`: `katcp.cli.main.main` prints it
and returns its code.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import queue
import re
import ssl
import sys
import threading
from typing import Any, Iterator, NamedTuple, Optional, TextIO, TypeVar, Union

from .._wire.message import Message
from .._wire.text import shorten
from ..client import BlockingClient
from ..errors import KatcpClientTimeout

# The exit codes, as `EXIT_CODES` tells them to users.
OK = 0
REFUSED = FAILED = 1
USAGE = 2
NOT_CONNECTED = 3
TIMED_OUT = 4
INTERRUPTED = 130

EXIT_CODES = (
    "exit codes: 0 all went well, 1 the device refused, 2 wrong command line, "
    "3 not connected or connection lost, 4 no reply in time, 130 Ctrl-C"
)

# What the user is told of a connection that is lost, and made again by itself.
CONNECTION_LOST = "the connection is lost; trying to connect again"
CONNECTED_AGAIN = "connected again"

# Seconds to wait for a connection, and for each reply.
DEFAULT_TIMEOUT = 5.0

# A device that has said nothing about itself for so long, in seconds, will not:
# it is used as one of version 4, as are all that do not say.
GREETING_PATIENCE = 2.0

# The limit of a request whose end `answers` watches itself, in seconds.
_NO_LIMIT = 1e9

_ADDRESS_RE = re.compile(r"(?:\[(?P<ipv6>[^]\s]+)\]|(?P<host>[^]:[\s]+)):(?P<port>[0-9]{1,5})")

_COLOURS = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}


class CommandError(Exception):
    """A subcommand cannot go on; the text is one line for the user.

    Parameters
    ----------
    text : str
        What is wrong.
    code : int
        The exit code.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Address(NamedTuple):
    """Where a device listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class CommandClient(BlockingClient):
    """A client that remembers why it has no connection, and tells it only to those who ask.

    Attributes
    ----------
    failure : str or None
        Why the last attempt to connect failed.
    attempted : threading.Event
        Set when the first attempt to connect has succeeded or failed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        logger = logging.Logger("katcp.cli")
        logger.parent = logging.getLogger("katcp")
        logger.addFilter(self._note_failure)
        super().__init__(*args, **{**kwargs, "logger": logger})
        self.failure: Optional[str] = None
        self.attempted = threading.Event()

    def notify_connected(self, connected: bool) -> None:
        """Note the first connection; subclasses call this, too."""
        self.attempted.set()

    def _note_failure(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if not text.startswith("Failed to connect to "):
            return True
        self.failure = text.partition("): ")[2]
        self.attempted.set()
        return False


class ListeningClient(CommandClient):
    """A client that notes what happens, for the main thread to handle in its order.

    Subclasses put what they listen to in `events`, too.

    Attributes
    ----------
    events : queue.SimpleQueue
        True for a connection, the first one included, False for its end, or an inform.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.events: queue.SimpleQueue[Union[bool, Message]] = queue.SimpleQueue()

    def notify_connected(self, connected: bool) -> None:
        """Note a connection, or its end."""
        super().notify_connected(connected)
        self.events.put(connected)


_Client = TypeVar("_Client", bound=CommandClient)


# ---- the command line ----


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


# ---- connecting ----


@contextlib.contextmanager
def connected(
    options: argparse.Namespace,
    client_class: type[_Client],
    *,
    auto_reconnect: bool = False,
) -> Iterator[_Client]:
    """Yield a client that is connected, and stop it at the end.

    The device has said which protocol it speaks, or does not say it.

    Parameters
    ----------
    options : argparse.Namespace
        With what `add_device_arguments` added.
    client_class : type
        `CommandClient` or a subclass.
    auto_reconnect : bool, optional
        Whether to connect again when the connection is lost. The first attempt
        must succeed all the same.

    Raises
    ------
    CommandError
        If there is no connection.
    """
    address, timeout = options.address, options.timeout
    client = client_class(
        address.host,
        address.port,
        timeout=timeout,
        auto_reconnect=auto_reconnect,
        ssl_options=make_ssl_context(options),
    )
    client.CONNECT_TIMEOUT = timeout
    client.start()
    try:
        client.attempted.wait(timeout)
        if client.failure is None:
            client.wait_protocol(min(timeout, GREETING_PATIENCE))
        if not client.is_connected():
            raise CommandError(_why_not_connected(client, address), NOT_CONNECTED)
        yield client
    finally:
        client.stop(timeout)


def make_ssl_context(options: argparse.Namespace) -> Optional[ssl.SSLContext]:
    """Return what encrypts the connection, or None."""
    if not options.tls and options.ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=options.ca)
    except OSError as error:
        raise CommandError(f"cannot use the certificates in {options.ca!r}: {error}", USAGE) from (
            error
        )


def answers(client: CommandClient, request: Message, timeout: float) -> Iterator[Message]:
    """Send *request*; yield its informs as they come, and at last the reply.

    Parameters
    ----------
    client : CommandClient
        A connected client.
    request : Message
        The request.
    timeout : float
        How many seconds the device may be silent. An answer of thousands of
        informs takes as long as it takes.

    Yields
    ------
    Message
        The last one is the reply, perhaps one that was made up because the device
        fell silent or the connection was lost.
    """
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    client.callback_request(request, messages.put, messages.put, timeout=_NO_LIMIT)
    while True:
        try:
            message = messages.get(timeout=timeout)
        except queue.Empty:
            message = _silence(request, timeout)
        yield message
        if message.mtype == Message.REPLY:
            return


def _silence(request: Message, timeout: float) -> Message:
    """Return the reply that tells that the device says nothing any more."""
    error = KatcpClientTimeout(f"no reply within {timeout:g} seconds")
    reply = Message.reply(request.name, Message.FAIL, str(error))
    reply.local_error = error
    return reply


def ask(client: CommandClient, name: str, *arguments: Union[str, bytes]) -> Message:
    """Make a request that succeeds, and return its reply, or raise `CommandError`."""
    reply, _ = client.blocking_request(Message.request(name, *arguments))
    check_reply(reply, f"?{name}")
    return reply


def check_reply(reply: Message, what: str) -> None:
    """Raise `CommandError` unless *reply* is ok.

    Parameters
    ----------
    reply : Message
        A reply of the device, or one that the client made up.
    what : str
        What was asked for, such as ``?sensor-list``.
    """
    code = code_of(reply)
    if code != OK:
        raise CommandError(f"{what}: {reason_of(reply)}", code)


def code_of(reply: Message) -> int:
    """Return the exit code for a reply."""
    if reply.reply_ok():
        return OK
    if reply.local_error is None:
        return REFUSED
    return TIMED_OUT if isinstance(reply.local_error, KatcpClientTimeout) else NOT_CONNECTED


def reason_of(reply: Message) -> str:
    """Return in one line why a reply is not ok."""
    if reply.local_error is not None:
        return printable(str(reply.local_error))
    reason = " ".join(printable(argument) for argument in reply.arguments[1:])
    return shorten(reason) if reason else "refused, and no reason was given"


def _why_not_connected(client: CommandClient, address: Address) -> str:
    if client.failure is not None:
        return f"cannot connect to {address}: {client.failure}"
    if client.attempted.is_set():
        return f"{address} closed the connection at once"
    return f"cannot connect to {address}: no answer within {client.CONNECT_TIMEOUT:g} seconds"


# ---- what people see ----


def printable(data: Union[bytes, str]) -> str:
    r"""Return text of one line that any terminal can show.

    Bytes that are not UTF-8, line ends, and what would steer the terminal are
    escaped, as in ``\xff``, ``\n`` and ``\x1b``.

    Parameters
    ----------
    data : bytes or str
        What a device sent.

    Returns
    -------
    str
    """
    text = data.decode("utf-8", "backslashreplace") if isinstance(data, bytes) else data
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def printable_lines(data: bytes) -> list[str]:
    """Return text of several lines, as help texts and tracebacks are, line by line.

    Parameters
    ----------
    data : bytes
        What a device sent.

    Returns
    -------
    list of str
        At least one, each `printable`. Blank lines at the end are left out. What
        is no text is one line.
    """
    lines = [printable(line.expandtabs()) for line in data.rstrip().splitlines()]
    is_text = all(map(str.isprintable, data.decode("utf-8", "replace").expandtabs().splitlines()))
    return lines if lines and is_text else [printable(data)]


def tell(text: str) -> None:
    """Tell the user something that is not part of the output."""
    print(f"katcp: {text}", file=sys.stderr, flush=True)


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person looks at *stream*, on a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def wants_colour(stream: TextIO) -> bool:
    """Return whether to colour what is written to *stream* (see https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def paint(text: str, colour: Optional[str], stream: Optional[TextIO] = None) -> str:
    """Return *text* in a colour, if *stream* shows colours.

    Parameters
    ----------
    text : str
        Printable text.
    colour : str or None
        A name, such as ``"red"`` or ``"bold"``; None leaves the text as it is.
    stream : file, optional
        Where the text will be written. Default: the standard output.

    Returns
    -------
    str
    """
    if colour is None or not wants_colour(stream or sys.stdout):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"
