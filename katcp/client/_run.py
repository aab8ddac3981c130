"""The run of a client: the loop, the life cycle, connecting and reconnecting."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl
import sys
import threading
import time
from typing import Any, Callable, Optional

from tornado.ioloop import IOLoop
from tornado.util import ObjectDict
from tornado.util import TimeoutError as TornadoTimeoutError

from .._net.connection import Connection, ConnectionEnded
from .._net.dial import ConnectionFailed
from .._net.tls import TlsFailure
from .._runtime.ending import note_running, note_stopped
from .._runtime.events import AsyncEvent
from .._runtime.portal import LoopPortal
from .._runtime.tasks import spawn
from .._runtime.waiter import LoopGone, Waiter
from .._state.lifecycle import EVENT_NAMES, Lifecycle, State
from .._state.negotiation import LogText, ServerProtocol
from .._state.replies import stopped_first
from .._wire.message import Message
from .._wire.text import as_text, shorten
from ..errors import (
    KatcpClientDisconnected,
    KatcpClientError,
    KatcpClientStopped,
    KatcpUsageError,
)
from ..ioloop_manager import IOLoopManager
from ._addresses import address_to_string
from ._callbacks import StreamFeed
from ._dispatch import Dispatcher
from ._hooks import Client
from ._log import RateLimitedLog
from ._requester import Requester

# Each reconnect delay is this many times the one before, then shortened by up to a quarter: clients
# that lost their connections together must not return together.
_DELAY_GROWTH = 1.6
_DELAY_JITTER = 0.25

# After this many failures in a row, a success is logged as a warning.
_NOTABLE_FAILURES = 5

# The memory of a dict entry besides its key and its value, in bytes.
_EMPTY_VERSION_SIZE = 100


class _Forks:
    """Counts the forks that led to this process.

    A client only works in the process that started it.
    """

    count = 0

    def note(self) -> None:
        """Count a fork; in the new process."""
        self.count += 1


FORKS = _Forks()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=FORKS.note)


class Run:
    """The run of a client; in the loop's thread unless stated otherwise.

    Attributes
    ----------
    manager : IOLoopManager
        The owner of the loop.
    portal : LoopPortal or None
        Submits calls to the loop; None before the first start.
    lifecycle : Lifecycle
        The state.
    events : dict
        The events of the states, and ``"protocol"``, by name.
    stop_wanted : AsyncEvent
        Whether the client must end.
    connection : Connection or None
        The present connection, even while it is being opened.
    failures : int
        How many attempts to connect have failed in a row.
    failure_reason : str or None
        The reason of the last failure.
    attempt : int
        The number of the next attempt to reconnect.
    forks_at_start : int
        The count of `FORKS` when it was started.
    at_end : list of callable
        Functions to call when the client has stopped.
    starting_thread : int or None
        The thread that is inside `start`.
    """

    __slots__ = (
        "_client",
        "_dispatcher",
        "_log",
        "_requester",
        "_ssl_context",
        "_start_lock",
        "_versions_overflowed",
        "_versions_size",
        "at_end",
        "attempt",
        "connection",
        "events",
        "failure_reason",
        "failures",
        "forks_at_start",
        "lifecycle",
        "manager",
        "portal",
        "protocol",
        "starting_thread",
        "stop_waiters",
        "stop_wanted",
    )

    def __init__(
        self,
        client: Client,
        dispatcher: Dispatcher,
        requester: Requester,
        protocol: ServerProtocol,
        log: RateLimitedLog,
        ssl_context: Optional[ssl.SSLContext],
    ) -> None:
        self._client = client
        self._dispatcher = dispatcher
        self._requester = requester
        self._log = log
        self._ssl_context = ssl_context
        self._start_lock = threading.Lock()
        self.forks_at_start = FORKS.count
        self._versions_size = 0
        self._versions_overflowed = False
        self.protocol = protocol
        self.manager = IOLoopManager()
        self.portal: Optional[LoopPortal] = None
        self.lifecycle = Lifecycle()
        self.events = {name: AsyncEvent() for name in [*sorted(EVENT_NAMES), "protocol"]}
        self.stop_wanted = AsyncEvent()
        self.stop_waiters: list[Waiter] = []
        self.connection: Optional[Connection] = None
        self.failures = 0
        self.failure_reason: Optional[str] = None
        self.attempt = 0
        self.starting_thread: Optional[int] = None
        self.at_end: list[Callable[[], None]] = []
        self._show_state_in_events()

    # State; any thread.

    @property
    def state(self) -> State:
        """The state of the client."""
        return self.lifecycle.state

    def is_forked(self) -> bool:
        """Return whether the client was started in another process."""
        return self.forks_at_start != FORKS.count and self.state is not State.STOPPED

    def has_ended_by_itself(self) -> bool:
        """Return whether it has stopped without a call of `stop`."""
        started = self.portal is not None
        return started and self.state is State.STOPPED and not self.stop_wanted.is_set()

    @property
    def has_connected(self) -> bool:
        """Whether it was ever connected."""
        return self._client.last_connect_time is not None

    # Start and stop; any thread.

    def start(self) -> None:
        """Spawn the main coroutine, or raise if the client is not stopped."""
        # Never waited for: a finalizer may call start() in the middle of it.
        if not self._start_lock.acquire(blocking=False):
            raise KatcpUsageError("Device client already started.")
        try:
            if self.state is not State.STOPPED:
                raise KatcpUsageError("Device client already started.")
            self.starting_thread = threading.get_ident()
            self._start()
        finally:
            self.starting_thread = None
            self._start_lock.release()

    def _start(self) -> None:
        manager = self.manager
        if self.portal is not None and manager.managed:
            # The last run may have ended a moment ago, and its thread with it.
            manager.join()
        try:
            manager.start()
        except BaseException:
            # No threads or no descriptors are left.
            self.stop_wanted.set()
            raise
        portal = manager.get_portal()
        if portal.is_closed():
            raise KatcpUsageError("The ioloop is closed: a client needs one that can run.")
        for event in (*self.events.values(), self.stop_wanted):
            event.ioloop = portal.ioloop
        self.forks_at_start = FORKS.count
        self.stop_wanted.clear()
        self.failures = 0
        self.failure_reason = None
        self.forget_protocol()
        self.portal = portal
        if manager.managed and not manager.daemon:
            note_running(self)
        self._enter(State.STARTING)
        portal.call_soon(self._begin, portal)

    def _begin(self, portal: LoopPortal) -> None:
        """Enter the running state, and spawn the main coroutine.

        Not all in the coroutine, which would begin an iteration later: calls submitted right after
        start() must find a running client, as in the old client.
        """
        portal.remember_thread()
        self._client.ioloop_thread_id = portal.thread_id
        if self.state is State.STOPPING:
            # stop() was called inside start().
            self._end()
            return
        self._enter(State.CONNECTING)
        # Its exceptions end the loop, and are reported there.
        spawn(self._client._install()).add_done_callback(_retrieve)

    def stop(self, portal: LoopPortal, timeout: Optional[float]) -> None:
        """End the main coroutine; wait for it, except in its thread."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.state is not State.STOPPED:
            self._stop_and_wait(portal, timeout)
        is_starting = self.starting_thread == threading.get_ident()
        if self.manager.managed and not is_starting and not portal.in_loop():
            remaining = None if deadline is None else max(deadline - time.monotonic(), 0)
            self.manager.join(remaining)

    def _stop_and_wait(self, portal: LoopPortal, timeout: Optional[float]) -> None:
        waiter = Waiter()
        try:
            portal.call_soon(self._begin_stop, waiter)
        except KatcpUsageError:
            self._end_without_loop(portal)
            return
        if (
            portal.in_loop()
            or self.starting_thread == threading.get_ident()
            or not (self.manager.managed or portal.has_run())
        ):
            # Waiting is impossible: the caller has to run the loop itself, or is a finalizer inside
            # start().
            return
        try:
            if not waiter.wait(portal.is_gone, timeout):
                self._log.warning("The client has not stopped within %s seconds", timeout)
        except LoopGone:
            self._log.warning("The ioloop does not run: the client stops when it does")
            self._end_without_loop(portal)

    def describe(self) -> str:
        """Return a description for the log."""
        return f"the client of {address_to_string(self._client._bindaddr)}"

    def stop_soon(self) -> None:
        """Stop without waiting; for the end of the main thread."""
        if self.portal is not None and not self.is_forked():
            with contextlib.suppress(KatcpUsageError):
                self.portal.call_soon(self._begin_stop, Waiter())

    def _begin_stop(self, waiter: Waiter) -> None:
        """Interrupt whatever the main coroutine waits for."""
        if self.state is State.STOPPED:
            waiter.set_result(None)
            return
        self.stop_waiters.append(waiter)
        self.stop_wanted.set()
        if self.state is not State.STOPPING:
            self._enter(State.STOPPING)
        if self.connection is not None:
            self.connection.close()

    def disconnect_soon(self) -> None:
        """Close the connection, if there is one; any thread."""
        portal = self.portal
        if portal is None or self.state is State.STOPPED:
            return
        if portal.in_loop():
            self._disconnect()
        else:
            # A loop that was closed meanwhile has no connection any more.
            with contextlib.suppress(KatcpUsageError):
                portal.call_soon(self._disconnect)

    def _disconnect(self) -> None:
        if self.connection is not None and self.state is State.CONNECTED:
            self.connection.close()
            self.attempt = 0
            self._enter(State.WAITING)

    # The main coroutine.

    async def main(self) -> None:
        """Keep the client connected, from start to stop."""
        try:
            if not self.stop_wanted.is_set():
                await self._keep_connected()
        except Exception:
            self._log.exception("Unhandled exception in the client's main coroutine")
        finally:
            # A loop that was closed without the client destroys this coroutine some time after the
            # run was ended.
            if self.state is not State.STOPPED:
                self._end()

    async def _keep_connected(self) -> None:
        """Connect, and reconnect, until the client must end."""
        self.attempt = 0
        while True:
            lasted = 0.0
            connection = await self._connect()
            if connection is not None:
                began = time.monotonic()
                await self._use(connection)
                lasted = time.monotonic() - began
            if self.stop_wanted.is_set():
                return
            if self.state is not State.WAITING:
                self._enter(State.WAITING)
            if not self._client._auto_reconnect:
                return
            if lasted >= self._client.auto_reconnect_max_delay:
                self.attempt = 0
            with contextlib.suppress(TornadoTimeoutError):
                await self.stop_wanted.until_set(self.reconnect_delay(self.attempt))
            # Not only when the delay was interrupted: stop() may have come right after it.
            if self.stop_wanted.is_set():
                return
            self.attempt += 1
            self._enter(State.CONNECTING)

    def reconnect_delay(self, attempt: int) -> float:
        """Return the delay before an attempt, in seconds; the first is number 0."""
        first = self._client.auto_reconnect_delay
        if attempt == 0:
            return first
        # The exponent is bounded, or a year without a connection would overflow.
        grown = first * _DELAY_GROWTH ** min(attempt, 100)
        longest = max(first, self._client.auto_reconnect_max_delay)
        return min(grown, longest) * (1 - _DELAY_JITTER * random.random())

    async def _connect(self) -> Optional[Connection]:
        """Return an open connection, or None after logging the reason."""
        client = self._client
        connection = Connection(*client._bindaddr, client, self._ssl_context)
        self.connection = connection
        try:
            await connection.open(client.CONNECT_TIMEOUT)
        except ConnectionFailed as error:
            self._log_failure(str(error))
            return None
        finally:
            # Even when cancelled, it must not stay open.
            if connection.stream is None:
                connection.close()
        self._log.debug(
            "Connected to %s with client addr %s",
            address_to_string(client._bindaddr),
            address_to_string(connection.local_address),
        )
        return connection

    async def _use(self, connection: Connection) -> None:
        """Handle the lines of *connection* until its end; then nothing is pending any more."""
        self._meet_device()
        self._requester.expect_greeting()
        self._enter(State.CONNECTED)
        self._requester.connection = connection
        try:
            connection.on_lines = self._first_lines
            is_open = self._dispatcher.tell_of_connection(True)
            while is_open:
                try:
                    # Most lines are handled as they arrive, inside this.
                    lines = await connection.read_lines()
                except ConnectionEnded as end:
                    self._log_end(connection, end.cause)
                    is_open = False
                else:
                    await self._dispatcher.handle_left(connection, lines)
            if self.stop_wanted.is_set():
                # As in the old client, pending requests fail before the end is notified; those
                # awaiting a future are resumed in the next iteration of the loop.
                self._requester.fail_all(stopped_first())
                await asyncio.sleep(0)
        finally:
            connection.close()
            if self.state is State.CONNECTED:
                self._enter(State.WAITING)
            try:
                self._dispatcher.tell_of_connection(False)
            finally:
                self._requester.fail_all(self._why_ended(connection))
        if connection.was_refused:
            self._log_failure(str(connection.error))

    def _meet_device(self) -> None:
        """Forget the protocol of the last connection: the device may be another."""
        self._client.last_connect_time = IOLoop.current().time()
        self._client.versions = ObjectDict()
        self._versions_size = 0
        self._versions_overflowed = False
        self._dispatcher.farewell = None
        self.protocol.reset()
        self.forget_protocol()

    def _first_lines(self, lines: list[bytes]) -> Optional[list[bytes]]:
        """Handle the first lines of a connection: only they prove that it was accepted."""
        connection = self.connection
        assert connection is not None
        failures, self.failures = self.failures, 0
        self.failure_reason = None
        if failures >= _NOTABLE_FAILURES:
            address = address_to_string(self._client._bindaddr)
            self._log.warning("Reconnected to %s", address)
        dispatcher = self._dispatcher
        connection.on_lines = lambda lines: dispatcher.handle_lines(connection, lines)
        return dispatcher.handle_lines(connection, lines)

    def _why_ended(self, connection: Connection) -> KatcpClientError:
        """Return the error for the requests that were pending."""
        if self.stop_wanted.is_set():
            return stopped_first()
        reason = "Connection closed before reply was received"
        if isinstance(connection.error, (KatcpClientDisconnected, TlsFailure)):
            reason = f"{reason}: {connection.error}"
        else:
            reason += self.announced_end()
        error = KatcpClientDisconnected(reason)
        error.__cause__ = connection.error
        return error

    def announced_end(self) -> str:
        """Return the device's reason for the end of the connection, to append to an error."""
        farewell = self._dispatcher.farewell
        if farewell is None or not farewell.arguments:
            return ""
        return f", as the device announced: {shorten(as_text(farewell.arguments[0]))}"

    # The end.

    def _end(self) -> None:
        """End the run, and all pending requests."""
        if self.state is not State.STOPPING:
            self._enter(State.STOPPING)
        if self.connection is not None:
            self.connection.close()
        try:
            self._requester.fail_all(stopped_first())
        finally:
            self._be_stopped()

    def _be_stopped(self) -> None:
        """Wake all that wait, for a client that has ended."""
        self.connection = None
        note_stopped(self)
        self._log.info("Client connect loop for %r finished.", self._client._bindaddr)
        self.forget_protocol()
        self._enter(State.STOPPED)
        for name in ("running", "connected", "protocol"):
            self.events[name].fail_waiting(KatcpClientStopped("The client has stopped."))
        waiters, self.stop_waiters = self.stop_waiters, []
        for waiter in waiters:
            waiter.set_result(None)
        for end in self.at_end:
            end()
        for callback in self._dispatcher.inform_callbacks.all():
            if isinstance(callback, StreamFeed):
                callback.end()
        if self.manager.managed:
            self.manager.stop()

    def _end_without_loop(self, portal: LoopPortal) -> None:
        """End the run of a client whose loop was closed without it; any thread."""
        if portal.is_closed() and self.state is not State.STOPPED:
            self.stop_wanted.set()
            self._end()

    # States and their events.

    def _enter(self, state: State) -> None:
        """Go to *state*, and update the events."""
        self.lifecycle.move(state)
        if state is not State.CONNECTED:
            self._requester.connection = None
        self._show_state_in_events()

    def _show_state_in_events(self) -> None:
        held = self.lifecycle.events
        for name in EVENT_NAMES:
            event = self.events[name]
            if event.is_set():
                if name not in held:
                    event.clear()
            elif name in held:
                event.set()

    # The versions of the device.

    def forget_protocol(self) -> None:
        """Clear the event "protocol", unless the program has preset the flags; any thread."""
        if not self.protocol.preset:
            self.events["protocol"].clear()

    def take_version_connect(self, msg: Message) -> None:
        """Handle ``#version-connect``."""
        if len(msg.arguments) < 2:
            return
        role, *texts = (as_text(argument) for argument in msg.arguments)
        self._remember_version(role, tuple(texts))
        if role == "katcp-protocol":
            self.learn_protocol(self.protocol.on_version_connect(msg))

    def take_v4_inform(self, msg: Message) -> None:
        """Handle ``#version`` or ``#build-state``."""
        self.learn_protocol(self.protocol.on_v4_inform(msg))

    def learn_protocol(self, warning: Optional[LogText]) -> None:
        """Note that the protocol may be known, by an inform or the program."""
        if warning is not None:
            self._log.warning(*warning)
        if self.protocol.flags is not None:
            if self._requester.held is not None:
                self._requester.held.on_protocol(self.protocol.message_ids)
            self.events["protocol"].set()

    def _remember_version(self, role: str, texts: tuple[str, ...]) -> None:
        """Keep a version of the device, within the limit of memory."""
        client = self._client
        size = self._versions_size + _version_size(role, texts)
        if role in client.versions:
            size -= _version_size(role, client.versions[role])
        if size <= client.MAX_VERSIONS_SIZE:
            client.versions[role] = texts
            self._versions_size = size
        elif not self._versions_overflowed:
            self._versions_overflowed = True
            self._log.warning(
                "Device %s tells more of its versions than MAX_VERSIONS_SIZE (%d bytes): "
                "the rest is left out.",
                address_to_string(client._bindaddr),
                client.MAX_VERSIONS_SIZE,
            )

    # Logs.

    def _log_failure(self, reason: str) -> None:
        """Log why it could not connect: the first time as a warning, then for debugging."""
        self.failures += 1
        is_known = reason == self.failure_reason
        self.failure_reason = reason
        if not self.stop_wanted.is_set():
            log = self._log.debug if is_known else self._log.warning
            log("Failed to connect to %r: %s", self._client._bindaddr, reason)

    def _log_end(self, connection: Connection, cause: Optional[BaseException]) -> None:
        self._log.end_period()
        client = self._client
        # A client that was stopped or disconnected does not want the rest.
        half_line = connection.splitter.pending
        if half_line and self.state is State.CONNECTED:
            self._log.warning(
                "Dropped a line of %d bytes without end from %s: %s",
                len(half_line),
                address_to_string(client._bindaddr),
                shorten(repr(half_line[:2000])),
            )
        if cause is not None and not connection.was_refused:
            self._log.warning(
                "Client stream for server %s closed with error %r",
                address_to_string(client._bindaddr),
                cause,
            )


def _retrieve(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _version_size(role: str, texts: tuple[str, ...]) -> int:
    """Estimate the memory of an entry of `versions`, in bytes."""
    return _EMPTY_VERSION_SIZE + sum(map(sys.getsizeof, (role, texts, *texts)))
