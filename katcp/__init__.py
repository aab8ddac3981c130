"""Client library for KATCP, the line protocol of radio telescope hardware."""

# Programs write katcp.core.X after a mere "import katcp".
from . import core as core
from .client import AsyncClient, BlockingClient, CallbackClient, DeviceClient, request_check
from .errors import (
    AsyncReply,
    FailReply,
    KatcpClientDisconnected,
    KatcpClientError,
    KatcpClientOverflow,
    KatcpClientStopped,
    KatcpClientTimeout,
    KatcpDeviceError,
    KatcpSyntaxError,
    KatcpThreadError,
    KatcpTypeError,
    KatcpUsageError,
    KatcpVersionError,
)
from .handlers import DeviceMetaclass
from .message import Message
from .parser import MessageParser
from .protocol import ProtocolFlags
from .threadsafe import make_threadsafe, make_threadsafe_blocking
from .version import __version__

__all__ = [
    "AsyncClient",
    "AsyncReply",
    "BlockingClient",
    "CallbackClient",
    "DeviceClient",
    "DeviceMetaclass",
    "FailReply",
    "KatcpClientDisconnected",
    "KatcpClientError",
    "KatcpClientOverflow",
    "KatcpClientStopped",
    "KatcpClientTimeout",
    "KatcpDeviceError",
    "KatcpSyntaxError",
    "KatcpThreadError",
    "KatcpTypeError",
    "KatcpUsageError",
    "KatcpVersionError",
    "Message",
    "MessageParser",
    "ProtocolFlags",
    "__version__",
    "make_threadsafe",
    "make_threadsafe_blocking",
    "request_check",
]
