"""The sensors of the simulated device, and when a client hears of them.

Strategy
--------
A `Sensor` holds its last `Reading`, or makes one from the time when it has a
`source`. A `Strategy` belongs to one sensor and one client. It is asked
whenever something may have happened (`Strategy.poll`) and says whether this
reading is to be sent; `Strategy.deadline` says when to ask again at the
latest. All strategies of the protocol are the same three questions with
different answers: what is a change, how soon after the last report may one be
sent, and how late must one be sent even without a change.

Time is always passed in: wall-clock seconds for readings, seconds of any
monotonic clock for strategies. Values become bytes only here, with the rules
of protocol.md, sections 8, 9 and 12: seconds and all types for version 5,
milliseconds and no addresses for version 4.
"""

from __future__ import annotations

import math
import re
from typing import Any, Callable, NamedTuple, Optional, Sequence

from .._wire.flags import MS_TO_SEC_FAC, SEC_TO_MS_FAC, SEC_TS_KATCP_MAJOR, ProtocolFlags

STATUSES = ("unknown", "nominal", "warn", "error", "failure", "unreachable", "inactive")
TYPES = ("integer", "float", "boolean", "lru", "discrete", "string", "timestamp", "address")

# Version 4 has no such statuses, and demands a range of every number.
_V4_STATUSES = {"unreachable": "unknown", "inactive": "unknown"}
_V4_RANGES = {"integer": (-(2**31), 2**31 - 1), "float": (-1e300, 1e300)}
_NAME_RE = re.compile(r"[A-Za-z0-9._-]+")
# Stricter than Python's own readers, which take "1_000" and " 1".
_INTEGER_RE = re.compile(rb"[+-]?[0-9]+")
_FLOAT_RE = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


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
        self._reading = Reading(timestamp, "unknown", self._first_value())
        if value is not None:
            self._reading = Reading(timestamp, self._judge(value), self._checked(value))

    def __repr__(self) -> str:
        units = f" {self.units}" if self.units else ""
        return f"<Sensor {self.name} {self.type}{units}>"

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
        self._reading = Reading(timestamp, status or self._judge(value), checked)
        self.source = None

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
            self._reading = Reading(now, self._judge(value), value)
        return self._reading

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
            format_timestamp(reading.timestamp, major),
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
        if self.type == "timestamp":
            return format_timestamp(value, major)
        if self.type == "discrete" and str(value) not in map(str, self.params):
            raise ValueError(f"{value!r} is not one of the options of sensor {self.name!r}.")
        return _FORMATTERS[self.type](value).encode("utf-8")

    def _check(self) -> None:
        if not _NAME_RE.fullmatch(self.name):
            raise ValueError(f"{self.name!r} cannot be the name of a sensor.")
        if self.type not in TYPES:
            raise ValueError(f"There is no sensor type {self.type!r}: use one of {TYPES}.")
        if self.type == "discrete" and not self.params:
            raise ValueError(f"The discrete sensor {self.name!r} needs options as its params.")
        if self.type in _V4_RANGES and len(self.params) not in (0, 2, 4):
            raise ValueError(f"The ranges of sensor {self.name!r} must be 2 or 4 numbers.")

    def _first_value(self) -> Any:
        return self.params[0] if self.type == "discrete" else _FIRST_VALUES[self.type]

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


class Strategy:
    """When one client hears of one sensor.

    Parameters
    ----------
    changed : callable
        A function of the reading sent last and of the present one: whether
        the difference is worth a report.
    shortest : float, optional
        A change is reported this many seconds after the last report, or later.
    longest : float, optional
        This many seconds after the last report another is sent, change or not.

    Attributes
    ----------
    deadline : float
        When `poll` must be called again, if nothing happens before.
    """

    def __init__(
        self,
        changed: Callable[[Reading, Reading], bool],
        shortest: float = 0.0,
        longest: float = math.inf,
    ) -> None:
        self.deadline = math.inf
        self._changed = changed
        self._shortest = shortest
        self._longest = longest

    def start(self, now: float, reading: Reading) -> None:
        """Take *reading* as sent at the time *now*.

        Parameters
        ----------
        now : float
            Seconds of a monotonic clock.
        reading : Reading
            The reading.
        """
        self._sent = reading
        self._sent_at = now
        self.deadline = now + self._longest

    def poll(self, now: float, reading: Reading) -> bool:
        """Return whether *reading* is to be sent now; if so it counts as sent.

        Parameters
        ----------
        now : float
            Seconds of a monotonic clock.
        reading : Reading
            The present reading.

        Returns
        -------
        bool
        """
        wait = self._shortest if self._changed(self._sent, reading) else self._longest
        if now < self._sent_at + wait:
            self.deadline = self._sent_at + wait
            return False
        self.start(now, reading)
        return True


# The strategies and their parameters.
_STRATEGIES: dict[bytes, tuple[str, ...]] = {
    b"none": (),
    b"auto": (),
    b"period": ("period",),
    b"event": (),
    b"differential": ("difference",),
    b"event-rate": ("shortest", "longest"),
    b"differential-rate": ("difference", "shortest", "longest"),
}


