"""Awaitables that programs return from their handlers."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import Future as ConcurrentFuture
from typing import Any, Awaitable

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
