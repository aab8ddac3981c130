"""The types of the protocol, which `pack` and `unpack` one value.

The conversion is in `katcp._wire.arguments`; the types add what belongs to one argument of one
request: a default, limits, options, and the texts of errors.
"""

from __future__ import annotations

from typing import Any, ClassVar, Iterable, Optional

from .._wire import arguments
from .._wire.flags import DEFAULT_KATCP_MAJOR, SEC_TS_KATCP_MAJOR


def shown(value: Any) -> str:
    """Format a value for errors."""
    return repr(value) if isinstance(value, (bytes, bytearray)) else str(value)


class KatcpType:
    """Base class of all types.

    Your own types derive from it and define ``encode(value, major)`` and ``decode(value, major)``,
    and optionally ``check(value, major)``.

    Parameters
    ----------
    default : object, optional
        The value of a missing argument. Default: none.
    optional : bool, optional
        Whether an argument without a default may be missing; its value is then None.
    multiple : bool, optional
        Whether the type stands for one or more arguments: the last ones of a
        request, a reply or an inform.

    Attributes
    ----------
    name : str
        The name of the type.

    Notes
    -----
    A type may be shared by threads: it does not change after its construction.
    """

    name: ClassVar[str] = "unknown"

    def __init__(self, default: Any = None, optional: bool = False, multiple: bool = False) -> None:
        self._default = default
        self._optional = optional
        self._multiple = multiple

    def get_default(self) -> Any:
        """Return the value of a missing argument.

        Returns
        -------
        object or None
            The default; None if there is none and the type is optional.

        Raises
        ------
        ValueError
            If there is no default, and the type is not optional.
        """
        if self._default is None and not self._optional:
            raise ValueError("No value or default given")
        return self._default

    def check(self, value: Any, major: int) -> None:
        """Raise ValueError if *value* is not allowed; here all values are.

        Parameters
        ----------
        value : object
            The value.
        major : int
            The major version of the protocol.
        """

    def encode(self, value: Any, major: int) -> bytes:
        """Convert *value* to bytes, ignoring default, limits and options.

        Parameters
        ----------
        value : object
            The value.
        major : int
            The major version of the protocol.

        Returns
        -------
        bytes
        """
        raise NotImplementedError

    def decode(self, value: bytes, major: int) -> Any:
        """Convert bytes to a value, ignoring limits and options.

        Parameters
        ----------
        value : bytes
            The argument, unescaped.
        major : int
            The major version of the protocol.

        Returns
        -------
        object
        """
        raise NotImplementedError

    def pack(self, value: Any, nocheck: bool = False, major: int = DEFAULT_KATCP_MAJOR) -> bytes:
        """Return a value as the bytes of an argument.

        Parameters
        ----------
        value : object
            The value; None for the default.
        nocheck : bool, optional
            Whether limits and options are ignored.
        major : int, optional
            The major version of the protocol: before 5, timestamps are in
            milliseconds.

        Returns
        -------
        bytes
            The argument, before escaping.

        Raises
        ------
        ValueError, TypeError
            If the value does not fit the type.
        """
        if value is None:
            value = self.get_default()
        if value is None:
            raise ValueError("Cannot pack a None value.")
        if not nocheck:
            self.check(value, major)
        return self.encode(value, major)

    def unpack(self, packed_value: Optional[bytes], major: int = DEFAULT_KATCP_MAJOR) -> Any:
        """Return the value of an argument.

        Parameters
        ----------
        packed_value : bytes or None
            The argument, unescaped; None if it is missing.
        major : int, optional
            The major version of the protocol: before 5, timestamps are in
            milliseconds.

        Returns
        -------
        object

        Raises
        ------
        ValueError
            If the bytes are not a value of this type, or one that is not allowed; or if a required
            argument is missing.
        """
        value = self.get_default() if packed_value is None else self.decode(packed_value, major)
        if value is not None:
            self.check(value, major)
        return value


