"""Awaitables that programs return from their handlers."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from concurrent.futures import Future as ConcurrentFuture
from typing import Any, Awaitable, Callable, Optional

# Those that go on although nobody may wait for them: the loop itself holds no
# reference that would keep them alive.
_background: set[asyncio.Future[Any]] = set()


def is_awaitable(result: Any) -> bool:
    """Return whether what a handler returned has to be waited for."""
    return inspect.isawaitable(result) or isinstance(result, ConcurrentFuture)


def let_run(awaitable: Awaitable[Any]) -> asyncio.Future[Any]:
    """Let an awaitable go on, whether or not somebody waits for it."""
    task = asyncio.ensure_future(awaitable)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


def let_run_if_awaitable(result: Any) -> None:
    """Let what a handler returned go on, if it can."""
    if result is not None and is_awaitable(result):
        let_run(result)


def run_in_daemon_thread(function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    """Return a future of what *function* returns in a thread of its own; in the loop's thread.

    Unlike those of a pool, this thread does not keep the interpreter from
    exiting, however long *function* takes.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def hand_over(result: Any, error: Optional[BaseException]) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def work() -> None:
        outcome: tuple[Any, Optional[BaseException]]
        try:
            outcome = function(*args), None
        except Exception as error:
            outcome = None, error
        # A loop that was closed meanwhile has nobody who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(hand_over, *outcome)

    threading.Thread(target=work, name="katcp-worker", daemon=True).start()
    return future
