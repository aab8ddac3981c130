"""Waiting in threads: each has its own lock, which only the loop's thread releases.

There is no lock here that two threads compete for. Python runs code of the program at arbitrary
points (signal handlers, finalizers, exceptions injected by another thread): if a thread held such a
lock there, the loop would wait for the program, and the program for the loop.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from typing import Any, Callable, Optional

# How often a waiting thread checks that the loop is still there, in seconds. Only this finds a loop
# that was closed or stopped without the client.
LOOP_CHECK_INTERVAL = 0.25


class LoopGone(Exception):
    """The loop was closed or stopped while a thread waited for it."""


class Waiter:
    """Lets one thread wait for an outcome that the loop's thread sets; the first one counts.

    Attributes
    ----------
    is_over : bool
        Whether an outcome is no longer needed: there is one, or the thread has stopped waiting.
    """

    __slots__ = ("_error", "_lock", "_result", "is_over")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._result: Any = None
        self._error: Optional[BaseException] = None
        self.is_over = False

    def set_result(self, result: Any, error: Optional[BaseException] = None) -> None:
        """Set the outcome, perhaps an exception, and wake the thread; in the loop's thread."""
        if not self.is_over:
            self._result = result
            self._error = error
            # Not released yet, unless it was interrupted before it could note that.
            if self._lock.locked():
                self._lock.release()
            self.is_over = True

    def wait(self, is_gone: Callable[[], bool], timeout: Optional[float] = None) -> bool:
        """Wait for the outcome; return False after *timeout* seconds.

        Raises `LoopGone` if *is_gone* returns true: the loop cannot set an outcome any more.
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
            gone = is_gone()
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
            # The error's traceback refers to this frame: leave no cycle behind.
            self._error = None


class Latch:
    """A flag that is set once, and that any number of threads may wait for."""

    __slots__ = ("_waiting", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._waiting: collections.deque[threading.Lock] = collections.deque()

    def set(self) -> None:
        """Wake all waiting threads; any thread."""
        self.is_set = True
        with contextlib.suppress(IndexError):
            while True:
                self._waiting.popleft().release()

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Return whether the flag was set within *timeout* seconds; None: no limit."""
        if self.is_set:
            return True
        lock = threading.Lock()
        lock.acquire()
        self._waiting.append(lock)
        # Only now: set() may have come just before.
        if not self.is_set and not lock.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
            with contextlib.suppress(ValueError):
                self._waiting.remove(lock)
        return self.is_set
