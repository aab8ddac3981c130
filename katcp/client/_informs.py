"""Informs for those who do not subclass: callbacks, and streams to iterate over.

A client looks up callbacks in a `CallbackTable`. An `InformStream` is fed by one
of these callbacks, in the loop's thread, and is read in any other thread or
asyncio loop. The client holds a stream by a weak reference only: one that a
program has dropped, say by leaving its ``for``, ends.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import time
import weakref
from typing import TYPE_CHECKING, Any, Callable, Optional

from .._runtime.waiter import LoopGone, Waiter
from .._state.lifecycle import State
from .._wire.message import Message
from ..errors import KatcpClientTimeout

if TYPE_CHECKING:
    from ._clients import DeviceClient


class CallbackTable:
    """Callbacks by name; None stands for all names.

    It may be changed in any thread, also while its callbacks are called. No step of it
    needs a lock.
    """

    def __init__(self) -> None:
        self._by_name: dict[Optional[str], list[Callable[..., Any]]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def add(self, name: Optional[str], callback: Callable[..., Any]) -> None:
        """Call *callback* for *name* from now on, after those that are there."""
        self._by_name.setdefault(name, []).append(callback)

    def remove(self, name: Optional[str], callback: Callable[..., Any]) -> bool:
        """Remove *callback* once; return whether it was there."""
        try:
            self._by_name.get(name, []).remove(callback)
        except ValueError:
            return False
        return True

    def matching(self, name: str) -> tuple[Callable[..., Any], ...]:
        """Return the callbacks for *name*, then those for all names."""
        by_name = self._by_name
        return (*by_name.get(name, ()), *by_name.get(None, ()))

    def all(self) -> list[Callable[..., Any]]:
        """Return all callbacks."""
        return [callback for callbacks in [*self._by_name.values()] for callback in callbacks]


class StreamFeed:
    """The callback that gives informs to a stream, as long as there is one."""

    def __init__(self, table: CallbackTable, name: Optional[str], stream: InformStream) -> None:
        self._table = table
        self._name = name
        self._stream = weakref.ref(stream)

    def __call__(self, msg: Message) -> None:
        stream = self._stream()
        if stream is None:
            self.remove()
        else:
            stream._put(msg)

    def remove(self) -> None:
        """Feed no more; any thread."""
        self._table.remove(self._name, self)

    def end(self) -> None:
        """End the stream: no more informs will come."""
        stream = self._stream()
        if stream is not None:
            stream.close()
        self.remove()


class InformStream:
    """Informs in the order of their arrival, as `DeviceClient.informs` returns them.

    Iterate over it with ``for`` in any thread but the ioloop's, or with ``async
    for`` in any asyncio loop. The iteration waits for the next inform, and ends
    when the client stops or the stream is closed; what has arrived before is
    still delivered. As a context manager it is closed at the end.

    Notes
    -----
    Informs are kept from the moment the stream is made. When there are too many
    of them, the oldest is dropped for each new one: a warning is logged the
    first time, and `dropped` counts them.
    """

    def __init__(
        self,
        client: DeviceClient,
        name: Optional[str],
        maxsize: Optional[int],
        timeout: Optional[float],
    ) -> None:
        self._client = client
        self._name = name
        self._timeout = timeout
        self._maxsize = maxsize
        # No step needs a lock: who waits says so first and looks then, and who brings
        # something puts it down first and looks then who waits.
        self._arrived: collections.deque[Message] = collections.deque()
        # What to call when something has changed, for each that waits.
        self._waiting: collections.deque[Callable[[], Any]] = collections.deque()
        self._dropped = 0
        self._closed = False
        self._feed = StreamFeed(client._inform_callbacks, name, self)
        client._inform_callbacks.add(name, self._feed)

    @property
    def dropped(self) -> int:
        """How many informs were dropped because nobody took them in time."""
        return self._dropped

    @property
    def closed(self) -> bool:
        """Whether no more informs will arrive."""
        return self._closed

    def close(self) -> None:
        """Take no more informs, and let the iterations end; may be called again."""
        self._feed.remove()
        self._closed = True
        self._wake_waiting()

    def __iter__(self) -> InformStream:
        return self

    def __next__(self) -> Message:
        portal = self._client._portal_to_wait_at("next", ", use async for")
        self._close_if_stopped()
        deadline = self._deadline()
        while True:
            waiter = Waiter()
            wake = functools.partial(waiter.set_result, None)
            msg = self._take(wake, StopIteration)
            if msg is not None:
                return msg
            try:
                if not waiter.wait(portal.is_gone, _remaining(deadline)):
                    raise self._timed_out()
            except LoopGone:
                self.close()
            finally:
                waiter.give_up()
                self._forget(wake)

    def __aiter__(self) -> InformStream:
        return self

    async def __anext__(self) -> Message:
        self._client._portal_of_run("anext")
        self._close_if_stopped()
        deadline = self._deadline()
        loop = asyncio.get_running_loop()
        while True:
            future: asyncio.Future[None] = loop.create_future()
            wake = functools.partial(_wake_in_loop, loop, future)
            msg = self._take(wake, StopAsyncIteration)
            if msg is not None:
                return msg
            try:
                await asyncio.wait_for(future, _remaining(deadline))
            except asyncio.TimeoutError:
                raise self._timed_out() from None
            finally:
                self._forget(wake)

    def __enter__(self) -> InformStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> InformStream:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<InformStream {self._described()}: {len(self._arrived)} waiting>"

    def _put(self, msg: Message) -> None:
        """Take in an inform and wake those who wait; in the loop's thread."""
        if self._closed:
            return
        is_full = self._maxsize is not None and len(self._arrived) >= self._maxsize
        if is_full:
            # Somebody may just have taken the last.
            with contextlib.suppress(IndexError):
                self._arrived.popleft()
                self._dropped += 1
        self._arrived.append(msg)
        self._wake_waiting()
        if is_full and self._dropped == 1:
            self._client._device_log.warning(
                "More than %d informs %s have not been taken: the oldest are dropped from now on",
                self._maxsize,
                self._described(),
            )

    def _wake_waiting(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._waiting.popleft()()

    def _take(self, wake: Callable[[], Any], end: type[Exception]) -> Optional[Message]:
        """Return the next inform, or None and let *wake* be called; raise *end* at the end."""
        self._waiting.append(wake)
        is_closed = self._closed
        with contextlib.suppress(IndexError):
            msg = self._arrived.popleft()
            self._forget(wake)
            return msg
        if is_closed:
            self._forget(wake)
            raise end
        return None

    def _forget(self, wake: Callable[[], Any]) -> None:
        """Do not wake somebody who does not wait any more."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(wake)

    def _close_if_stopped(self) -> None:
        """Close a stream of a client that has stopped: nobody else will."""
        if self._client._lifecycle.state is State.STOPPED:
            self.close()

    def _deadline(self) -> Optional[float]:
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _timed_out(self) -> KatcpClientTimeout:
        return KatcpClientTimeout(
            f"No inform {self._described()} within {self._timeout:g} seconds."
        )

    def _described(self) -> str:
        host, port = self._client._bindaddr
        return f"{'' if self._name is None else '#' + self._name + ' '}of {host}:{port}"


def _remaining(deadline: Optional[float]) -> Optional[float]:
    return None if deadline is None else max(deadline - time.monotonic(), 0)


def _wake_in_loop(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    """Let *future* of *loop* be done; any thread."""
    # A loop that was closed meanwhile has nobody who waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_set_done, future)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
