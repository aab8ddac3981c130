"""What a device says of its sensors, and the readings that messages hold."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from .._wire.arguments import LRU_CONSTANTS, decoder
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


def decoder_of(description: Description, major: int) -> Callable[[bytes], Any]:
    """Return what reads the values of a sensor."""
    if description.type == "lru":
        # Words tell more than 0 and 1, of which 0 is the good one.
        return decoder("discrete", tuple(LRU_CONSTANTS), major)
    try:
        return decoder(description.type, description.params, major)
    except ValueError:
        # A type that nobody has heard of: its values are shown as they are.
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
