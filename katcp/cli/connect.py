"""Connecting to a device, and asking it.

What goes wrong is one line that names the device, the request and the cause, and an
exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import queue
import re
import ssl
import threading
from typing import Iterator, Optional, TypeVar, Union

from .._wire.text import shorten
from ..client import BlockingClient
from ..core import KatcpClientOverflow, KatcpClientTimeout, Message
from .devices import Address
from .output import (
    NOT_CONNECTED,
    OK,
    REFUSED,
    TIMED_OUT,
    USAGE,
    CommandError,
    StatusLine,
    printable,
    show_seconds,
    tell,
)
from .quoting import quote

# A device that has said nothing about itself for so long, in seconds, will not: it is used
# as one of version 4, as are all that do not say.
GREETING_PATIENCE = 2.0

# The timeout of a request whose end `answers` watches itself, in seconds.
NO_LIMIT = 1e9

# How many characters of a request, and of what the library logs, an error shows.
_SHOWN_OF_REQUEST = 60
_SHOWN_OF_LOG = 200

_TRACEBACK = "Traceback (most recent call last): "

# A device may refuse a line of more bytes than this, as katcp 0.9.3 does.
_LARGE_REQUEST = 1 << 20


class CommandClient(BlockingClient):
    """A client that remembers why it has no connection.

    Parameters
    ----------
    options : argparse.Namespace
        With what `katcp.cli.options.add_device_options` added.
    device : Address
        The device.
    auto_reconnect : bool, optional
        Whether to connect again when the connection is lost.

    Attributes
    ----------
    device : Address
        The device.
    patience : float
        How many seconds the device may be silent when it is asked something.
    failure : str or None
        Why the last attempt to connect that failed did so.
    """

    def __init__(
        self, options: argparse.Namespace, device: Address, *, auto_reconnect: bool = False
    ) -> None:
        super().__init__(
            device.host,
            device.port,
            # Where in the library something was raised is of no use here.
            tb_limit=0,
            timeout=options.timeout,
            auto_reconnect=auto_reconnect,
            logger=_make_logger(self),
            max_msg_size=options.max_msg_size,
            max_write_buffer_size=2 * options.max_msg_size,
            ssl_options=make_ssl_context(options),
        )
        # Longer than we wait: it is us who tell that there was no answer.
        self.CONNECT_TIMEOUT = options.timeout + 1
        self.device = device
        self.patience: float = options.timeout
        self.greeting_patience = min(GREETING_PATIENCE, options.timeout / 2)
        # What is left for the first request, if the device did not greet.
        self.first_patience: Optional[float] = None
        # Set when the first attempt to connect has succeeded or failed.
        self._attempted = threading.Event()
        self.failure: Optional[str] = None
        self._end: Optional[BaseException] = None

    def notify_connected(self, connected: bool) -> None:
        """Note the first connection; subclasses call this, too."""
        self._attempted.set()

    def wait_first_connection(self) -> None:
        """Wait for the first connection, or raise `CommandError`."""
        self._attempted.wait(self.patience)
        if self.failure is not None or not self.is_connected():
            raise CommandError(self._why_not_connected(), NOT_CONNECTED)

    def wait_ready(self) -> None:
        """Wait for the first connection, and until the device has told its protocol.

        One that does not tell it is used nevertheless.

        Raises
        ------
        CommandError
            If there is no connection.
        """
        self.wait_first_connection()
        if not self.wait_protocol(self.greeting_patience):
            self.first_patience = self.patience - self.greeting_patience
        if not self.is_connected():
            raise CommandError(self._why_not_connected(), NOT_CONNECTED)

    def why_lost(self) -> str:
        """Return what to tell of the end of the connection."""
        end, self._end = self._end, None
        return f"{self.device}: connection lost{_cause(end)}; reconnecting"

    def _why_not_connected(self) -> str:
        hint = "; this is the default device, -d names another" if self.device.is_default else ""
        reason = f"no answer within {show_seconds(self.patience)}"
        if self.failure is not None:
            # The library names the address again.
            reason = re.sub(r"\[Errno -?[0-9]+\] ", "", self.failure)
            reason = printable(reason.removeprefix(f"{self.device.location}: "))
        elif self._attempted.is_set():
            reason = "it closed the connection at once"
        return f"cannot connect to {self.device.full}: {reason}{hint}"

    def take_log(self, record: logging.LogRecord) -> None:
        """Handle what the library logs: remember why there is no connection, tell the rest."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        if record.msg.startswith("Failed to connect"):
            self.failure = str(arguments[-1])
            self._attempted.set()
        elif "closed with error" in record.msg:
            self._end = arguments[-1]  # type: ignore[assignment]
        elif not record.msg.startswith(("Reconnected to", "Dropped a line")):
            text = " ".join(record.getMessage().split()).replace(_TRACEBACK, "")
            self.report(f"{self.device}: {shorten(printable(text), _SHOWN_OF_LOG)}")

    def report(self, text: str) -> None:
        """Tell the user what the library logs; in the client's thread."""
        tell(text)


