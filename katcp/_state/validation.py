"""Validation of arguments: return the value to use, or raise in the caller at once."""

from __future__ import annotations

import numbers
from typing import Any, Callable, Optional, Sequence, Union

from .._wire.message import Message
from .._wire.text import shorten
from ..errors import KatcpTypeError

# Mistakes: what an argument must not be.
_NEVER_MEANT = (type(None), list, tuple, dict, set, frozenset)


def check_host(host: Union[str, bytes, None]) -> str:
    """Return a host as text."""
    if isinstance(host, bytes):
        host = host.decode("ascii", "backslashreplace")
    if host is not None and not isinstance(host, str):
        raise KatcpTypeError(f"A host must be a str, not {host!r}.")
    return host or "0.0.0.0"


def check_port(port: Union[int, str]) -> int:
    """Return a port as a number."""
    try:
        number = int(port)
    except (TypeError, ValueError):
        raise KatcpTypeError(f"A port must be a number, not {port!r}.") from None
    if not 0 <= number <= 65535:
        raise KatcpTypeError(f"A port must be from 0 to 65535, not {port!r}.")
    return number


def check_timeout(timeout: Optional[float], default: Optional[float] = None) -> Optional[float]:
    """Return a timeout, or the default if it is None; raise unless it is a number."""
    if timeout is None:
        return default
    # The usual types first: to look them up in numbers.Real takes long.
    if not isinstance(timeout, (float, int, numbers.Real)):
        raise KatcpTypeError(f"A timeout must be a number of seconds, not {timeout!r}.")
    return timeout


def check_callback(callback: Any) -> Callable[..., Any]:
    if not callable(callback):
        raise KatcpTypeError(f"A callback must be callable, not {callback!r}.")
    return callback  # type: ignore[no-any-return]


def check_inform_name(name: Optional[str]) -> None:
    """Raise unless informs can have this name; None stands for all."""
    if name is not None:
        Message.inform(name)


def check_request(
    msg: Any, timeout: Optional[float] = None, default: Optional[float] = None
) -> Optional[float]:
    """Return the timeout of a request, or raise if the request is invalid."""
    if not isinstance(msg, Message):
        raise KatcpTypeError(f"A request must be a Message, not {type(msg).__name__}.")
    if msg.mtype != Message.REQUEST:
        kind = "an inform" if msg.mtype == Message.INFORM else "a reply"
        raise KatcpTypeError(f"The message {msg.name!r} is not a request but {kind}.")
    return default if timeout is None else check_timeout(timeout)


def make_request(name: str, args: Sequence[Any]) -> Message:
    """Return a request; raise if an argument is hardly meant to be sent as text.

    `Message` itself sends ``None`` and ``[1, 2]``, as in katcp 0.9.3.
    """
    for position, arg in enumerate(args, 1):
        if isinstance(arg, _NEVER_MEANT):
            raise KatcpTypeError(
                f"Argument {position} of ?{name} is {shorten(repr(arg), 60)}: "
                "an argument is text, bytes, a number or a boolean."
            )
    return Message.request(name, *args)
