"""A sensor: a value, its status, and the time at which it was read."""

from __future__ import annotations

import time
from typing import Any, Callable, ClassVar, Optional, Protocol, Sequence

from ._state.readings import Reading
from ._wire import arguments
from ._wire.flags import DEFAULT_KATCP_MAJOR
from .compat import ensure_native_str
from .errors import KatcpSyntaxError, KatcpTypeError
from .kattypes import Address
from .kattypes._types import Bool, Discrete, Float, Int, KatcpType, Lru, Str, Timestamp

# In the class `Sensor`, "float" is a constructor.
Seconds = float


def _maker(name: str, type_name: str, what: str) -> classmethod[Sensor, ..., Sensor]:
    """Return a method that creates sensors of a type."""

    def make(
        cls: type[Sensor],
        name: Any,
        description: Any = None,
        unit: Any = "",
        params: Optional[Sequence[Any]] = None,
        default: Any = None,
        initial_status: Optional[int] = None,
    ) -> Sensor:
        sensor_type = getattr(cls, type_name)
        return cls(sensor_type, name, description, unit, params, default, initial_status)

    return _as_classmethod(make, name, what)


def _maker_without_params(name: str, type_name: str, what: str) -> classmethod[Sensor, ..., Sensor]:
    """Return a method that creates sensors of a type without params."""

    def make(
        cls: type[Sensor],
        name: Any,
        description: Any = None,
        unit: Any = "",
        default: Any = None,
        initial_status: Optional[int] = None,
    ) -> Sensor:
        sensor_type = getattr(cls, type_name)
        return cls(sensor_type, name, description, unit, None, default, initial_status)

    return _as_classmethod(make, name, what)


def _as_classmethod(
    make: Callable[..., Sensor], name: str, what: str
) -> classmethod[Sensor, ..., Sensor]:
    make.__name__ = name
    make.__qualname__ = f"Sensor.{name}"
    make.__doc__ = f"Return {what}, a `katcp.Sensor`; parameters as for the class."
    return classmethod(make)


class SensorObserver(Protocol):
    """An observer for `Sensor.attach`."""

    def update(self, sensor: Any, reading: Reading) -> Any:
        """Handle a new reading."""


