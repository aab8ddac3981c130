"""Background work: awaitables of the program, and daemon threads."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from concurrent.futures import Future as ConcurrentFuture
from typing import Any, Awaitable, Callable, Optional

# Never swallowed, these end the loop. Everything else that code of the program raises is logged,
# including asyncio.CancelledError and GeneratorExit.
FATAL = (KeyboardInterrupt, SystemExit)

# The loop itself keeps only weak references to these.
_background: set[asyncio.Future[Any]] = set()


def is_awaitable(result: Any) -> bool:
    """Return whether the result of a handler has to be awaited."""
    return inspect.isawaitable(result) or isinstance(result, ConcurrentFuture)


def spawn(awaitable: Awaitable[Any]) -> asyncio.Future[Any]:
    """Run an awaitable, whether or not it is awaited."""
    task = asyncio.ensure_future(awaitable)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


def spawn_if_awaitable(result: Any) -> None:
    """Run the result of a handler, if it can be awaited."""
    if result is not None and is_awaitable(result):
        spawn(result)


async def run_logged(awaitable: Any, log: Callable[[], None]) -> Any:
    """Return the result of *awaitable*, or None after calling *log* for its exception."""
    if isinstance(awaitable, ConcurrentFuture):
        awaitable = asyncio.wrap_future(awaitable)
    task = asyncio.ensure_future(awaitable)
    try:
        # This does not raise the task's exception: a CancelledError is our own.
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        raise
    try:
        return task.result()
    except FATAL:
        raise
    except BaseException:
        log()
        return None


async def until_first(
    awaitable: Awaitable[Any], cut: asyncio.Future[Any], timeout: Optional[float] = None
) -> None:
    """Wait for *awaitable*, at most until *cut* is done or for *timeout* seconds."""
    futures = [asyncio.ensure_future(awaitable), cut]
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


def run_in_daemon_thread(function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    """Run *function* in its own thread and return a future; in the loop's thread.

    Unlike a thread of a pool, it does not keep the interpreter from exiting.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def pass_on(result: Any, error: Optional[BaseException]) -> None:
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
        # A closed loop has nothing that waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(pass_on, *outcome)

    threading.Thread(target=work, name="katcp-worker", daemon=True).start()
    return future
