"""Types based on those of the protocol, and a binary one."""

from __future__ import annotations

import math
import re
import struct
from typing import Any, ClassVar, Iterable, Optional, Union

from .._wire import arguments
from ._types import Discrete, KatcpType, Str, Timestamp, shown


class DiscreteMulti(Discrete):
    """Several of the options in one argument: a sorted list of `str`.

    Parameters
    ----------
    values : iterable of str
        The options.
    all_keyword : str or None, optional
        The word for all options, when unpacking.
    separator : str, optional
        The separator of the texts in the argument.
    **kwargs
        As for `Discrete`.
    """

    name = "discretemulti"

    def __init__(
        self,
        values: Iterable[str],
        all_keyword: Optional[str] = "all",
        separator: str = ",",
        **kwargs: Any,
    ) -> None:
        super().__init__(values, **kwargs)
        self.all_keyword = all_keyword
        self.separator = separator

    def encode(self, value: Iterable[str], major: int) -> bytes:
        return super().encode(self.separator.join(sorted(value, key=str.lower)), major)

    def decode(self, value: bytes, major: int) -> list[str]:
        text: str = super().decode(value, major)
        if text == self.all_keyword:
            return sorted(self._values, key=str.lower)
        return sorted((part.strip() for part in text.split(self.separator)), key=str.lower)

    def check(self, value: Iterable[Any], major: int) -> None:
        for part in value:
            super().check(part, major)


class TimestampOrNow(Timestamp):
    """A time as in `Timestamp`, or the word ``now``.

    Attributes
    ----------
    NOW : object
        The value for this word: compare with ``is``.
    """

    name = "timestamp_or_now"

    NOW: ClassVar[object] = object()

    def encode(self, value: Any, major: int) -> bytes:
        return b"now" if value is self.NOW else super().encode(value, major)

    def decode(self, value: bytes, major: int) -> Any:
        return self.NOW if value == b"now" else super().decode(value, major)


_STRICT_TIMESTAMP_RE = re.compile(rb"[+-]?[0-9]+(\.[0-9]+)?")


class StrictTimestamp(KatcpType):
    """A non-negative time in digits only: `float`.

    The program chooses the unit: it is the same in all versions of the protocol.
    """

    name = "strict_timestamp"

    def encode(self, value: Any, major: int) -> bytes:
        if isinstance(value, int):
            return arguments.write_int(value)
        try:
            text = arguments.write_float(value)
        except ValueError:
            text = b"nan"
        if not math.isfinite(float(text)):
            raise ValueError(f"Could not encode value '{value!r}' as strict timestamp.")
        # Python formats very large and very small numbers with an exponent.
        return b"%.6f" % float(text) if b"e" in text else text

    def decode(self, value: bytes, major: int) -> float:
        if not (isinstance(value, bytes) and _STRICT_TIMESTAMP_RE.fullmatch(value)):
            raise ValueError(f"Could not parse value '{shown(value)}' as strict timestamp.")
        return float(value)

    def check(self, value: Any, major: int) -> None:
        if float(value) < 0:
            raise ValueError("Strict timestamps may not be negative.")


class Struct(KatcpType):
    """Values in binary form: a tuple.

    Parameters
    ----------
    fmt : str
        The format of the module ``struct``.
    **kwargs
        As for `KatcpType`.
    """

    name = "struct"

    def __init__(self, fmt: Union[str, bytes], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._fmt = fmt

    def encode(self, value: Iterable[Any], major: int) -> bytes:
        try:
            return struct.pack(self._fmt, *value)
        except struct.error as error:
            raise ValueError(
                f"Could not pack {shown(value)} into struct with format {shown(self._fmt)}: {error}"
            ) from None

    def decode(self, value: bytes, major: int) -> tuple[Any, ...]:
        try:
            return struct.unpack(self._fmt, value)
        except struct.error as error:
            raise ValueError(
                f"Could not unpack {value!r} from struct with format {shown(self._fmt)}: {error}"
            ) from None


class Regex(Str):
    """Text that matches a regular expression at its beginning.

    Parameters
    ----------
    regex : str or compiled expression
        The expression.
    **kwargs
        As for `KatcpType`.
    """

    name = "regex"

    def __init__(self, regex: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._compiled: re.Pattern[Any] = re.compile(regex)
        self._pattern = self._compiled.pattern
        self._flags = ",".join(
            letter for letter in "ILMSUX" if self._compiled.flags & getattr(re, letter)
        )

    def check(self, value: Any, major: int) -> None:
        if not self._compiled.match(value):
            raise ValueError(
                f"Value '{shown(value)}' does not match regex '{shown(self._pattern)}' "
                f"with flags '{self._flags}'."
            )