class Sensor:
    """A sensor: its last reading, and the observers of the next ones.

    Parameters
    ----------
    sensor_type : int or type
        One of the types below, or `int`, `float`, `bool` or `str`.
    name : str or bytes
        The name.
    description : str or bytes, optional
        Default: composed of type, name and units.
    units : str or bytes, optional
        Default: none.
    params : sequence, optional
        Discrete sensors: the options, at least one. Integer and float sensors:
        nominal-min and nominal-max, or these and warn-min and warn-max. They are
        information only: values outside are not refused.
    default : object, optional
        The first value. Default: 0, 0.0, False, `LRU_NOMINAL`, the first option, ``""``, 0.0 or
        ``("0.0.0.0", None)``; the minimum of a range that does not contain 0.
    initial_status : int, optional
        The first status. Default: `UNKNOWN`.

    Raises
    ------
    KeyError
        If there is no such type.
    IndexError
        If a discrete sensor has no options.

    Attributes
    ----------
    name, description, units : str
        As given, or the default.
    type, stype : str
        The name of the type, as in ``#sensor-list``.
    params : sequence
        As given; text for a discrete sensor.
    formatted_params : list of bytes
        The same, as in ``#sensor-list``.

    Notes
    -----
    A sensor needs no loop. It may be read, set and observed in any thread; its observers are called
    in the thread that sets it.

    Examples
    --------
    >>> sensor = Sensor.float("wind.speed", "Speed of the wind", "m/s")
    >>> sensor.set_value(3.5, Sensor.WARN, timestamp=1234567890)
    >>> sensor.read()
    Reading(timestamp=1234567890, status=2, value=3.5)
    >>> sensor.read_formatted()
    (b'1234567890.000000', b'warn', b'3.5')
    """

    # Types.
    INTEGER: ClassVar[int] = 0
    FLOAT: ClassVar[int] = 1
    BOOLEAN: ClassVar[int] = 2
    LRU: ClassVar[int] = 3
    DISCRETE: ClassVar[int] = 4
    STRING: ClassVar[int] = 5
    TIMESTAMP: ClassVar[int] = 6
    ADDRESS: ClassVar[int] = 7

    # From type to the class of its values, and their default.
    SENSOR_TYPES: ClassVar[dict[int, tuple[type[KatcpType], Any]]] = {
        INTEGER: (Int, 0),
        FLOAT: (Float, 0.0),
        BOOLEAN: (Bool, False),
        LRU: (Lru, arguments.LRU_NOMINAL),
        DISCRETE: (Discrete, "unknown"),
        STRING: (Str, ""),
        TIMESTAMP: (Timestamp, 0.0),
        ADDRESS: (Address, Address.NULL),
    }
    SENSOR_TYPE_LOOKUP: ClassVar[dict[str, int]] = {
        kattype.name: sensor_type for sensor_type, (kattype, _) in SENSOR_TYPES.items()
    }
    SENSOR_SHORTCUTS: ClassVar[dict[type, int]] = {
        int: INTEGER,
        float: FLOAT,
        str: STRING,
        bool: BOOLEAN,
    }
    TIMESTAMP_TYPE: ClassVar[Timestamp] = Timestamp()

    # Statuses.
    UNKNOWN: ClassVar[int] = 0
    NOMINAL: ClassVar[int] = 1
    WARN: ClassVar[int] = 2
    ERROR: ClassVar[int] = 3
    FAILURE: ClassVar[int] = 4
    UNREACHABLE: ClassVar[int] = 5
    INACTIVE: ClassVar[int] = 6

    STATUSES: ClassVar[dict[int, str]] = {
        UNKNOWN: "unknown",
        NOMINAL: "nominal",
        WARN: "warn",
        ERROR: "error",
        FAILURE: "failure",
        UNREACHABLE: "unreachable",
        INACTIVE: "inactive",
    }
    STATUS_NAMES: ClassVar[dict[str, int]] = {name: status for status, name in STATUSES.items()}
    STATUSES_RAW: ClassVar[dict[int, bytes]] = {
        status: name.encode("ascii") for status, name in STATUSES.items()
    }
    STATUS_NAMES_RAW: ClassVar[dict[bytes, int]] = {
        name: status for status, name in STATUSES_RAW.items()
    }

    # Values of lru sensors.
    LRU_NOMINAL: ClassVar[int] = arguments.LRU_NOMINAL
    LRU_ERROR: ClassVar[int] = arguments.LRU_ERROR
    LRU_VALUES: ClassVar[dict[int, bytes]] = arguments.LRU_VALUES
    LRU_CONSTANTS: ClassVar[dict[bytes, int]] = arguments.LRU_CONSTANTS

    def __init__(
        self,
        sensor_type: Any,
        name: Any,
        description: Any = None,
        units: Any = None,
        params: Optional[Sequence[Any]] = None,
        default: Any = None,
        initial_status: Optional[int] = None,
    ) -> None:
        self._sensor_type: int = self.SENSOR_SHORTCUTS.get(sensor_type, sensor_type)
        kattype_class, zero = self.SENSOR_TYPES[self._sensor_type]
        self.type = self.stype = kattype_class.name
        self.name = ensure_native_str(name)
        self.units = "" if units is None else ensure_native_str(units)
        self.params: Sequence[Any] = [] if params is None else params
        if self._sensor_type == self.DISCRETE:
            self.params = [ensure_native_str(option) for option in self.params]
            self._kattype: KatcpType = Discrete(self.params)
        else:
            self._kattype = kattype_class()
        if description is None:
            unit = f"in unit {self.units}" if self.units else "with no unit"
            description = f"{self.type.capitalize()} sensor {self.name!r} {unit}"
        self.description = ensure_native_str(description)
        self._reading = Reading(
            time.time(),
            self.UNKNOWN if initial_status is None else initial_status,
            self._first_value(zero) if default is None else default,
        )
        self.formatted_params = [self._kattype.pack(param) for param in self.params]
        # Observers in the order they came: the keys of a dict. It is changed and copied in single
        # steps, which are atomic for threads.
        self._observers: dict[SensorObserver, None] = {}

    def _first_value(self, zero: Any) -> Any:
        if self._sensor_type == self.DISCRETE:
            return self.params[0]
        if self._sensor_type in (self.INTEGER, self.FLOAT) and len(self.params) == 2:
            least, greatest = self.params
            return zero if least <= zero <= greatest else least
        return zero

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of type {self.type!r}: {self.read()}>"

    # ---- observers ----

    def attach(self, observer: SensorObserver) -> None:
        """Notify *observer* of all readings from now on; attaching twice has no effect.

        Parameters
        ----------
        observer : object
            Its method ``update(sensor, reading)`` is called in the thread that sets the sensor,
            after each setting, even if the reading is the same as before.
        """
        self._observers[observer] = None

    def detach(self, observer: SensorObserver) -> None:
        """Stop notifying *observer*; do nothing if it is not attached.

        Parameters
        ----------
        observer : object
            The observer.
        """
        self._observers.pop(observer, None)

    def notify(self, reading: Reading) -> None:
        """Notify all observers of a reading.

        Parameters
        ----------
        reading : katcp.Reading
            The reading. The sensor's own is not changed.
        """
        if self._observers:
            # They may attach and detach others.
            for observer in tuple(self._observers):
                observer.update(self, reading)

    # ---- reading ----

    def read(self) -> Reading:
        """Return the last reading.

        Returns
        -------
        katcp.Reading
        """
        return self._reading

    def value(self) -> Any:
        """Return the value of the last reading.

        Returns
        -------
        object
        """
        return self.read().value

    def status(self) -> int:
        """Return the status of the last reading.

        Returns
        -------
        int
        """
        return self.read().status

    def read_formatted(self, major: int = DEFAULT_KATCP_MAJOR) -> tuple[bytes, bytes, bytes]:
        """Return the last reading as arguments of a message.

        Parameters
        ----------
        major : int, optional
            The major version of the protocol.

        Returns
        -------
        tuple of bytes
            Timestamp, status and value.
        """
        return self.format_reading(self.read(), major)

    def format_reading(
        self, reading: Sequence[Any], major: int = DEFAULT_KATCP_MAJOR
    ) -> tuple[bytes, bytes, bytes]:
        """Return a reading as arguments of a message.

        Parameters
        ----------
        reading : katcp.Reading
            The reading.
        major : int, optional
            The major version of the protocol: before 5, times are in
            milliseconds.

        Returns
        -------
        tuple of bytes
            Timestamp, status and value.

        Raises
        ------
        KeyError
            If there is no such status.
        ValueError, TypeError
            If the type cannot have this value.
        """
        timestamp, status, value = reading
        return (
            self.TIMESTAMP_TYPE.pack(timestamp, major=major),
            self.STATUSES_RAW[status],
            # A value that is none of the options is formatted all the same.
            self._kattype.pack(value, nocheck=True, major=major),
        )

    # ---- setting ----

    def set(self, timestamp: Seconds, status: int, value: Any) -> None:
        """Set the reading, unchecked, and notify the observers.

        Parameters
        ----------
        timestamp : float
            When the sensor was read, in seconds since 1970.
        status : int
            The status.
        value : object
            The value, in the sensor's own type.
        """
        reading = self._reading = Reading(timestamp, status, value)
        self.notify(reading)

    def set_value(
        self,
        value: Any,
        status: int = NOMINAL,
        timestamp: Optional[Seconds] = None,
        major: int = DEFAULT_KATCP_MAJOR,
    ) -> None:
        """Set the value, and notify the observers.

        Parameters
        ----------
        value : object
            The value, in the sensor's own type.
        status : int, optional
            The status.
        timestamp : float, optional
            When the sensor was read, in seconds since 1970. Default: now.
        major : int, optional
            Not used; values are the same in all versions of the protocol.

        Raises
        ------
        ValueError
            If the value is not one of the options of a discrete sensor.
        """
        self._kattype.check(value, major)
        self.set(time.time() if timestamp is None else timestamp, status, value)

    def set_formatted(
        self,
        raw_timestamp: bytes,
        raw_status: bytes,
        raw_value: bytes,
        major: int = DEFAULT_KATCP_MAJOR,
    ) -> None:
        """Set the reading from the arguments of ``#sensor-status``.

        A status without a usable value is accepted with any value: if that cannot be read, the
        sensor's value does not change.

        Parameters
        ----------
        raw_timestamp : bytes
            The timestamp.
        raw_status : bytes
            The status.
        raw_value : bytes
            The value.
        major : int, optional
            The major version of the protocol: before 5, times are in
            milliseconds.

        Raises
        ------
        KeyError
            If there is no such status.
        ValueError
            If the timestamp or the value cannot be read. The sensor is not
            changed.
        KatcpTypeError
            If the value is not bytes.
        """
        timestamp = self.TIMESTAMP_TYPE.unpack(raw_timestamp, major)
        status = self.STATUS_NAMES_RAW[raw_status]
        try:
            value = self.parse_value(raw_value, major)
        except ValueError:
            if status in (self.NOMINAL, self.WARN, self.ERROR):
                raise
            value = self.value()
        self.set(timestamp, status, value)

    def parse_value(self, s_value: bytes, katcp_major: int = DEFAULT_KATCP_MAJOR) -> Any:
        """Parse a value.

        Parameters
        ----------
        s_value : bytes
            The value as an argument of a message.
        katcp_major : int, optional
            The major version of the protocol: before 5, times are in
            milliseconds.

        Returns
        -------
        object

        Raises
        ------
        ValueError
            If it cannot be read.
        KatcpTypeError
            If it is not bytes.
        """
        if not isinstance(s_value, bytes):
            raise KatcpTypeError(f"Sensor value type must be bytes - not {type(s_value)}")
        return self._kattype.unpack(s_value, katcp_major)

    # ---- parsing of #sensor-list ----

    @classmethod
    def parse_type(cls, type_string: str) -> int:
        """Return the type with a name.

        Parameters
        ----------
        type_string : str
            A name, for example ``"float"``.

        Returns
        -------
        int

        Raises
        ------
        KatcpSyntaxError
            If there is no such type.
        """
        if type_string not in cls.SENSOR_TYPE_LOOKUP:
            raise KatcpSyntaxError(f"Invalid sensor type string {type_string}")
        return cls.SENSOR_TYPE_LOOKUP[type_string]

    @classmethod
    def parse_params(
        cls,
        sensor_type: int,
        formatted_params: Sequence[bytes],
        major: int = DEFAULT_KATCP_MAJOR,
    ) -> list[Any]:
        """Parse the params of a sensor, for its constructor.

        Parameters
        ----------
        sensor_type : int
            The type.
        formatted_params : sequence of bytes
            The params as arguments of a message.
        major : int, optional
            The major version of the protocol.

        Returns
        -------
        list

        Raises
        ------
        KeyError
            If there is no such type.
        ValueError
            If one cannot be read.
        """
        kattype_class, _ = cls.SENSOR_TYPES[sensor_type]
        # Any text may be an option.
        kattype = Str() if sensor_type == cls.DISCRETE else kattype_class()
        return [kattype.unpack(param, major) for param in formatted_params]

    # ---- constructors by type ----

    integer = _maker("integer", "INTEGER", "an integer sensor")
    float = _maker("float", "FLOAT", "a float sensor")
    boolean = _maker_without_params("boolean", "BOOLEAN", "a boolean sensor")
    lru = _maker_without_params("lru", "LRU", "a sensor of a line-replaceable unit")
    discrete = _maker("discrete", "DISCRETE", "a discrete sensor")
    string = _maker_without_params("string", "STRING", "a string sensor")
    timestamp = _maker_without_params("timestamp", "TIMESTAMP", "a timestamp sensor")
    address = _maker_without_params("address", "ADDRESS", "an address sensor")
