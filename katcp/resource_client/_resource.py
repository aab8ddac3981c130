"""The resource client of one device."""

from __future__ import annotations

import functools
import logging
import re
from typing import Any, Awaitable, Callable, Generator, Iterable, Mapping, Optional

from tornado import gen
from tornado.ioloop import IOLoop

from .._runtime.events import AsyncEvent, AsyncState, until_any
from ..client import address_to_string
from ..compat import AttrDict, DefaultAttrDict
from ..errors import KatcpUsageError
from ..inspecting_client import InspectingClientStateType
from ..resource import (
    KATCPDummyRequest,
    KATCPRequest,
    KATCPResource,
    KATCPSensor,
    escape_name,
    normalize_strategy_parameters,
)
from ._manager import (
    KATCPClientResourceRequest,
    KATCPClientResourceSensorsManager,
    ReplyWrappedInspectingClientAsync,
    default_logger,
    is_refused,
)

_STATES = ("disconnected", "syncing", "synced")

_DUMMY = {"name": "dummy", "description": "No help for dummies", "timeout_hint": None}


class KATCPClientResource(KATCPResource):
    """A device with its requests and sensors, which are kept true.

    Parameters
    ----------
    resource_spec : dict
        With the keys ``address`` (host, port) and ``name``, and perhaps:

        - ``description`` (str);
        - ``controlled`` (bool): whether all requests may be made, or by default only
          ``always_allowed_requests`` (names); never ``always_excluded_requests``;
        - ``auto_reconnect`` (bool) and ``auto_reconnect_delay`` (seconds);
        - ``dummy_unknown_requests`` (bool): whether requests that the device does not have
          succeed without being made;
        - ``preset_protocol_flags``: the protocol, if the device does not say it.
    parent : KATCPResource, optional
        The resource that it is a part of.
    logger : logging.Logger, optional
        Where to log.

    Raises
    ------
    KeyError
        If a key is missing.

    Notes
    -----
    Its methods must be called in the loop; see `ThreadSafeKATCPClientResourceWrapper`.
    """

    #: Kept for old programs.
    MAX_LOOP_LATENCY: float = 0.03

    def __init__(
        self,
        resource_spec: Mapping[str, Any],
        parent: Optional[KATCPResource] = None,
        logger: logging.Logger = default_logger,
    ) -> None:
        super().__init__()
        self._address = resource_spec["address"]
        self._name = resource_spec["name"]
        self._description = resource_spec.get("description", "")
        self._parent = parent
        self._logger = logger
        self._controlled = resource_spec.get("controlled", False)
        self._preset_protocol_flags = resource_spec.get("preset_protocol_flags")
        self._dummy_unknown_requests = resource_spec.get("dummy_unknown_requests", False)
        self.auto_reconnect = resource_spec.get("auto_reconnect", True)
        self.auto_reconnect_delay = resource_spec.get("auto_reconnect_delay")
        self.always_allowed_requests = _identifiers(resource_spec, "always_allowed_requests")
        self.always_excluded_requests = _identifiers(resource_spec, "always_excluded_requests")
        self._sensor = AttrDict()
        self._req: Any = AttrDict()
        if self._dummy_unknown_requests:
            self._req = DefaultAttrDict(lambda: KATCPDummyRequest(_DUMMY))
        self._state = AsyncState(_STATES)
        self._ioloop: Optional[IOLoop] = None
        self._client: Optional[ReplyWrappedInspectingClientAsync] = None
        self._manager: Optional[KATCPClientResourceSensorsManager] = None
        self._is_stopped = False
        # What is wanted of sensors that are not there yet, by escaped name.
        self._pending: dict[str, Any] = {}
        self._listeners: dict[str, list[Callable[..., Any]]] = {}

    def __repr__(self) -> str:
        cls = type(self)
        return f"<{cls.__module__}.{cls.__name__}(name={self.name}) at {id(self):#x}>"

    # What it is.

    @property
    def host(self) -> str:
        """Where the device is."""
        return self._address[0]  # type: ignore[index]

    @property
    def port(self) -> int:
        """The port of the device."""
        return self._address[1]  # type: ignore[index]

    @property
    def address_string(self) -> str:
        """``host:port``."""
        return address_to_string(self._address)  # type: ignore[arg-type]

    @property
    def parent_name(self) -> str:
        """The name of the parent."""
        return self._parent.name  # type: ignore[union-attr]

    @property
    def controlled(self) -> bool:
        """Whether all requests may be made."""
        return self._controlled  # type: ignore[no-any-return]

    @property
    def dummy_unknown_requests(self) -> bool:
        """Whether requests that the device does not have succeed."""
        return self._dummy_unknown_requests  # type: ignore[no-any-return]

    @property
    def req(self) -> Any:
        """The requests, by escaped name: ``yield resource.req.sensor_value("a")``."""
        return self._req

    @property
    def sensor(self) -> Any:
        """The sensors, by escaped name: ``yield resource.sensor.a_b.get_value()``."""
        return self._sensor

    @property
    def versions(self) -> Any:
        """What the device says of its versions, as `katcp.DeviceClient.versions`."""
        return self._started_client().katcp_client.versions

    @property
    def last_connect_time(self) -> Optional[float]:
        """When it was connected last, as `katcp.DeviceClient.last_connect_time`."""
        return self._started_client().katcp_client.last_connect_time

    def _started_client(self) -> ReplyWrappedInspectingClientAsync:
        if self._client is None:
            raise KatcpUsageError("Cannot find inspecting client, have you called start()?")
        return self._client

    # Start and stop.

    def set_ioloop(self, ioloop: Optional[IOLoop] = None) -> None:
        """Set the loop to run in; before the start.

        Parameters
        ----------
        ioloop : tornado.ioloop.IOLoop, optional
            The loop. Default: the current one.
        """
        self._ioloop = ioloop or IOLoop.current()

    def inspecting_client_factory(
        self, host: str, port: int, ioloop_set_to: Optional[IOLoop]
    ) -> ReplyWrappedInspectingClientAsync:
        """Return the client to use; for subclasses.

        Parameters
        ----------
        host, port
            Where the device is.
        ioloop_set_to : tornado.ioloop.IOLoop or None
            The loop.

        Returns
        -------
        ReplyWrappedInspectingClientAsync
        """
        return ReplyWrappedInspectingClientAsync(
            host, port, ioloop=ioloop_set_to, auto_reconnect=self.auto_reconnect
        )

    def start(self) -> None:
        """Connect to the device, and learn what it has.

        Raises
        ------
        KatcpUsageError
            If it is started already.
        """
        if self._client is None or self._is_stopped:
            self._client = self._new_client()
        self._client.begin()
        self._is_stopped = False

    def _new_client(self) -> ReplyWrappedInspectingClientAsync:
        client = self.inspecting_client_factory(self.host, self.port, self._ioloop)
        if self.auto_reconnect_delay is not None:
            client.katcp_client.auto_reconnect_delay = self.auto_reconnect_delay
        if self._preset_protocol_flags is not None:
            client.preset_protocol_flags(self._preset_protocol_flags)
        manager = KATCPClientResourceSensorsManager(client, self.name, logger=self._logger)
        if self._manager is not None:
            manager.strategies = self._manager.strategies
        self._manager = manager
        client.handle_sensor_value()
        client.sensor_factory = self._make_sensor
        client.request_factory = functools.partial(self._make_request, client)
        client.set_state_callback(functools.partial(self._on_state, client))
        return client

    def stop(self) -> None:
        """Disconnect; does nothing before the start."""
        if self._client is not None:
            self._is_stopped = True
            self._client.stop()

    # States.

    @property
    def state(self) -> str:
        """``disconnected``, ``syncing`` or ``synced``."""
        return self._state.state  # type: ignore[return-value]

    @property
    def synced(self) -> bool:
        """Whether all sensors and requests are known, and sampled as wanted."""
        return self.state == "synced"

    def is_connected(self) -> bool:
        """Return whether it is connected."""
        return self.state != "disconnected"

    def until_state(self, state: str, timeout: Optional[float] = None) -> Awaitable[bool]:
        """Return a future that resolves with True in a state.

        Parameters
        ----------
        state : str
            The state.
        timeout : float in seconds, optional
            After this time the future fails with `tornado.gen.TimeoutError`. 0 or None: no
            limit.

        Raises
        ------
        ValueError
            If there is no such state.
        """
        return self._state.until_state(state, timeout or None)

    def until_synced(self, timeout: Optional[float] = None) -> Awaitable[bool]:
        """Return a future that resolves with True when synced; as `until_state`."""
        return self.until_state("synced", timeout)

    def until_not_synced(self, timeout: Optional[float] = None) -> Awaitable[bool]:
        """Return a future that resolves with True when not synced; as `until_state`."""
        return self._until("disconnected", "syncing", timeout=timeout)

    def wait_connected(self, timeout: Optional[float] = None) -> Awaitable[bool]:
        """Return a future that resolves with True when connected; as `until_state`."""
        return self._until("syncing", "synced", timeout=timeout)

    def until_stopped(self, timeout: Optional[float] = None) -> Awaitable[Any]:
        """Return a future that resolves when the client has stopped; as `until_state`."""
        return self._started_client().until_stopped(timeout or None)

    def _until(self, *states: str, timeout: Optional[float]) -> Awaitable[bool]:
        return self._state.until_state_in(*states, timeout=timeout or None)  # type: ignore[no-any-return]

    # Keeping in sync.

    def _on_state(
        self,
        client: ReplyWrappedInspectingClientAsync,
        state: InspectingClientStateType,
        changes: Optional[AttrDict],
    ) -> Any:
        """Take in how far the client is, and return what it must wait for."""
        if client is not self._client:
            # One that was stopped.
            return None
        if not state.connected:
            self._state.set_state("disconnected")
        elif state.synced:
            self._state.set_state("synced")
        else:
            self._state.set_state("syncing")
            if state.data_synced:
                self._take_in_requests(client)
                self._take_in_sensors(client)
                return self._sample()
        return None

    def _take_in_requests(self, client: ReplyWrappedInspectingClientAsync) -> None:
        known = {}
        for name in client.requests:
            identifier = escape_name(name)
            if (
                self._controlled or identifier in self.always_allowed_requests
            ) and identifier not in self.always_excluded_requests:
                known[identifier] = client.model.request(name)
        for identifier, request in list(dict.items(self._req)):
            if identifier not in known and not isinstance(request, KATCPDummyRequest):
                del self._req[identifier]
        dict.update(self._req, known)

    def _take_in_sensors(self, client: ReplyWrappedInspectingClientAsync) -> None:
        names = {escape_name(name): name for name in client.sensors}
        for identifier, sensor in list(dict.items(self._sensor)):
            if names.get(identifier) != sensor.name:
                del self._sensor[identifier]
                if sensor.sampling_strategy != ("none",):
                    self._logger.warning("%s: sensor %s has vanished", self.name, sensor.name)
        for identifier, name in names.items():
            sensor = client.model.sensor(name)
            if identifier not in self._sensor:
                self._sensor[identifier] = sensor
                for listener in self._listeners.get(identifier, ()):
                    sensor.register_listener(listener, reading=True)

    @gen.coroutine
    def _sample(self) -> Generator[Any, Any, None]:
        """Set all strategies on the device."""
        manager = self._manager
        assert manager is not None
        pending = {
            sensor.name: self._pending.pop(identifier)
            for identifier, sensor in dict.items(self._sensor)
            if identifier in self._pending
        }
        yield manager.reapply_sampling_strategies()
        manager.log_failures((yield manager.set_strategies(pending)))

    def _make_sensor(self, **description: Any) -> KATCPSensor:
        """Return a sensor that the device has, the old one if it is known."""
        assert self._manager is not None
        sensor = dict.get(self._sensor, escape_name(description["name"]))
        if sensor is None or sensor.name != description["name"]:
            return self._manager.sensor_factory(**description)
        sensor.describe(description, self._manager)
        return sensor  # type: ignore[no-any-return]

    def _make_request(
        self, client: ReplyWrappedInspectingClientAsync, **description: Any
    ) -> KATCPRequest:
        return KATCPClientResourceRequest(description, client, is_active=self.is_active)

    # Sensors.

    @gen.coroutine
    def set_sampling_strategy(
        self, sensor_name: str, strategy_and_parms: Any
    ) -> Generator[Any, Any, dict[str, Any]]:
        """Have a sensor sampled; see `KATCPResource.set_sampling_strategy`."""
        identifier = escape_name(sensor_name)
        if identifier in self._sensor:
            result: dict[str, Any] = yield self._set_strategies([identifier], strategy_and_parms)
            return result
        self._pending[identifier] = normalize_strategy_parameters(strategy_and_parms)
        return {}

    @gen.coroutine
    def set_sampling_strategies(
        self, filter: str, strategy_and_parms: Any
    ) -> Generator[Any, Any, dict[str, Any]]:
        """Have sensors sampled; see `KATCPResource.set_sampling_strategies`."""
        regex = re.compile(filter)
        identifiers = sorted(identifier for identifier in self._sensor if regex.search(identifier))
        result: dict[str, Any] = yield self._set_strategies(identifiers, strategy_and_parms)
        return result

    @gen.coroutine
    def _set_strategies(
        self, identifiers: Iterable[str], strategy: Any
    ) -> Generator[Any, Any, dict[str, Any]]:
        manager = self._manager
        if manager is None:
            return {}
        names = {identifier: self._sensor[identifier].name for identifier in identifiers}
        failed = yield manager.set_strategies(dict.fromkeys(names.values(), strategy))
        manager.log_failures(failed)
        return {
            identifier: strategy
            for identifier, name in names.items()
            if name not in failed or not is_refused(failed[name])
        }

    def drop_sampling_strategy(self, sensor_name: str) -> None:
        """Set the strategy of a sensor no more after a reconnect; the device is not told.

        Parameters
        ----------
        sensor_name : str
            The name, escaped or not.
        """
        identifier = escape_name(sensor_name)
        self._pending.pop(identifier, None)
        sensor = dict.get(self._sensor, identifier)
        if sensor is not None:
            sensor.drop_sampling_strategy()

    @gen.coroutine
    def set_sensor_listener(self, sensor_name: str, listener: Callable[..., Any]) -> dict[str, Any]:
        """Call a function with each reading of a sensor, now and whenever the sensor is there.

        Parameters
        ----------
        sensor_name : str
            The name, escaped or not.
        listener : callable
            Called in the loop as ``listener(sensor, reading)``.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with a dict from escaped name to listener, empty if there is no such
            sensor yet.
        """
        identifier = escape_name(sensor_name)
        self._listeners.setdefault(identifier, []).append(listener)
        if identifier not in self._sensor:
            return {}
        self._sensor[identifier].register_listener(listener, reading=True)
        return {identifier: listener}


def _identifiers(spec: Mapping[str, Any], key: str) -> set[str]:
    return set(map(escape_name, spec.get(key, ())))


@gen.coroutine
def monitor_resource_sync_state(
    resource: Any,
    callback: Callable[[bool], Any],
    exit_event: Optional[AsyncEvent] = None,
) -> Generator[Any, Any, None]:
    """Call a function whenever a resource becomes synced, or is so no more.

    Parameters
    ----------
    resource : KATCPClientResource or KATCPClientResourceContainer
        The resource.
    callback : callable
        Called as ``callback(synced)``; first with False.
    exit_event : AsyncEvent, optional
        Ends it when it is set.

    Returns
    -------
    tornado.concurrent.Future
    """
    exit_event = exit_event or AsyncEvent()
    leaving = exit_event.until_set()
    synced = False
    while not exit_event.is_set():
        callback(synced)
        until = resource.until_not_synced if synced else resource.until_synced
        yield until_any(until(), leaving)
        synced = not synced
