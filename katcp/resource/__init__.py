"""What the resource clients are made of: resources, requests, sensors and their values.

`katcp.resource_client` fills them with life.
"""

from ._resources import KATCPDummyRequest, KATCPRequest, KATCPResource
from ._sensors import KATCPSensor, KATCPSensorsManager, SensorResultTuple
from ._values import (
    KATCPReply,
    KATCPResourceError,
    KATCPResourceInactive,
    KATCPSensorError,
    KATCPSensorReading,
    escape_name,
    normalize_strategy_parameters,
)

__all__ = [
    "KATCPDummyRequest",
    "KATCPReply",
    "KATCPRequest",
    "KATCPResource",
    "KATCPResourceError",
    "KATCPResourceInactive",
    "KATCPSensor",
    "KATCPSensorError",
    "KATCPSensorReading",
    "KATCPSensorsManager",
    "SensorResultTuple",
    "escape_name",
    "normalize_strategy_parameters",
]

for _name in __all__:
    # What reprs, tracebacks and pickles show.
    globals()[_name].__module__ = __name__
