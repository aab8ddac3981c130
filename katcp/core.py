"""The old path of messages, flags, errors and events: re-exports only."""

from ._runtime.events import (
    AsyncCallbackEvent,
    AsyncEvent,
    AsyncState,
    LatencyTimer,
    future_timeout_manager,
    log_coroutine_exceptions,
    log_future_exceptions,
    until_any,
    until_later,
    until_some,
)
from ._sensor import Sensor
from ._state.handlers import DeviceMetaclass
from ._state.readings import Reading
from ._state.replies import KatcpReplyError
from ._wire.flags import (
    DEFAULT_KATCP_MAJOR,
    FLOAT_TS_KATCP_MAJOR,
    INTERFACE_CHANGED_KATCP_MAJOR,
    MID_KATCP_MAJOR,
    MS_TO_SEC_FAC,
    SEC_TO_MS_FAC,
    SEC_TS_KATCP_MAJOR,
    VERSION_CONNECT_KATCP_MAJOR,
    ProtocolFlags,
)
from ._wire.message import Message, encode_utf8_with_error_log
from ._wire.parser import MessageParser
from ._wire.text import convert_method_name
from .compat import (
    AttrDict,
    DefaultAttrDict,
    byte_chars,
    ensure_native_str,
    hashable_identity,
    is_bytes,
    is_text,
    steal_docstring_from,
)
from .errors import (
    AsyncReply,
    FailReply,
    KatcpArgumentError,
    KatcpClientDisconnected,
    KatcpClientError,
    KatcpClientOverflow,
    KatcpClientStopped,
    KatcpClientTimeout,
    KatcpDeviceError,
    KatcpSensorError,
    KatcpSyntaxError,
    KatcpThreadError,
    KatcpTypeError,
    KatcpUsageError,
    KatcpVersionError,
)

__all__ = [
    "DEFAULT_KATCP_MAJOR",
    "FLOAT_TS_KATCP_MAJOR",
    "INTERFACE_CHANGED_KATCP_MAJOR",
    "MID_KATCP_MAJOR",
    "MS_TO_SEC_FAC",
    "SEC_TO_MS_FAC",
    "SEC_TS_KATCP_MAJOR",
    "VERSION_CONNECT_KATCP_MAJOR",
    "AsyncCallbackEvent",
    "AsyncEvent",
    "AsyncReply",
    "AsyncState",
    "AttrDict",
    "DefaultAttrDict",
    "DeviceMetaclass",
    "FailReply",
    "KatcpArgumentError",
    "KatcpClientDisconnected",
    "KatcpClientError",
    "KatcpClientOverflow",
    "KatcpClientStopped",
    "KatcpClientTimeout",
    "KatcpDeviceError",
    "KatcpReplyError",
    "KatcpSensorError",
    "KatcpSyntaxError",
    "KatcpThreadError",
    "KatcpTypeError",
    "KatcpUsageError",
    "KatcpVersionError",
    "LatencyTimer",
    "Message",
    "MessageParser",
    "ProtocolFlags",
    "Reading",
    "Sensor",
    "byte_chars",
    "convert_method_name",
    "encode_utf8_with_error_log",
    "ensure_native_str",
    "future_timeout_manager",
    "hashable_identity",
    "is_bytes",
    "is_text",
    "log_coroutine_exceptions",
    "log_future_exceptions",
    "steal_docstring_from",
    "until_any",
    "until_later",
    "until_some",
]

for _name in __all__:
    if getattr(globals()[_name], "__module__", "").startswith("katcp._"):
        # The module shown in reprs, tracebacks and pickles.
        globals()[_name].__module__ = __name__
