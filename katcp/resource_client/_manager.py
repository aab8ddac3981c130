"""What sensors and requests of a `KATCPClientResource` ask the device through."""

from __future__ import annotations

import logging
import time
from typing import Any, Awaitable, Callable, Generator, Mapping, Optional

from tornado import gen

from .._runtime.events import new_future
from .._state.replies import KatcpReplyError
from .._state.subscriptions import NONE, Strategy, parse_strategy
from .._wire.flags import MS_TO_SEC_FAC, SEC_TS_KATCP_MAJOR
from .._wire.message import Message
from ..client._sampler import Sampler
from ..errors import KatcpClientDisconnected, KatcpClientError
from ..inspecting_client import InspectingClientAsync
from ..inspecting_client._model import is_lost
from ..resource import (
    KATCPReply,
    KATCPRequest,
    KATCPSensor,
    KATCPSensorError,
    KATCPSensorsManager,
    escape_name,
    normalize_strategy_parameters,
)
from ..resource._values import NO_STRATEGY

default_logger = logging.getLogger("katcp.resource_client")


def transform_future(transformation: Callable[[Any], Any], future: Any) -> Any:
    """Return a future of what a function makes of the result of another future.

    Parameters
    ----------
    transformation : callable
        The function, called as ``transformation(result)``.
    future : tornado.concurrent.Future
        The other future; what it raises is passed on.

    Returns
    -------
    tornado.concurrent.Future
    """
    transformed = new_future()

    def transform(future: Any) -> None:
        if transformed.done():
            return
        try:
            transformed.set_result(transformation(future.result()))
        except Exception as error:
            transformed.set_exception(error)

    future.add_done_callback(transform)
    return transformed


