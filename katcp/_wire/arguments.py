"""Conversion between the bytes of one argument and its value.

This is the one place that knows the types of protocol.md, section 8. A reader takes the unescaped
bytes of an argument and is strict: Python's own parsers accept more (``1_000``, `` 1``, ``0x1p3``
...), so the form is checked as well. It raises ValueError with no particular text: the caller knows
which argument of which message it is. A writer takes values by value, including those of NumPy.
"""

from __future__ import annotations

import functools
import ipaddress
import numbers
import re
from math import isfinite
from typing import Any, Callable, Optional, Sequence, Tuple

from ..errors import KatcpTypeError
from .flags import SEC_TO_MS_FAC, SEC_TS_KATCP_MAJOR
from .text import bracketed

# A host, and a port or None.
Address = Tuple[str, Optional[int]]

LRU_NOMINAL, LRU_ERROR = 0, 1
LRU_VALUES = {LRU_NOMINAL: b"nominal", LRU_ERROR: b"error"}
LRU_CONSTANTS = {text: value for value, text in LRU_VALUES.items()}

# The year 5138 in seconds, 1973 in milliseconds: a Unix time from here on can only be in
# milliseconds.
FIRST_MILLISECONDS = 1e11

_ADDRESS_RE = re.compile(rb"(?:\[(?P<v6>[^\[\]]*)\]|(?P<v4>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?")
_MAX_PORT = 65535

# What Python's int() and float() accept beyond the protocol: white space around a number, and
# underscores in it. Searching for these is twice as fast as matching the whole form.
_has_more_than_a_number = re.compile(rb"[\s_]").search

Reader = Callable[[bytes], Any]


# ---- reading ----


def read_text(data: bytes) -> str:
    return data.decode("utf-8")


def read_string(data: bytes) -> str:
    """Return text; bytes that are not UTF-8 become lone surrogates, as in `write_string`."""
    return data.decode("utf-8", "surrogateescape")


def read_int(data: bytes) -> int:
    if _has_more_than_a_number(data):
        raise ValueError
    return int(data)


def read_float(data: bytes) -> float:
    """Return a number, possibly ``inf`` or ``nan``."""
    if _has_more_than_a_number(data):
        raise ValueError
    return float(data)


def read_bool(data: bytes) -> bool:
    """Return the boolean for ``1`` or ``0``."""
    if data == b"1":
        return True
    if data == b"0":
        return False
    raise ValueError


def read_lru(data: bytes) -> int:
    if data not in LRU_CONSTANTS:
        raise ValueError
    return LRU_CONSTANTS[data]


def read_seconds(data: bytes) -> float:
    """Return a finite number: a Unix time in version 5."""
    # Repeats read_float(): this is called for each update of each sensor.
    if _has_more_than_a_number(data):
        raise ValueError
    number = float(data)
    if not isfinite(number):
        raise ValueError
    return number


def read_timestamp(data: bytes, milliseconds: Optional[bool] = None) -> float:
    """Return a Unix time in seconds; if *milliseconds* is None, guess the unit."""
    # Repeats read_seconds() to save a call.
    if _has_more_than_a_number(data):
        raise ValueError
    number = float(data)
    if not isfinite(number):
        raise ValueError
    if milliseconds is None:
        milliseconds = number >= FIRST_MILLISECONDS
    return number / SEC_TO_MS_FAC if milliseconds else number


def read_address(data: bytes) -> Address:
    """Return host and port of ``a.b.c.d[:port]`` or ``[ipv6][:port]``, the host unchanged."""
    match = _ADDRESS_RE.fullmatch(data)
    if match is None:
        raise ValueError
    v6, v4, port = match.groups()
    host = (v4 if v6 is None else v6).decode("ascii")
    if v6 is None:
        ipaddress.IPv4Address(host)
    else:
        ipaddress.IPv6Address(host)
    if port is not None and int(port) > _MAX_PORT:
        raise ValueError
    return host, None if port is None else int(port)


