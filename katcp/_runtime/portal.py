"""The one bridge from other threads into the loop.

The thread that runs the loop owns all state. Any other thread comes in through
a `LoopDoor`: it *posts* a call that it does not wait for, or *calls* and waits
for the outcome. The rules:

- what was posted before the door was shut is run; afterwards posting raises;
- a thread that waits is always woken: by the outcome, by its timeout, or
  because the loop has gone (looked at every `LOOP_CHECK_INTERVAL` seconds);
- a call from the loop's own thread is made directly, never waited for.

Functions and lines that run in the loop's thread say so in their docstring.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import threading
import time
from typing import Any, Callable, Optional, cast

from tornado.ioloop import IOLoop
from tornado.log import app_log

from ..errors import KatcpUsageError
from .tasks import let_run

# How often a waiting thread looks whether the loop is still there. Only a loop
# that was closed or stopped behind the client's back is found this way.
LOOP_CHECK_INTERVAL = 0.25

DEFAULT_CALL_TIMEOUT = 5.0


class LoopGone(Exception):
    """The loop was closed or stopped while a thread waited for it."""


class Waiter:
    """One thread waits, another hands over an outcome; only the first one counts."""

    __slots__ = ("_done", "_error", "_lock", "_result")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._done = False
        self._result: Any = None
        self._error: Optional[BaseException] = None

    def set_result(self, result: Any) -> None:
        """Hand over *result* and wake the waiting thread; in the loop's thread."""
        if not self._done:
            self._done = True
            self._result = result
            self._lock.release()

    def set_error(self, error: BaseException) -> None:
        """Hand over an exception to raise in the waiting thread; in the loop's thread."""
        if not self._done:
            self._done = True
            self._error = error
            self._lock.release()

    def give_up(self) -> None:
        """Take no outcome any more; in the waiting thread."""
        self._done = True

    def is_over(self) -> bool:
        """Return whether an outcome would change nothing; in the loop's thread."""
        return self._done

    def wait(self, door: LoopDoor, timeout: Optional[float] = None) -> bool:
        """Wait for the outcome; return False when *timeout* seconds are over.

        Raises `LoopGone` if the loop can no longer hand anything over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        was_gone = False
        while True:
            patience = LOOP_CHECK_INTERVAL
            if deadline is not None:
                patience = min(patience, deadline - time.monotonic())
            if self._lock.acquire(timeout=max(patience, 0)):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            # Twice in a row, since a loop may be stopped and run again at once.
            gone = door.is_gone()
            if gone and was_gone:
                raise LoopGone
            was_gone = gone

    def result(self) -> Any:
        """Return or raise the outcome; only after `wait` returned True."""
        try:
            if self._error is not None:
                raise self._error
            return self._result
        finally:
            # The error's traceback holds this frame: leave no cycle behind.
            self._error = None


class LoopDoor:
    """The way into one loop, for the threads that do not run it.

    Parameters
    ----------
    ioloop : tornado.ioloop.IOLoop
        The loop.

    Attributes
    ----------
    asyncio_loop : asyncio.AbstractEventLoop
        The same loop as asyncio knows it.
    """

    def __init__(self, ioloop: IOLoop) -> None:
        self.ioloop = ioloop
        self.thread_id: Optional[int] = None
        self.asyncio_loop: asyncio.AbstractEventLoop = ioloop.asyncio_loop  # type: ignore[attr-defined]
        self._is_open = True
        self._has_run = False

    def remember_thread(self) -> None:
        """Note which thread runs the loop; in the loop's thread."""
        self.thread_id = threading.get_ident()

    def is_inside(self) -> bool:
        """Return whether the calling thread is the one that runs the loop."""
        if asyncio._get_running_loop() is self.asyncio_loop:
            return True
        # The loop may be between two runs; when it is closed, a new thread may
        # have got the old number.
        return threading.get_ident() == self.thread_id and not self.is_closed()

    def is_closed(self) -> bool:
        """Return whether the loop is closed."""
        return self.asyncio_loop.is_closed()

    def is_gone(self) -> bool:
        """Return whether nothing that is posted will ever run, as it looks now.

        A loop that has not begun to run yet is not gone.
        """
        if self.asyncio_loop.is_closed():
            return True
        return self.has_run() and not self.asyncio_loop.is_running()

    def has_run(self) -> bool:
        """Return whether somebody has run the loop, as far as the door has seen."""
        if self.asyncio_loop.is_running() or self.thread_id is not None:
            self._has_run = True
        return self._has_run

    def post(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Run *function* in the loop, soon; its exceptions are logged there.

        Raises
        ------
        KatcpUsageError
            If the loop is closed.
        """
        call = functools.partial(function, *args, **kwargs)
        # Whoever takes the claim out decides: the loop, which runs the call, or this
        # thread, which came too late. There is no lock, since a signal handler, a
        # finalizer or an exception from another thread may come in at any point.
        claim: list[Callable[[], Any]] = [call]
        try:
            if not self._is_open:
                raise _closed()
            self.asyncio_loop.call_soon_threadsafe(_run_posted, claim)
        except RuntimeError:
            if self.asyncio_loop.is_closed():
                # Behind the door's back.
                raise _closed() from None
            raise
        if not self._is_open and _take(claim) is not None:
            raise _closed()

    def call(
        self,
        function: Callable[..., Any],
        *args: Any,
        timeout: Optional[float] = DEFAULT_CALL_TIMEOUT,
        **kwargs: Any,
    ) -> Any:
        """Run *function* in the loop, wait, and return what it returns.

        In the loop's thread it is called directly. Otherwise an awaitable
        that it returns is awaited.

        Raises
        ------
        concurrent.futures.TimeoutError
            If it takes longer than *timeout* seconds (None: no limit).
        KatcpUsageError
            If the loop is closed, or is stopped meanwhile.
        """
        call = functools.partial(function, *args, **kwargs)
        if self.is_inside():
            return call()
        waiter = Waiter()
        self.has_run()  # notes that the loop runs now, in case it is stopped soon
        self.post(_run_for_waiter, call, waiter)
        try:
            if not waiter.wait(self, timeout):
                raise concurrent.futures.TimeoutError()
        except LoopGone:
            raise KatcpUsageError(
                f"The ioloop was stopped before {function!r} had ended."
            ) from None
        return waiter.result()

    def shut(self) -> None:
        """Let nothing more in; what was posted before will still be run."""
        self._is_open = False


def call_in_loop(
    ioloop: IOLoop,
    function: Callable[..., Any],
    *args: Any,
    timeout: Optional[float] = DEFAULT_CALL_TIMEOUT,
    **kwargs: Any,
) -> Any:
    """Run *function* in *ioloop* from any thread; see `LoopDoor.call`."""
    return LoopDoor(ioloop).call(function, *args, timeout=timeout, **kwargs)


def _closed() -> KatcpUsageError:
    return KatcpUsageError("The ioloop is closed: start the client again to use it.")


def _take(claim: list[Callable[[], Any]]) -> Optional[Callable[[], Any]]:
    """Return the call that was posted, to the first who asks; any thread."""
    try:
        return claim.pop()
    except IndexError:
        return None


def _run_posted(claim: list[Callable[[], Any]]) -> None:
    """Run what another thread posted; in the loop's thread."""
    call = _take(claim)
    if call is None:
        return
    try:
        result = call()
        if inspect.isawaitable(result):
            let_run(result).add_done_callback(functools.partial(_end_posted, call))
    except Exception:
        app_log.exception("Exception in callback %r", call)


def _end_posted(call: Callable[[], Any], future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and future.exception() is not None:
        app_log.error("Exception in callback %r", call, exc_info=future.exception())


def _run_for_waiter(call: Callable[[], Any], waiter: Waiter) -> None:
    """Run what another thread waits for; in the loop's thread."""
    try:
        result = call()
        if inspect.isawaitable(result):
            asyncio.ensure_future(result).add_done_callback(functools.partial(_hand_over, waiter))
        else:
            waiter.set_result(result)
    except BaseException as error:
        waiter.set_error(error)


def _hand_over(waiter: Waiter, future: asyncio.Future[Any]) -> None:
    """Give the outcome of *future* to the waiting thread; in the loop's thread."""
    if future.cancelled():
        waiter.set_error(concurrent.futures.CancelledError())
    elif future.exception() is not None:
        waiter.set_error(cast(BaseException, future.exception()))
    else:
        waiter.set_result(future.result())