_Client = TypeVar("_Client", bound=CommandClient)


def _make_logger(client: CommandClient) -> logging.Logger:
    """Return a logger of the client's own, which gives it what is logged."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            client.take_log(record)

    logger = logging.Logger("katcp", logging.WARNING)
    logger.addHandler(Handler())
    return logger


@contextlib.contextmanager
def started(client: _Client) -> Iterator[_Client]:
    """Start *client*, yield it, and stop it at the end."""
    client.start()
    try:
        yield client
    finally:
        client.stop()


@contextlib.contextmanager
def connected(client: _Client) -> Iterator[_Client]:
    """Start *client*, yield it when it is ready, and stop it at the end."""
    with started(client):
        client.wait_ready()
        yield client


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


# ---- asking ----


def answers(client: CommandClient, request: Message) -> Iterator[Message]:
    """Send *request*; yield its informs as they come, and at last the reply.

    The device may be silent for as long as `CommandClient.patience`. An answer of
    thousands of informs takes as long as it takes.

    Raises
    ------
    CommandError
        If the request is too long.

    Yields
    ------
    Message
        The last one is the reply, perhaps one that was made up because the device
        fell silent or the connection was lost.
    """
    size, most = _size(request), client.MAX_MSG_SIZE
    if size > most:
        what = f"the request has {size} bytes, and --max-msg-size allows {most}"
        raise CommandError(f"{show_request(client, request)}: {what}", USAGE)
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    patience = client.first_patience or client.patience
    client.callback_request(request, messages.put, messages.put, timeout=NO_LIMIT)
    while True:
        try:
            message = messages.get(timeout=patience)
        except queue.Empty:
            message = silence(client, request)
        client.first_patience = None
        patience = client.patience
        yield message
        if message.mtype == Message.REPLY:
            return


def ask_all(
    client: CommandClient, name: str, *arguments: Union[str, bytes], what: str = ""
) -> list[Message]:
    """Return the informs of a request that succeeds, or raise `CommandError`.

    A terminal shows *what* is done, and how many informs have come.
    """
    request = Message.request(name, *arguments)
    informs = []
    status = StatusLine()
    try:
        for message in answers(client, request):
            if message.mtype == Message.REPLY:
                check_reply(client, request, message)
            else:
                informs.append(message)
                if what:
                    status.show(f"{what}: {len(informs)}")
    finally:
        status.clear()
    return informs


# ---- what goes wrong ----


def show_request(client: CommandClient, request: Message) -> str:
    """Return device and request, for an error: ``localhost:7147 ?sensor-value nosuch``."""
    line = " ".join([f"?{request.name}", *map(quote, request.arguments)])
    return f"{client.device} {shorten(line, _SHOWN_OF_REQUEST)}"


def check_reply(client: CommandClient, request: Message, reply: Message) -> None:
    """Raise `CommandError` unless *reply* is ok.

    Parameters
    ----------
    client : CommandClient
        Who has asked.
    request : Message
        The request.
    reply : Message
        A reply of the device, or one that the client made up.
    """
    if not reply.reply_ok():
        raise CommandError(
            f"{show_request(client, request)}: {reason_of(reply, request)}", code_of(reply)
        )


def code_of(reply: Message) -> int:
    """Return the exit code for a reply."""
    if reply.reply_ok():
        return OK
    if reply.local_error is None:
        return REFUSED
    return TIMED_OUT if isinstance(reply.local_error, KatcpClientTimeout) else NOT_CONNECTED


def reason_of(reply: Message, request: Optional[Message] = None) -> str:
    """Return in one line why a reply is not ok."""
    error = reply.local_error
    if error is None:
        reason = " ".join(printable(argument) for argument in reply.arguments[1:])
        return shorten(reason) if reason else "refused, and no reason was given"
    reason = printable(str(error)).replace("MAX_MSG_SIZE", "--max-msg-size")
    if isinstance(error.__cause__, OSError):
        reason += _cause(error.__cause__)
    size = 0 if request is None else _size(request)
    if size > _LARGE_REQUEST and not isinstance(error, KatcpClientTimeout):
        reason = reason.rstrip(".") + f"; the request has {size} bytes, perhaps too many for it"
    return reason


def _cause(error: Optional[BaseException]) -> str:
    """Return why the connection ended, to follow that it did."""
    if isinstance(error, KatcpClientOverflow):
        return f": {str(error).replace('MAX_MSG_SIZE', '--max-msg-size')}"
    return f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""


def _size(message: Message) -> int:
    return len(bytes(message)) + 1


def silence(client: CommandClient, request: Message) -> Message:
    """Return the reply that tells that the device says nothing any more."""
    error = KatcpClientTimeout(f"no reply within {show_seconds(client.patience)}")
    reply = Message.reply(request.name, Message.FAIL, str(error))
    reply.local_error = error
    return reply