def parse_strategy(
    sensor: Sensor, arguments: Sequence[bytes], protocol: ProtocolFlags
) -> Optional[Strategy]:
    """Return the strategy that the arguments of ``?sensor-sampling`` describe.

    Parameters
    ----------
    sensor : Sensor
        The sensor to sample.
    arguments : sequence of bytes
        The name of the strategy and its parameters.
    protocol : ProtocolFlags
        What the connection speaks: periods are seconds, or milliseconds.

    Returns
    -------
    Strategy or None
        None for the strategy ``none``.

    Raises
    ------
    ValueError
        If they describe none; the text says why.
    """
    name, *texts = arguments
    names = _STRATEGIES.get(name)
    if names is None or not protocol.strategy_allowed(name):
        raise ValueError(f"Unknown sampling strategy {to_text(name)!r}.")
    if len(texts) != len(names):
        raise ValueError(
            f"Sampling strategy {to_text(name)!r} takes {len(names)} parameters, not {len(texts)}."
        )
    values = {
        key: _parse_difference(sensor, text)
        if key == "difference"
        else _parse_period(text, protocol.major)
        for key, text in zip(names, texts)
    }
    return None if name == b"none" else _make_strategy(values)


def _make_strategy(values: dict[str, float]) -> Strategy:
    """Return the strategy with these parameters; "auto" and "event" have none."""
    if "period" in values:
        if values["period"] <= 0:
            raise ValueError("The period must be greater than 0.")
        return Strategy(_never, longest=values["period"])
    shortest, longest = values.get("shortest", 0.0), values.get("longest", math.inf)
    if shortest > longest or longest <= 0:
        raise ValueError("The longest period must be greater than 0 and than the shortest.")
    changed = _differs_by(values["difference"]) if "difference" in values else _differs
    return Strategy(changed, shortest, longest)


def _never(sent: Reading, present: Reading) -> bool:
    return False


def _differs(sent: Reading, present: Reading) -> bool:
    # Compared as tuples: a NaN is then equal to itself.
    return sent[1:] != present[1:]


def _differs_by(difference: float) -> Callable[[Reading, Reading], bool]:
    """Return the question whether a number changed by more, or its status at all."""

    def changed(sent: Reading, present: Reading) -> bool:
        if isinstance(sent.value, bytes) or isinstance(present.value, bytes):
            return _differs(sent, present)
        moved: bool = abs(present.value - sent.value) > difference
        return moved or sent.status != present.status

    return changed


def _parse_difference(sensor: Sensor, text: bytes) -> float:
    """Return a difference, which is written in the sensor's own type."""
    if sensor.type not in ("integer", "float"):
        raise ValueError(f"Sensor {sensor.name!r} is not a number: it has no differences.")
    difference = int(text) if _INTEGER_RE.fullmatch(text) else _parse_float(text)
    if difference < 0 or (sensor.type == "integer" and isinstance(difference, float)):
        raise ValueError(f"{to_text(text)!r} is no difference for a sensor of type {sensor.type}.")
    return difference


def _parse_period(text: bytes, major: int) -> float:
    """Return a period in seconds."""
    period = _parse_float(text) * (1.0 if _is_v5(major) else MS_TO_SEC_FAC)
    if period < 0:
        raise ValueError(f"A period cannot be negative: {to_text(text)!r}.")
    return period


def _parse_float(text: bytes) -> float:
    if not _FLOAT_RE.fullmatch(text):
        raise ValueError(f"{to_text(text)!r} is not a number.")
    return float(text)


def format_timestamp(timestamp: float, major: int) -> bytes:
    """Return a time as it stands in an argument.

    Parameters
    ----------
    timestamp : float
        Seconds since 1970.
    major : int
        The major version of the protocol: seconds for 5, milliseconds for 4.

    Returns
    -------
    bytes
    """
    if _is_v5(major):
        return b"%.6f" % timestamp
    return b"%.3f" % (timestamp * SEC_TO_MS_FAC)


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


def _format_integer(value: Any) -> str:
    if int(value) != value:
        raise ValueError("not an integer")
    return str(int(value))


def _format_lru(value: Any) -> str:
    if value not in ("nominal", "error", True, False):
        raise ValueError("use 'nominal' or 'error'")
    return value if isinstance(value, str) else ("nominal" if value else "error")


def _format_address(value: Any) -> str:
    """Return ``host:port`` of a text, which stays as it is, or of a pair."""
    if isinstance(value, str):
        return value
    host, port = value
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{int(port)}"


_FORMATTERS: dict[str, Callable[[Any], str]] = {
    "integer": _format_integer,
    "float": lambda value: repr(float(value)),
    "boolean": lambda value: "1" if value else "0",
    "lru": _format_lru,
    "discrete": str,
    "string": str,
    "address": _format_address,
}
_FIRST_VALUES: dict[str, Any] = {
    "integer": 0,
    "float": 0.0,
    "boolean": False,
    "lru": "nominal",
    "string": "",
    "timestamp": 0.0,
    "address": "0.0.0.0",
}


def _is_v5(major: int) -> bool:
    return major >= SEC_TS_KATCP_MAJOR


def to_text(data: bytes) -> str:
    """Return bytes as text for people; what is not UTF-8 is escaped."""
    return data.decode("utf-8", "backslashreplace")
