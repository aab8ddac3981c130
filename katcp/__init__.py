"""Client library for KATCP, the line protocol of radio telescope hardware."""

# Programs write katcp.core.X after a mere "import katcp".
from . import core as core
from .answers import Answer
from .client import AsyncClient, BlockingClient, CallbackClient, DeviceClient, request_check
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
    KatcpReplyError,
    KatcpSyntaxError,
    KatcpThreadError,
    KatcpTypeError,
    KatcpUsageError,
    KatcpVersionError,
)
from .handlers import DeviceMetaclass
from .informs import InformStream
from .message import Message
from .parser import MessageParser
from .protocol import ProtocolFlags
from .threadsafe import make_threadsafe, make_threadsafe_blocking
from .version import __version__

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncReply",
    "BlockingClient",
    "CallbackClient",
    "DeviceClient",
    "DeviceMetaclass",
    "FailReply",
    "InformStream",
    "KatcpArgumentError",
    "KatcpClientDisconnected",
    "KatcpClientError",
    "KatcpClientOverflow",
    "KatcpClientStopped",
    "KatcpClientTimeout",
    "KatcpDeviceError",
    "KatcpReplyError",
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
