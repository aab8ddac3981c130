"""The memory of the simulated device: registers for ``?read``, ``?write`` and the like."""

from __future__ import annotations

import re
from typing import Mapping, Union

from .._wire.text import as_text
from ..errors import FailReply

DEFAULT_MEMORY: Mapping[str, Union[int, bytes]] = {
    "sys_board_id": b"\0\0\xb0\x01",
    "sys_scratchpad": 4,
    "bram": 64 * 1024,
}

_INTEGER_RE = re.compile(rb"[0-9]+|0[xX][0-9a-fA-F]+")


class Memory:
    """Registers in one contiguous memory, as on an FPGA board."""

    def __init__(self, registers: Mapping[str, Union[int, bytes]]) -> None:
        self._bytes = bytearray()
        self.registers: dict[str, range] = {}
        for name, content in registers.items():
            start = len(self._bytes)
            self._bytes += bytes(content)
            self.registers[name] = range(start, len(self._bytes))

    def content(self, register: str) -> bytes:
        """Return the content of a register."""
        place = self.registers[register]
        return bytes(self._bytes[place.start : place.stop])

    def read(self, register: bytes, offset: int, count: int) -> bytes:
        """Return a part of a register, or raise FailReply."""
        return bytes(self._bytes[self._locate(register, offset, count)])

    def write(self, register: bytes, offset: int, data: bytes) -> None:
        """Change a part of a register, or raise FailReply."""
        self._bytes[self._locate(register, offset, len(data))] = data

    def _locate(self, register: bytes, offset: int, count: int) -> slice:
        place = self._place(register)
        if offset + count > len(place):
            raise FailReply(
                f"{count} bytes at {offset} are outside of register "
                f"'{as_text(register)}', which has {len(place)} bytes."
            )
        start = place.start + offset
        return slice(start, start + count)

    def _place(self, register: bytes) -> range:
        """Return the place of a register; a number is an address in the whole memory."""
        place = self.registers.get(as_text(register))
        if place is not None:
            return place
        if not _INTEGER_RE.fullmatch(register):
            raise FailReply(f"Unknown register '{as_text(register)}'.")
        return range(parse_integer(register), len(self._bytes))


def parse_integer(text: bytes) -> int:
    """Parse a decimal or hexadecimal number, or raise FailReply."""
    if not _INTEGER_RE.fullmatch(text):
        raise FailReply(f"'{as_text(text)}' is not a number.")
    return int(text, 16 if text[:2].lower() == b"0x" else 10)
