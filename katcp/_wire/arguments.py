"""How the bytes of one argument are read as a value, and a value written as bytes.

This is the one place that knows the types of protocol.md, section 8. A reader
takes the bytes of an argument, unescaped, and is strict: Python's own parsers
take more (``1_000``, `` 1``, ``0x1p3`` ...), so the form is looked at, too. It
raises ValueError without promising a text: who calls it knows of which argument
of which message. A writer takes values by value, those of NumPy too.
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

# A host, and a port or None.
Address = Tuple[str, Optional[int]]

LRU_NOMINAL, LRU_ERROR = 0, 1
LRU_VALUES = {LRU_NOMINAL: b"nominal", LRU_ERROR: b"error"}
LRU_CONSTANTS = {text: value for value, text in LRU_VALUES.items()}

# In seconds the year 5138, in milliseconds 1973: a Unix time from here on can
# only be milliseconds.
FIRST_MILLISECONDS = 1e11

_ADDRESS_RE = re.compile(rb"(?:\[(?P<v6>[^\[\]]*)\]|(?P<v4>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?")
_MAX_PORT = 65535

# What Python's int() and float() take of bytes beyond the protocol: white space
# around a number, and underscores in it. To look for these is twice as fast as to
# match the whole form.
_has_more_than_a_number = re.compile(rb"[\s_]").search

Reader = Callable[[bytes], Any]


# ---- reading ----


def read_text(data: bytes) -> str:
    """Return text in UTF-8."""
    return data.decode("utf-8")


def read_string(data: bytes) -> str:
    """Return text; bytes that are not UTF-8 become lone surrogates, which are written back."""
    return data.decode("utf-8", "surrogateescape")


def read_int(data: bytes) -> int:
    """Return an integer of any size."""
    if _has_more_than_a_number(data):
        raise ValueError
    return int(data)


def read_float(data: bytes) -> float:
    """Return a number, ``inf`` and ``nan`` included."""
    if _has_more_than_a_number(data):
        raise ValueError
    return float(data)


def read_bool(data: bytes) -> bool:
    """Return what ``1`` or ``0`` stands for."""
    if data == b"1":
        return True
    if data == b"0":
        return False
    raise ValueError


def read_lru(data: bytes) -> int:
    """Return `LRU_NOMINAL` or `LRU_ERROR`."""
    if data not in LRU_CONSTANTS:
        raise ValueError
    return LRU_CONSTANTS[data]


def read_seconds(data: bytes) -> float:
    """Return a number that is finite: a Unix time as version 5 has it."""
    # As read_float() does it; this is called for each update of each sensor.
    if _has_more_than_a_number(data):
        raise ValueError
    number = float(data)
    if not isfinite(number):
        raise ValueError
    return number


def read_timestamp(data: bytes, milliseconds: Optional[bool] = None) -> float:
    """Return a Unix time in seconds; None: milliseconds if it can be nothing else."""
    # As read_seconds() does it, without another call.
    if _has_more_than_a_number(data):
        raise ValueError
    number = float(data)
    if not isfinite(number):
        raise ValueError
    if milliseconds is None:
        milliseconds = number >= FIRST_MILLISECONDS
    return number / SEC_TO_MS_FAC if milliseconds else number


def read_address(data: bytes) -> Address:
    """Return host and port of ``a.b.c.d[:port]`` or ``[ipv6][:port]``, the host as it stands."""
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
        The type, as ``#sensor-list`` tells it.
    params : sequence of bytes, optional
        The options of a discrete sensor.
    major : int, optional
        The major version of the protocol: timestamps are seconds, or
        milliseconds before version 5.

    Returns
    -------
    callable
        A function of the bytes of a value. It returns what `katcp.Sensor.value`
        does, and raises ValueError, with any text, if it cannot be read.

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
    """Return bytes as they are, and anything else as its text in UTF-8."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    # The text of a str is itself, whatever its class (an Enum, say) shows.
    text = value if isinstance(value, str) else str(array_item(value))
    return text.encode("utf-8", "surrogateescape")


def write_int(value: Any) -> bytes:
    """Return a number in minimal digits, its fraction cut off."""
    return b"%d" % (value,)


def write_float(value: Any) -> bytes:
    """Return a number as the shortest text that reads back as the same value."""
    # The usual type first: to look others up in numbers.Real takes long.
    if not isinstance(value, float):
        value = array_item(value)
        if not isinstance(value, numbers.Real):
            raise ValueError("not a number")
    return repr(float(value)).encode("ascii")


def write_number(number: Any) -> bytes:
    """Return a number of any kind by value, as `write_int` or `write_float` do."""
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
    """Return what a NumPy scalar or an array of one value holds, and anything else as it is."""
    if not (hasattr(value, "shape") and hasattr(value, "item")):
        return value
    if value.shape != ():
        raise KatcpTypeError(
            f"An array of shape {value.shape} is not one argument: pass its values with "
            "*array, or its memory with array.tobytes()."
        )
    return value.item()


def write_bool(value: Any) -> bytes:
    """Return ``1`` or ``0`` for what is true or false."""
    return b"1" if value else b"0"


def write_lru(value: Any) -> bytes:
    """Return ``nominal`` or ``error`` for `LRU_NOMINAL` or `LRU_ERROR`."""
    if value not in LRU_VALUES:
        raise ValueError
    return LRU_VALUES[value]


def write_timestamp(seconds: Any, major: int) -> bytes:
    """Return a Unix time: six decimals, or milliseconds with three at most before version 5."""
    number = float(seconds)
    if not isfinite(number):
        raise ValueError(f"{number!r} is not a time")
    if major >= SEC_TS_KATCP_MAJOR:
        return b"%.6f" % number
    # 0.0 is added because a rounded number may be -0.0.
    milliseconds = round(number * SEC_TO_MS_FAC, 3) + 0.0
    return (b"%.3f" % milliseconds).rstrip(b"0").rstrip(b".")


def write_address(value: Any) -> bytes:
    """Return ``host[:port]`` or ``[ipv6][:port]`` for a host and a port or None."""
    host, port = value
    data: bytes = (f"[{host}]" if ":" in host else host).encode("ascii")
    return data if port is None else b"%b:%d" % (data, port)
