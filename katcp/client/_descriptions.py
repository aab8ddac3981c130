"""What a device says of its sensors, and the readings that messages hold."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from .._wire.arguments import LRU_CONSTANTS, decoder, read_timestamp
from .._wire.flags import SEC_TS_KATCP_MAJOR
from .._wire.message import Message
from .._wire.text import as_text
from ..errors import KatcpArgumentError


class Description(NamedTuple):
    """What a device says of a sensor in ``#sensor-list``."""

    name: str
    description: str
    units: str
    type: str
    params: tuple[bytes, ...]


class Reader(NamedTuple):
    """Functions that read the updates of a sensor; they raise `ValueError`."""

    description: Description
    read_time: Callable[[bytes], float]
    read_value: Callable[[bytes], Any]


def reader_of(description: Description, major: int) -> Reader:
    """Return the reader of a sensor for a major version of the protocol."""
    read_time = read_timestamp if major >= SEC_TS_KATCP_MAJOR else _read_milliseconds
    return Reader(description, read_time, _value_reader(description, major))


def _read_milliseconds(data: bytes) -> float:
    return read_timestamp(data, milliseconds=True)


def _value_reader(description: Description, major: int) -> Callable[[bytes], Any]:
    if description.type == "lru":
        # Words are clearer than 0 and 1, of which 0 is the good one.
        return decoder("discrete", tuple(LRU_CONSTANTS), major)
    try:
        return decoder(description.type, description.params, major)
    except ValueError:
        # An unknown type: its values are shown as they are.
        return as_text


def triples_of(msg: Message) -> list[list[bytes]]:
    """Return name, status and value of each reading in a message; none if it is malformed."""
    arguments = msg.arguments
    if len(arguments) == 5 and arguments[1] == b"1":
        return [arguments[2:]]
    try:
        count = msg.get_int(1)
    except KatcpArgumentError:
        return []
    if len(arguments) != 2 + 3 * count:
        return []
    return [arguments[start : start + 3] for start in range(2, len(arguments), 3)]
