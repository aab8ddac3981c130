"""Tables of the `request_*`, `inform_*` and `reply_*` methods of a class."""

from __future__ import annotations

from typing import Any, Callable

from .._wire.text import convert_method_name

_Handlers = dict[str, Callable[..., Any]]


class DeviceMetaclass(type):
    """Metaclass that collects the message handlers of a class.

    A method ``inform_sensor_status`` handles ``#sensor-status``, and likewise for ``reply_*`` and
    ``request_*``. The tables are class attributes, from message name to function:
    ``_inform_handlers``, ``_reply_handlers`` and ``_request_handlers``. Programs add functions
    ``f(client, msg)`` to them. Inherited methods count, including those of plain mixin classes;
    attributes of an instance do not.
    """

    def __init__(cls, name: str, bases: tuple[type, ...], dct: dict[str, Any]) -> None:
        super().__init__(name, bases, dct)
        cls._inform_handlers = _collect(cls, "inform_")
        cls._reply_handlers = _collect(cls, "reply_")
        cls._request_handlers = _collect(cls, "request_")


def _collect(cls: type, prefix: str) -> _Handlers:
    return {
        convert_method_name(prefix, name): getattr(cls, name)
        for name in dir(cls)
        if name.startswith(prefix) and len(name) > len(prefix) and callable(getattr(cls, name))
    }
