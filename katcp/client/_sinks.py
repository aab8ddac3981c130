"""Consumers of the informs and the reply of one request: callbacks, futures, threads.

A sink is also the entry of its request among the pending ones.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future as ConcurrentFuture
from concurrent.futures import InvalidStateError
from typing import Any, Callable, Optional, Protocol

from .._runtime.tasks import FATAL
from .._runtime.waiter import Waiter
from .._state.replies import UnsentReply, local_failure, unsent_reply
from .._state.requests import PendingRequest
from .._wire.message import Message, memory_size
from ..errors import KatcpClientError

Answer = tuple[Message, list[Message]]


class Caller(Protocol):
    """Calls callbacks and logs their exceptions."""

    def call_back(
        self, kind: str, callback: Callable[..., Any], user_data: Any, msg: Message
    ) -> None:
        """Call a callback."""

    def handle_unsent(self, reply: UnsentReply) -> None:
        """Handle the local reply of a request that was not sent."""


class Owner(Protocol):
    """Gives up requests."""

    def forget(self, sink: Sink) -> None:
        """Drop a request: its reply is not wanted any more."""

    def overflow(self, sink: Sink, limit: int) -> None:
        """Fail a request whose informs take too much memory."""


class Sink(PendingRequest):
    """The consumer of the informs and the reply of one request; in the loop's thread.

    Attributes
    ----------
    wakes_thread : bool
        Whether its end wakes a thread: of several that end together, these come last.
    """

    __slots__ = ()

    wakes_thread = False

    @property
    def is_over(self) -> bool:
        """Whether the reply is not wanted any more, though there was none."""
        return False

    def take_inform(self, msg: Message) -> bool:
        """Take an inform of the request; return whether it was wanted."""
        raise NotImplementedError

    def take_reply(self, msg: Message) -> bool:
        """Take the reply, perhaps a local one; return whether it was wanted."""
        raise NotImplementedError

    def fail(self, msg: Message, error: KatcpClientError) -> None:
        """Take the error because of which the request was not sent."""
        self.take_reply(local_failure(msg, error))

    def refuse(self, msg: Message, error: BaseException) -> None:
        """Take an error raised in another thread, which cannot be reported otherwise."""
        raise NotImplementedError


class CallbackSink(Sink):
    """Calls the callbacks of a program."""

    __slots__ = ("_caller", "_on_inform", "_on_reply", "_user_data")

    def __init__(
        self,
        caller: Caller,
        on_reply: Optional[Callable[..., Any]],
        on_inform: Optional[Callable[..., Any]],
        user_data: Any,
    ) -> None:
        self.key = None
        self._caller = caller
        self._on_reply = on_reply
        self._on_inform = on_inform
        self._user_data = user_data

    def take_inform(self, msg: Message) -> bool:
        if self._on_inform is None:
            return False
        self._caller.call_back("inform", self._on_inform, self._user_data, msg)
        return True

    def take_reply(self, msg: Message) -> bool:
        on_reply, user_data = self._on_reply, self._user_data
        # It may live for some time: do not keep what the callbacks refer to.
        self._on_reply = self._on_inform = self._user_data = None
        if on_reply is None:
            return False
        self._caller.call_back("reply", on_reply, user_data, msg)
        return True

    def fail(self, msg: Message, error: KatcpClientError) -> None:
        # As in the old client, the program's hooks see it.
        self._caller.handle_unsent(unsent_reply(self, msg, error))

    def refuse(self, msg: Message, error: BaseException) -> None:
        self.fail(msg, KatcpClientError(str(error)))
        raise error


class _CollectingSink(Sink):
    """Collects the informs until the reply, within the limit of the client.

    Attributes
    ----------
    target : Waiter or future
        Gets the reply and the informs.
    """

    __slots__ = ("_informs", "_informs_size", "_max_informs_size", "_owner", "target")

    def __init__(self, owner: Owner, max_informs_size: int, target: Any) -> None:
        self.key = None
        self.target = target
        self._owner = owner
        self._informs: list[Message] = []
        self._informs_size = 0
        self._max_informs_size = max_informs_size

    def take_inform(self, msg: Message) -> bool:
        self._informs.append(msg)
        self._informs_size += memory_size(msg)
        if self._informs_size > self._max_informs_size:
            self._owner.overflow(self, self._max_informs_size)
        return True


class FutureSink(_CollectingSink):
    """Resolves a `ReplyFuture` of the loop."""

    __slots__ = ()

    target: ReplyFuture

    def take_reply(self, msg: Message) -> bool:
        future = self.target
        if not future.done():
            future.sink = None
            future.set_result((msg, self._informs))
        return True

    def cancel(self) -> None:
        """Drop the request: its reply is not wanted any more."""
        self._owner.forget(self)


class ReplyFuture(asyncio.Future):  # type: ignore[type-arg]
    """The future of a reply and its informs.

    Attributes
    ----------
    sink : FutureSink or None
        Resolves it; None when it is done.
    """

    sink: Optional[FutureSink] = None

    def cancel(self, *args: Any, **kwargs: Any) -> bool:
        """Cancel the future, and drop the request."""
        is_cancelled = super().cancel(*args, **kwargs)
        # At once: a done callback would come an iteration of the loop later.
        if is_cancelled and self.sink is not None:
            self.sink.cancel()
            self.sink = None
        return is_cancelled


class ThreadSink(_CollectingSink):
    """Wakes the thread that waits in a `Waiter`."""

    __slots__ = ()

    target: Waiter
    wakes_thread = True

    @property
    def is_over(self) -> bool:
        return self.target.is_over

    def take_reply(self, msg: Message) -> bool:
        self.target.set_result((msg, self._informs))
        return True

    def refuse(self, msg: Message, error: BaseException) -> None:
        self.target.set_result(None, error)
        if isinstance(error, FATAL):
            raise error


class ConcurrentSink(_CollectingSink):
    """Resolves a future that any thread may wait for."""

    __slots__ = ()

    target: ConcurrentFuture[Answer]
    wakes_thread = True

    @property
    def is_over(self) -> bool:
        return self.target.cancelled()

    def take_reply(self, msg: Message) -> bool:
        # Another thread may cancel it at any moment.
        with contextlib.suppress(InvalidStateError):
            self.target.set_result((msg, self._informs))
        return True

    def refuse(self, msg: Message, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):
            self.target.set_exception(error)
        if isinstance(error, FATAL):
            raise error
