"""The sensors and requests of a device, as it tells of them."""

from __future__ import annotations

import logging
from typing import Any, Callable, NamedTuple, Optional

from .._sensor import Sensor
from .._state.replies import KatcpReplyError
from .._wire.flags import DEFAULT_KATCP_MAJOR
from .._wire.message import Message
from .._wire.text import as_text
from ..client import AsyncClient
from ..client._descriptions import Description
from ..client._tracker import Tracker
from ..compat import AttrDict
from ..errors import (
    KatcpClientDisconnected,
    KatcpClientError,
    KatcpClientOverflow,
    KatcpClientStopped,
)


class SyncError(Exception):
    """The device did not say which sensors or requests it has."""


class RequestType(NamedTuple):
    """What a device says of a request."""

    name: str
    description: str
    timeout_hint: Optional[float]


class Model:
    """What a device has, and the objects that stand for it.

    Parameters
    ----------
    client : AsyncClient
        The client of the device.
    logger : logging.Logger
        Where to log.
    make_sensor, make_request : callable
        Make the objects; called with what the device says, by keywords.

    Attributes
    ----------
    sensors : dict
        From name to `Description`.
    requests : dict
        From name to `RequestType`.
    """

    def __init__(
        self,
        client: AsyncClient,
        logger: logging.Logger,
        make_sensor: Callable[..., Any],
        make_request: Callable[..., Any],
    ) -> None:
        self._client = client
        self._logger = logger
        self._make_sensor = make_sensor
        self._make_request = make_request
        self.sensors: dict[str, Description] = {}
        self.requests: dict[str, RequestType] = {}
        self._made_sensors: dict[str, Any] = {}
        self._made_requests: dict[str, Any] = {}

    @property
    def tracker(self) -> Tracker:
        """What asks for the sensors, and samples them."""
        return self._client.sensors._tracker

    @property
    def major(self) -> int:
        """The major version of the device's protocol."""
        flags = self._client.protocol_flags
        return DEFAULT_KATCP_MAJOR if flags is None else flags.major

    def sensor(self, name: str) -> Any:
        """Return the object of a sensor; None if the sensor is not known."""
        description = self.sensors.get(name)
        if description is not None and name not in self._made_sensors:
            about = _sensor_arguments(description, self.major)
            self._made_sensors[name] = self._make_sensor(**about)
        return self._made_sensors.get(name)

    def request(self, name: str) -> Any:
        """Return the object of a request; None if the request is not known."""
        description = self.requests.get(name)
        if description is not None and name not in self._made_requests:
            self._made_requests[name] = self._make_request(**description._asdict())
        return self._made_requests.get(name)

    async def inspect(self, timeout: Optional[float]) -> AttrDict:
        """Ask for all, and return what has changed of which kind."""
        requests = await self.inspect_requests(None, timeout)
        sensors = await self.inspect_sensors(None, timeout)
        changes = {"requests": requests, "sensors": sensors}
        return AttrDict({kind: change for kind, change in changes.items() if change})

    async def inspect_requests(
        self, name: Optional[str], timeout: Optional[float]
    ) -> Optional[AttrDict]:
        """Ask for a request, None for all, and return what has changed."""
        informs = await self._ask("help", name, timeout, may_refuse=name is not None)
        hints = await self._timeout_hints(name, timeout) if informs else {}
        found = {}
        for inform in informs:
            known, description = map(as_text, [*inform.arguments, b"", b""][:2])
            found[known] = RequestType(known, description, hints.get(known))
        return _take_in(found, name, self.requests, self._made_requests)

    async def _timeout_hints(
        self, name: Optional[str], timeout: Optional[float]
    ) -> dict[str, float]:
        flags = self._client.protocol_flags
        if flags is None or not flags.request_timeout_hints:
            return {}
        hints = {}
        for inform in await self._ask("request-timeout-hint", name, timeout, may_refuse=True):
            try:
                known, hint = inform.get_text(0), inform.get_float(1)
            except ValueError as error:
                self._logger.warning("%s: %s", self._client.bind_address_string, error)
            else:
                if hint > 0:
                    hints[known] = hint
        return hints

    async def _ask(
        self, request: str, name: Optional[str], timeout: Optional[float], may_refuse: bool
    ) -> list[Message]:
        """Return the informs of an answer; none if the device may refuse, and does."""
        names = () if name is None else (name,)
        try:
            return (await self._client.async_ask(request, *names, timeout=timeout)).informs
        except KatcpClientError as error:
            if may_refuse and isinstance(error, KatcpReplyError):
                return []
            raise self._sync_error(error) from error

    async def inspect_sensors(
        self, name: Optional[str], timeout: Optional[float]
    ) -> Optional[AttrDict]:
        """Ask for a sensor or ``/regex/``, None for all, and return what has changed."""
        tracker = self.tracker
        try:
            if name is None:
                await tracker.list_all(timeout)
                names = list(tracker.descriptions)
            else:
                names = await tracker.list_some(name, timeout) or []
        except KatcpClientError as error:
            raise self._sync_error(error) from error
        found = {known: tracker.descriptions[known] for known in names}
        return _take_in(found, name, self.sensors, self._made_sensors)

    def _sync_error(self, error: KatcpClientError) -> SyncError:
        reason = getattr(error, "reply", None) or error
        return SyncError(f"Error syncing with device {self._client.bind_address_string}: {reason}")


def is_lost(error: Optional[BaseException]) -> bool:
    """Return whether the connection is gone, or goes in a moment: all begins anew with the next."""
    return isinstance(error, (KatcpClientDisconnected, KatcpClientStopped)) and not isinstance(
        error, KatcpClientOverflow
    )


def _take_in(
    found: dict[str, Any], name: Optional[str], known: dict[str, Any], made: dict[str, Any]
) -> Optional[AttrDict]:
    """Take in what was found; return what has been added and removed, None for nothing."""
    modified = {key for key in found.keys() & known.keys() if found[key] != known[key]}
    added = (found.keys() - known.keys()) | modified
    lost = known.keys() if name is None else known.keys() & {name}
    removed = (lost - found.keys()) | modified
    for key in removed:
        made.pop(key, None)
        known.pop(key)
    if name is None:
        # In the order in which the device lists them.
        known.clear()
    known.update(found)
    return AttrDict(added=added, removed=removed) if added or removed else None


def _sensor_arguments(description: Description, major: int) -> dict[str, Any]:
    """Return the arguments of `katcp.Sensor` for what a device says, however odd it is."""
    sensor_type = Sensor.SENSOR_TYPE_LOOKUP.get(description.type, Sensor.STRING)
    try:
        params = Sensor.parse_params(sensor_type, description.params, major)
    except ValueError:
        params = []
    if sensor_type == Sensor.DISCRETE and not params:
        sensor_type = Sensor.STRING
    return {
        "sensor_type": sensor_type,
        "name": description.name,
        "description": description.description,
        "units": description.units,
        "params": params,
    }
