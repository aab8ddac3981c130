"""The old path of the server-side names that clients use: how a ``#log`` is logged."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from ._wire.message import Message

__all__ = ["DeviceLogger"]


class DeviceLogger:
    """The log levels of a device, and logging of its ``#log`` informs in Python.

    Attributes
    ----------
    ALL, TRACE, DEBUG, INFO, WARN, ERROR, FATAL, OFF : int
        The levels, from 0 to 7. ``ALL`` and ``OFF`` are settings only.
    LEVELS : list of str
        Their names, by level.
    PYTHON_LEVEL : dict
        The levels of ``logging`` by level; there is none for ``ALL``.

    Examples
    --------
    >>> import logging
    >>> class MyClient(katcp.CallbackClient):
    ...     def inform_log(self, msg):
    ...         katcp.DeviceLogger.log_to_python(logging.getLogger("device"), msg)
    """

    ALL, TRACE, DEBUG, INFO, WARN, ERROR, FATAL, OFF = range(8)

    LEVELS: ClassVar[list[str]] = ["all", "trace", "debug", "info", "warn", "error", "fatal", "off"]

    PYTHON_LEVEL: ClassVar[dict[int, int]] = {
        TRACE: 0,
        DEBUG: logging.DEBUG,
        INFO: logging.INFO,
        WARN: logging.WARNING,
        ERROR: logging.ERROR,
        FATAL: logging.CRITICAL,
        OFF: logging.CRITICAL + 10,
    }

    @classmethod
    def log_to_python(cls, logger: Any, msg: Message) -> None:
        """Log a ``#log`` inform.

        Parameters
        ----------
        logger : logging.Logger
            Where to log; its method ``log(level, text)`` is called.
        msg : Message
            A ``#log`` inform: level, time, name of the logger and text.

        Raises
        ------
        ValueError
            If it has more or fewer arguments, or a level that is not in `LEVELS`.

        Notes
        -----
        May be called in any thread.
        """
        level, time, name, text = (
            argument.decode("utf-8", "backslashreplace") for argument in msg.arguments
        )
        logger.log(cls.PYTHON_LEVEL[cls.LEVELS.index(level)], f"{time} {name}: {text}")
