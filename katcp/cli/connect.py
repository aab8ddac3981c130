"""Connections to a device, and requests.

An error is one line that names the device, the request and the cause, and an exit code.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import queue
import re
import ssl
import threading
import time
from typing import Any, Awaitable, Iterator, Optional, TypeVar

from .._wire.text import shorten
from ..client import BlockingClient
from ..core import (
    SEC_TS_KATCP_MAJOR,
    KatcpClientError,
    KatcpClientOverflow,
    KatcpClientTimeout,
    KatcpReplyError,
    Message,
    ProtocolFlags,
)
from .devices import Address
from .output import (
    NOT_CONNECTED,
    OK,
    REFUSED,
    STATUS_INTERVAL,
    TIMED_OUT,
    USAGE,
    CommandError,
    StatusLine,
    printable,
    show_seconds,
    tell,
)
from .quoting import quote

# A device that has not sent its version within this time, in seconds, never will: it is treated as
# version 4, like all that do not.
GREETING_PATIENCE = 2.0

# The timeout of a request that `answers` limits itself, in seconds.
NO_LIMIT = 1e9

# How many characters of a request, or of a log record of the library, an error shows.
_SHOWN_OF_REQUEST = 60
_SHOWN_OF_LOG = 200

# The library's log record about the end of a connection, with the repr of an exception.
_END_RE = re.compile(r"""closed with error \w+\((?:-?[0-9]+, )?(['"])(?P<why>.*)\1\)$""")
_TRACEBACK = "Traceback (most recent call last): "

# Informs that belong to no answer.
_UNASKED = ("log", "sensor-status")

# A device may refuse lines of more bytes than this, like katcp 0.9.3.
_LARGE_REQUEST = 1 << 20


class CommandClient(BlockingClient):
    """A client that records why it has no connection.

    Attributes
    ----------
    device : Address
        The device.
    patience : float
        How many seconds the device may be silent during a request.
    heard : int
        How many informs have arrived that may be part of an answer.
    failure : str or None
        The reason of the last failure to connect.
    """

    def __init__(
        self, options: argparse.Namespace, device: Address, *, auto_reconnect: bool = False
    ) -> None:
        super().__init__(
            device.host,
            device.port,
            # The position in the library's source is of no use here.
            tb_limit=0,
            timeout=options.timeout,
            auto_reconnect=auto_reconnect,
            logger=_make_logger(self),
            max_msg_size=options.max_msg_size,
            max_write_buffer_size=2 * options.max_msg_size,
            ssl_options=make_ssl_context(options),
        )
        # Longer than ours: we report that there was no answer.
        self.CONNECT_TIMEOUT = options.timeout + 1
        self.device = device
        self.patience: float = options.timeout
        self.greeting_patience = min(GREETING_PATIENCE, options.timeout / 2)
        # The time left for the first request, if the device did not send a greeting.
        self.first_patience: Optional[float] = None
        self.heard = 0
        # Set when the first attempt to connect has succeeded or failed.
        self._attempted = threading.Event()
        self.failure: Optional[str] = None
        self._end = ""

    def notify_connected(self, connected: bool) -> None:
        """Note the first connection; subclasses call this, too."""
        self._attempted.set()

    def handle_inform(self, msg: Message) -> Any:
        """Count informs that may be part of an answer."""
        self.heard += msg.name not in _UNASKED
        return super().handle_inform(msg)

    def wait_first_connection(self) -> None:
        """Wait for the first connection, or raise `CommandError`."""
        self._attempted.wait(self.patience)
        if self.failure is not None or not self.is_connected():
            raise CommandError(self._why_not_connected(), NOT_CONNECTED)

    def wait_ready(self) -> None:
        """Wait for the first connection, and until the protocol is known.

        A device that does not send it is used nevertheless.
        """
        self.wait_first_connection()
        if not self.wait_protocol(self.greeting_patience):
            self.first_patience = self.patience - self.greeting_patience
            self.preset_protocol_flags(ProtocolFlags(SEC_TS_KATCP_MAJOR - 1, 0, ""))
        if not self.is_connected():
            raise CommandError(self._why_not_connected(), NOT_CONNECTED)

    def why_lost(self) -> str:
        """Return the reason of the end of the connection, for the user."""
        end, self._end = self._end.replace("MAX_MSG_SIZE", "--max-msg-size"), ""
        return f"{self.device}: connection lost{': ' if end else ''}{printable(end)}; reconnecting"

    def _why_not_connected(self) -> str:
        hint = "; this is the default device, -d names another" if self.device.is_default else ""
        reason = f"no answer within {show_seconds(self.patience)}"
        if self.failure is not None:
            # The library's text repeats the address.
            reason = re.sub(r"\[Errno -?[0-9]+\] ", "", self.failure)
            reason = printable(reason.removeprefix(f"{self.device.location}: "))
        elif self._attempted.is_set():
            reason = "it closed the connection at once"
        return f"cannot connect to {self.device.full}: {reason}{hint}"

    def take_log(self, record: logging.LogRecord) -> None:
        """Handle log records of the library: note why there is no connection, report the others."""
        text = record.getMessage()
        if text.startswith("Failed to connect"):
            self.failure = text.partition("): ")[2]
            self._attempted.set()
        elif match := _END_RE.search(text):
            self._end = match["why"]
        elif not text.startswith(("Reconnected to", "Dropped a line")):
            shown = " ".join(text.split()).replace(_TRACEBACK, "")
            self.report(f"{self.device}: {shorten(printable(shown), _SHOWN_OF_LOG)}")

    def report(self, text: str) -> None:
        """Show a log record of the library to the user; in the client's thread."""
        tell(text)


_AnyClient = TypeVar("_AnyClient", bound=BlockingClient)
_Client = TypeVar("_Client", bound=CommandClient)
_T = TypeVar("_T")


def _make_logger(client: CommandClient) -> logging.Logger:
    """Return a logger for the client, which gets its records."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            client.take_log(record)

    logger = logging.Logger("katcp", logging.WARNING)
    logger.addHandler(Handler())
    return logger


@contextlib.contextmanager
def started(client: _AnyClient) -> Iterator[_AnyClient]:
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
    """Return the context for TLS, or None."""
    if not options.tls and options.ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=options.ca)
    except OSError as error:
        raise CommandError(f"cannot use the certificates in {options.ca!r}: {error}", USAGE) from (
            error
        )


# ---- requests ----


def answers(client: CommandClient, request: Message) -> Iterator[Message]:
    """Send *request*; yield its informs as they arrive, and finally the reply.

    The device may be silent for `CommandClient.patience` seconds. The total time is not limited.
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
            message = failed_reply(request, silence(client))
        client.first_patience = None
        patience = client.patience
        yield message
        if message.mtype == Message.REPLY:
            return


async def patiently(
    client: CommandClient, request: Message, work: Awaitable[_T], what: str = ""
) -> _T:
    """Await *work*, which makes a request, as long as answers arrive; any asyncio loop.

    A terminal shows *what* is being done, and how many informs have arrived. Raises `CommandError`
    if it fails, or the device falls silent.
    """
    task, status = asyncio.ensure_future(work), StatusLine()
    began = heard = client.heard
    deadline = time.monotonic() + (client.first_patience or client.patience)
    client.first_patience = None
    try:
        while not task.done():
            if client.heard > heard:
                heard, deadline = client.heard, time.monotonic() + client.patience
            if what and heard > began:
                status.show(f"{what}: {heard - began}")
            left = deadline - time.monotonic()
            if left <= 0:
                raise command_error(client, request, silence(client))
            await asyncio.wait([task], timeout=min(left, STATUS_INTERVAL))
        return task.result()
    except KatcpClientError as error:
        raise command_error(client, request, error) from None
    finally:
        task.cancel()
        status.clear()


def ask_all(client: CommandClient, name: str) -> list[Message]:
    """Return the informs of a request that succeeds, or raise `CommandError`."""
    work = client.async_ask(name, timeout=NO_LIMIT)
    return asyncio.run(patiently(client, Message.request(name), work)).informs


# ---- errors ----


def show_request(client: CommandClient, request: Message) -> str:
    """Return device and request, for an error: ``localhost:7147 ?sensor-value nosuch``."""
    line = " ".join([f"?{request.name}", *map(quote, request.arguments)])
    return f"{client.device} {shorten(line, _SHOWN_OF_REQUEST)}"


def check_reply(client: CommandClient, request: Message, reply: Message) -> None:
    """Raise `CommandError` unless *reply*, perhaps a local failure reply, is ok."""
    if not reply.reply_ok():
        raise CommandError(
            f"{show_request(client, request)}: {reason_of(reply, request)}", code_of(reply)
        )


def command_error(client: CommandClient, request: Message, error: KatcpClientError) -> CommandError:
    """Return the error of a request that failed."""
    reply = error.reply if isinstance(error, KatcpReplyError) else None
    reply = failed_reply(request, error) if reply is None else reply
    reason = reason_of(reply, request)
    return CommandError(f"{show_request(client, request)}: {reason}", code_of(reply))


def code_of(reply: Message) -> int:
    """Return the exit code for a reply."""
    if reply.reply_ok():
        return OK
    if reply.local_error is None:
        return REFUSED
    return TIMED_OUT if isinstance(reply.local_error, KatcpClientTimeout) else NOT_CONNECTED


def reason_of(reply: Message, request: Optional[Message] = None) -> str:
    """Return the reason why a reply is not ok, in one line."""
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
    """Return the reason of the end of the connection, to append to an error."""
    if isinstance(error, KatcpClientOverflow):
        return f": {str(error).replace('MAX_MSG_SIZE', '--max-msg-size')}"
    return f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""


def _size(message: Message) -> int:
    return len(bytes(message)) + 1


def silence(client: CommandClient) -> KatcpClientError:
    """Return the error for a device that has fallen silent."""
    return KatcpClientTimeout(f"no reply within {show_seconds(client.patience)}")


def failed_reply(request: Message, error: KatcpClientError) -> Message:
    """Return the local failure reply for an error."""
    reply = Message.reply(request.name, Message.FAIL, str(error))
    reply.local_error = error
    return reply
