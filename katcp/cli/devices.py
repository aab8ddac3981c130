"""Addresses, nicknames and the default device."""

from __future__ import annotations

import configparser
import ipaddress
import os
import pathlib
import re
from typing import NamedTuple, Optional, Sequence

from .._wire.text import bracketed
from .output import USAGE, CommandError

DEFAULT_HOST = "localhost"
DEFAULT_PORT = 7147
# The environment variable that names the default device.
DEVICE_VARIABLE = "KATCP_DEVICE"

_ADDRESS_RE = re.compile(
    r"(?:\[(?P<ipv6>[^]\s]+)\]|(?P<host>[^]:[\s/]*))(?::(?P<port>[0-9]{1,5}))?"
)


class Address(NamedTuple):
    """The address of a device, and its nickname."""

    host: str
    port: int
    nickname: str = ""
    is_default: bool = False

    def __str__(self) -> str:
        return self.nickname or self.location

    @property
    def location(self) -> str:
        """Host and port as text."""
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def full(self) -> str:
        """The nickname, if it has one, and host and port."""
        return f"{self.nickname} ({self.location})" if self.nickname else self.location


def parse_address(text: str, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> Address:
    match = _ADDRESS_RE.fullmatch(text)
    number = port if match is None or match["port"] is None else int(match["port"])
    if not text or match is None or not 0 <= number < 65536:
        hint = "; put an IPv6 address in brackets: [::1]:7147" if text.count(":") > 1 else ""
        raise ValueError(f"{text!r} is not an address such as localhost:7147{hint}")
    return Address(match["ipv6"] or match["host"] or host, number)


def find_device(text: str) -> Address:
    """Return the device with this nickname or address, or raise `CommandError`."""
    nicknames = read_nicknames()
    try:
        return parse_address(nicknames.get(text, text))._replace(
            nickname=text if text in nicknames else ""
        )
    except ValueError as error:
        where = f"{config_path()}: " if text in nicknames else ""
        raise CommandError(f"{where}{error}", USAGE) from None


def is_device(text: str) -> bool:
    """Return whether *text* can only be a device.

    True if it has a port, or is an IP address, ``localhost`` or a nickname. Names of requests and
    sensors have no colon.
    """
    match = _ADDRESS_RE.fullmatch(text)
    if match is None:
        return False
    if match["port"] or match["ipv6"] or text == DEFAULT_HOST or text in read_nicknames():
        return True
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def default_device() -> Address:
    """Return the device to use if none is named."""
    try:
        device = find_device(os.environ.get(DEVICE_VARIABLE) or DEFAULT_HOST)
    except CommandError as error:
        raise CommandError(f"${DEVICE_VARIABLE}: {error}", error.code) from None
    return device._replace(is_default=True)


def split_devices(
    named: Sequence[str], words: Sequence[str], most: Optional[int] = 1
) -> tuple[list[Address], list[str]]:
    """Return the devices in *words*, and the other words.

    If options have *named* devices, no word is one. Otherwise the first words may be devices, at
    *most* so many, or any number.
    """
    rest = list(words)
    found = list(named)
    while not named and rest and (most is None or len(found) < most) and is_device(rest[0]):
        found.append(rest.pop(0))
    return [find_device(text) for text in found] or [default_device()], rest


def config_path() -> Optional[pathlib.Path]:
    """Return the path of the configuration file, or None without the extra "cli"."""
    try:
        import platformdirs
    except ImportError:
        return None
    return platformdirs.user_config_path("katcp", appauthor=False) / "config.ini"


def read_nicknames() -> dict[str, str]:
    """Return the addresses of devices by nickname: the section ``devices`` of the file."""
    path = config_path()
    parser = configparser.ConfigParser(delimiters="=", interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        if path is not None:
            parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CommandError(f"cannot read {path}: {reason}", USAGE) from None
    return dict(parser["devices"]) if parser.has_section("devices") else {}
