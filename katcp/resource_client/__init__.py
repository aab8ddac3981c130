"""Clients that show a device as an object, with its requests and sensors as attributes."""

from ..ioloop_manager import IOLoopThreadWrapper as IOLoopThreadWrapper
from ..ioloop_manager import ThreadSafeMethodAttrWrapper as ThreadSafeMethodAttrWrapper
from ..resource import KATCPReply as KATCPReply
from ..resource import KATCPSensorError as KATCPSensorError
from ..resource._resources import list_sensors
from ._groups import ClientGroup, GroupRequest, GroupResults, KATCPClientResourceContainer
from ._manager import (
    KATCPClientResourceRequest,
    KATCPClientResourceSensorsManager,
    ReplyWrappedInspectingClientAsync,
    transform_future,
)
from ._resource import KATCPClientResource, monitor_resource_sync_state
from ._threads import (
    AttrMappingProxy,
    MappingProxy,
    ThreadSafeKATCPClientGroupWrapper,
    ThreadSafeKATCPClientResourceRequestWrapper,
    ThreadSafeKATCPClientResourceWrapper,
    ThreadSafeKATCPSensorWrapper,
)

# The other names are imported from here by programs that were written for katcp 0.9.
__all__ = [
    "AttrMappingProxy",
    "ClientGroup",
    "GroupRequest",
    "GroupResults",
    "KATCPClientResource",
    "KATCPClientResourceContainer",
    "KATCPClientResourceRequest",
    "KATCPClientResourceSensorsManager",
    "MappingProxy",
    "ReplyWrappedInspectingClientAsync",
    "ThreadSafeKATCPClientGroupWrapper",
    "ThreadSafeKATCPClientResourceRequestWrapper",
    "ThreadSafeKATCPClientResourceWrapper",
    "ThreadSafeKATCPSensorWrapper",
    "list_sensors",
    "monitor_resource_sync_state",
    "transform_future",
]

for _name in __all__:
    # What reprs, tracebacks and pickles show.
    globals()[_name].__module__ = __name__