class Int(KatcpType):
    """An integer of any size: `int`.

    Parameters
    ----------
    min, max : int, optional
        The least and the greatest value allowed. Default: no limit.
    **kwargs
        As for `KatcpType`.
    """

    name = "integer"

    def __init__(self, min: Optional[int] = None, max: Optional[int] = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._min = min
        self._max = max

    def encode(self, value: Any, major: int) -> bytes:
        return arguments.write_int(value)

    def decode(self, value: Any, major: int) -> int:
        try:
            # Values from elsewhere may be any number that Python knows.
            return arguments.read_int(value) if isinstance(value, bytes) else int(value)
        except (TypeError, ValueError):
            raise ValueError(f"Could not parse value '{shown(value)}' as integer.") from None

    def check(self, value: Any, major: int) -> None:
        if self._min is not None and value < self._min:
            raise ValueError(f"Integer {int(value)} is lower than minimum {int(self._min)}.")
        if self._max is not None and value > self._max:
            raise ValueError(f"Integer {int(value)} is higher than maximum {int(self._max)}.")


class Float(KatcpType):
    """A number: `float`, including ``inf`` and ``nan``.

    Parameters
    ----------
    min, max : float, optional
        The least and the greatest value allowed. Default: no limit.
    **kwargs
        As for `KatcpType`.
    """

    name = "float"

    def __init__(
        self, min: Optional[float] = None, max: Optional[float] = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._min = min
        self._max = max

    def encode(self, value: Any, major: int) -> bytes:
        try:
            return arguments.write_float(value)
        except ValueError:
            raise ValueError(f"Could not encode value '{value!r}' as float.") from None

    def decode(self, value: Any, major: int) -> float:
        try:
            return arguments.read_float(value) if isinstance(value, bytes) else float(value)
        except (TypeError, ValueError):
            raise ValueError(f"Could not parse value '{shown(value)}' as float.") from None

    def check(self, value: Any, major: int) -> None:
        if self._min is not None and value < self._min:
            raise ValueError(f"Float {value:g} is lower than minimum {self._min:g}.")
        if self._max is not None and value > self._max:
            raise ValueError(f"Float {value:g} is higher than maximum {self._max:g}.")


class Bool(KatcpType):
    """A boolean: ``1`` or ``0``."""

    name = "boolean"

    def encode(self, value: Any, major: int) -> bytes:
        return arguments.write_bool(value)

    def decode(self, value: bytes, major: int) -> bool:
        try:
            return arguments.read_bool(value)
        except ValueError:
            raise ValueError(
                f"Boolean value must be b'0' or b'1' but is '{shown(value)}'."
            ) from None


class Str(KatcpType):
    """Text, in UTF-8 on the wire.

    Other bytes are unpacked as lone surrogates (the error handler ``surrogateescape``), which are
    packed as the same bytes. Bytes, bytearrays and memoryviews are packed unchanged, everything
    else as its `str`.
    """

    name = "string"

    def encode(self, value: Any, major: int) -> bytes:
        return arguments.write_string(value)

    def decode(self, value: bytes, major: int) -> Any:
        return arguments.read_string(value)


class Discrete(Str):
    """One of several texts.

    Parameters
    ----------
    values : iterable of str
        The options.
    case_insensitive : bool, optional
        Whether case is ignored. The value is not changed.
    **kwargs
        As for `KatcpType`.
    """

    name = "discrete"

    def __init__(self, values: Iterable[Any], case_insensitive: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self._case_insensitive = case_insensitive
        self._values = list(values)
        self._valid_values = set(map(self._folded, self._values))

    def check(self, value: Any, major: int) -> None:
        folded = self._folded(value)
        if folded not in self._valid_values:
            how = " (case-insensitive)" if self._case_insensitive else ""
            raise ValueError(f"Discrete value '{shown(folded)}' is not one of {self._values}{how}.")

    def _folded(self, value: Any) -> Any:
        return value.lower() if self._case_insensitive else value


class Lru(KatcpType):
    """The state of a line-replaceable unit: ``Lru.LRU_NOMINAL`` or ``Lru.LRU_ERROR``.

    Version 5 of the protocol has deprecated it: use a `Bool`.
    """

    name = "lru"

    LRU_NOMINAL: ClassVar[int] = arguments.LRU_NOMINAL
    LRU_ERROR: ClassVar[int] = arguments.LRU_ERROR
    LRU_VALUES: ClassVar[dict[int, bytes]] = arguments.LRU_VALUES
    LRU_CONSTANTS: ClassVar[dict[bytes, int]] = arguments.LRU_CONSTANTS

    def encode(self, value: Any, major: int) -> bytes:
        try:
            return arguments.write_lru(value)
        except ValueError:
            raise ValueError("Lru value must be LRU_NOMINAL or LRU_ERROR.") from None

    def decode(self, value: bytes, major: int) -> int:
        try:
            return arguments.read_lru(value)
        except ValueError:
            raise ValueError("Lru value must be 'nominal' or 'error'.") from None


class Address(KatcpType):
    """The address of a network socket: a tuple of host and port; the port may be None.

    It is written ``a.b.c.d``, ``a.b.c.d:port``, ``[ipv6]`` or ``[ipv6]:port``. Host
    names are packed, but not unpacked: the protocol has none.
    """

    name = "address"

    NULL: ClassVar[arguments.Address] = ("0.0.0.0", None)

    def encode(self, value: Any, major: int) -> bytes:
        try:
            return arguments.write_address(value)
        except (TypeError, ValueError):
            raise ValueError(f"Could not extract host and port from value {value!r}") from None

    def decode(self, value: bytes, major: int) -> arguments.Address:
        try:
            return arguments.read_address(value)
        except ValueError:
            raise ValueError(f"Could not parse '{value!r}' as an address.") from None


class Timestamp(KatcpType):
    """A time: `float`, in seconds since 1970, UTC.

    It is sent in seconds, before version 5 of the protocol in milliseconds.
    """

    name = "timestamp"

    def encode(self, value: Any, major: int) -> bytes:
        return arguments.write_timestamp(value, major)

    def decode(self, value: Any, major: int) -> Any:
        data = value if isinstance(value, bytes) else str(value).encode("utf-8")
        try:
            return arguments.read_timestamp(data, major < SEC_TS_KATCP_MAJOR)
        except ValueError:
            text = data.decode("utf-8", "backslashreplace")
            raise ValueError(f"Could not parse value '{text}' as timestamp.") from None
