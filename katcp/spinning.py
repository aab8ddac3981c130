"""Look again and again for a moment, before sleeping until a reply arrives.

Who sleeps has to be woken. On a virtual machine, or when the processor has gone
to sleep meanwhile, that takes several times as long as a device on the same machine
or network takes to answer, and more of the processor's time than to stay awake. So
whoever has sent a request and has nothing else to do stays awake for a moment
(`MAX_SPIN_TIME` of the client).

Where replies take longer that is of no use: after each attempt that did not pay,
twice as many are left out. And while several threads of the process wait for
replies, none does it: they would only take the processor away from each other.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import Optional, Protocol

# How many attempts are left out at most, after those that did not pay.
MAX_LEFT_OUT = 31

# For how many seconds a thread must have been the only one that waits for replies.
TIME_ALONE = 0.01

# The last thread that waited for a reply, and since when no other one has. Two that
# write it at once may both stay awake, once.
_waiting: tuple[int, float] = (0, 0.0)


class SpinLimits(Protocol):
    """Who says for how many seconds somebody stays awake; it may change."""

    MAX_SPIN_TIME: float


class Spinner:
    """Knows whether it pays to stay awake for the replies of one device.

    Parameters
    ----------
    limits : SpinLimits
        Whose limit holds.
    """

    __slots__ = ("_left_out", "_limits", "_to_leave_out")

    def __init__(self, limits: SpinLimits) -> None:
        self._limits = limits
        self._left_out = 0
        self._to_leave_out = 0

    def begin(self) -> float:
        """Return until when to stay awake, as `time.monotonic` counts; 0: not at all."""
        global _waiting
        limit = self._limits.MAX_SPIN_TIME
        if not limit:
            return 0.0
        now = time.monotonic()
        thread, since = _waiting
        if thread != threading.get_ident():
            _waiting = (threading.get_ident(), now)
            return 0.0
        if now < since + TIME_ALONE:
            return 0.0
        if self._to_leave_out:
            self._to_leave_out -= 1
            return 0.0
        return now + limit

    def end(self, has_paid: bool) -> None:
        """Note whether something arrived in time, after `begin` did not return 0."""
        if has_paid:
            self._left_out = 0
            return
        # The first failure counts for nothing: the system may have been busy.
        self._to_leave_out = self._left_out
        self._left_out = min(2 * self._left_out + 1, MAX_LEFT_OUT)

    def wait_for_data(self, sock: socket.SocketType, deadline: Optional[float]) -> None:
        """Return when *sock* can be read, when it is time to sleep, or at the deadline."""
        until = self.begin()
        fd = sock.fileno()
        if not until or fd < 0:
            return
        if deadline is not None:
            until = min(until, deadline)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        found = poll.poll(0)
        while not found and time.monotonic() < until:
            found = poll.poll(0)
        self.end(bool(found))