_READERS: dict[str, Reader] = {
    "integer": read_int,
    "float": read_float,
    "boolean": read_bool,
    "lru": read_lru,
    "string": read_string,
    "address": read_address,
}


def decoder(sensor_type: str, params: Sequence[bytes] = (), major: int = 5) -> Reader:
    """Return the function that reads the values of one sensor.

    Parameters
    ----------
    sensor_type : str
        The type, as in ``#sensor-list``.
    params : sequence of bytes, optional
        The options of a discrete sensor.
    major : int, optional
        The major version of the protocol: timestamps are in seconds, or in milliseconds before
        version 5.

    Returns
    -------
    callable
        A function of the bytes of a value. It returns what `katcp.Sensor.value` returns, and raises
        ValueError if it cannot read them.

    Raises
    ------
    ValueError
        If there is no such type.
    """
    if sensor_type == "timestamp":
        if major >= SEC_TS_KATCP_MAJOR:
            return read_seconds
        return functools.partial(read_timestamp, milliseconds=True)
    if sensor_type == "discrete":
        return functools.partial(_read_option, {option: read_string(option) for option in params})
    if sensor_type not in _READERS:
        raise ValueError(f"There is no sensor type {sensor_type!r}.")
    return _READERS[sensor_type]


def _read_option(options: dict[bytes, str], data: bytes) -> str:
    if data not in options:
        raise ValueError
    return options[data]


# ---- writing ----


def write_string(value: Any) -> bytes:
    """Return bytes unchanged, and anything else as text in UTF-8."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    # The text of a str is itself, whatever its class (an Enum, say) prints.
    text = value if isinstance(value, str) else str(array_item(value))
    return text.encode("utf-8", "surrogateescape")


def write_int(value: Any) -> bytes:
    """Return a number truncated to an integer."""
    return b"%d" % (value,)


def write_float(value: Any) -> bytes:
    """Return the shortest text that reads back as the same value."""
    # The usual type first: looking others up in numbers.Real takes long.
    if not isinstance(value, float):
        value = array_item(value)
        if not isinstance(value, numbers.Real):
            raise ValueError("not a number")
    return repr(float(value)).encode("ascii")


def write_number(number: Any) -> bytes:
    """Return a number of any kind, like `write_int` or `write_float`."""
    if isinstance(number, float):
        return write_float(number)
    if isinstance(number, (int, numbers.Integral)):
        return b"%d" % int(number)
    if isinstance(number, numbers.Real):
        return write_float(number)
    if isinstance(number, numbers.Complex):
        return repr(complex(number)).strip("()").encode("ascii")
    return str(number).encode("ascii")  # a Decimal


def array_item(value: Any) -> Any:
    """Return the value in a NumPy scalar or one-element array, and anything else unchanged."""
    if not (hasattr(value, "shape") and hasattr(value, "item")):
        return value
    if value.shape != ():
        raise KatcpTypeError(
            f"An array of shape {value.shape} is not one argument: pass its values with "
            "*array, or its memory with array.tobytes()."
        )
    return value.item()


def write_bool(value: Any) -> bytes:
    """Return ``1`` if *value* is true, else ``0``."""
    return b"1" if value else b"0"


def write_lru(value: Any) -> bytes:
    if value not in LRU_VALUES:
        raise ValueError
    return LRU_VALUES[value]


def write_timestamp(seconds: Any, major: int) -> bytes:
    """Return a Unix time, six decimals; before version 5 in milliseconds, at most three."""
    number = float(seconds)
    if not isfinite(number):
        raise ValueError(f"{number!r} is not a time")
    if major >= SEC_TS_KATCP_MAJOR:
        return b"%.6f" % number
    # 0.0 is added because a rounded number may be -0.0.
    milliseconds = round(number * SEC_TO_MS_FAC, 3) + 0.0
    return (b"%.3f" % milliseconds).rstrip(b"0").rstrip(b".")


def write_address(value: Any) -> bytes:
    """Return ``host[:port]`` or ``[ipv6][:port]``; the port may be None."""
    host, port = value
    data = bracketed(host).encode("ascii")
    return data if port is None else b"%b:%d" % (data, port)
