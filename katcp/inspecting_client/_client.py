"""A client that knows which sensors and requests its device has."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Awaitable, Callable, Generator, Optional

from tornado import gen
from tornado.ioloop import IOLoop

from .._runtime.events import AsyncState, new_future
from .._runtime.tasks import is_awaitable, run_logged, spawn, spawn_if_awaitable
from .._sensor import Sensor
from .._state.replies import local_failure
from .._wire.flags import ProtocolFlags
from .._wire.message import Message
from .._wire.text import as_text
from ..client import AsyncClient
from ..client._descriptions import triples_of
from ..compat import AttrDict
from ..errors import KatcpClientDisconnected
from ._model import Model, RequestType, SyncError, is_lost
from ._states import (
    CHANGED,
    DISCONNECTED,
    STATES,
    SYNCED,
    SYNCING,
    UNCHANGED,
    ExponentialRandomBackoff,
    InspectingClientStateType,
)

_default_logger = logging.getLogger("katcp.inspect_client")


class InspectingClientAsync:
    """A client that asks its device for its sensors and requests, and keeps that true.

    It asks again after each reconnect, and when the device says that its interface has
    changed. What it cannot get, it asks for again after growing delays.

    Parameters
    ----------
    host, port : str, int
        Where the device is.
    ioloop : tornado.ioloop.IOLoop, optional
        The loop to run in. Default: the current one at the start.
    initial_inspection : bool, optional
        Whether to ask for everything at the first connection, or only for what the program
        wants. Default: everything.
    auto_reconnect : bool, optional
        As for `katcp.AsyncClient`.
    logger : logging.Logger, optional
        Where to log.

    Attributes
    ----------
    katcp_client : katcp.AsyncClient
        The client that it uses.
    sensor_factory, request_factory : callable
        Make what `future_get_sensor` and `future_get_request` return; called with what the
        device says, by keywords. Default: `katcp.Sensor` and `RequestType`.
    resync_delay : ExponentialRandomBackoff
        The delays after failures.

    Notes
    -----
    Its methods must be called in the loop.
    """

    #: How long an answer may take, in seconds.
    sync_timeout: float = 20

    #: The first and the longest delay after failures, in seconds.
    initial_resync_timeout: float = 5
    max_resync_timeout: float = 90

    def __init__(
        self,
        host: str,
        port: int,
        ioloop: Optional[IOLoop] = None,
        initial_inspection: Optional[bool] = None,
        auto_reconnect: bool = True,
        logger: logging.Logger = _default_logger,
    ) -> None:
        self.initial_inspection = initial_inspection is None or bool(initial_inspection)
        self.resync_delay: Optional[ExponentialRandomBackoff] = None
        self.sensor_factory: Callable[..., Any] = Sensor
        self.request_factory: Callable[..., Any] = RequestType
        self._logger = logger
        self._ioloop = ioloop
        self._state = AsyncState(STATES)
        self._state_callback: Optional[Callable[..., Any]] = None
        self._handles_values = False
        self._syncing: Optional[asyncio.Future[None]] = None
        self._is_stale = False
        self.katcp_client = client = self.inform_hook_client_factory(
            host, port, auto_reconnect=auto_reconnect, logger=logger
        )
        self._model = Model(
            client,
            logger,
            make_sensor=lambda **about: self.sensor_factory(**about),
            make_request=lambda **about: self.request_factory(**about),
        )
        client.add_inform_callback("sensor-status", self._on_values)
        client.add_inform_callback("interface-changed", self._on_interface_changed)
        client.add_inform_callback("device-changed", self._on_interface_changed)
        client.add_connection_callback(self._on_connection)

    def inform_hook_client_factory(
        self, host: str, port: int, *args: Any, **kwargs: Any
    ) -> AsyncClient:
        """Return the client to use; for subclasses.

        Parameters
        ----------
        host, port
            Where the device is.
        *args, **kwargs
            More arguments of `katcp.AsyncClient`.

        Returns
        -------
        katcp.AsyncClient
        """
        return AsyncClient(host, port, *args, **kwargs)

    # Where it is, and how far.

    @property
    def bind_address(self) -> tuple[str, int]:
        """(host, port) of the device."""
        return self.katcp_client.bind_address

    @property
    def bind_address_string(self) -> str:
        """``host:port`` of the device."""
        return self.katcp_client.bind_address_string

    @property
    def ioloop(self) -> IOLoop:
        """The loop."""
        return self.katcp_client.ioloop or self._ioloop or IOLoop.current()

    @property
    def state(self) -> InspectingClientStateType:
        """How far the device is known."""
        return self._state.state  # type: ignore[return-value]

    @property
    def valid_states(self) -> Any:
        """All states."""
        return self._state.valid_states

    @property
    def connected(self) -> bool:
        """Whether the client is connected."""
        return self.state.connected

    @property
    def synced(self) -> bool:
        """Whether all is known."""
        return self.state.synced

    @property
    def sensors(self) -> list[str]:
        """The names of the sensors that are known."""
        return list(self._model.sensors)

    @property
    def requests(self) -> list[str]:
        """The names of the requests that are known."""
        return list(self._model.requests)

    @property
    def model(self) -> Model:
        """What the device has; for the resource clients."""
        return self._model

    def is_connected(self) -> bool:
        """Return whether the client is connected."""
        return self.connected

    # Start and stop.

    def set_ioloop(self, ioloop: Optional[IOLoop]) -> None:
        """Set the loop to run in; before the start.

        Parameters
        ----------
        ioloop : tornado.ioloop.IOLoop or None
            The loop. None: the current one at the start.
        """
        self._ioloop = ioloop

    def preset_protocol_flags(self, protocol_flags: ProtocolFlags) -> None:
        """Set the protocol of the device, which then need not say it.

        Parameters
        ----------
        protocol_flags : katcp.ProtocolFlags
            The protocol.
        """
        self.katcp_client.preset_protocol_flags(protocol_flags)

    def set_state_callback(self, cb: Optional[Callable[..., Any]]) -> None:
        """Call a function whenever the state is set.

        Parameters
        ----------
        cb : callable or None
            Called as ``cb(state, model_changes)``; what it returns is awaited before the
            next state. The changes are None, or an `AttrDict` with ``sensors``,
            ``requests`` or both, each with the sets ``added`` and ``removed``; what has
            been modified is in both.
        """
        self._state_callback = cb

    @gen.coroutine
    def connect(self, timeout: Optional[float] = None) -> Generator[Any, Any, None]:
        """Start the client.

        Parameters
        ----------
        timeout : float in seconds, optional
            How long to wait for the connection. Default: do not wait.

        Returns
        -------
        tornado.concurrent.Future

        Raises
        ------
        tornado.gen.TimeoutError
            If there is no connection in time; raised by the future, as are the others.
        KatcpUsageError
            If it is started already.
        """
        self.begin()
        if timeout:
            yield self.until_connected(timeout)

    start = connect

    def begin(self) -> None:
        """Start the client, as `connect` does; any thread, whether or not the loop runs."""
        client = self.katcp_client
        if client.ioloop is None:
            client.set_ioloop(self._ioloop)
        client.start()
        self.resync_delay = ExponentialRandomBackoff(
            self.initial_resync_timeout, self.max_resync_timeout
        )
        spawn_if_awaitable(self._enter(DISCONNECTED))

    def stop(self, timeout: Optional[float] = None) -> None:
        """Stop the client; see `katcp.DeviceClient.stop`."""
        self.katcp_client.stop(timeout)

    close = stop

    def join(self, timeout: Optional[float] = None) -> None:
        """Do what `katcp.DeviceClient.join` does: nothing, since the loop is given."""
        self.katcp_client.join(timeout)

    # Waiting.

    def until_connected(self, timeout: Optional[float] = None) -> Awaitable[None]:
        """Return a future that resolves when the client is connected."""
        return self.katcp_client.until_connected(timeout)

    def until_stopped(self, timeout: Optional[float] = None) -> Awaitable[Any]:
        """Return a future that resolves when the client has stopped."""
        return self.katcp_client.until_stopped(timeout)

    def until_state(
        self, desired_state: InspectingClientStateType, timeout: Optional[float] = None
    ) -> Awaitable[bool]:
        """Return a future that resolves with True in a state.

        Parameters
        ----------
        desired_state : InspectingClientStateType
            One of `valid_states`.
        timeout : float in seconds, optional
            After this time the future fails with `tornado.gen.TimeoutError`. 0 or None: no
            limit.
        """
        return self._state.until_state(desired_state, timeout or None)

    def until_synced(self, timeout: Optional[float] = None) -> Awaitable[bool]:
        """Return a future that resolves with True when all is known; as `until_state`."""
        return self.until_state(SYNCED, timeout)

    def until_not_synced(self, timeout: Optional[float] = None) -> Awaitable[bool]:
        """Return a future that resolves with True when not all is known; as `until_state`."""
        return self._until(lambda state: not state.synced, timeout)

    def until_data_synced(self, timeout: Optional[float] = None) -> Awaitable[bool]:
        """Return a future that resolves with True when all has been asked for."""
        return self._until(lambda state: state.data_synced, timeout)

    def _until(
        self, holds: Callable[[InspectingClientStateType], bool], timeout: Optional[float]
    ) -> Awaitable[bool]:
        states = filter(holds, STATES)
        return self._state.until_state_in(*states, timeout=timeout or None)  # type: ignore[no-any-return]

    # Keeping in sync.

    def _enter(self, state: InspectingClientStateType, changes: Optional[AttrDict] = None) -> Any:
        """Set the state, and return what the callback returns."""
        self._state.set_state(state)
        if self._state_callback is None:
            return None
        try:
            return self._state_callback(state, changes)
        except Exception:
            self._log_callback_error()
            return None

    def _log_callback_error(self) -> None:
        self._logger.exception("Unhandled exception in the state callback")

    async def _tell(
        self, state: InspectingClientStateType, changes: Optional[AttrDict] = None
    ) -> None:
        """Set the state, and wait until the callback has taken it in."""
        result = self._enter(state, changes)
        if is_awaitable(result):
            await run_logged(result, self._log_callback_error)

    def _on_connection(self, connected: bool) -> None:
        if self._syncing is not None:
            self._syncing.cancel()
            self._syncing = None
        if connected:
            self._sync_soon()
        else:
            spawn_if_awaitable(self._enter(DISCONNECTED))

    def _on_interface_changed(self, msg: Message) -> None:
        self._is_stale = True
        if self._syncing is None:
            self._sync_soon()

    def _sync_soon(self) -> None:
        self._is_stale = True
        spawn_if_awaitable(self._enter(SYNCING))
        self._syncing = spawn(self._sync())

    async def _sync(self) -> None:
        """Learn what the device has, until nothing has changed meanwhile."""
        await self.katcp_client.until_protocol()
        while self._is_stale:
            self._is_stale = False
            await self._tell(SYNCING)
            changes = await self._inspect_patiently()
            await self._tell(CHANGED if changes else UNCHANGED, changes or None)
            if not self._is_stale:
                await self._tell(SYNCED)
        self._syncing = None

    async def _inspect_patiently(self) -> AttrDict:
        """Ask for everything, again and again, and return what has changed."""
        if not self.initial_inspection:
            self.initial_inspection = True
            return AttrDict()
        delay = self.resync_delay
        assert delay is not None
        has_failed = False
        while True:
            try:
                changes = await self._model.inspect(self.sync_timeout)
                break
            except SyncError as error:
                if not is_lost(error.__cause__):
                    self._logger.warning("%s. Retrying in %.1f s.", error, delay.delay)
            has_failed = True
            await asyncio.sleep(delay.delay)
            delay.failed()
        delay.success()
        if has_failed:
            self._logger.warning("Resynced with %s after failure", self.bind_address_string)
        return changes

    @gen.coroutine
    def inspect(self) -> Generator[Any, Any, None]:
        """Ask the device for all its requests and sensors now; raise as `inspect_requests`."""
        yield self._model.inspect(None)

    def inspect_requests(
        self, name: Optional[str] = None, timeout: Optional[float] = None
    ) -> Awaitable[Optional[AttrDict]]:
        """Ask the device for a request now, or for all.

        Parameters
        ----------
        name : str, optional
            The name. Default: all.
        timeout : float in seconds, optional
            How long the answer may take. Default: as for requests.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with an `AttrDict` of the sets ``added`` and ``removed``, or None.

        Raises
        ------
        SyncError
            If the device does not answer; raised by the future.
        """
        return spawn(self._model.inspect_requests(name, timeout))

    def inspect_sensors(
        self, name: Optional[str] = None, timeout: Optional[float] = None
    ) -> Awaitable[Optional[AttrDict]]:
        """Ask the device for a sensor, for ``/regex/`` or for all; as `inspect_requests`."""
        return spawn(self._model.inspect_sensors(name, timeout))

    # What the device has.

    @gen.coroutine
    def future_check_sensor(
        self, name: str, update: Optional[bool] = None
    ) -> Generator[Any, Any, bool]:
        """Find out whether the device has a sensor.

        Parameters
        ----------
        name : str
            The name.
        update : bool, optional
            Whether to ask the device for a sensor that is not known. Default: yes.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with a bool, when the client is synced.

        Raises
        ------
        SyncError
            If the device does not answer; raised by the future.
        """
        yield self.until_data_synced()
        if name not in self._model.sensors and update is not False:
            yield self.inspect_sensors(name)
        return name in self._model.sensors

    @gen.coroutine
    def future_get_sensor(
        self, name: str, update: Optional[bool] = None
    ) -> Generator[Any, Any, Any]:
        """Return a sensor, or None, as `future_check_sensor` finds it.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with what ``sensor_factory`` has made, by default a `katcp.Sensor`
            that is set with each update.
        """
        yield self.future_check_sensor(name, update)
        return self._model.sensor(name)

    @gen.coroutine
    def future_check_request(
        self, name: str, update: Optional[bool] = None
    ) -> Generator[Any, Any, bool]:
        """Find out whether the device has a request; as `future_check_sensor`."""
        yield self.until_data_synced()
        if name not in self._model.requests and update is not False:
            yield self.inspect_requests(name)
        return name in self._model.requests

    @gen.coroutine
    def future_get_request(
        self, name: str, update: Optional[bool] = None
    ) -> Generator[Any, Any, Any]:
        """Return what ``request_factory`` makes of a request, or None; as `future_get_sensor`."""
        yield self.future_check_request(name, update)
        return self._model.request(name)

    # Values.

    def handle_sensor_value(self) -> None:
        """Set sensors also with what comes as the answer to ``?sensor-value``."""
        self._handles_values = True

    def _on_values(self, msg: Message) -> None:
        """Take in a ``#sensor-status`` or ``#sensor-value``."""
        for name, status, value in triples_of(msg):
            update = self.update_sensor(as_text(name), msg.arguments[0], status, value)
            spawn_if_awaitable(update)

    def update_sensor(self, name: str, timestamp: bytes, status: bytes, value: bytes) -> Any:
        """Set a sensor with what the device has sent; for subclasses.

        Parameters
        ----------
        name : str
            The name.
        timestamp, status, value : bytes
            The arguments of the inform.

        Returns
        -------
        awaitable or None
            If a subclass returns an awaitable, it is run.
        """
        sensor = self._model.sensor(name)
        if sensor is None:
            spawn(self._update_new_sensor(name, timestamp, status, value))
        else:
            self._set_sensor(name, sensor, timestamp, status, value)

    async def _update_new_sensor(self, name: str, *raw_reading: bytes) -> None:
        try:
            sensor = await self.future_get_sensor(name)
        except SyncError:
            sensor = None
        if sensor is None:
            self._model.tracker.warn(name, "an update, though the device does not list it")
        else:
            self._set_sensor(name, sensor, *raw_reading)

    def _set_sensor(self, name: str, sensor: Any, *raw_reading: bytes) -> None:
        try:
            sensor.set_formatted(*raw_reading, self._model.major)
        except (ValueError, KeyError) as error:
            self._model.tracker.warn(name, f"an update that cannot be read: {error}")

    # Requests.

    def simple_request(
        self, request: str, *args: Any, **kwargs: Any
    ) -> Awaitable[tuple[Message, list[Message]]]:
        """Make a request.

        Parameters
        ----------
        request : str
            The name.
        *args
            The arguments, as for `katcp.Message.request`.
        **kwargs
            ``timeout`` in seconds, ``mid``, ``use_mid``; others are ignored.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with reply and informs, as that of
            `katcp.AsyncClient.future_request`.
        """
        client = self.katcp_client
        msg = Message.request(request, *args, mid=kwargs.get("mid"))
        timeout, use_mid = kwargs.get("timeout"), kwargs.get("use_mid")
        if client.ioloop is not None and not client.running():
            error = KatcpClientDisconnected(f"Not connected to device {self.bind_address_string}")
            future = new_future(client.ioloop)
            future.set_result((local_failure(msg, error), []))
            return future  # type: ignore[no-any-return]
        if self._handles_values and msg.name == "sensor-value":
            return self._request_values(msg, timeout, use_mid)
        return client.future_request(msg, timeout, use_mid)

    def _request_values(
        self, msg: Message, timeout: Optional[float], use_mid: Optional[bool]
    ) -> Awaitable[tuple[Message, list[Message]]]:
        """Make a request, and take in each value before what comes after it."""
        future = new_future(self.ioloop)
        informs: list[Message] = []

        def take_inform(inform: Message) -> None:
            informs.append(inform)
            self._on_values(inform)

        def take_reply(reply: Message) -> None:
            if not future.done():
                future.set_result((reply, informs))

        self.katcp_client.callback_request(
            msg, take_reply, take_inform, timeout=timeout, use_mid=use_mid
        )
        return future  # type: ignore[no-any-return]
