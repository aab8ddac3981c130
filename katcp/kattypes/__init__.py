"""Types of arguments, and the decorators of message handlers that use them."""

from ._handlers import (
    async_make_reply,
    concurrent_reply,
    has_katcp_protocol_flags,
    inform,
    make_reply,
    minimum_katcp_version,
    request,
    request_timeout_hint,
    return_reply,
    send_reply,
    unpack_message,
)
from ._parameters import Parameter, pack_types, unpack_types
from ._special import DiscreteMulti, Regex, StrictTimestamp, Struct, TimestampOrNow
from ._types import (
    Address,
    Bool,
    Discrete,
    Float,
    Int,
    KatcpType,
    Lru,
    Str,
    Timestamp,
)

__all__ = [
    "Address",
    "Bool",
    "Discrete",
    "DiscreteMulti",
    "Float",
    "Int",
    "KatcpType",
    "Lru",
    "Parameter",
    "Regex",
    "Str",
    "StrictTimestamp",
    "Struct",
    "Timestamp",
    "TimestampOrNow",
    "async_make_reply",
    "concurrent_reply",
    "has_katcp_protocol_flags",
    "inform",
    "make_reply",
    "minimum_katcp_version",
    "pack_types",
    "request",
    "request_timeout_hint",
    "return_reply",
    "send_reply",
    "unpack_message",
    "unpack_types",
]

for _name in __all__:
    if _name not in ("inform", "unpack_message"):
        # The module shown in reprs, tracebacks and pickles.
        globals()[_name].__module__ = __name__
