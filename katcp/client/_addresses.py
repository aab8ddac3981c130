"""Formatting of addresses."""

from __future__ import annotations

from typing import Any


def address_to_string(addr_tuple: tuple[Any, ...]) -> str:
    """Format an address as ``host:port``.

    Parameters
    ----------
    addr_tuple : tuple
        Host and port; further items are ignored.

    Returns
    -------
    str
    """
    return ":".join(str(part) for part in addr_tuple[:2])
