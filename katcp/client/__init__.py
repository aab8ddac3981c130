"""The clients of KATCP devices, and the classes they use."""

from .._runtime.events import AsyncEvent as AsyncEvent
from .._runtime.events import LatencyTimer as LatencyTimer
from .._runtime.events import until_later as until_later
from .._state.handlers import DeviceMetaclass as DeviceMetaclass
from .._state.replies import Answer
from .._wire.flags import FLOAT_TS_KATCP_MAJOR as FLOAT_TS_KATCP_MAJOR
from .._wire.flags import SEC_TO_MS_FAC as SEC_TO_MS_FAC
from .._wire.flags import SEC_TS_KATCP_MAJOR as SEC_TS_KATCP_MAJOR
from .._wire.flags import ProtocolFlags as ProtocolFlags
from .._wire.message import Message as Message
from .._wire.parser import MessageParser as MessageParser
from ..compat import ensure_native_str as ensure_native_str
from ..errors import KatcpClientDisconnected as KatcpClientDisconnected
from ..errors import KatcpClientError as KatcpClientError
from ..errors import KatcpVersionError as KatcpVersionError
from ..ioloop_manager import IOLoopManager as IOLoopManager
from ._addresses import address_to_string
from ._async import AsyncClient
from ._decorators import make_threadsafe, make_threadsafe_blocking
from ._device import DeviceClient
from ._informs import InformStream
from ._sensors import RemoteSensor, Sensors, SensorUpdates
from ._threaded import BlockingClient, CallbackClient, request_check

# The other names are imported from here by programs written for katcp 0.9.
__all__ = [
    "Answer",
    "AsyncClient",
    "BlockingClient",
    "CallbackClient",
    "DeviceClient",
    "InformStream",
    "RemoteSensor",
    "SensorUpdates",
    "Sensors",
    "address_to_string",
    "make_threadsafe",
    "make_threadsafe_blocking",
    "request_check",
]

for _name in __all__:
    # The module shown in reprs, tracebacks and pickles.
    globals()[_name].__module__ = __name__
