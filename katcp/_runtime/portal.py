"""Calls into a loop from other threads.

The thread that runs the loop owns all state. Other threads submit calls through a
`LoopPortal`, and may wait for the outcome. The rules:

- calls submitted before the portal is closed are run; afterwards submitting raises;
- a waiting thread is always woken: by the outcome, by its timeout, or because the loop is gone;
- a call from the loop's own thread is made directly, never waited for.

Functions that run in the loop's thread say so in their docstring.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import threading
from typing import Any, Callable, Optional, cast

from tornado.ioloop import IOLoop
from tornado.log import app_log

from ..errors import KatcpUsageError
from .tasks import FATAL, spawn
from .waiter import LoopGone, Waiter

DEFAULT_CALL_TIMEOUT = 5.0


class LoopPortal:
    """Submits calls to one loop.

    Parameters
    ----------
    ioloop : tornado.ioloop.IOLoop
        The loop.

    Attributes
    ----------
    asyncio_loop : asyncio.AbstractEventLoop
        The same loop as asyncio knows it.
    thread_id : int or None
        The thread that ran the loop last, if known.
    """

    def __init__(self, ioloop: IOLoop) -> None:
        self.ioloop = ioloop
        self.asyncio_loop: asyncio.AbstractEventLoop = ioloop.asyncio_loop  # type: ignore[attr-defined]
        self.thread_id: Optional[int] = None
        self._is_open = True
        self._has_run = False

    def remember_thread(self) -> None:
        """Note which thread runs the loop; in the loop's thread."""
        self.thread_id = threading.get_ident()

    def in_loop(self) -> bool:
        """Return whether the calling thread runs the loop."""
        if running_loop() is self.asyncio_loop:
            return True
        # The loop may be between two runs; when it is closed, a new thread may have got the old id.
        return threading.get_ident() == self.thread_id and not self.is_closed()

    def is_closed(self) -> bool:
        return self.asyncio_loop.is_closed()

    def is_gone(self) -> bool:
        """Return whether submitted calls will probably never run.

        A loop that has not started yet is not gone.
        """
        if self.asyncio_loop.is_closed():
            return True
        return self.has_run() and not self.asyncio_loop.is_running()

    def has_run(self) -> bool:
        """Return whether the loop has ever run, as far as the portal has seen."""
        if self.asyncio_loop.is_running() or self.thread_id is not None:
            self._has_run = True
        return self._has_run

    def call_soon(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Run *function* in the loop, soon; its exceptions are logged.

        Raises
        ------
        KatcpUsageError
            If the loop is closed.
        """
        call = functools.partial(function, *args, **kwargs)
        # Whichever takes the call first decides: the loop, which runs it, or this thread, which
        # came too late. There is no lock, since a signal handler, a finalizer or an exception from
        # another thread may come in at any point.
        submitted: list[Callable[[], Any]] = [call]
        try:
            if not self._is_open:
                raise _closed()
            self.asyncio_loop.call_soon_threadsafe(_run_submitted, submitted)
        except RuntimeError:
            if self.asyncio_loop.is_closed():
                # The loop was closed without the portal.
                raise _closed() from None
            raise
        if not self._is_open and _take(submitted) is not None:
            raise _closed()

    def call(
        self,
        function: Callable[..., Any],
        *args: Any,
        timeout: Optional[float] = DEFAULT_CALL_TIMEOUT,
        **kwargs: Any,
    ) -> Any:
        """Run *function* in the loop, wait, and return what it returns.

        In the loop's thread it is called directly. Otherwise, if it returns an awaitable, that is
        awaited.

        Raises
        ------
        concurrent.futures.TimeoutError
            If it takes longer than *timeout* seconds (None: no limit).
        KatcpUsageError
            If the loop is closed, or stopped meanwhile.
        """
        call = functools.partial(function, *args, **kwargs)
        if self.in_loop():
            return call()
        waiter = Waiter()
        self.has_run()  # notes that the loop runs now, in case it is stopped soon
        self.call_soon(_run_for_waiter, call, waiter)
        try:
            if not waiter.wait(self.is_gone, timeout):
                raise concurrent.futures.TimeoutError()
        except LoopGone:
            raise KatcpUsageError(
                f"The ioloop was stopped before {function!r} had ended."
            ) from None
        return waiter.result()

    def close(self) -> None:
        """Accept nothing more; calls submitted before are still run."""
        self._is_open = False


def running_loop() -> Optional[asyncio.AbstractEventLoop]:
    """Return the loop that runs in the calling thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def call_in_loop(
    ioloop: IOLoop,
    function: Callable[..., Any],
    *args: Any,
    timeout: Optional[float] = DEFAULT_CALL_TIMEOUT,
    **kwargs: Any,
) -> Any:
    """Run *function* in *ioloop* from any thread; see `LoopPortal.call`."""
    return LoopPortal(ioloop).call(function, *args, timeout=timeout, **kwargs)


def _closed() -> KatcpUsageError:
    return KatcpUsageError("The ioloop is closed: start the client again to use it.")


def _take(submitted: list[Callable[[], Any]]) -> Optional[Callable[[], Any]]:
    """Return the submitted call on the first use, then None; any thread."""
    try:
        return submitted.pop()
    except IndexError:
        return None


def _run_submitted(submitted: list[Callable[[], Any]]) -> None:
    """Run a call from another thread; in the loop's thread."""
    call = _take(submitted)
    if call is None:
        return
    try:
        result = call()
        if inspect.isawaitable(result):
            spawn(result).add_done_callback(functools.partial(_log_failure, call))
    except FATAL:
        raise
    except BaseException:
        app_log.exception("Exception in callback %r", call)


def _log_failure(call: Callable[[], Any], future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and future.exception() is not None:
        app_log.error("Exception in callback %r", call, exc_info=future.exception())


def _run_for_waiter(call: Callable[[], Any], waiter: Waiter) -> None:
    """Run a call that another thread waits for; in the loop's thread."""
    try:
        result = call()
        if inspect.isawaitable(result):
            spawn(result).add_done_callback(functools.partial(_pass_on, waiter))
        else:
            waiter.set_result(result)
    except BaseException as error:
        waiter.set_result(None, error)


def _pass_on(waiter: Waiter, future: asyncio.Future[Any]) -> None:
    """Pass the outcome of *future* to the waiting thread; in the loop's thread."""
    if future.cancelled():
        waiter.set_result(None, concurrent.futures.CancelledError())
    elif future.exception() is not None:
        waiter.set_result(None, cast(BaseException, future.exception()))
    else:
        waiter.set_result(future.result())
