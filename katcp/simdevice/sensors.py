"""The sensors of the simulated device.

A `Sensor` is like a `katcp.Sensor` on the side of the device: the protocol allows its name, its
ranges determine the status of a value, and it may have a *source*, a function of the time that
returns its value. The value may also be bytes, which are sent unchanged, so that a device can send
values that no client understands. The `katcp.Sensor` in it stores the reading and notifies the
strategies of clients (`katcp.simdevice.strategies`).

Version 4 of the protocol has no addresses, fewer statuses, and a range for every number.
"""

from __future__ import annotations

import math
import re
import time
from typing import Any, Callable, NamedTuple, Optional, Sequence, Union

from .._sensor import Sensor as KatcpSensor
from .._state.readings import Reading as KatcpReading
from .._wire import arguments
from .._wire.flags import SEC_TS_KATCP_MAJOR

STATUSES = tuple(KatcpSensor.STATUS_NAMES)
TYPES = tuple(KatcpSensor.SENSOR_TYPE_LOOKUP)

# Version 4 does not have these statuses, and requires a range for every number.
_V4_STATUSES = {"unreachable": "unknown", "inactive": "unknown"}
_V4_RANGES = {"integer": (-(2**31), 2**31 - 1), "float": (-1e300, 1e300)}
_NAME_RE = re.compile(r"[A-Za-z0-9._-]+")


class Reading(NamedTuple):
    """The value of a sensor at a time.

    Attributes
    ----------
    timestamp : float
        When the sensor was read, in seconds since 1970.
    status : str
        One of `STATUSES`.
    value : object
        The value, in the sensor's own type.
    """

    timestamp: float
    status: str
    value: Any


class Sensor:
    """A sensor of the simulated device.

    Its parameters are also attributes, except the first value and its timestamp; *sensor_type* is
    *type*.

    Parameters
    ----------
    name : str
        The name: letters, digits, dots, dashes and underscores.
    sensor_type : str
        One of `TYPES`.
    description, units : str, optional
        Its description in ``?sensor-list``.
    params : sequence, optional
        Discrete sensors: the options. Integer and float sensors: nominal-min
        and nominal-max, or these two and warn-min and warn-max.
    value : object, optional
        The first value. Default: none, and the status ``unknown``.
    timestamp : float, optional
        When the first value was read, in seconds since 1970.
    source : callable, optional
        A function of the time (seconds since 1970) that returns the value. Setting the sensor
        removes it.
    interval : float, optional
        How often, in seconds, a sensor with a *source* is read while a client
        samples it.

    Attributes
    ----------
    observed : katcp.Sensor
        Stores the reading; attach an observer to be notified of changes.
    """

    def __init__(
        self,
        name: str,
        sensor_type: str,
        description: str = "",
        units: str = "",
        params: Sequence[Any] = (),
        *,
        value: Any = None,
        timestamp: float = 0.0,
        source: Optional[Callable[[float], Any]] = None,
        interval: float = 0.1,
    ) -> None:
        self.name = name
        self.type = sensor_type
        self.description = description
        self.units = units
        self.params = tuple(params)
        self.source = source
        self.interval = interval
        self._check()
        self._make_observed()
        self.observed.set(timestamp, KatcpSensor.UNKNOWN, self.observed.value())
        if value is not None:
            self._check_value(value)
            self.observed.set(timestamp, self._judge(value), value)

    def __repr__(self) -> str:
        units = f" {self.units}" if self.units else ""
        return f"<Sensor {self.name} {self.type}{units}>"

    def __copy__(self) -> Sensor:
        """Return a sensor with the same reading, without device and observers."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        copied._make_observed()
        copied.observed.set(*self.observed.read())
        return copied

    def _make_observed(self) -> None:
        number = KatcpSensor.parse_type(self.type)
        options = [str(option) for option in self.params] if self.type == "discrete" else []
        self.observed = KatcpSensor(number, self.name, self.description, self.units, options)
        # A device makes this run in the thread of its loop.
        self.in_loop: Callable[..., Any] = _call

    # ---- the reading ----

    def set_value(
        self,
        value: Any,
        status: Union[str, int, None] = None,
        timestamp: Optional[float] = None,
    ) -> None:
        """Set the reading; the sensor no longer changes by itself.

        May be called from any thread. Clients that sample the sensor get an update if their
        strategy requires it.

        Parameters
        ----------
        value : object
            The value, in the sensor's type. Bytes are sent unchanged, whatever the type, and need
            not be valid.
        status : str or int, optional
            The status: one of `STATUSES`, or a constant of `katcp.Sensor`. Default: by the ranges
            of a number, else ``nominal``.
        timestamp : float, optional
            When the sensor was read, in seconds since 1970. Default: now.

        Raises
        ------
        ValueError
            If the value does not fit the type, or there is no such status.
        """
        number = None if status is None else _status_number(status)
        self._check_value(value)
        self.in_loop(
            self._set_by_hand,
            time.time() if timestamp is None else timestamp,
            self._judge(value) if number is None else number,
            value,
        )

    def set(self, value: Any, status: Optional[str] = None, *, timestamp: float) -> None:
        """Set the reading, like `set_value` with a mandatory timestamp."""
        self.set_value(value, status, timestamp)

    def _set_by_hand(self, timestamp: float, status: int, value: Any) -> None:
        self.source = None
        self.observed.set(timestamp, status, value)

    def read(self, now: float) -> Reading:
        """Return the reading at the time *now*, in seconds since 1970."""
        if self.source is not None:
            value = self.source(now)
            self.observed.set(now, self._judge(value), value)
        return as_reading(self.observed.read())

    def look(self, now: float) -> None:
        """Read a sensor with a *source*, unless that was done a moment ago."""
        if now - self.observed.read().timestamp > self.interval / 2:
            self.read(now)

    def _judge(self, value: Any) -> int:
        """Return the status of a value, according to the ranges."""
        if self.type not in _V4_RANGES or not self.params or isinstance(value, bytes):
            return KatcpSensor.NOMINAL
        ranges = zip((KatcpSensor.NOMINAL, KatcpSensor.WARN), (self.params[:2], self.params[2:]))
        for status, limits in ranges:
            if limits and limits[0] <= value <= limits[1]:
                return status
        return KatcpSensor.ERROR

    # ---- arguments of messages, for a major version of the protocol ----

    def list_arguments(self, major: int) -> list[bytes]:
        """Return the arguments of this sensor's ``#sensor-list`` inform."""
        # Version 4 has no addresses.
        shown = "string" if self.type == "address" and not _is_v5(major) else self.type
        texts = [self.name, self.description, self.units, shown]
        return [text.encode("utf-8") for text in texts] + self._format_params(major)

    def status_arguments(self, reading: Reading, major: int) -> list[bytes]:
        """Return the arguments of ``#sensor-value`` and ``#sensor-status``."""
        status = reading.status if _is_v5(major) else _V4_STATUSES.get(reading.status)
        return [
            arguments.write_timestamp(reading.timestamp, major),
            b"1",
            self.name.encode("ascii"),
            (status or reading.status).encode("ascii"),
            self.format_value(reading.value, major),
        ]

    def format_value(self, value: Any, major: int) -> bytes:
        """Return a value as an argument, bytes unchanged; raise ValueError if it is invalid."""
        if isinstance(value, bytes):
            return value
        if self.type == "address" and isinstance(value, str):
            return value.encode("utf-8")
        if self.type == "discrete" and str(value) not in self.observed.params:
            raise ValueError(f"{value!r} is not one of the options of sensor {self.name!r}.")
        if self.type == "integer" and int(value) != value:
            raise ValueError("not an integer")
        if self.type == "lru":
            value = _to_lru(value)
        return self.observed.format_reading((0.0, 0, value), major)[2]

    def _format_params(self, major: int) -> list[bytes]:
        params = self.params
        if self.type not in _V4_RANGES:
            params = params if self.type == "discrete" else ()
        elif not _is_v5(major):
            # Version 4 has one mandatory range: the widest.
            params = params[-2:] or _V4_RANGES[self.type]
        return [self.format_value(param, major) for param in params]

    # ---- checks ----

    def _check(self) -> None:
        if not _NAME_RE.fullmatch(self.name):
            raise ValueError(f"{self.name!r} cannot be the name of a sensor.")
        if self.type not in TYPES:
            raise ValueError(f"There is no sensor type {self.type!r}: use one of {TYPES}.")
        if self.type == "discrete" and not self.params:
            raise ValueError(f"The discrete sensor {self.name!r} needs options as its params.")
        if self.type in _V4_RANGES and len(self.params) not in (0, 2, 4):
            raise ValueError(f"The ranges of sensor {self.name!r} must be 2 or 4 numbers.")

    def _check_value(self, value: Any) -> None:
        """Raise ValueError if the value does not fit the type."""
        try:
            self.format_value(value, SEC_TS_KATCP_MAJOR)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{value!r} is no value for the {self.type} sensor {self.name!r}: {error}"
            ) from error


