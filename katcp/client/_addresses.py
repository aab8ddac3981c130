"""Addresses as people write them."""

from __future__ import annotations

from typing import Any


def address_to_string(addr_tuple: tuple[Any, ...]) -> str:
    """Return an address as ``host:port``.

    Parameters
    ----------
    addr_tuple : tuple
        Host and port; what follows is left out.

    Returns
    -------
    str
    """
    return ":".join(str(part) for part in addr_tuple[:2])
