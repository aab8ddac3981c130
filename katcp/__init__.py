"""Client library for KATCP, the line protocol of radio telescope hardware."""

# Programs use katcp.core.X after a plain "import katcp".
from . import core as core
from ._sensor import Sensor
from ._state.handlers import DeviceMetaclass
from ._state.readings import Reading, Status
from ._state.replies import Answer, KatcpReplyError
from ._wire.flags import ProtocolFlags
from ._wire.message import Message
from ._wire.parser import MessageParser
from .client import (
    AsyncClient,
    BlockingClient,
    CallbackClient,
    DeviceClient,
    request_check,
)
from .client._decorators import make_threadsafe, make_threadsafe_blocking
from .client._informs import InformStream
from .client._sensors import RemoteSensor, Sensors, SensorUpdates
from .compat import AttrDict
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
from .resource_client import KATCPClientResource, KATCPClientResourceContainer
from .server import DeviceLogger
from .version import __version__

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncReply",
    "AttrDict",
    "BlockingClient",
    "CallbackClient",
    "DeviceClient",
    "DeviceLogger",
    "DeviceMetaclass",
    "FailReply",
    "InformStream",
    "KATCPClientResource",
    "KATCPClientResourceContainer",
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
    "Message",
    "MessageParser",
    "ProtocolFlags",
    "Reading",
    "RemoteSensor",
    "Sensor",
    "SensorUpdates",
    "Sensors",
    "Status",
    "__version__",
    "make_threadsafe",
    "make_threadsafe_blocking",
    "request_check",
]