class ReplyWrappedInspectingClientAsync(InspectingClientAsync):
    """An `InspectingClientAsync` whose requests may be answered with a `KATCPReply`."""

    @staticmethod
    def reply_wrapper(x: tuple[Message, list[Message]]) -> Any:
        """Return what `wrapped_request` makes of reply and informs; for subclasses.

        Parameters
        ----------
        x : tuple
            Reply and informs.

        Returns
        -------
        KATCPReply
        """
        return KATCPReply(*x)

    def wrapped_request(self, request: str, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Make a request, as `InspectingClientAsync.simple_request` does.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with a `KATCPReply`.
        """
        future = self.simple_request(request, *args, **kwargs)
        return transform_future(self.reply_wrapper, future)  # type: ignore[no-any-return]


class KATCPClientResourceRequest(KATCPRequest):
    """A request of a device.

    Parameters
    ----------
    request_description : dict
        As for `KATCPRequest`.
    client : ReplyWrappedInspectingClientAsync
        The client of the device.
    is_active : callable, optional
        As for `KATCPRequest`.
    """

    def __init__(
        self,
        request_description: Mapping[str, Any],
        client: ReplyWrappedInspectingClientAsync,
        is_active: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(request_description, is_active)
        self._client = client

    def issue_request(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Make the request; its timeout is the hint of the device if none is given.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with a `KATCPReply`.
        """
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.timeout_hint
        return self._client.wrapped_request(self.name, *args, **kwargs)


class KATCPClientResourceSensorsManager(KATCPSensorsManager):
    """Polls and samples the sensors of a device.

    Parameters
    ----------
    inspecting_client : InspectingClientAsync
        The client of the device.
    resource_name : str
        The name of the resource.
    logger : logging.Logger, optional
        Where to log.

    Attributes
    ----------
    strategies : dict
        How sensors are sampled, by escaped name.
    """

    def __init__(
        self,
        inspecting_client: InspectingClientAsync,
        resource_name: str,
        logger: logging.Logger = default_logger,
    ) -> None:
        self.resource_name = resource_name
        self.strategies: dict[str, tuple[str, ...]] = {}
        self._client = inspecting_client
        self._sampler = Sampler(inspecting_client.model.tracker)
        self._logger = logger

    def sensor_factory(self, **sensor_description: Any) -> KATCPSensor:
        """Return a sensor; for subclasses.

        Parameters
        ----------
        **sensor_description
            The arguments of `katcp.Sensor`.

        Returns
        -------
        KATCPSensor
        """
        return KATCPSensor(sensor_description, self)

    def time(self) -> float:
        """Return the time, in seconds since 1970."""
        return time.time()

    @gen.coroutine
    def poll_sensor(self, sensor_name: str) -> Generator[Any, Any, None]:
        """Have the device send the reading of a sensor now.

        Returns
        -------
        tornado.concurrent.Future

        Raises
        ------
        KATCPSensorError
            If the device does not; raised by the future.
        """
        reply = KATCPReply(*(yield self._client.simple_request("sensor-value", sensor_name)))
        if not reply.succeeded:
            raise KATCPSensorError(f"Error polling sensor {sensor_name}: \n{reply}")

    def get_sampling_strategy(self, sensor_name: str) -> tuple[str, ...]:
        """Return how a sensor is sampled, as `normalize_strategy_parameters` does."""
        return self.strategies.get(escape_name(sensor_name), NO_STRATEGY)

    def drop_sampling_strategy(self, sensor_name: str) -> None:
        """Set the strategy of a sensor no more; the device is not told."""
        self.strategies.pop(escape_name(sensor_name), None)
        self._sampler.forget(sensor_name)

    @gen.coroutine
    def set_sampling_strategy(
        self, sensor_name: str, strategy_and_params: Any
    ) -> Generator[Any, Any, tuple[bool, Any]]:
        """Have a sensor sampled.

        Parameters
        ----------
        sensor_name : str
            The name, as the device knows it.
        strategy_and_params : str or sequence
            Name and parameters: ``"period 2"`` or ``("period", 2)``; in the units of the
            device.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with (True, strategy), or with (False, why not).
        """
        failed = yield self.set_strategies({sensor_name: strategy_and_params})
        if failed:
            return False, str(failed[sensor_name])
        return True, normalize_strategy_parameters(strategy_and_params)

    @gen.coroutine
    def set_strategies(
        self, strategies: Mapping[str, Any]
    ) -> Generator[Any, Any, dict[str, KATCPSensorError]]:
        """Have several sensors sampled.

        Parameters
        ----------
        strategies : dict
            From the name of a sensor to its strategy.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with those that failed, and why. What the device, or we, have refused
            is forgotten; the others are set as soon as the device is there.
        """
        wanted: dict[str, Strategy] = {}
        before: dict[str, tuple[str, ...]] = {}
        failed: dict[str, Exception] = {}
        for name, given in strategies.items():
            try:
                normalized = normalize_strategy_parameters(given)
                wanted[name] = self._strategy(normalized)
            except (TypeError, ValueError) as error:
                failed[name] = error
            else:
                before[name] = self.get_sampling_strategy(name)
                self._keep(name, normalized)
        try:
            failed.update((yield self._set(wanted)))
        except KatcpClientError as lost:
            failed.update(dict.fromkeys(wanted, lost))
        for name, reason in failed.items():
            if isinstance(reason, KatcpReplyError):
                self._keep(name, before[name])
        return {name: _strategy_error(name, reason) for name, reason in failed.items()}

    async def _set(self, wanted: Mapping[str, Strategy]) -> Mapping[str, Exception]:
        if wanted and not self._client.connected:
            address = self._client.bind_address_string
            raise KatcpClientDisconnected(f"Not connected to device {address}")
        return await self._sampler.set(wanted)

    def _keep(self, sensor_name: str, strategy: tuple[str, ...]) -> None:
        if strategy == NO_STRATEGY:
            self.strategies.pop(escape_name(sensor_name), None)
        else:
            self.strategies[escape_name(sensor_name)] = strategy

    def _strategy(self, normalized: tuple[str, ...]) -> Strategy:
        """Return a strategy with periods in seconds, which programs give in units of the device."""
        strategy = parse_strategy(normalized)
        if strategy == NONE or self._client.model.major >= SEC_TS_KATCP_MAJOR:
            return strategy
        params = list(strategy.params)
        first = 1 if strategy.name.startswith("differential") else 0
        params[first:] = [param * MS_TO_SEC_FAC for param in params[first:]]
        return strategy._replace(params=tuple(params))

    @gen.coroutine
    def reapply_sampling_strategies(self) -> Generator[Any, Any, None]:
        """Set the strategies of all sensors that the device has; log those that fail.

        Returns
        -------
        tornado.concurrent.Future
        """
        names = self._client.sensors
        strategies = {name: self.get_sampling_strategy(name) for name in names}
        kept = {name: kept for name, kept in strategies.items() if kept != NO_STRATEGY}
        self.log_failures((yield self.set_strategies(kept)))

    def log_failures(self, failed: Mapping[str, Exception]) -> None:
        """Log the strategies that failed, unless they are set with the next connection."""
        for error in failed.values():
            if not is_lost(error.__cause__):
                self._logger.error("%s: %s", self.resource_name, error)


def _strategy_error(sensor_name: str, error: Exception) -> KATCPSensorError:
    reason = getattr(error, "reply", None) or error
    text = f"Error setting strategy for sensor {sensor_name}: \n{reason}"
    strategy_error = KATCPSensorError(text)
    strategy_error.__cause__ = error
    return strategy_error


def is_refused(error: Optional[Exception]) -> bool:
    """Return whether a strategy cannot be set, now or later."""
    cause = error and error.__cause__
    return isinstance(cause, KatcpReplyError) or not isinstance(cause, KatcpClientError)
