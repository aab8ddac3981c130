"""A simulated device: a real KATCP server on real sockets, for tests and examples.

As a process: ``python -m katcp.simdevice --port 7147 --protocol 5.1-MIB``.
"""

from .command import main
from .connection import (
    CLOSE_TIMEOUT,
    LOG_LEVELS,
    MAX_LINE_SIZE,
    MAX_WRITE_BUFFER_SIZE,
    ClientConnection,
)
from .device import SimulatedDevice
from .faults import Fault, list_faults
from .memory import DEFAULT_MEMORY
from .requests import DeviceRequest, Handler
from .sensors import STATUSES, TYPES, Reading, Sensor, default_sensors
from .server import MAX_RECEIVED, RESTART_DELAY

__all__ = [
    "CLOSE_TIMEOUT",
    "DEFAULT_MEMORY",
    "LOG_LEVELS",
    "MAX_LINE_SIZE",
    "MAX_RECEIVED",
    "MAX_WRITE_BUFFER_SIZE",
    "RESTART_DELAY",
    "STATUSES",
    "TYPES",
    "ClientConnection",
    "DeviceRequest",
    "Fault",
    "Handler",
    "Reading",
    "Sensor",
    "SimulatedDevice",
    "default_sensors",
    "list_faults",
    "main",
]

for _name in __all__:
    if hasattr(globals()[_name], "__qualname__"):
        # The module shown in reprs, tracebacks and pickles.
        globals()[_name].__module__ = __name__
