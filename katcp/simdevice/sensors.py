"""The sensors of the simulated device, and when a client hears of them.

Strategy
--------
A `Sensor` is a `katcp.Sensor` as a device has it: it has a name that the protocol
allows, ranges that give a status to a value, and perhaps a *source*, a function
of the time that makes its readings. It may hold bytes in place of a value, which
are sent as they are: so a device can say what no client understands. The
`katcp.Sensor` in it keeps the reading and tells the strategies of clients
(`katcp.sampling`).

Here is what versions 4 and 5 of the protocol have in common with sensors, beside
the form of single values: version 4 has no addresses, fewer statuses, a range for
every number, and periods in milliseconds.
"""

from __future__ import annotations

import math
import re
from typing import Any, Callable, NamedTuple, Optional, Sequence

from .. import _sensor as katcp_sensor
from .._state import readings as katcp_readings
from .._wire import arguments
from .._wire.flags import SEC_TS_KATCP_MAJOR, ProtocolFlags
from ..sampling import SampleStrategy

STATUSES = tuple(katcp_sensor.Sensor.STATUS_NAMES)
TYPES = tuple(katcp_sensor.Sensor.SENSOR_TYPE_LOOKUP)

# Version 4 has no such statuses, and demands a range of every number.
_V4_STATUSES = {"unreachable": "unknown", "inactive": "unknown"}
_V4_RANGES = {"integer": (-(2**31), 2**31 - 1), "float": (-1e300, 1e300)}
_NAME_RE = re.compile(r"[A-Za-z0-9._-]+")


class Reading(NamedTuple):
    """What a sensor showed at a moment.

    Attributes
    ----------
    timestamp : float
        When it was read, in seconds since 1970.
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

    Parameters
    ----------
    name : str
        The name: letters, digits, dots, dashes and underscores.
    sensor_type : str
        One of `TYPES`.
    description, units : str, optional
        What ``?sensor-list`` tells of it.
    params : sequence, optional
        Discrete sensors: the options. Integer and float sensors: nominal-min
        and nominal-max, or these two and warn-min and warn-max.
    value : object, optional
        The first value. Default: none, and the status ``unknown``.
    timestamp : float, optional
        When the first value was read, in seconds since 1970.
    source : callable, optional
        A function of the time (seconds since 1970) that returns the value: a
        sensor that changes by itself, until it is set by hand.
    interval : float, optional
        How often, in seconds, a sensor with a *source* is looked at while a
        client samples it.

    Attributes
    ----------
    name, type, description, units : str
        As given.
    params : tuple
        As given.
    source : callable or None
        As given; None after the sensor was set by hand.
    interval : float
        As given.
    observed : katcp.Sensor
        What holds the reading: attach to it to hear of others.
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
        self.observed = self._make_observed()
        self._set(timestamp, "unknown", self.observed.value())
        if value is not None:
            self._set(timestamp, self._judge(value), self._checked(value))

    def __repr__(self) -> str:
        units = f" {self.units}" if self.units else ""
        return f"<Sensor {self.name} {self.type}{units}>"

    def __copy__(self) -> Sensor:
        """Return a sensor with the same reading, which nobody observes."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        copied.observed = self._make_observed()
        copied.observed.set(*self.observed.read())
        return copied

    def _make_observed(self) -> katcp_sensor.Sensor:
        number = katcp_sensor.Sensor.parse_type(self.type)
        options = [str(option) for option in self.params] if self.type == "discrete" else []
        return katcp_sensor.Sensor(number, self.name, self.description, self.units, options)

    def set(self, value: Any, status: Optional[str] = None, *, timestamp: float) -> None:
        """Set the reading; the sensor no longer changes by itself.

        Parameters
        ----------
        value : object
            The value, in the sensor's type. Bytes are sent as they are,
            whatever the type: so a value can be one that no client can read.
        status : str, optional
            The status. Default: what the ranges say of a number, else
            ``nominal``.
        timestamp : float
            When it was read, in seconds since 1970.

        Raises
        ------
        ValueError
            If the type cannot have this value, or there is no such status.
        """
        if status is not None and status not in STATUSES:
            raise ValueError(f"There is no sensor status {status!r}: use one of {STATUSES}.")
        checked = self._checked(value)
        self.source = None
        self._set(timestamp, status or self._judge(value), checked)

    def read(self, now: float) -> Reading:
        """Return the reading at the time *now*.

        Parameters
        ----------
        now : float
            Seconds since 1970.

        Returns
        -------
        Reading
        """
        if self.source is not None:
            value = self.source(now)
            self._set(now, self._judge(value), value)
        return as_reading(self.observed.read())

    def look(self, now: float) -> None:
        """Read a sensor with a *source*, unless that was done a moment ago.

        Parameters
        ----------
        now : float
            Seconds since 1970.
        """
        if now - self.observed.read().timestamp > self.interval / 2:
            self.read(now)

    def list_arguments(self, major: int) -> list[bytes]:
        """Return the arguments of this sensor's ``#sensor-list`` inform.

        Parameters
        ----------
        major : int
            The major version of the protocol.

        Returns
        -------
        list of bytes
        """
        # Version 4 has no addresses.
        shown = "string" if self.type == "address" and not _is_v5(major) else self.type
        texts = [self.name, self.description, self.units, shown]
        return [text.encode("utf-8") for text in texts] + self._format_params(major)

    def status_arguments(self, reading: Reading, major: int) -> list[bytes]:
        """Return the arguments of ``#sensor-value`` and ``#sensor-status``.

        Parameters
        ----------
        reading : Reading
            What to tell.
        major : int
            The major version of the protocol.

        Returns
        -------
        list of bytes
        """
        status = reading.status if _is_v5(major) else _V4_STATUSES.get(reading.status)
        return [
            arguments.write_timestamp(reading.timestamp, major),
            b"1",
            self.name.encode("ascii"),
            (status or reading.status).encode("ascii"),
            self.format_value(reading.value, major),
        ]

    def format_value(self, value: Any, major: int) -> bytes:
        """Return a value as it stands in an argument.

        Parameters
        ----------
        value : object
            The value; bytes are returned unchanged.
        major : int
            The major version of the protocol.

        Returns
        -------
        bytes

        Raises
        ------
        ValueError
            If the type of the sensor cannot have this value.
        """
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

    def _set(self, timestamp: float, status: str, value: Any) -> None:
        """Keep a reading, and tell who observes it."""
        self.observed.set(timestamp, katcp_sensor.Sensor.STATUS_NAMES[status], value)

    def _check(self) -> None:
        if not _NAME_RE.fullmatch(self.name):
            raise ValueError(f"{self.name!r} cannot be the name of a sensor.")
        if self.type not in TYPES:
            raise ValueError(f"There is no sensor type {self.type!r}: use one of {TYPES}.")
        if self.type == "discrete" and not self.params:
            raise ValueError(f"The discrete sensor {self.name!r} needs options as its params.")
        if self.type in _V4_RANGES and len(self.params) not in (0, 2, 4):
            raise ValueError(f"The ranges of sensor {self.name!r} must be 2 or 4 numbers.")

    def _checked(self, value: Any) -> Any:
        """Return the value, or raise ValueError if the type cannot have it."""
        try:
            self.format_value(value, SEC_TS_KATCP_MAJOR)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{value!r} is no value for the {self.type} sensor {self.name!r}: {error}"
            ) from error
        return value

    def _judge(self, value: Any) -> str:
        """Return the status that the ranges give to a value."""
        if self.type not in _V4_RANGES or not self.params or isinstance(value, bytes):
            return "nominal"
        ranges = zip(("nominal", "warn"), (self.params[:2], self.params[2:]))
        for status, limits in ranges:
            if limits and limits[0] <= value <= limits[1]:
                return status
        return "error"

    def _format_params(self, major: int) -> list[bytes]:
        params = self.params
        if self.type not in _V4_RANGES:
            params = params if self.type == "discrete" else ()
        elif not _is_v5(major):
            # Version 4 knows one range, and it is binding: the widest.
            params = params[-2:] or _V4_RANGES[self.type]
        return [self.format_value(param, major) for param in params]


