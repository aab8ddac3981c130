"""A client that knows which sensors and requests its device has."""

from ._client import InspectingClientAsync
from ._model import RequestType, SyncError
from ._states import ExponentialRandomBackoff, InspectingClientStateType

__all__ = [
    "ExponentialRandomBackoff",
    "InspectingClientAsync",
    "InspectingClientStateType",
    "RequestType",
    "SyncError",
]

for _name in __all__:
    # What reprs, tracebacks and pickles show.
    globals()[_name].__module__ = __name__
