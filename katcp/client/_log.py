"""The log of a client: complete texts, rate-limited, for any logger.

Programs have handlers that show ``record.msg``, which in the old client includes the arguments
already. The text is only formatted if it is logged.

A device that sends only nonsense would fill a disk with log records. So the number of warnings and
errors of each kind, which is their text before formatting, is limited per minute; then one record
says that more are left out, and later one says how many.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from typing import Any, Callable, Protocol

# In seconds.
PERIOD = 60.0

# The methods of a logger that are called.
_METHODS = ("isEnabledFor", "debug", "info", "warning", "error", "exception")

# Stack frames behind the logger's caller: `_write`, and the method that called it.
_STACK_LEVEL = 3


class LogOwner(Protocol):
    """The logger and the limit of records; a program may change both at any time."""

    MAX_LOG_RATE: int
    _logger: Any


class RateLimitedLog:
    """The log of a client, with a rate limit.

    Parameters
    ----------
    owner : LogOwner
        Its logger takes the records, and its `MAX_LOG_RATE` is the number of warnings and errors of
        one kind in each `PERIOD`.
    clock : callable, optional
        Returns the time in seconds.
    """

    def __init__(self, owner: LogOwner, clock: Callable[[], float] = time.monotonic) -> None:
        self._owner = owner
        self._clock = clock
        self._period_end = clock()
        self._counts: dict[str, int] = {}

    def debug(self, text: str, *args: object) -> None:
        """Log a debug message, without a limit."""
        self._write("debug", logging.DEBUG, text, args)

    def info(self, text: str, *args: object) -> None:
        """Log information, without a limit."""
        self._write("info", logging.INFO, text, args)

    def warning(self, text: str, *args: object) -> None:
        """Log a warning, unless there were too many like it."""
        self._write("warning", logging.WARNING, text, args)

    def error(self, text: str, *args: object) -> None:
        """Log an error, unless there were too many like it."""
        self._write("error", logging.ERROR, text, args)

    def exception(self, text: str, *args: object) -> None:
        """Log an error with the current exception, unless there were too many like it."""
        self._write("exception", logging.ERROR, text, args)

    def end_period(self) -> None:
        """Log how many records were left out, and start a new period."""
        limit = self._owner.MAX_LOG_RATE
        left_out = {kind: count - limit for kind, count in self._counts.items() if count > limit}
        self._counts.clear()
        self._period_end = self._clock() + PERIOD
        for kind, count in left_out.items():
            complete(self._owner._logger).warning(f"{count} records like {kind!r} were left out.")

    def _write(self, method: str, level: int, text: str, args: tuple[object, ...]) -> None:
        logger = complete(self._owner._logger)
        if not logger.isEnabledFor(level):
            return
        if level >= logging.WARNING and not self._admits(text, logger):
            return
        options = {"stacklevel": _STACK_LEVEL} if _is_standard(logger) else {}
        getattr(logger, method)(text % args if args else text, **options)

    def _admits(self, kind: str, logger: Any) -> bool:
        """Count a record of *kind*; return whether it is to be logged."""
        if self._clock() >= self._period_end:
            self.end_period()
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        limit = self._owner.MAX_LOG_RATE
        if count == limit + 1:
            logger.warning(
                f"More than MAX_LOG_RATE ({limit}) records like {kind!r} in a minute: "
                "more are left out."
            )
        return count <= limit


class CurrentException:
    """The exception that is being handled; formatted only if it is logged.

    Parameters
    ----------
    limit : int
        The maximum number of stack frames.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def __str__(self) -> str:
        # A blank line after each frame, as in the old client.
        return "\n".join(traceback.format_exception(*sys.exc_info(), limit=self._limit))


class _Completed:
    """A program's logger object, with the methods of a logger that it lacks."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> Any:
        if name in ("isEnabledFor", "warning", "exception") and not hasattr(self._logger, name):
            return getattr(self, f"_{name}")
        return getattr(self._logger, name)

    def _isEnabledFor(self, level: int) -> bool:  # noqa: N802  (as loggers name it)
        return True

    def _warning(self, text: str) -> None:
        self._logger.warn(text)

    def _exception(self, text: str) -> None:
        self._logger.error(f"{text}\n{traceback.format_exc()}")


def complete(logger: Any) -> Any:
    """Return a logger with all methods that a client calls; any thread.

    Programs pass their own objects; the old client called ``warn``, not ``warning``.
    """
    return logger if all(hasattr(logger, name) for name in _METHODS) else _Completed(logger)


def _is_standard(logger: Any) -> bool:
    """Whether a logger accepts a stack level."""
    return isinstance(logger, (logging.Logger, logging.LoggerAdapter))