def as_reading(reading: KatcpReading) -> Reading:
    """Convert a reading of a `katcp.Sensor`."""
    timestamp, status, value = reading
    return Reading(timestamp, STATUSES[status], value)


def default_sensors(now: float) -> list[Sensor]:
    """Return an example of each type of `Sensor`; two of them change by themselves.

    *now* is in seconds since 1970.
    """
    return [
        Sensor(
            "counter",
            "integer",
            "Tenths of a second since the device was made",
            source=lambda time: int((time - now) * 10),
        ),
        Sensor(
            "temperature",
            "float",
            "Temperature of the enclosure",
            "degC",
            (10.0, 30.0, 0.0, 40.0),
            source=lambda time: round(20 + 5 * math.sin((time - now) * math.tau / 60), 3),
        ),
        *(
            Sensor(name, sensor_type, description, params=params, value=value, timestamp=now)
            for name, sensor_type, description, params, value in (
                ("enabled", "boolean", "Whether the device is enabled", (), True),
                ("pll-lock", "lru", "State of the phase-locked loop", (), "nominal"),
                ("mode", "discrete", "Mode of operation", ("idle", "track", "slew"), "idle"),
                ("label", "string", "Text on the front panel", (), "simulated device"),
                ("start-time", "timestamp", "When the device was made", (), now),
                ("gateway", "address", "Where the data go", (), ("10.0.0.1", 7148)),
            )
        ),
    ]


def _to_lru(value: Any) -> Any:
    """Return the `katcp.Sensor` value for a word or a boolean."""
    if isinstance(value, bool):
        return arguments.LRU_NOMINAL if value else arguments.LRU_ERROR
    return arguments.LRU_CONSTANTS.get(str(value).encode("utf-8"), value)


def _status_number(status: Union[str, int]) -> int:
    """Return the number of a status in `katcp.Sensor`, or raise ValueError."""
    for number, name in KatcpSensor.STATUSES.items():
        if status in (number, name):
            return number
    raise ValueError(f"There is no sensor status {status!r}: use one of {STATUSES}.")


def _is_v5(major: int) -> bool:
    return major >= SEC_TS_KATCP_MAJOR


def _call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)
