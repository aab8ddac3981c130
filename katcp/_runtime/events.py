"""Waiting inside the loop: events, states, and combined futures.

Nothing here knows of KATCP. Unless stated otherwise, everything must be called in the thread of its
loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import functools
import inspect
import logging
from typing import Any, Awaitable, Callable, Hashable, Iterable, Optional, TypeVar

import tornado.gen
from tornado.ioloop import IOLoop
from tornado.util import TimeoutError as TornadoTimeoutError

from ..errors import KatcpThreadError
from .portal import LoopPortal
from .tasks import spawn

_Coroutine = TypeVar("_Coroutine", bound=Callable[..., Any])

# Shared by all events without waiters, as most of a client's are. Nothing is ever added.
_NOBODY: dict[asyncio.Future[Any], Any] = {}


class AsyncEvent:
    """An event that coroutines and threads may wait for.

    Parameters
    ----------
    ioloop : tornado.ioloop.IOLoop, optional
        The loop it belongs to. Default: the current one, when it is needed.
    """

    def __init__(self, ioloop: Optional[IOLoop] = None) -> None:
        self.ioloop = ioloop
        self._flag = False
        # A dict, not a set: waiters are woken in the order they came. From future to the value it
        # resolves with.
        self._waiting = _NOBODY

    def is_set(self) -> bool:
        """Return whether the event is set; from any thread."""
        return self._flag

    isSet = is_set  # noqa: N815  (an old name)

    def set(self) -> None:
        """Set the event and wake all waiters."""
        self._flag = True
        for future, value in self._take_waiting():
            future.set_result(value)

    def clear(self) -> None:
        """Clear the event: futures from now on wait for the next `set`."""
        self._flag = False

    def fail_waiting(self, error: Exception) -> None:
        """Make all waiting futures fail with *error*: the event cannot be set any more.

        Parameters
        ----------
        error : Exception
            The exception that the futures raise.
        """
        for future, _ in self._take_waiting():
            future.set_exception(error)
            # A future that is not looked at any more is no error to log.
            future.exception()

    def until_set(self, timeout: Optional[float] = None, value: Any = True) -> Awaitable[Any]:
        """Return a future that resolves when the event is set.

        Parameters
        ----------
        timeout : float in seconds, optional
            After this time the future fails with `tornado.gen.TimeoutError`.
            Default: no limit.
        value : object, optional
            What the future resolves with. Default: True.

        Returns
        -------
        tornado.concurrent.Future
        """
        future: asyncio.Future[Any] = new_future(self.ioloop)
        if self._flag:
            future.set_result(value)
            return future
        if not self._waiting:
            self._waiting = {}
        self._waiting[future] = value
        future.add_done_callback(self._forget)
        if timeout is not None:
            _fail_after(timeout, future)
        return future

    def wait_with_ioloop(self, ioloop: IOLoop, timeout: Optional[float] = None) -> bool:
        """Wait in a thread other than the loop's.

        Parameters
        ----------
        ioloop : tornado.ioloop.IOLoop
            The loop that the event belongs to.
        timeout : float in seconds, optional
            How long to wait. Default: no limit.

        Returns
        -------
        bool
            Whether the event is set.
        """
        if self._flag:
            return True
        portal = LoopPortal(ioloop)
        if portal.in_loop():
            raise KatcpThreadError("Cannot call wait_with_ioloop() in ioloop, use until_set()")
        # The timeout applies on both sides, or the future would stay in the event.
        until_set = functools.partial(self.until_set, timeout)
        try:
            portal.call(until_set, timeout=timeout)
        except (concurrent.futures.TimeoutError, TornadoTimeoutError):
            return self._flag
        return True

    def _take_waiting(self) -> list[tuple[asyncio.Future[Any], Any]]:
        waiting, self._waiting = self._waiting, _NOBODY
        # A closed loop cannot wake anything.
        return [
            (future, value)
            for future, value in waiting.items()
            if not future.done() and not future.get_loop().is_closed()
        ]

    def _forget(self, future: asyncio.Future[Any]) -> None:
        self._waiting.pop(future, None)


class AsyncCallbackEvent(AsyncEvent):
    """An event that also calls a function when it is set or cleared.

    Parameters
    ----------
    callback : callable, optional
        Called as ``callback(flag)`` after `set` and `clear`.
    ioloop : tornado.ioloop.IOLoop, optional
        As for `AsyncEvent`.
    """

    def __init__(
        self,
        callback: Callable[[bool], Any] = lambda flag: None,
        ioloop: Optional[IOLoop] = None,
    ) -> None:
        super().__init__(ioloop)
        self._callback = callback

    def set(self) -> None:
        """Set the event, wake all waiters, and call the callback."""
        super().set()
        self._callback(True)

    def clear(self) -> None:
        """Clear the event and call the callback."""
        super().clear()
        self._callback(False)


class AsyncState:
    """A state out of a fixed set that coroutines may wait for.

    Parameters
    ----------
    valid_states : iterable of hashable
        All states.
    initial_state : hashable, optional
        The first one. Default: the first of *valid_states*.
    ioloop : tornado.ioloop.IOLoop, optional
        As for `AsyncEvent`.
    """

    def __init__(
        self,
        valid_states: Iterable[Hashable],
        initial_state: Optional[Hashable] = None,
        ioloop: Optional[IOLoop] = None,
    ) -> None:
        states = list(valid_states)
        self._events = {state: AsyncEvent(ioloop) for state in states}
        self._state = states[0] if initial_state is None else initial_state
        self._check(self._state)
        self._events[self._state].set()

    @property
    def state(self) -> Hashable:
        """The current state."""
        return self._state

    @property
    def valid_states(self) -> frozenset[Hashable]:
        """All states."""
        return frozenset(self._events)

    def set_state(self, state: Hashable) -> None:
        """Go to *state* and wake those waiting for it.

        Parameters
        ----------
        state : hashable
            The new state.

        Raises
        ------
        ValueError
            If it is not one of the valid states.
        """
        self._check(state)
        self._events[self._state].clear()
        self._state = state
        self._events[state].set()

    def until_state(self, state: Hashable, timeout: Optional[float] = None) -> Awaitable[Any]:
        """Return a future that resolves with True in *state*.

        Parameters
        ----------
        state : hashable
            The state to wait for.
        timeout : float in seconds, optional
            As for `AsyncEvent.until_set`.

        Returns
        -------
        tornado.concurrent.Future
        """
        self._check(state)
        return self._events[state].until_set(timeout)

    def until_state_in(self, *states: Hashable, timeout: Optional[float] = None) -> Any:
        """Return a future that resolves with True when one of *states* holds.

        Parameters
        ----------
        *states : hashable
            The states to wait for.
        timeout : float in seconds, optional
            As for `AsyncEvent.until_set`.

        Returns
        -------
        tornado.concurrent.Future
        """
        futures = [asyncio.ensure_future(self.until_state(state)) for state in states]
        first = until_any(*futures, timeout=timeout)
        # Otherwise the other futures would stay in their events.
        first.add_done_callback(lambda _: [future.cancel() for future in futures])
        return first

    def _check(self, state: Hashable) -> None:
        if state not in self._events:
            raise ValueError(f"State must be one of {self.valid_states}, not {state}")


class LatencyTimer:
    """Detect that a loop has been kept busy for too long.

    A coroutine that only awaits futures which are already done keeps the loop from doing anything
    else.

    Parameters
    ----------
    max_loop_latency : float in seconds
        How long a coroutine may await only futures that are already done.
    ioloop : tornado.ioloop.IOLoop, optional
        Whose clock to use. Default: the current one.

    Examples
    --------
    >>> async def read_all(stream, timer):
    ...     while True:
    ...         future = stream.read_until(b"\\\\n")
    ...         timer.check_future(future)
    ...         await future
    ...         if timer.time_to_yield():
    ...             await tornado.gen.moment
    """

    def __init__(self, max_loop_latency: float, ioloop: Optional[IOLoop] = None) -> None:
        self.max_loop_latency = max_loop_latency
        self.ioloop = ioloop or IOLoop.current()
        self._done_since: Optional[float] = None

    def check_future(self, fut: Any) -> None:
        """Note whether *fut* is already done.

        Parameters
        ----------
        fut : tornado.concurrent.Future
            The future to be awaited next.
        """
        if not fut.done():
            self._done_since = None
        elif self._done_since is None:
            self._done_since = self.ioloop.time()

    def time_to_yield(self) -> bool:
        """Return whether the coroutine should yield to the loop.

        Returns
        -------
        bool
        """
        if self._done_since is None:
            return False
        return self.ioloop.time() - self._done_since > self.max_loop_latency


def until_later(delay: float, ioloop: Optional[IOLoop] = None) -> Awaitable[None]:
    """Return a future that resolves with None after *delay* seconds.

    Parameters
    ----------
    delay : float in seconds
        How long to wait.
    ioloop : tornado.ioloop.IOLoop, optional
        The loop. Default: the current one.

    Returns
    -------
    tornado.concurrent.Future
    """
    future: asyncio.Future[None] = new_future(ioloop)
    handle = future.get_loop().call_later(delay, _resolve, future, None)
    future.add_done_callback(lambda _: handle.cancel())
    return future


def until_any(*futures: Any, timeout: Optional[float] = None, ioloop: Any = None) -> Any:
    """Return a future that resolves as the first of *futures* does.

    Parameters
    ----------
    *futures : awaitable
        What to wait for; at least one unless there is a *timeout*. The others go on.
    timeout : float in seconds, optional
        After this time the future fails with `tornado.gen.TimeoutError`.
        Default: no limit.
    ioloop : tornado.ioloop.IOLoop, optional
        The loop. Default: the current one.

    Returns
    -------
    tornado.concurrent.Future
    """
    if not futures and timeout is None:
        raise ValueError("until_any() needs at least one future, or it would wait for ever.")
    first: asyncio.Future[Any] = new_future(ioloop)
    watch = functools.partial(_copy_outcome, first)
    watched = [(tornado.gen.convert_yielded(future), watch) for future in futures]
    for future, _ in watched:
        future.add_done_callback(watch)
    first.add_done_callback(lambda _: _stop_watching(watched))
    if timeout is not None:
        _fail_after(timeout, first)
    return first


async def until_some(
    *args: Any,
    done_at_least: Optional[int] = None,
    timeout: Optional[float] = None,
    **kwargs: Any,
) -> list[tuple[Any, Any]]:
    """Wait until some of several futures are done.

    Parameters
    ----------
    *args : awaitable
        What to wait for; either these or *kwargs*, not both.
    done_at_least : int, optional
        How many of them, but at least one. Default: all.
    timeout : float in seconds, optional
        Default: no limit.
    **kwargs : awaitable
        What to wait for, with names.

    Returns
    -------
    list of (key, result)
        In the order in which they were done; a key is the position or the name.

    Raises
    ------
    tornado.gen.TimeoutError
        If not enough were done in time.
    Exception
        The exception of the first future that failed.
    """
    if args and kwargs:
        raise ValueError("You must provide args or kwargs, not both")
    waiting = dict(enumerate(args)) if args else dict(kwargs)
    wanted = len(waiting) if done_at_least is None else min(max(done_at_least, 1), len(waiting))
    if not waiting:
        return []
    enough: asyncio.Future[Any] = new_future(None)
    results: list[tuple[Any, Any]] = []
    watched = [
        (
            tornado.gen.convert_yielded(future),
            functools.partial(_note_result, key, results, wanted, enough),
        )
        for key, future in waiting.items()
    ]
    for future, watch in watched:
        future.add_done_callback(watch)
    if timeout is not None:
        _fail_after(timeout, enough)
    try:
        await enough
    finally:
        _stop_watching(watched)
    return results


def with_relative_timeout(
    timeout: Optional[float], future: Any, io_loop: Optional[IOLoop] = None
) -> Any:
    """Return a future that fails with `tornado.gen.TimeoutError` after a time.

    Parameters
    ----------
    timeout : float in seconds or None
        How long to wait from now. None: no limit.
    future : awaitable
        What to wait for.
    io_loop : tornado.ioloop.IOLoop, optional
        Ignored: the loop is the one that runs the caller.

    Returns
    -------
    tornado.concurrent.Future
    """
    if timeout is None:
        return future
    return tornado.gen.with_timeout(datetime.timedelta(seconds=timeout), future)


def future_timeout_manager(
    timeout: Optional[float] = None, ioloop: Optional[IOLoop] = None
) -> Callable[[Any], Any]:
    """Return a function that gives several futures a common deadline.

    Parameters
    ----------
    timeout : float in seconds, optional
        Time until the deadline. 0 or None: no limit.
    ioloop : tornado.ioloop.IOLoop, optional
        Whose clock to use. Default: the current one.

    Returns
    -------
    callable
        ``maybe_timeout(future)``: a future that fails with
        `tornado.gen.TimeoutError` at the deadline. ``maybe_timeout.remaining()``
        returns the seconds until then, negative afterwards, or None for no limit.
    """
    loop = ioloop or IOLoop.current()
    deadline = loop.time() + timeout if timeout else None

    def remaining() -> Optional[float]:
        return None if deadline is None else deadline - loop.time()

    def maybe_timeout(future: Any) -> Any:
        return with_relative_timeout(remaining(), future)

    maybe_timeout.remaining = remaining  # type: ignore[attr-defined]
    return maybe_timeout


def log_coroutine_exceptions(coro: _Coroutine) -> _Coroutine:
    """Decorate a coroutine method to log its exceptions with ``self._logger``.

    Parameters
    ----------
    coro : function
        The method: ``async def``, or one that returns a future.

    Returns
    -------
    function
        The method. It runs when it is called, awaited or not, and returns a future of its result,
        which raises the logged exception.
    """

    @functools.wraps(coro)
    def logged(self: Any, *args: Any, **kwargs: Any) -> Any:
        future = _outcome_of(functools.partial(coro, self, *args, **kwargs))

        def log(future: asyncio.Future[Any]) -> None:
            error = None if future.cancelled() else future.exception()
            if error is not None:
                text = f"Unhandled exception calling coroutine {coro!r}"
                self._logger.error(text, exc_info=error)

        if future.done():
            log(future)
        else:
            future.add_done_callback(log)
        return future

    return logged  # type: ignore[return-value]


def log_future_exceptions(logger: logging.Logger, f: Any, ignore: Any = ()) -> None:
    """Log the exception of a future when it fails.

    Parameters
    ----------
    logger : logging.Logger
        Where to log.
    f : tornado.concurrent.Future
        The future.
    ignore : exception class or tuple of these, optional
        Exceptions that are not logged.
    """

    def log_exception(future: Any) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None and not isinstance(error, ignore):
            logger.error("Unhandled exception returned by future", exc_info=error)

    IOLoop.current().add_future(f, log_exception)


def new_future(ioloop: Optional[IOLoop] = None) -> Any:
    """Return a future of a loop, by default of the current one."""
    asyncio_loop = (ioloop or IOLoop.current()).asyncio_loop  # type: ignore[attr-defined]
    return asyncio_loop.create_future()


def _outcome_of(call: Callable[[], Any]) -> asyncio.Future[Any]:
    """Return a future of the result of *call*, which is awaited if possible."""
    future: asyncio.Future[Any] = new_future(None)
    try:
        result = call()
        if inspect.isawaitable(result):
            return spawn(result)
        future.set_result(result)
    except Exception as error:
        future.set_exception(error)
    return future


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail_after(timeout: float, future: asyncio.Future[Any]) -> None:
    """Make *future* fail after a time, unless it is done before."""

    def fail() -> None:
        if not future.done():
            future.set_exception(TornadoTimeoutError("Timeout"))
            # A future that is not looked at any more is no error to log.
            future.exception()

    handle = future.get_loop().call_later(max(timeout, 0), fail)
    future.add_done_callback(lambda _: handle.cancel())


def _copy_outcome(first: asyncio.Future[Any], future: asyncio.Future[Any]) -> None:
    """End *first* as *future* ended, unless it has ended already."""
    if first.done():
        # Another one was done in the same iteration of the loop.
        return
    if future.cancelled():
        first.cancel()
    elif future.exception() is not None:
        first.set_exception(future.exception())  # type: ignore[arg-type]
    else:
        first.set_result(future.result())


def _note_result(
    key: Any,
    results: list[tuple[Any, Any]],
    wanted: int,
    enough: asyncio.Future[Any],
    future: asyncio.Future[Any],
) -> None:
    """Record how *future* ended; end *enough* with an error, or if that was the last."""
    if enough.done() or future.cancelled() or future.exception() is not None:
        _copy_outcome(enough, future)
        return
    results.append((key, future.result()))
    if len(results) == wanted:
        enough.set_result(None)


def _stop_watching(watched: Iterable[tuple[Any, Callable[[Any], None]]]) -> None:
    """Remove the callbacks from futures that may live long."""
    for future, watch in watched:
        future.remove_done_callback(watch)
