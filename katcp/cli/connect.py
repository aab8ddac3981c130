"""Connecting to a device, and asking it.

An address on the command line becomes a connected client, or one line that says why
not and an exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import queue
import ssl
import threading
from typing import Any, Iterator, Optional, TypeVar, Union

from .._wire.message import Message
from .._wire.text import shorten
from ..client import BlockingClient
from ..errors import KatcpClientTimeout
from .options import Address
from .output import NOT_CONNECTED, OK, REFUSED, TIMED_OUT, USAGE, CommandError, printable

# What the user is told of a connection that is lost, and made again by itself.
CONNECTION_LOST = "the connection is lost; trying to connect again"
CONNECTED_AGAIN = "connected again"

# A device that has said nothing about itself for so long, in seconds, will not:
# it is used as one of version 4, as are all that do not say.
GREETING_PATIENCE = 2.0

# The limit of a request whose end `answers` watches itself, in seconds.
_NO_LIMIT = 1e9


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
