"""The version and the flags of the protocol that a device speaks."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Iterable, Optional, Union

from ..errors import KatcpTypeError
from .text import as_text

# The major version from which on ...
DEFAULT_KATCP_MAJOR = 5
SEC_TS_KATCP_MAJOR = 5  # ... timestamps are in seconds,
FLOAT_TS_KATCP_MAJOR = 4  # ... they may have a fraction,
MID_KATCP_MAJOR = 5  # ... there are message ids,
VERSION_CONNECT_KATCP_MAJOR = 5  # ... devices greet with #version-connect,
INTERFACE_CHANGED_KATCP_MAJOR = 5  # ... and say when their interface changed.
SEC_TO_MS_FAC = 1000
MS_TO_SEC_FAC = 1.0 / 1000


class ProtocolFlags:
    """The version and the flags of the protocol that a device speaks.

    Parameters
    ----------
    major : int or None
        Major version number. None: 0.
    minor : int or None
        Minor version number. None: 0.
    flags : str, bytes or iterable of these, optional
        The flags, a letter each: ``"IM"``, ``b"IM"`` and ``[b"I", b"M"]`` are the same. Unknown
        letters are kept and mean nothing. Any combination is accepted: a device knows best what it
        can do.

    Attributes
    ----------
    major, minor : int
        The version.
    flags : set of bytes
        The flags.
    multi_client : bool
        Whether the device serves several clients at once.
    message_ids : bool
        Whether the device supports message ids.
    request_timeout_hints : bool
        Whether the device has the request ``?request-timeout-hint``.
    bulk_set_sensor_sampling : bool
        Whether ``?sensor-sampling`` takes a comma-separated list of names.

    Examples
    --------
    >>> flags = ProtocolFlags.parse_version("5.1-MIB")
    >>> flags.message_ids, str(flags)
    (True, '5.1-BIM')
    """

    MULTI_CLIENT: ClassVar[bytes] = b"M"
    MESSAGE_IDS: ClassVar[bytes] = b"I"
    REQUEST_TIMEOUT_HINTS: ClassVar[bytes] = b"T"
    BULK_SET_SENSOR_SAMPLING: ClassVar[bytes] = b"B"

    # The minor version that introduced each flag. Information only.
    REQUEST_TIMEOUT_HINTS_MIN_VERSION: ClassVar[tuple[int, int]] = (5, 1)
    BULK_SET_SENSOR_SAMPLING_MIN_VERSION: ClassVar[tuple[int, int]] = (5, 1)

    STRATEGIES_V4: ClassVar[frozenset[bytes]] = frozenset(
        [b"none", b"auto", b"period", b"event", b"differential"]
    )
    STRATEGIES_V5: ClassVar[frozenset[bytes]] = STRATEGIES_V4 | {
        b"event-rate",
        b"differential-rate",
    }
    STRATEGIES_ALLOWED_BY_MAJOR_VERSION: ClassVar[dict[int, frozenset[bytes]]] = {
        4: STRATEGIES_V4,
        5: STRATEGIES_V5,
    }

    VERSION_RE: ClassVar[re.Pattern[bytes]] = re.compile(
        rb"^(?P<major>[0-9]{1,9})\.(?P<minor>[0-9]{1,9})(-(?P<flags>.*))?\Z", re.DOTALL
    )

    def __init__(
        self,
        major: Optional[int],
        minor: Optional[int],
        flags: Union[str, bytes, Iterable[Any], None] = None,
    ) -> None:
        self.major = major or 0
        self.minor = minor or 0
        self.flags = _flag_letters(flags)
        self.multi_client = self.MULTI_CLIENT in self.flags
        self.message_ids = self.MESSAGE_IDS in self.flags
        self.request_timeout_hints = self.REQUEST_TIMEOUT_HINTS in self.flags
        self.bulk_set_sensor_sampling = self.BULK_SET_SENSOR_SAMPLING in self.flags

    @classmethod
    def parse_version(cls, version_str: Union[str, bytes]) -> ProtocolFlags:
        """Parse a version text.

        Parameters
        ----------
        version_str : str or bytes
            For example ``5.0-IM``.

        Returns
        -------
        ProtocolFlags
            Version 0.0 without flags if the text is not a version.
        """
        return parse_version(cls, version_str) or cls(0, 0)

    def supports(self, flag: Union[str, bytes]) -> bool:
        """Return whether the device has announced *flag*.

        Parameters
        ----------
        flag : str or bytes
            The letter of the flag.

        Returns
        -------
        bool
        """
        return _flag_letters(flag) <= self.flags

    def strategy_allowed(self, strategy: Union[str, bytes]) -> bool:
        """Return whether this version of the protocol has a sampling strategy.

        Parameters
        ----------
        strategy : str or bytes
            The name of the strategy.

        Returns
        -------
        bool
        """
        name = strategy.encode("utf-8") if isinstance(strategy, str) else strategy
        return name in self.STRATEGIES_ALLOWED_BY_MAJOR_VERSION[min(max(self.major, 4), 5)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ProtocolFlags):
            return NotImplemented
        return (self.major, self.minor, self.flags) == (other.major, other.minor, other.flags)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        flags = as_text(b"".join(sorted(self.flags)))
        return f"{self.major}.{self.minor}" + (f"-{flags}" if flags else "")

    def __repr__(self) -> str:
        return f"<ProtocolFlags {self}>"


def parse_version(cls: type[ProtocolFlags], version: Union[str, bytes]) -> Optional[ProtocolFlags]:
    text = version.encode("utf-8", "replace") if isinstance(version, str) else version
    match = cls.VERSION_RE.match(text)
    if match is None:
        return None
    return cls(int(match["major"]), int(match["minor"]), match["flags"])


def _flag_letters(flags: Union[str, bytes, Iterable[Any], None]) -> set[bytes]:
    """Return flags, given in any form, as a set of single bytes."""
    if flags is None:
        return set()
    if isinstance(flags, str):
        flags = flags.encode("utf-8")
    if isinstance(flags, (bytes, bytearray)):
        return {bytes([letter]) for letter in flags}
    letters: set[bytes] = set()
    for flag in flags:
        if not isinstance(flag, (str, bytes)):
            raise KatcpTypeError(f"A protocol flag must be str or bytes, not {flag!r}.")
        letters |= _flag_letters(flag)
    return letters
