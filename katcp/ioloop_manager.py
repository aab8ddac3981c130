"""Ownership of a loop and its thread.

A loop is *managed* (created here, run and closed in its own thread) or *shared* (provided and run
by the program). `IOLoopManager` hides the difference from a client. A managed loop becomes the
current loop of its own thread only, unless a program calls its ``make_current()``.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import selectors
import threading
from typing import Any, Callable, Optional

from tornado.ioloop import IOLoop
from tornado.platform.asyncio import BaseAsyncIOLoop

from ._runtime.events import with_relative_timeout as with_relative_timeout
from ._runtime.portal import LoopPortal
from ._runtime.waiter import Latch
from .compat import ObjectWrapper as ObjectWrapper
from .errors import KatcpThreadError, KatcpUsageError

_default_logger = logging.getLogger(__name__)


class _ManagedIOLoop(BaseAsyncIOLoop):
    """The loop created by an `IOLoopManager`.

    Not `tornado.platform.asyncio.AsyncIOLoop`, which does not accept a loop before tornado 6.2.
    """

    def make_current(self) -> None:
        """Make this the `IOLoop.current` of the calling thread."""
        asyncio.set_event_loop(self.asyncio_loop)


class IOLoopManager:
    """Create, run and close a loop in its own thread, or use a given one.

    Parameters
    ----------
    managed_default : bool, optional
        Whether the loop is managed unless `set_ioloop` says otherwise.
    logger : logging.Logger, optional
        Where to log. Default: the logger ``katcp.ioloop_manager``.

    Notes
    -----
    The methods may be called from any thread.
    """

    def __init__(
        self, managed_default: bool = True, logger: logging.Logger = _default_logger
    ) -> None:
        self.daemon = False
        self._managed = managed_default
        self._logger = logger
        self._ioloop: Optional[IOLoop] = None
        self._portal: Optional[LoopPortal] = None
        self._thread: Optional[threading.Thread] = None
        # Created by start(): a client on a shared loop needs none.
        self._ended: Optional[Latch] = None
        # For threads that start and create loops; the loop's thread never takes it.
        self._start_lock = threading.RLock()

    @property
    def managed(self) -> bool:
        """Whether this manager creates, runs and closes the loop."""
        return self._managed

    def setDaemon(self, daemonic: bool) -> None:  # noqa: N802  (the documented name)
        """Set whether the thread of a managed loop is a daemon thread.

        Parameters
        ----------
        daemonic : bool
            Whether the interpreter may exit while the loop runs. Takes effect
            at the next `start`.
        """
        self.daemon = daemonic

    def set_ioloop(self, ioloop: Optional[IOLoop] = None, managed: Optional[bool] = None) -> None:
        """Use a given loop.

        Parameters
        ----------
        ioloop : tornado.ioloop.IOLoop, optional
            The loop. Default: the current one when it is needed.
        managed : bool, optional
            Whether this manager runs the loop. Default: *managed_default*.

        Raises
        ------
        RuntimeError
            If there is already a loop.
        """
        if self._ioloop is not None:
            raise KatcpUsageError("IOLoop instance already set")
        if managed is not None:
            self._managed = managed
        self._ioloop = ioloop

    def use_running_ioloop(self) -> None:
        """Use the loop that runs in this thread.

        Raises
        ------
        RuntimeError
            If another loop was set, and is not closed.
        """
        ioloop = IOLoop.current()
        if self._managed and self._thread is not None:
            # The last run may have ended a moment ago, and its thread with it.
            self.join()
        with self._start_lock:
            known = self._ioloop
            if known is ioloop:
                return
            if known is not None and not LoopPortal(known).is_closed():
                raise KatcpUsageError("The client was given another ioloop than the running one.")
            self._managed = False
            self._ioloop = ioloop
            self._portal = None

    def get_ioloop(self) -> IOLoop:
        """Return the loop, creating it if needed.

        Returns
        -------
        tornado.ioloop.IOLoop
        """
        ioloop = self._ioloop
        if ioloop is None:
            with self._start_lock:
                ioloop = self._ioloop
                if ioloop is None:
                    ioloop = self._new_ioloop() if self._managed else IOLoop.current()
                    self._ioloop = ioloop
        return ioloop

    def _new_ioloop(self) -> IOLoop:
        selector = selectors.DefaultSelector()
        try:
            asyncio_loop = asyncio.SelectorEventLoop(selector)
        except OSError:
            # Closes the half-initialised loop.
            selector.close()
            raise
        ioloop: IOLoop = _ManagedIOLoop(asyncio_loop=asyncio_loop, make_current=False)
        return ioloop

    def get_portal(self) -> LoopPortal:
        """Return the portal for calls into the loop.

        Returns
        -------
        LoopPortal
        """
        portal = self._portal
        if portal is None:
            with self._start_lock:
                portal = self._portal
                if portal is None:
                    portal = self._portal = LoopPortal(self.get_ioloop())
        return portal

    def start(self, timeout: Optional[float] = None) -> None:
        """Run a managed loop in a new thread; return when it runs.

        Parameters
        ----------
        timeout : float in seconds, optional
            How long to wait for the thread. Default: no limit.

        Raises
        ------
        RuntimeError
            If the thread is already running, or no thread can be started.
        OSError
            If no file descriptors are left for the loop.
        """
        if not self._managed:
            return
        with self._start_lock:
            if self._thread is not None and self._thread.is_alive():
                raise KatcpUsageError("The managed ioloop is running already.")
            started = Latch()
            self._ended = ended = Latch()
            portal = self.get_portal()
            self._thread = threading.Thread(
                target=self._run_managed_ioloop,
                args=(portal, started, ended),
                name="katcp-ioloop",
                daemon=self.daemon,
            )
            try:
                self._thread.start()
            except RuntimeError:
                self._thread = self._ioloop = self._portal = None
                portal.ioloop.close()
                raise
        started.wait(timeout)

    def stop(
        self, timeout: Optional[float] = None, callback: Optional[Callable[[], Any]] = None
    ) -> None:
        """Stop a managed loop after running *callback* in it.

        A shared loop is left running; only *callback* is run in it. Use `join`
        to wait for the end.

        Parameters
        ----------
        timeout : float in seconds, optional
            Ignored; `stop` does not wait.
        callback : callable, optional
            A function to run in the loop before it stops.
        """
        portal = self._portal
        if portal is None:
            return
        try:
            portal.call_soon(self._stop_in_ioloop, portal, callback)
        except KatcpUsageError:
            # The loop is already closed: it was stopped before.
            return

    def join(self, timeout: Optional[float] = None) -> None:
        """Wait until the thread of a managed loop has ended.

        Does nothing for a shared loop.

        Parameters
        ----------
        timeout : float in seconds, optional
            How long to wait. Default: no limit.

        Raises
        ------
        RuntimeError
            If the manager was never started, or in the loop's own thread.
        """
        if not self._managed:
            return
        if self._ended is None:
            raise KatcpUsageError("Cannot join if not started")
        if self._thread is None:
            # No thread could be started.
            return
        # Not by Thread.join(): after an interrupt by Ctrl-C, Python before 3.13 considers the
        # thread ended.
        is_other = threading.current_thread() is not self._thread
        if is_other and self._thread.is_alive() and not self._ended.wait(timeout):
            return
        # The thread is about to end. The timeout is for a finalizer that joins inside another join
        # of its thread, which would block before Python 3.13.
        self._thread.join(1.0 if timeout is None else min(max(timeout, 0), 1.0))

    def _stop_in_ioloop(self, portal: LoopPortal, callback: Optional[Callable[[], Any]]) -> None:
        """Run *callback* and end the loop; in the loop's thread."""
        try:
            if callback is not None:
                callback()
        finally:
            if self._managed:
                self._logger.info(f"Stopping ioloop {portal.ioloop!r}")
                portal.ioloop.stop()

    def _run_managed_ioloop(self, portal: LoopPortal, started: Latch, ended: Latch) -> None:
        """Run and close the loop; the body of its thread."""
        ioloop = portal.ioloop
        portal.remember_thread()
        ioloop.add_callback(started.set)
        try:
            ioloop.start()
            # Calls submitted before the portal was closed are run, as promised.
            portal.close()
            ioloop.add_callback(ioloop.stop)
            ioloop.start()
        except BaseException:
            # Even SystemExit, which a thread ignores silently.
            self._logger.exception("Error running tornado IOloop")
        finally:
            portal.close()
            started.set()
            try:
                self._close(ioloop)
            finally:
                ended.set()

    def _close(self, ioloop: IOLoop) -> None:
        """Close the loop, so that the next start makes a new one; in its thread."""
        asyncio_loop: asyncio.AbstractEventLoop = ioloop.asyncio_loop  # type: ignore[attr-defined]
        # A program may have closed it.
        if not asyncio_loop.is_closed():
            # Done while the loop is not running: from Python 3.14 on, a running loop only knows the
            # tasks created by its present thread.
            tasks = asyncio.all_tasks(asyncio_loop)
            asyncio_loop.run_until_complete(_cancel(tasks))
            asyncio_loop.run_until_complete(asyncio_loop.shutdown_asyncgens())
            ioloop.close()
        self._ioloop = None
        self._portal = None
        self._logger.info(f"Managed tornado IOloop {ioloop!r} stopped")


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel *tasks* and give them a moment to clean up; in the loop's thread."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=1.0)


