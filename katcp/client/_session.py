"""The parts of a client, and the checks of its calls.

The path of an incoming message::

    Connection -> Dispatcher.handle_lines -> MessageParser.parse
        -> Requester.take_reply / take_inform -> the sink of the request
        -> else the handler of that name, else unhandled_*

and of a request::

    AsyncClient -> Session.submit -> (in the loop) Requester.begin -> Connection.send
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import time
from concurrent.futures import Future
from typing import Any, Awaitable, Callable, Optional, TypeVar

from .._runtime.portal import LoopPortal, running_loop
from .._runtime.waiter import LoopGone
from .._state.lifecycle import State
from .._state.negotiation import ServerProtocol
from .._state.replies import local_failure, stopped_first, timed_out
from .._wire.message import Message
from ..errors import KatcpClientDisconnected, KatcpClientError, KatcpThreadError, KatcpUsageError
from ._dispatch import Dispatcher
from ._hooks import Client
from ._log import RateLimitedLog
from ._requester import Requester
from ._run import FORKS, Run
from ._sinks import ConcurrentSink, Sink, ThreadSink

# How much longer than its timeout a blocking request waits for a loop that is kept busy by a
# handler, in seconds.
BUSY_LOOP_MARGIN = 1.0

_T = TypeVar("_T")

# Alternatives for other threads, for methods that are never thread-safe.
_INSTEAD = {"future_request": "Use blocking_request() or callback_request() in other threads."}


class Session:
    """The parts of one client, and the rules for calling it; any thread.

    Attributes
    ----------
    timeout : float or None
        The default timeout of requests in seconds.
    is_threadsafe : bool
        Whether methods of the loop may be called from other threads.
    """

    __slots__ = (
        "client",
        "dispatcher",
        "is_threadsafe",
        "log",
        "protocol",
        "requester",
        "run",
        "sensors",
        "timeout",
    )

    def __init__(
        self, client: Client, tb_limit: int, ssl_context: Optional[ssl.SSLContext]
    ) -> None:
        self.log = log = RateLimitedLog(client)
        self.client = client
        self.timeout: Optional[float] = 5.0
        self.is_threadsafe = False
        # The value of `AsyncClient.sensors`, once it was used.
        self.sensors: Any = None
        self.protocol = ServerProtocol()
        self.requester = Requester(client, self.protocol, log)
        self.dispatcher = Dispatcher(client, self.requester, log, tb_limit)
        self.run = Run(client, self.dispatcher, self.requester, self.protocol, log, ssl_context)

    # Checks of the calling thread.

    def is_in_loop(self) -> bool:
        """Return whether this is the thread of the loop."""
        portal = self.run.portal
        return portal is not None and portal.in_loop()

    def refuse_fork(self, name: str) -> None:
        """Raise if the client was started in another process."""
        if self.run.is_forked():
            raise KatcpUsageError(
                f"Cannot call {name}(): the client was started in another process. "
                "Make a new client after the fork."
            )

    def refuse_other_threads(self, name: str) -> None:
        """Raise unless this is the thread of a started client's loop."""
        portal = self.started_portal(name)
        if portal.thread_id is not None and not portal.in_loop():
            instead = _INSTEAD.get(
                name, "Call enable_thread_safety() before start() to use it from other threads."
            )
            raise KatcpThreadError(
                f"{name}() must be called in the thread of the ioloop. {instead}"
            )

    def portal_of_run(self, name: str) -> LoopPortal:
        """Return the portal of a client that was ever started in this process."""
        if self.run.is_forked():
            self.refuse_fork(name)
        portal = self.run.portal
        if portal is None:
            raise KatcpUsageError(f"Call start() before {name}()")
        return portal

    def started_portal(self, name: str) -> LoopPortal:
        """Return the portal of a client that is running, or raise."""
        portal = self.portal_of_run(name)
        if self.run.lifecycle.state is State.STOPPED:
            if self.run.has_ended_by_itself():
                raise self.requester.not_connected()
            raise KatcpUsageError(f"The client is stopped: call start() before {name}()")
        return portal

    def portal_to_enter(self, name: str) -> Optional[LoopPortal]:
        """Return the portal to submit a thread-safe call to; None to call directly."""
        if not self.is_threadsafe or self.is_in_loop():
            return None
        return self.started_portal(name)

    def portal_to_wait(self, name: str, instead: str) -> LoopPortal:
        """Return the portal of a started client, in a thread that may wait."""
        portal = self.portal_of_run(name)
        if portal.in_loop():
            raise KatcpThreadError(f"Cannot call {name}() in ioloop{instead}")
        return portal

    # Requests.

    def begin(
        self,
        name: str,
        msg: Message,
        sink: Sink,
        timeout: Optional[float],
        use_mid: Optional[bool],
    ) -> None:
        """Begin a request; in the loop's thread."""
        run = self.run
        portal = run.portal
        if (
            portal is None
            or self.requester.connection is None
            or running_loop() is not portal.asyncio_loop
            or run.forks_at_start != FORKS.count
        ):
            self.refuse_other_threads(name)
        self.requester.begin(msg, sink, timeout, use_mid)

    def submit(
        self,
        name: str,
        msg: Message,
        sink: Sink,
        timeout: Optional[float],
        use_mid: Optional[bool],
    ) -> None:
        self.requester.check_submitted(msg)
        run = self.run
        portal = run.portal
        if portal is None or run.lifecycle.state is State.STOPPED:
            portal = self.started_portal(name)
        try:
            portal.call_soon(self._begin_submitted, msg, sink, timeout, use_mid)
        except KatcpUsageError:
            # The client ended a moment ago: give the reason, if it is known by now.
            self.started_portal(name)
            raise

    def _begin_submitted(
        self, msg: Message, sink: Sink, timeout: Optional[float], use_mid: Optional[bool]
    ) -> None:
        """Begin a request for another thread, unless that has given up; in the loop's thread."""
        if sink.is_over:
            return
        try:
            if self.run.lifecycle.state is State.STOPPED and not self.run.has_ended_by_itself():
                raise stopped_first()
            self.requester.begin(msg, sink, timeout, use_mid)
        except KatcpClientError as error:
            sink.fail(msg, error)
        except BaseException as error:
            sink.refuse(msg, error)

    def ask(
        self, msg: Message, sink: ThreadSink, timeout: Optional[float], use_mid: Optional[bool]
    ) -> tuple[Message, list[Message]]:
        """Make a request and wait for its reply; any thread but the loop's."""
        run, waiter = self.run, sink.target
        portal = run.portal
        if portal is None or run.forks_at_start != FORKS.count or portal.in_loop():
            self.portal_to_wait("blocking_request", "")
        assert portal is not None
        began = time.monotonic()
        try:
            self.submit("blocking_request", msg, sink, timeout, use_mid)
            patience = None if timeout is None else max(timeout, 0) + BUSY_LOOP_MARGIN
            if waiter.wait(portal.is_gone, patience):
                return waiter.result()  # type: ignore[no-any-return]
        except KatcpUsageError:
            raise
        except KatcpClientDisconnected as error:
            return local_failure(msg, error), []
        except LoopGone:
            return local_failure(msg, stopped_first()), []
        except BaseException:
            # Ctrl-C, or an exception of another signal handler.
            self.forget(portal, sink)
            raise
        finally:
            waiter.is_over = True
        return local_failure(msg, timed_out(msg.name, time.monotonic() - began)), []

    def forget(self, portal: LoopPortal, sink: Sink) -> None:
        """Drop a request: its reply is not wanted any more."""
        # Without a loop, nothing waits.
        with contextlib.suppress(KatcpUsageError):
            portal.call_soon(self.requester.forget, sink)

    def ask_concurrently(
        self,
        name: str,
        msg: Message,
        sink: ConcurrentSink,
        timeout: Optional[float],
        use_mid: Optional[bool],
    ) -> Future[tuple[Message, list[Message]]]:
        """Begin a request here or in the loop, and return its future."""
        try:
            portal = self.started_portal(name)
            sink.target.add_done_callback(
                functools.partial(self._forget_if_cancelled, portal, sink)
            )
            if portal.in_loop():
                self._begin_submitted(msg, sink, timeout, use_mid)
            else:
                self.submit(name, msg, sink, timeout, use_mid)
        except KatcpClientDisconnected as error:
            sink.fail(msg, error)
        return sink.target

    def _forget_if_cancelled(self, portal: LoopPortal, sink: Sink, future: Future[Any]) -> None:
        if future.cancelled():
            # Otherwise concurrent.futures.wait() is not notified.
            future.set_running_or_notify_cancel()
            self.forget(portal, sink)

    def fail_soon(self, sink: Sink, msg: Message, error: KatcpClientError) -> None:
        """Fail a request that was not sent, in the loop, or here if the loop has gone.

        Not at once: a callback that retries would never return.
        """
        portal = self.run.portal
        if portal is None:
            return
        try:
            portal.call_soon(sink.fail, msg, error)
        except KatcpUsageError:
            sink.fail(msg, error)

    # Our coroutines, for callers anywhere.

    def run_and_wait(self, name: str, function: Callable[..., Awaitable[_T]], *args: Any) -> _T:
        """Run a coroutine function in the loop and wait for it; any thread but the loop's."""
        portal = self.portal_to_wait(name, ", use the method that is awaited")
        self.started_portal(name)
        call = functools.partial(self._run_until_stopped, function, *args)
        return portal.call(call, timeout=None)  # type: ignore[no-any-return]

    async def run_anywhere(
        self, name: str, function: Callable[..., Awaitable[_T]], *args: Any
    ) -> _T:
        """Run a coroutine function in the client's loop; any asyncio loop."""
        loop = self.started_portal(name).asyncio_loop
        if running_loop() is loop:
            return await function(*args)
        result: Optional[Future[_T]] = None

        async def call() -> _T:
            try:
                return await self._run_until_stopped(function, *args)
            except Exception:
                if result is not None and result.cancelled():
                    # Not awaited any more: asyncio would log that.
                    raise asyncio.CancelledError from None
                raise

        result = asyncio.run_coroutine_threadsafe(call(), loop)
        return await asyncio.wrap_future(result)

    async def _run_until_stopped(self, function: Callable[..., Awaitable[_T]], *args: Any) -> _T:
        """Run a coroutine function, which a managed loop cancels when it ends."""
        try:
            return await function(*args)
        except asyncio.CancelledError:
            raise stopped_first() from None
