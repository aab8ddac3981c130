"""Log records that a device causes, as many of them as a disk can bear.

A device that sends only nonsense would fill a disk with what is logged of it.
So of each kind of record, which is its text before the arguments are put in,
so many are let through each minute; then one says that more are left out, and
later one tells how many there were.
"""

from __future__ import annotations

import logging
import time
from typing import Callable, Protocol

# In seconds.
PERIOD = 60.0


class LogLimits(Protocol):
    """What has a limit of log records, which may change."""

    MAX_LOG_RATE: int


class RateLimitedLog:
    """A log for what a device causes.

    Parameters
    ----------
    logger : logging.Logger
        Where the records go to.
    limits : LogLimits
        Whose `MAX_LOG_RATE` says how many records of a kind may be logged
        each `PERIOD`.
    clock : callable, optional
        Returns the time in seconds.
    """

    def __init__(
        self,
        logger: logging.Logger,
        limits: LogLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._limits = limits
        self._clock = clock
        self._period_end = clock()
        self._counts: dict[str, int] = {}

    def admits(self, kind: str) -> bool:
        """Count a record of *kind*; return whether it is to be logged.

        For those whose arguments take time to make.
        """
        if self._clock() >= self._period_end:
            self.end_period()
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        limit = self._limits.MAX_LOG_RATE
        if count == limit + 1:
            self._logger.warning(
                "More than MAX_LOG_RATE (%d) records like %r in a minute: more are left out.",
                limit,
                kind,
            )
        return count <= limit

    def warning(self, text: str, *args: object) -> None:
        """Log a warning, unless there were too many like it."""
        if self.admits(text):
            self._logger.warning(text, *args)

    def end_period(self) -> None:
        """Tell how many records were left out, and begin to count anew."""
        limit = self._limits.MAX_LOG_RATE
        for kind, count in self._counts.items():
            if count > limit:
                self._logger.warning("%d records like %r were left out.", count - limit, kind)
        self._counts.clear()
        self._period_end = self._clock() + PERIOD