class IOLoopThreadWrapper:
    """Call functions in a loop from other threads, and wait for their results.

    Parameters
    ----------
    ioloop : tornado.ioloop.IOLoop, optional
        The loop. Default: the current one.

    Attributes
    ----------
    default_timeout : float or None
        The default timeout of `call_in_ioloop` in seconds; None: no limit.
    """

    default_timeout: Optional[float] = None

    def __init__(self, ioloop: Optional[IOLoop] = None) -> None:
        self.ioloop = ioloop or IOLoop.current()

    def call_in_ioloop(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: Optional[float] = None,
    ) -> Any:
        """Run ``fn(*args, **kwargs)`` in the loop and return its result.

        Parameters
        ----------
        fn : callable
            The function; if it returns an awaitable, that is awaited.
        args : tuple
            Its positional arguments.
        kwargs : dict
            Its keyword arguments.
        timeout : float in seconds, optional
            How long to wait. Default: `default_timeout`.

        Returns
        -------
        object
            The result of *fn*, or of the awaitable.

        Raises
        ------
        concurrent.futures.TimeoutError
            If it takes too long.
        KatcpThreadError
            If called in the loop, which would wait for itself.
        """
        portal = LoopPortal(self.ioloop)
        if portal.in_loop():
            raise KatcpThreadError("Cannot call a thread-wrapped object from the ioloop")
        limit = self.default_timeout if timeout is None else timeout
        return portal.call(lambda: fn(*args, **kwargs), timeout=limit)

    def decorate_callable(self, callable_: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that runs *callable_* in the loop, from any thread.

        Parameters
        ----------
        callable_ : callable
            What to run. An argument ``timeout=`` also limits how long the thread waits.

        Returns
        -------
        callable
        """

        @functools.wraps(callable_)
        def decorated(*args: Any, **kwargs: Any) -> Any:
            return self.call_in_ioloop(callable_, args, kwargs, kwargs.get("timeout"))

        return decorated


class ThreadSafeMethodAttrWrapper(ObjectWrapper):
    """A proxy whose methods run in a loop when called from other threads.

    Only callables run in the loop; other attributes, properties and operators are used in the
    calling thread.

    Parameters
    ----------
    subject : object
        The object.
    ioloop_wrapper : IOLoopThreadWrapper
        The loop, and the timeout of methods.

    Notes
    -----
    May be used in any thread but the loop's.
    """

    _ioloop_wrapper: Any = None

    def __init__(self, subject: Any, ioloop_wrapper: IOLoopThreadWrapper) -> None:
        super().__init__(subject)
        self._ioloop_wrapper = ioloop_wrapper

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        return self._ioloop_wrapper.decorate_callable(value) if callable(value) else value
