"""From lines to handlers: messages are parsed and dispatched.

All of it runs in the loop's thread. Exceptions of the program's handlers and callbacks are logged
at a bounded rate, and do not affect others.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from typing import Any, Awaitable, Callable, Optional

from .._net.connection import Connection
from .._runtime.tasks import FATAL, is_awaitable, run_logged, spawn, spawn_if_awaitable
from .._state.replies import UnsentReply
from .._wire.message import Message, quote
from .._wire.parser import MessageParser
from .._wire.text import shorten
from ..errors import KatcpSyntaxError, KatcpTypeError
from ._addresses import address_to_string
from ._callbacks import CallbackTable
from ._hooks import Client, parts_behind
from ._log import CurrentException, RateLimitedLog
from ._requester import Requester

_Handler = Callable[[Message], Any]


class Dispatcher:
    """Passes messages to requests, handlers and callbacks.

    Attributes
    ----------
    inform_callbacks, connection_callbacks : CallbackTable
        The callbacks added by the program.
    own_informs : dict
        The client's own handlers for informs that belong to no request, by name.
    above : object or None
        Its `handle_inform` and `handle_reply` take messages that belong to no request: the
        ``super()`` of the class that makes requests.
    farewell : Message or None
        The ``#disconnect`` of the device on this connection.
    """

    __slots__ = (
        "_client",
        "_log",
        "_parser",
        "_pause",
        "_pending",
        "_requester",
        "_tb_limit",
        "_unclaimed_inform",
        "above",
        "connection_callbacks",
        "farewell",
        "inform_callbacks",
        "own_informs",
    )

    def __init__(
        self, client: Client, requester: Requester, log: RateLimitedLog, tb_limit: int
    ) -> None:
        self._client = client
        self._requester = requester
        self._pending = requester.pending
        self._log = log
        self._tb_limit = tb_limit
        self._parser = MessageParser()
        # What reading must wait for, as requested by a handler.
        self._pause: Optional[asyncio.Future[Any]] = None
        self._unclaimed_inform: _Handler = self.inform
        self.above: Any = None
        self.farewell: Optional[Message] = None
        self.own_informs: dict[str, Callable[[Message], None]] = {}
        self.inform_callbacks = CallbackTable()
        self.connection_callbacks = CallbackTable()

    # Lines.

    def handle_lines(self, connection: Connection, lines: list[bytes]) -> Optional[list[bytes]]:
        """Handle *lines*; if something else has to come first, return the rest.

        Either a handler's awaitable, or other work of the loop.
        """
        client = self._client
        clock = time.monotonic
        latest = clock() + client.MAX_LOOP_LATENCY if len(lines) > 1 else math.inf
        parse = self._parser.parse_plain if connection.splitter.plain else self._parser.parse
        handlers = self._handlers_by_type()
        is_debugging = client._logger.isEnabledFor(logging.DEBUG)
        is_closed = connection.until_closed.done
        for position, line in enumerate(lines):
            if position and clock() > latest:
                return lines[position:]
            if is_closed():
                break
            try:
                msg = parse(line)
            except KatcpSyntaxError:
                self._log_bad_line(line)
                continue
            if is_debugging:
                self._log_received(msg)
            if msg.name == "disconnect" and msg.mtype == Message.INFORM:
                # Not in a handler: that one belongs to the program.
                self.farewell = msg
            try:
                result = handlers[msg.mtype](msg)
            except FATAL:
                raise
            except BaseException:
                self._log_unhandled(msg)
                continue
            if result is not None and is_awaitable(result):
                log = functools.partial(self._log_unhandled, msg)
                self._pause = spawn(run_logged(result, log))
                return lines[position + 1 :]
        return None

    async def handle_left(self, connection: Connection, lines: list[bytes]) -> None:
        """Handle the lines left by `handle_lines`, after what had to come first."""
        left: Optional[list[bytes]] = lines
        while left is not None:
            pause, self._pause = self._pause, None
            if pause is not None:
                await connection.until_done_or_closed(pause)
            else:
                await asyncio.sleep(0)
            left = self.handle_lines(connection, left)

    def _handlers_by_type(self) -> tuple[_Handler, _Handler, _Handler]:
        """Return the handlers of requests, replies and informs, in the order of their types."""
        client, above = self._client, self.above
        message, reply, inform, unclaimed_inform = parts_behind(
            self,
            client.handle_message,
            client.handle_reply,
            client.handle_inform,
            client.handle_inform if above is None else above.handle_inform,
        )
        self._unclaimed_inform = unclaimed_inform
        if message != self.message:
            return message, message, message
        return client.handle_request, reply, inform

    # Messages: the default actions of the documented hooks.

    def message(self, msg: Message) -> Any:
        if msg.mtype == Message.INFORM:
            return self._client.handle_inform(msg)
        if msg.mtype == Message.REPLY:
            return self._client.handle_reply(msg)
        return self._client.handle_request(msg)

    def inform_of_request(self, msg: Message) -> None:
        """Pass an inform to its request, else to its handler."""
        sink = self._pending.match_inform(msg)
        if sink is None or not sink.take_inform(msg):
            # As in the old client, reading does not pause for these handlers.
            spawn_if_awaitable(self._unclaimed_inform(msg))

    def reply_of_request(self, msg: Message) -> None:
        """Pass a reply to its request, else to its handler."""
        # A local reply of this kind answers a request that was not sent.
        is_local = msg.local_error is not None
        sink = getattr(msg, "origin", None) if is_local else self._pending.match_reply(msg)
        if sink is None or not sink.take_reply(msg):
            (reply,) = parts_behind(self, self.above.handle_reply)
            spawn_if_awaitable(reply(msg))

    def inform(self, msg: Message) -> Any:
        """Call the handler of an inform, and its callbacks."""
        client = self._client
        result = self._call_handler("Inform", client._inform_handlers, client.unhandled_inform, msg)
        if msg.name in self.own_informs:
            self.own_informs[msg.name](msg)
        if self.inform_callbacks.by_name:
            for callback in self.inform_callbacks.matching(msg.name):
                self.call_back("inform", callback, None, msg)
        return result

    def reply(self, msg: Message) -> Any:
        client = self._client
        return self._call_handler("Reply", client._reply_handlers, client.unhandled_reply, msg)

    def request(self, msg: Message) -> Optional[Awaitable[None]]:
        """Call the handler of a device's request, and send its result."""
        client = self._client
        handlers = client._request_handlers
        if msg.name not in handlers:
            return self._call_handler("Request", {}, client.unhandled_request, msg)  # type: ignore[no-any-return]
        reply = self._call_handler("Request", handlers, None, msg)
        if is_awaitable(reply):
            return self._send_reply_later(msg, reply)
        self._send_reply(msg, reply)
        return None

    def _call_handler(
        self,
        kind: str,
        handlers: dict[str, Callable[..., Any]],
        fallback: Optional[Callable[[Message], Any]],
        msg: Message,
    ) -> Any:
        """Call the handler of *msg*, or the fallback, and log exceptions."""
        handler = handlers.get(msg.name)
        try:
            if handler is not None:
                result = handler(self._client, msg)
            else:
                result = fallback(msg) if fallback is not None else None
        except FATAL:
            raise
        except BaseException:
            self._log_handler_failure(kind, msg)
            return None
        if result is None or not is_awaitable(result):
            return result
        log = functools.partial(self._log_handler_failure, kind, msg)
        return run_logged(result, log)

    async def _send_reply_later(self, msg: Message, reply: Awaitable[Any]) -> None:
        self._send_reply(msg, await reply)

    def _send_reply(self, msg: Message, reply: Any) -> None:
        """Send the result of the handler of the device's request *msg*."""
        if reply is None:
            return
        try:
            if not _is_reply_to(msg, reply):
                raise KatcpTypeError(
                    f"The handler of the request {msg.name!r} must return a reply "
                    f"of that name, not {reply!r}."
                )
            reply.mid = msg.mid
            (send,) = parts_behind(self._requester, self._client.send_message)
            send(reply)
        except FATAL:
            raise
        except BaseException:
            self._log_handler_failure("Request", msg)

    # Callbacks.

    def call_back(self, kind: str, callback: Callable[..., Any], user_data: Any, news: Any) -> None:
        """Call a callback; its exceptions are logged, even those of its awaitable."""
        try:
            result = callback(news) if user_data is None else callback(news, *user_data)
        except FATAL:
            raise
        except BaseException:
            self._log_callback_failure(kind, news)
            return
        if result is not None and is_awaitable(result):
            log = functools.partial(self._log_callback_failure, kind, news)
            spawn(run_logged(result, log))

    def tell_of_connection(self, connected: bool) -> bool:
        """Call notify_connected() and the callbacks; return whether the former succeeded."""
        has_succeeded = True
        try:
            self._client.notify_connected(connected)
        except FATAL:
            raise
        except BaseException:
            self._log.exception(
                "Notify connect failed. Disconnecting." if connected else "Notify connect failed"
            )
            has_succeeded = False
        for callback in self.connection_callbacks.all():
            self.call_back("connected", callback, None, connected)
        return has_succeeded

    def handle_unsent(self, reply: UnsentReply) -> None:
        """Handle the local reply of a request as if the device had sent it."""
        log = functools.partial(self._log_unhandled, reply)
        try:
            result = self._client.handle_reply(reply)
        except FATAL:
            raise
        except BaseException:
            log()
        else:
            if result is not None and is_awaitable(result):
                spawn(run_logged(result, log))

    # Logs.

    def _traceback(self) -> CurrentException:
        return CurrentException(self._tb_limit)

    def _log_bad_line(self, line: bytes) -> None:
        self._log.error(
            "BAD COMMAND: %s\n in line %s", self._traceback(), shorten(repr(line[:2000]))
        )

    def _log_received(self, msg: Message) -> None:
        address = address_to_string(self._client._bindaddr)
        self._log.debug("received from %s: %s", address, quote(msg))

    def _log_handler_failure(self, kind: str, msg: Message) -> None:
        self._log.error(f"{kind} %s FAIL: %s", shorten(msg.name), self._traceback())

    def _log_callback_failure(self, kind: str, news: Any) -> None:
        if kind == "connected":
            subject = f"={news}"
        elif kind == "update":
            subject = f" {news}"
        elif kind == "reply" and news.local_error is not None:
            subject = f" during failure {news.local_error}, {news.name}"
        else:
            subject = f" {news.name}"
        self._log.error(f"Callback {kind}%s FAIL: %s", subject, self._traceback())

    def _log_unhandled(self, msg: Message) -> None:
        self._log.exception(
            "Unhandled exception in handle_message() from %s for message %s",
            address_to_string(self._client._bindaddr),
            quote(msg),
        )


def _is_reply_to(request: Message, reply: Any) -> bool:
    return (
        isinstance(reply, Message) and reply.mtype == Message.REPLY and reply.name == request.name
    )
