"""Sensor readings and their statuses."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple


class Status(enum.IntEnum):
    """The status of a reading.

    Members are equal to the constants of `katcp.Sensor`; their text is the protocol's word.

    Examples
    --------
    >>> str(Status.NOMINAL), Status.NOMINAL == Sensor.NOMINAL
    ('nominal', True)
    """

    UNKNOWN = 0
    NOMINAL = 1
    WARN = 2
    ERROR = 3
    FAILURE = 4
    UNREACHABLE = 5
    INACTIVE = 6

    def __str__(self) -> str:
        return self.name.lower()

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    @property
    def is_usable(self) -> bool:
        """Whether the value of a reading with this status is meaningful."""
        return self in _USABLE


_USABLE = frozenset([Status.NOMINAL, Status.WARN, Status.ERROR])


class Reading(NamedTuple):
    """The value of a sensor at a time.

    Attributes
    ----------
    timestamp : float
        When the sensor was read, in seconds since 1970.
    status : int
        One of the statuses of `katcp.Sensor`; a `Status` in what a client returns.
    value : object
        The value, in the sensor's own type.
    """

    timestamp: float
    status: int
    value: Any