def as_reading(reading: katcp_readings.Reading) -> Reading:
    """Return a reading of a `katcp.Sensor` as the simulated device has it."""
    timestamp, status, value = reading
    return Reading(timestamp, STATUSES[status], value)


def make_strategy(
    sensor: Sensor,
    strategy: Sequence[bytes],
    protocol: ProtocolFlags,
    report: Callable[[katcp_sensor.Sensor, katcp_readings.Reading], None],
) -> SampleStrategy:
    """Return the strategy that the arguments of ``?sensor-sampling`` describe.

    Parameters
    ----------
    sensor : Sensor
        The sensor to sample.
    strategy : sequence of bytes
        The name of the strategy and its parameters.
    protocol : ProtocolFlags
        What the connection speaks: times are seconds, or milliseconds.
    report : callable
        What is called with the `katcp.Sensor` and its reading.

    Returns
    -------
    SampleStrategy
        For the current loop; not started.

    Raises
    ------
    ValueError
        If they describe none; the text says why.
    """
    name, *params = strategy
    if not protocol.strategy_allowed(name):
        raise ValueError(f"Unknown sampling strategy {to_text(name)!r}.")
    if not _is_v5(protocol.major):
        # A difference comes first, and is a time for timestamps alone.
        first = 1 if name.startswith(b"differential") and sensor.type != "timestamp" else 0
        params[first:] = map(_to_seconds, params[first:])
    return SampleStrategy.get_strategy(name, report, sensor.observed, *params)


def _to_seconds(param: bytes) -> Any:
    """Return what milliseconds are in seconds; what is no time is for others to refuse."""
    try:
        return arguments.read_timestamp(param, milliseconds=True)
    except ValueError:
        return param


def default_sensors(now: float) -> list[Sensor]:
    """Return one example sensor of each type; two of them change by themselves.

    Parameters
    ----------
    now : float
        The present time, in seconds since 1970.

    Returns
    -------
    list of Sensor
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
    """Return the `katcp.Sensor` value of a word, or of whether all is well."""
    if isinstance(value, bool):
        return arguments.LRU_NOMINAL if value else arguments.LRU_ERROR
    return arguments.LRU_CONSTANTS.get(str(value).encode("utf-8"), value)


def _is_v5(major: int) -> bool:
    return major >= SEC_TS_KATCP_MAJOR


def to_text(data: bytes) -> str:
    """Return bytes as text for people; what is not UTF-8 is escaped."""
    return data.decode("utf-8", "backslashreplace")
