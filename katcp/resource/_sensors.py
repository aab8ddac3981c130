"""Sensors of resources."""

from __future__ import annotations

import abc
import logging
from typing import (
    Any,
    Awaitable,
    Callable,
    Generator,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Union,
)

from tornado import gen

from .._runtime.events import new_future, until_any
from .._runtime.tasks import spawn_if_awaitable
from .._sensor import Sensor
from ..compat import hashable_identity
from ._values import NO_STRATEGY, KATCPSensorError, KATCPSensorReading, escape_name

_logger = logging.getLogger("katcp.resource")


class KATCPSensorsManager(abc.ABC):
    """What the sensors of a resource have in common: who polls and samples them.

    Attributes
    ----------
    resource_name : str
        The name of the resource.
    """

    resource_name: str

    @abc.abstractmethod
    def time(self) -> float:
        """Return the time, in seconds since 1970."""

    @abc.abstractmethod
    def get_sampling_strategy(self, sensor_name: str) -> tuple[str, ...]:
        """Return how a sensor is sampled, as `normalize_strategy_parameters` does."""

    @abc.abstractmethod
    def set_sampling_strategy(self, sensor_name: str, strategy_and_parms: Any) -> Any:
        """Have a sensor sampled.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with (True, strategy), or with (False, why not).
        """

    @abc.abstractmethod
    def drop_sampling_strategy(self, sensor_name: str) -> None:
        """Set the strategy of a sensor no more; the device is not told."""

    @abc.abstractmethod
    def reapply_sampling_strategies(self) -> Any:
        """Set all strategies again."""

    @abc.abstractmethod
    def poll_sensor(self, sensor_name: str) -> Any:
        """Have the device send the reading of a sensor now.

        Returns
        -------
        tornado.concurrent.Future
            It resolves when the sensor has the reading.
        """


