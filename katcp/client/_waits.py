"""Waiting for a state of the client: in threads, in the loop, and in ``with`` blocks."""

from __future__ import annotations

import asyncio
import time
from typing import Awaitable, Optional

from tornado.util import TimeoutError as TornadoTimeoutError

from .._runtime.events import AsyncEvent
from .._runtime.waiter import LoopGone, Waiter
from .._state.lifecycle import State
from ..errors import (
    KatcpClientDisconnected,
    KatcpClientError,
    KatcpClientStopped,
    KatcpClientTimeout,
    KatcpThreadError,
    KatcpUsageError,
)
from ._session import Session


def wait_for(session: Session, event_name: str, timeout: Optional[float]) -> bool:
    """Wait for an event; return whether it is set; any thread but the loop's."""
    name = f"wait_{event_name}"
    run = session.run
    portal = session.portal_to_wait(name, f", use until_{event_name}()")
    event = run.events[event_name]
    if event_name != "disconnected" and not run.has_ended_by_itself():
        session.started_portal(name)
    if event.is_set():
        return True
    if run.has_ended_by_itself() or (timeout is not None and timeout <= 0):
        return False
    waiter = Waiter()
    try:
        portal.call_soon(_wake_at, session, event, waiter, timeout)
        came = waiter.wait(portal.is_gone, timeout) and waiter.result()
    except (KatcpUsageError, LoopGone):
        return False
    return came or event.is_set()


def _wake_at(session: Session, event: AsyncEvent, waiter: Waiter, timeout: Optional[float]) -> None:
    """Report to *waiter* whether *event* came before the timeout and the client's end."""
    if session.run.state is State.STOPPED:
        waiter.set_result(False)
        return
    future = asyncio.ensure_future(event.until_set(timeout))
    future.add_done_callback(lambda done: waiter.set_result(done.exception() is None))


def until(
    session: Session, event_name: str, timeout: Optional[float], value: Optional[bool] = True
) -> Awaitable[Optional[bool]]:
    """Return a future that resolves with *value* when an event is set; in the loop's thread."""
    name = f"until_{event_name}"
    session.refuse_fork(name)
    portal = session.run.portal
    if portal is None and session.run.manager.managed:
        raise KatcpThreadError(f"Call start() before {name}(), and call that in the ioloop only.")
    if portal is not None and portal.thread_id is not None and not portal.in_loop():
        raise KatcpThreadError(f"{name}() must be called in the thread of the ioloop.")
    return session.run.events[event_name].until_set(timeout, value)


def wait_until_ready(session: Session, device: str) -> None:
    """Wait until requests can be made, or raise the reason why not; any thread."""
    began, timeout = time.monotonic(), session.timeout
    if wait_for(session, "connected", timeout):
        remaining = None if timeout is None else timeout - (time.monotonic() - began)
        if wait_for(session, "protocol", remaining):
            return
    raise _not_ready(session, device)


async def until_ready(session: Session, device: str) -> None:
    """Wait until requests can be made, or raise the reason why not; in the loop's thread."""
    began, timeout = time.monotonic(), session.timeout
    try:
        await until(session, "connected", timeout)
        remaining = None if timeout is None else timeout - (time.monotonic() - began)
        await until(session, "protocol", remaining)
    except (TornadoTimeoutError, KatcpClientStopped):
        raise _not_ready(session, device) from None


def _not_ready(session: Session, device: str) -> KatcpClientError:
    """Return the error that says why the client is not ready; any thread."""
    run, timeout = session.run, session.timeout
    if run.stop_wanted.is_set():
        return KatcpClientStopped(f"The client of {device} was stopped before it was ready")
    if run.lifecycle.holds("connected"):
        return KatcpClientTimeout(
            f"Connected to {device}, which has not said within {timeout} seconds what "
            "protocol it speaks: if it never does, preset_protocol_flags() before."
        )
    if run.failure_reason is not None:
        return KatcpClientDisconnected(f"Could not connect to {device}: {run.failure_reason}")
    if run.has_connected:
        return KatcpClientDisconnected(
            f"The connection to {device} was lost at once{run.announced_end()}"
        )
    return KatcpClientTimeout(f"Could not connect to {device} within {timeout} seconds")
