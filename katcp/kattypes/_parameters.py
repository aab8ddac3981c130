"""Lists of types: the arguments of a message, and the values of a handler."""

from __future__ import annotations

from typing import Any, Optional, Sequence

from ..errors import FailReply
from ._types import KatcpType


class Parameter:
    """One parameter of a handler.

    Parameters
    ----------
    position : int
        Its number, from 1.
    name : str
        Its name.
    kattype : KatcpType
        Its type.
    major : int
        The major version of the protocol.

    Attributes
    ----------
    position, name, major
        As given.
    """

    def __init__(self, position: int, name: Optional[str], kattype: KatcpType, major: int) -> None:
        self.position = position
        self.name = name
        self.major = major
        self._kattype = kattype

    def pack(self, value: Any) -> bytes:
        """Return a value as the bytes of an argument; see `KatcpType.pack`.

        Parameters
        ----------
        value : object
            The value.

        Returns
        -------
        bytes
        """
        return self._kattype.pack(value, major=self.major)

    def unpack(self, value: Optional[bytes]) -> Any:
        """Return the value of an argument; see `KatcpType.unpack`.

        Parameters
        ----------
        value : bytes or None
            The argument; None if it is missing.

        Returns
        -------
        object

        Raises
        ------
        FailReply
            If the argument is invalid; the text names the parameter.
        """
        try:
            return self._kattype.unpack(value, self.major)
        except ValueError as error:
            raise FailReply(f"Error in parameter {self.position} ({self.name}): {error}") from error


def unpack_types(
    types: Sequence[KatcpType],
    args: Sequence[bytes],
    argnames: Sequence[str],
    major: int,
) -> list[Any]:
    """Return the values of a message's arguments.

    Parameters
    ----------
    types : sequence of KatcpType
        The types; the last one may stand for several arguments.
    args : sequence of bytes
        The arguments.
    argnames : sequence of str
        The names of the parameters, for errors.
    major : int
        The major version of the protocol.

    Returns
    -------
    list
        One value for each type, and all values of the last type if it is *multiple*.

    Raises
    ------
    FailReply
        If there are too many arguments, or one is invalid.
    """
    if len(args) > len(types) and not _ends_with_multiple(types):
        raise FailReply("Too many parameters given.")
    names = [*argnames, *[""] * len(types)]
    values = []
    for index, data in enumerate(_padded(args, len(types))):
        # The last type applies to all further arguments.
        index_of_type = min(index, len(types) - 1)
        parameter = Parameter(index + 1, names[index_of_type], types[index_of_type], major)
        values.append(parameter.unpack(data))
    return values


def pack_types(types: Sequence[KatcpType], args: Sequence[Any], major: int) -> list[bytes]:
    """Return values as the arguments of a message.

    Parameters
    ----------
    types : sequence of KatcpType
        The types; the last one may stand for several values.
    args : sequence
        The values.
    major : int
        The major version of the protocol.

    Returns
    -------
    list of bytes

    Raises
    ------
    ValueError, TypeError
        If there are too many values, or too few, or one does not fit its type.
    """
    if len(args) > len(types) and not _ends_with_multiple(types):
        raise ValueError("Too many arguments to pack.")
    return [
        types[min(index, len(types) - 1)].pack(value, major=major)
        for index, value in enumerate(_padded(args, len(types)))
    ]


def _ends_with_multiple(types: Sequence[KatcpType]) -> bool:
    return bool(types) and types[-1]._multiple


def _padded(args: Sequence[Any], length: int) -> list[Any]:
    """Return the arguments, with None for missing ones."""
    return [*args, *[None] * (length - len(args))]