class KATCPSensor:
    """A sensor of a resource: its last reading, and who wants to hear of the next.

    Parameters
    ----------
    sensor_description : dict
        The arguments of `katcp.Sensor`: ``sensor_type``, ``name``...
    sensor_manager : KATCPSensorsManager
        Who polls and samples it.
    """

    def __init__(
        self, sensor_description: Mapping[str, Any], sensor_manager: KATCPSensorsManager
    ) -> None:
        self._listeners: dict[Any, tuple[Callable[..., Any], bool]] = {}
        self._reading = KATCPSensorReading(0, 0, Sensor.UNKNOWN, None)
        self.describe(sensor_description, sensor_manager)

    def describe(
        self, sensor_description: Mapping[str, Any], sensor_manager: KATCPSensorsManager
    ) -> None:
        """Take in what the device says of it now; reading and listeners stay.

        Parameters
        ----------
        sensor_description, sensor_manager
            As for the class.
        """
        self._manager = sensor_manager
        self._sensor = Sensor(**sensor_description)

    # What it is.

    @property
    def name(self) -> str:
        """The name, as the device knows it."""
        return self._sensor.name

    @property
    def normalised_name(self) -> str:
        """The name as an attribute of ``resource.sensor``."""
        return escape_name(self.name)

    @property
    def parent_name(self) -> str:
        """The name of the resource."""
        return self._manager.resource_name

    @property
    def description(self) -> str:
        """What the device says of it."""
        return self._sensor.description

    @property
    def units(self) -> str:
        """The units, as the device says."""
        return self._sensor.units

    @property
    def type(self) -> str:
        """The name of the type, like ``float``."""
        return self._sensor.type

    # The last reading.

    @property
    def reading(self) -> KATCPSensorReading:
        """The last reading."""
        return self._reading

    @property
    def value(self) -> Any:
        """The value of the last reading; None if there was none."""
        return self._reading.value

    @property
    def status(self) -> str:
        """The name of the status of the last reading."""
        return self._reading.status

    @gen.coroutine
    def get_reading(self) -> Generator[Any, Any, KATCPSensorReading]:
        """Ask the device for a reading.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with a `KATCPSensorReading`.

        Raises
        ------
        KATCPSensorError
            If the device does not send it; raised by the future.
        """
        yield self._manager.poll_sensor(self.name)
        return self._reading

    @gen.coroutine
    def get_value(self) -> Generator[Any, Any, Any]:
        """Ask the device for the value; as `get_reading`.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with the value.
        """
        yield self._manager.poll_sensor(self.name)
        return self.value

    @gen.coroutine
    def get_status(self) -> Generator[Any, Any, str]:
        """Ask the device for the status; as `get_reading`.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with the name of the status.
        """
        yield self._manager.poll_sensor(self.name)
        return self.status

    def set(self, timestamp: float, status: int, value: Any) -> None:
        """Set the reading, and call the listeners.

        Parameters
        ----------
        timestamp : float
            When the device read it, in seconds since 1970.
        status : int
            The status.
        value : object
            The value, in the sensor's own type; it is not checked.
        """
        self._sensor.set(timestamp, status, value)
        self._reading = KATCPSensorReading(self._manager.time(), timestamp, status, value)
        self.call_listeners(self._reading)

    def set_value(
        self, value: Any, status: int = Sensor.NOMINAL, timestamp: Optional[float] = None
    ) -> None:
        """Set the value, and call the listeners.

        Parameters
        ----------
        value : object
            The value; it is not checked.
        status : int, optional
            The status.
        timestamp : float, optional
            When it was read. Default: now.
        """
        self.set(self._manager.time() if timestamp is None else timestamp, status, value)

    def set_formatted(
        self, raw_timestamp: bytes, raw_status: bytes, raw_value: bytes, major: int
    ) -> None:
        """Set the reading as it stands in a message; see `katcp.Sensor.set_formatted`.

        Parameters
        ----------
        raw_timestamp, raw_status, raw_value : bytes
            The arguments.
        major : int
            The major version of the protocol: before 5, times are in milliseconds.

        Raises
        ------
        ValueError, KeyError
            If they cannot be read.
        """
        self._sensor.set_formatted(raw_timestamp, raw_status, raw_value, major)
        self.set(*self._sensor.read())

    def parse_value(self, s_value: bytes) -> Any:
        """Return the value that bytes stand for; see `katcp.Sensor.parse_value`.

        Parameters
        ----------
        s_value : bytes
            The value as it stands in an argument.

        Returns
        -------
        object
        """
        return self._sensor.parse_value(s_value)

    # Listeners.

    def register_listener(self, listener: Callable[..., Any], reading: bool = False) -> None:
        """Call a function with each reading from now on; twice is once.

        Parameters
        ----------
        listener : callable
            Called in the loop. What it raises is logged.
        reading : bool, optional
            How it is called: ``listener(sensor, reading)``, or by default
            ``listener(received_timestamp, timestamp, status, value)``.
        """
        self._listeners[hashable_identity(listener)] = (listener, reading)

    def unregister_listener(self, listener: Callable[..., Any]) -> None:
        """Call a function no more; does nothing if it is not registered.

        Parameters
        ----------
        listener : callable
            The function.
        """
        self._listeners.pop(hashable_identity(listener), None)

    def is_listener(self, listener: Callable[..., Any]) -> bool:
        """Return whether a function is registered."""
        return hashable_identity(listener) in self._listeners

    def clear_listeners(self) -> None:
        """Call nobody any more."""
        self._listeners.clear()

    def call_listeners(self, reading: KATCPSensorReading) -> None:
        """Call all listeners, in the order in which they came.

        Parameters
        ----------
        reading : KATCPSensorReading
            What they are called with.
        """
        for listener, wants_reading in list(self._listeners.values()):
            try:
                if wants_reading:
                    result = listener(self, reading)
                else:
                    received, timestamp, _, value = reading
                    result = listener(received, timestamp, reading.status, value)
            except Exception:
                _logger.exception("Unhandled exception calling KATCPSensor callback %r", listener)
            else:
                spawn_if_awaitable(result)

    # Sampling.

    @property
    def sampling_strategy(self) -> tuple[str, ...]:
        """How it is sampled: a tuple of text, like ``("period", "2.0")``."""
        return self._manager.get_sampling_strategy(self.name)

    def set_strategy(self, strategy: str, params: Any = None) -> Any:
        """Have the sensor sampled.

        Parameters
        ----------
        strategy : str
            The name of the strategy.
        params : str, number or sequence, optional
            Its parameters, in the units of the device: seconds, or milliseconds before
            version 5 of the protocol.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with (True, strategy), or with (False, why not).
        """
        if params is None or params == "":
            params = ()
        elif isinstance(params, str) or not isinstance(params, Sequence):
            params = (params,)
        return self.set_sampling_strategy(" ".join([strategy, *map(str, params)]))

    def set_sampling_strategy(self, strategy: Union[str, Sequence[Any]]) -> Any:
        """Have the sensor sampled.

        Parameters
        ----------
        strategy : str or sequence
            Name and parameters: ``"period 2"`` or ``("period", 2)``.

        Returns
        -------
        tornado.concurrent.Future
            As for `set_strategy`.
        """
        return self._manager.set_sampling_strategy(self.name, strategy)

    def drop_sampling_strategy(self) -> None:
        """Set the strategy no more after a reconnect; the device is not told now."""
        self._manager.drop_sampling_strategy(self.name)

    def wait(self, condition_or_value: Any, timeout: Optional[float] = None) -> Awaitable[bool]:
        """Wait until the sensor, which must be sampled, shows a value.

        Parameters
        ----------
        condition_or_value : callable or object
            Called with each `KATCPSensorReading`, the last one first, until it returns
            something true; or the value.
        timeout : float in seconds, optional
            How long to wait. 0 or None: no limit.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with True, or fails with `tornado.gen.TimeoutError`.

        Raises
        ------
        KATCPSensorError
            If the sensor is not sampled.
        NotImplementedError
            If several values are given.
        """
        if self.sampling_strategy == NO_STRATEGY:
            raise KATCPSensorError("Cannot wait on a sensor that does not have a strategy set")
        is_met = _condition(condition_or_value)
        met = new_future()

        def check(sensor: KATCPSensor, reading: KATCPSensorReading) -> None:
            if met.done():
                return
            try:
                if is_met(reading):
                    met.set_result(True)
            except Exception as error:
                met.set_exception(error)

        check(self, self._reading)
        self.register_listener(check, reading=True)
        outcome = until_any(met, timeout=timeout or None)
        outcome.add_done_callback(lambda _: self.unregister_listener(check))
        return outcome  # type: ignore[no-any-return]


class SensorResultTuple(NamedTuple):
    """A sensor that `KATCPResource.list_sensors` has found."""

    object: KATCPSensor
    name: str
    python_identifier: str
    description: str
    type: str
    units: str
    reading: KATCPSensorReading


def _condition(condition_or_value: Any) -> Callable[[KATCPSensorReading], Any]:
    if callable(condition_or_value):
        return condition_or_value  # type: ignore[no-any-return]
    if isinstance(condition_or_value, Sequence) and not isinstance(
        condition_or_value, (str, bytes)
    ):
        raise NotImplementedError("Currently only single conditions are supported")
    return lambda reading: reading.value == condition_or_value
