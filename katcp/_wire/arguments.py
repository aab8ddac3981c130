"""How the bytes of one argument are read as a value.

protocol.md, section 8, says what each type looks like. Python's own parsers
take more (``1_000``, `` 1``, ``0x1p3`` ...), so the form is looked at first. A
function here returns the value, or raises ValueError without more words: who
calls it knows of which argument of which message.
"""

from __future__ import annotations

import math
import re
from typing import Optional

_INTEGER_RE = re.compile(rb"[+-]?[0-9]+")
_DECIMAL_RE = re.compile(rb"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NOT_FINITE_RE = re.compile(rb"[+-]?(inf|infinity|nan)", re.IGNORECASE)
_BOOLEANS = {b"1": True, b"0": False}

# In seconds the year 5138, in milliseconds 1973: a Unix time from here on can
# only be milliseconds.
FIRST_MILLISECONDS = 1e11


def read_text(data: bytes) -> str:
    """Return text in UTF-8."""
    return data.decode("utf-8")


def read_int(data: bytes) -> int:
    """Return an integer of any size."""
    if not _INTEGER_RE.fullmatch(data):
        raise ValueError
    return int(data)


def read_float(data: bytes) -> float:
    """Return a number, ``inf`` and ``nan`` included."""
    if not (_DECIMAL_RE.fullmatch(data) or _NOT_FINITE_RE.fullmatch(data)):
        raise ValueError
    return float(data)


def read_bool(data: bytes) -> bool:
    """Return what ``1`` or ``0`` stands for."""
    if data not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[data]


def read_timestamp(data: bytes, milliseconds: Optional[bool] = None) -> float:
    """Return a Unix time in seconds; None: milliseconds if it can be nothing else."""
    number = read_float(data)
    if not math.isfinite(number):
        raise ValueError
    if milliseconds is None:
        milliseconds = number >= FIRST_MILLISECONDS
    return number / 1000 if milliseconds else number
