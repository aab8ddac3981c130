"""Conversion of bytes and names to text."""

from __future__ import annotations


def as_text(data: bytes) -> str:
    """Decode *data*, with backslash escapes for what is not UTF-8.

    Parameters
    ----------
    data : bytes
        Any bytes.

    Returns
    -------
    str
    """
    return data.decode("utf-8", "backslashreplace")


def shorten(text: str, limit: int = 1000) -> str:
    """Cut *text* to *limit* characters, as for a log.

    Parameters
    ----------
    text : str
        Any text.
    limit : int, optional
        The number of characters to keep.

    Returns
    -------
    str
    """
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def bracketed(host: str) -> str:
    """Return a host as it stands before ``:port``: an IPv6 address in brackets.

    Parameters
    ----------
    host : str
        A name or an address.

    Returns
    -------
    str
    """
    return f"[{host}]" if ":" in host else host


def convert_method_name(prefix: str, name: str) -> str:
    """Return the name of the message that a handler method is for.

    Parameters
    ----------
    prefix : str
        The prefix of the method's name, for example ``inform_``.
    name : str
        The method's name.

    Returns
    -------
    str

    Examples
    --------
    >>> convert_method_name("inform_", "inform_sensor_status")
    'sensor-status'
    """
    return name[len(prefix) :].replace("_", "-")
