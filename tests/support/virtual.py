"""Virtual time, and threads whose steps are waited for instead of raced."""

from __future__ import annotations

import asyncio
import selectors
import threading
from typing import Any, Callable, Optional

from tornado.ioloop import IOLoop
from tornado.platform.asyncio import BaseAsyncIOLoop

from tests.support.helpers import PATIENCE

# A loop that goes round so often without coming to rest never will.
MANY_TURNS = 20_000

# More than sums of floats lose, and less than the loop can tell apart, in seconds.
ROUNDING = 1e-10


class _IdleSelector(selectors.DefaultSelector):
    """A selector that never waits, but says that the loop would."""

    def __init__(self, on_idle: Callable[[Optional[float]], None]) -> None:
        super().__init__()
        self._on_idle = on_idle
        self.turns = 0

    def select(self, timeout: Optional[float] = None) -> Any:
        self.turns += 1
        assert self.turns < MANY_TURNS, "the loop never comes to rest"
        ready = super().select(0)
        if not ready and timeout != 0:
            self._on_idle(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still until it is moved.

    Its sockets are real, and those of one host without a network between: what was written
    can be read at once. So the loop is idle exactly when nothing more happens before the clock
    moves.

    Attributes
    ----------
    next_timer : float or None
        When the next timer is due; known when the loop is idle.
    posts : int
        How many calls came in from other threads.
    """

    def __init__(self) -> None:
        self._idle_selector = _IdleSelector(self._stop_idle)
        super().__init__(self._idle_selector)
        self.now = 1000.0
        self.next_timer: Optional[float] = None
        self.posts = 0
        self.changed = threading.Condition()

    def make_ioloop(self) -> IOLoop:
        """Return tornado's loop around this one; who closes it closes this one too."""
        # Not IOLoop(): before tornado 6.2 that takes no loop.
        ioloop: IOLoop = BaseAsyncIOLoop(asyncio_loop=self, make_current=False)
        return ioloop

    def time(self) -> float:
        return self.now

    def run_until_idle(self) -> None:
        """Do all there is to do without waiting."""
        self._idle_selector.turns = 0
        self.run_forever()

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> Any:
        handle = super().call_soon_threadsafe(*args, **kwargs)
        with self.changed:
            self.posts += 1
            self.changed.notify_all()
        return handle

    def _stop_idle(self, timeout: Optional[float]) -> None:
        # Not a rounding error before it is due: then nothing would be over yet.
        self.next_timer = None if timeout is None else self.now + timeout + ROUNDING
        self.stop()


class ThreadCall:
    """One call in a thread of its own.

    When the constructor returns, the call has ended, or has handed to the loop what it waits for.
    """

    def __init__(self, loop: VirtualLoop, function: Callable[..., Any], *args: Any) -> None:
        self._loop = loop
        self.result: Any = None
        self.error: Optional[BaseException] = None
        self.has_ended = False
        posts = loop.posts
        self._thread = threading.Thread(target=self._run, args=(function, *args), daemon=True)
        self._thread.start()
        with loop.changed:
            arrived = loop.changed.wait_for(
                lambda: self.has_ended or loop.posts > posts, timeout=PATIENCE
            )
        assert arrived, "the thread neither reached the loop nor ended"

    def _run(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self.result = function(*args)
        except Exception as error:
            self.error = error
        with self._loop.changed:
            self.has_ended = True
            self._loop.changed.notify_all()

    def wait(self) -> None:
        """Wait until the call has ended: it has nothing to wait for any more."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the thread waits for what has happened"
