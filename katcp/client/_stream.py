"""Streams: items arrive in the loop's thread and are iterated over anywhere else."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import time
from typing import Any, Callable, Generic, Optional, TypeVar

from .._runtime.waiter import LoopGone, Waiter
from .._state.lifecycle import State
from ..errors import KatcpClientTimeout
from ._addresses import address_to_string
from ._session import Session

_Item = TypeVar("_Item")
_Self = TypeVar("_Self", bound="Stream[Any]")


class Stream(Generic[_Item]):
    """Items in the order of their arrival, for ``for`` and ``async for``.

    No lock is needed: a consumer registers before it looks for an item, and a producer adds an item
    before it looks for consumers.
    """

    __slots__ = (
        "__weakref__",
        "_arrived",
        "_closed",
        "_dropped",
        "_maxsize",
        "_session",
        "_timeout",
        "_waiting",
    )

    # The noun for an item in log records.
    _kind = "item"

    def __init__(self, session: Session, maxsize: Optional[int], timeout: Optional[float]) -> None:
        self._session = session
        self._timeout = timeout
        self._maxsize = maxsize
        self._arrived: collections.deque[_Item] = collections.deque()
        # Functions to call after a change, one for each waiting consumer.
        self._waiting: collections.deque[Callable[[], Any]] = collections.deque()
        self._dropped = 0
        self._closed = False

    @property
    def dropped(self) -> int:
        """How many items were dropped because they were not taken in time."""
        return self._dropped

    @property
    def closed(self) -> bool:
        """Whether nothing more will arrive."""
        return self._closed

    def close(self) -> None:
        """Accept no more items, and end the iterations; may be called again."""
        self._closed = True
        self._wake_waiting()

    def __iter__(self: _Self) -> _Self:
        return self

    def __next__(self) -> _Item:
        return self._next(self._timeout)

    def _next(self, timeout: Optional[float]) -> _Item:
        """Return the next item, or raise `KatcpClientTimeout`; any thread but the loop's."""
        portal = self._session.portal_to_wait("next", ", use async for")
        if self._arrived:
            with contextlib.suppress(IndexError):
                return self._arrived.popleft()
        self._close_if_stopped()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            waiter = Waiter()
            wake = functools.partial(waiter.set_result, None)
            if self._has_item(wake, StopIteration):
                with contextlib.suppress(IndexError):
                    return self._arrived.popleft()
                continue
            try:
                if not waiter.wait(portal.is_gone, _remaining(deadline)):
                    raise self._timed_out(timeout)
            except LoopGone:
                self.close()
            finally:
                waiter.is_over = True
                self._forget(wake)

    def __aiter__(self: _Self) -> _Self:
        return self

    async def __anext__(self) -> _Item:
        return await self._anext(self._timeout)

    async def _anext(self, timeout: Optional[float]) -> _Item:
        """Return the next item, or raise `KatcpClientTimeout`; any asyncio loop."""
        self._session.portal_of_run("anext")
        if self._arrived:
            with contextlib.suppress(IndexError):
                return self._arrived.popleft()
        self._close_if_stopped()
        deadline = None if timeout is None else time.monotonic() + timeout
        loop = asyncio.get_running_loop()
        while True:
            future: asyncio.Future[None] = loop.create_future()
            wake = functools.partial(_wake_in_loop, loop, future)
            if self._has_item(wake, StopAsyncIteration):
                with contextlib.suppress(IndexError):
                    return self._arrived.popleft()
                continue
            try:
                await asyncio.wait_for(future, _remaining(deadline))
            except asyncio.TimeoutError:
                raise self._timed_out(timeout) from None
            finally:
                self._forget(wake)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self: _Self) -> _Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._described()}: {len(self._arrived)} waiting>"

    def put(self, item: _Item) -> None:
        """Add an item and wake the consumers; in the loop's thread."""
        if self._closed:
            return
        is_full = self._maxsize is not None and len(self._arrived) >= self._maxsize
        if is_full:
            # A consumer may just have taken the last one.
            with contextlib.suppress(IndexError):
                self._arrived.popleft()
                self._dropped += 1
        self._arrived.append(item)
        if self._waiting:
            self._wake_waiting()
        if is_full and self._dropped == 1:
            self._session.log.warning(
                "More than %d %ss %s have not been taken: the oldest are dropped from now on",
                self._maxsize,
                self._kind,
                self._described(),
            )

    def _wake_waiting(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._waiting.popleft()()

    def _has_item(self, wake: Callable[[], Any], end: type[Exception]) -> bool:
        """Return whether there is an item; if not, call *wake* later, or raise *end*."""
        if self._arrived:
            return True
        self._waiting.append(wake)
        # Checked before the items: those that came before the end are still delivered.
        is_closed = self._closed
        if not self._arrived and not is_closed:
            return False
        self._forget(wake)
        if not self._arrived:
            raise end
        return True

    def _forget(self, wake: Callable[[], Any]) -> None:
        """Remove a consumer that has stopped waiting."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(wake)

    def _close_if_stopped(self) -> None:
        """Close the stream if its client has stopped, which does not do that itself."""
        if self._session.run.state is State.STOPPED:
            self.close()

    def _timed_out(self, timeout: Optional[float]) -> KatcpClientTimeout:
        return KatcpClientTimeout(
            f"No {self._kind} {self._described()} within {timeout:g} seconds."
        )

    def _described(self) -> str:
        """Describe the device of the items."""
        return f"of {self._address()}"

    def _address(self) -> str:
        return address_to_string(self._session.client._bindaddr)


def _remaining(deadline: Optional[float]) -> Optional[float]:
    return None if deadline is None else max(deadline - time.monotonic(), 0)


def _wake_in_loop(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    """Resolve *future* in *loop*; any thread."""
    # Nothing waits in a loop that was closed.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_set_done, future)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
