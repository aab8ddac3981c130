"""Resources and their requests."""

from __future__ import annotations

import abc
import re
from typing import Any, Callable, Generator, Iterable, Mapping, Optional

from tornado import gen
from tornado.util import TimeoutError as TornadoTimeoutError

from .._runtime.events import new_future
from .._wire.message import Message
from ..compat import AttrDict
from ._sensors import KATCPSensor, SensorResultTuple
from ._values import (
    NO_STRATEGY,
    KATCPReply,
    KATCPResourceInactive,
    KATCPSensorError,
    escape_name,
)


class KATCPRequest(abc.ABC):
    """A request that a resource has; call it to make the request.

    Parameters
    ----------
    request_description : dict
        With the keys ``name``, ``description`` and ``timeout_hint`` (seconds, or None).
    is_active : callable, optional
        Tells whether requests may be made now. Default: always.

    Raises
    ------
    ValueError
        If a key is missing.
    """

    def __init__(
        self,
        request_description: Mapping[str, Any],
        is_active: Callable[[], bool] = lambda: True,
    ) -> None:
        for key in ("name", "description", "timeout_hint"):
            if key not in request_description:
                raise ValueError(f"Required request_description key {key!r} not present")
        self._description = dict(request_description)
        self._is_active = is_active
        # What interactive shells show.
        self.__doc__ = f"{self.description}\n\n{type(self).__doc__ or ''}"

    @property
    def name(self) -> str:
        """The name, as the device knows it."""
        return self._description["name"]  # type: ignore[no-any-return]

    @property
    def description(self) -> str:
        """What the device says of it."""
        return self._description["description"]  # type: ignore[no-any-return]

    @property
    def timeout_hint(self) -> Optional[float]:
        """How long it may take, as the device says; in seconds."""
        return self._description["timeout_hint"]  # type: ignore[no-any-return]

    def is_active(self) -> bool:
        """Return whether requests may be made now."""
        return self._is_active()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make the request; see `issue_request`.

        Raises
        ------
        KATCPResourceInactive
            If the resource is not active.
        """
        if not self.is_active():
            raise KATCPResourceInactive(f"Can't make ?{self.name} request; resource is inactive")
        return self.issue_request(*args, **kwargs)

    @abc.abstractmethod
    def issue_request(self, *args: Any, **kwargs: Any) -> Any:
        """Make the request, whether or not the resource is active.

        Parameters
        ----------
        *args
            The arguments, as for `katcp.Message.request`.
        **kwargs
            ``timeout`` in seconds, ``mid``, ``use_mid``.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with a `KATCPReply`.
        """


class KATCPDummyRequest(KATCPRequest):
    """A request that is not made, and succeeds."""

    def issue_request(self, *args: Any, **kwargs: Any) -> Any:
        """Return a future that resolves with a reply ``ok``."""
        future = new_future()
        future.set_result(KATCPReply(Message.reply("fake", "ok"), []))
        return future


class KATCPResource(abc.ABC):
    """Something with requests and sensors: a device, or several."""

    def __init__(self) -> None:
        self._name = ""
        self._description = ""
        self._address: Optional[tuple[str, int]] = None
        self._parent: Optional[KATCPResource] = None
        self._children = AttrDict()
        self._active = True

    @property
    def name(self) -> str:
        """The name."""
        return self._name

    @property
    def description(self) -> str:
        """What it is."""
        return self._description

    @property
    def address(self) -> Optional[tuple[str, int]]:
        """(host, port); None if it has no address of its own."""
        return self._address

    @property
    def parent(self) -> Optional[KATCPResource]:
        """The resource that it is a part of."""
        return self._parent

    @property
    def children(self) -> AttrDict:
        """The resources that are parts of it, by escaped name."""
        return self._children

    @property
    @abc.abstractmethod
    def req(self) -> Any:
        """The requests, by escaped name: an `AttrDict` of `KATCPRequest`."""

    @property
    @abc.abstractmethod
    def sensor(self) -> Any:
        """The sensors, by escaped name: an `AttrDict` of `KATCPSensor`."""

    @abc.abstractmethod
    def is_connected(self) -> bool:
        """Return whether it is connected."""

    def is_active(self) -> bool:
        """Return whether requests may be made."""
        return self._active

    def set_active(self, active: bool) -> None:
        """Allow requests, or have them raise `KATCPResourceInactive`.

        Parameters
        ----------
        active : bool
            Whether they are allowed.
        """
        self._active = bool(active)

    @abc.abstractmethod
    def set_sampling_strategy(self, sensor_name: str, strategy_and_params: Any) -> Any:
        """Have a sensor sampled, now and whenever the device is there.

        Parameters
        ----------
        sensor_name : str
            The name, escaped or not.
        strategy_and_params : str or sequence
            As for `KATCPSensor.set_sampling_strategy`.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with a dict from escaped name to strategy, empty if there is no
            such sensor yet, or if the device refuses: then the log says why.
        """

    @abc.abstractmethod
    def set_sampling_strategies(self, filter: str, strategy_and_params: Any) -> Any:
        """Have the sensors sampled that are there now and match.

        Parameters
        ----------
        filter : str
            A regular expression that is searched for in the escaped names.
        strategy_and_params : str or sequence
            As for `KATCPSensor.set_sampling_strategy`.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with a dict as for `set_sampling_strategy`.
        """

    def list_sensors(
        self,
        filter: str = "",
        strategy: Any = False,
        status: str = "",
        use_python_identifiers: bool = True,
        tuple: bool = False,
        refresh: bool = False,
    ) -> Any:
        """Return the sensors that match.

        Parameters
        ----------
        filter : str, optional
            A regular expression that is searched for in the names. Default: all.
        strategy : bool, optional
            Only those that are sampled.
        status : str, optional
            Only those whose status occurs in this text, like ``"warn|error"``.
        use_python_identifiers : bool, optional
            Whether *filter* is for the escaped names.
        tuple : bool, optional
            What is returned: plain tuples (name, value, timestamp, type, units,
            received timestamp, status, strategy), or by default `SensorResultTuple`.
        refresh : bool, optional
            Whether to ask the device for their readings first.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with a list, sorted by name.
        """
        return list_sensors(
            self,
            dict.items(self.sensor),
            filter,
            strategy,
            status,
            use_python_identifiers,
            tuple,
            refresh,
        )

    @gen.coroutine
    def wait(
        self, sensor_name: str, condition_or_value: Any, timeout: Optional[float] = 5
    ) -> Generator[Any, Any, bool]:
        """Wait until a sensor, which must be sampled, shows a value.

        Parameters
        ----------
        sensor_name : str
            The name, escaped or not.
        condition_or_value : callable or object
            As for `KATCPSensor.wait`.
        timeout : float in seconds, optional
            How long to wait. 0 or None: no limit.

        Returns
        -------
        tornado.concurrent.Future
            It resolves with whether the sensor shows it.

        Raises
        ------
        KATCPSensorError
            If there is no such sensor, or it is not sampled; raised by the future.
        """
        sensor = dict.get(self.sensor, escape_name(sensor_name))
        if sensor is None:
            raise KATCPSensorError(f"{self.name} has no sensor {sensor_name!r}")
        try:
            yield sensor.wait(condition_or_value, timeout=timeout)
        except TornadoTimeoutError:
            return False
        return True


@gen.coroutine
def list_sensors(
    parent_class: Any,
    sensor_items: Iterable[tuple[str, KATCPSensor]],
    filter: str,
    strategy: Any,
    status: str,
    use_python_identifiers: bool,
    tuple: bool,
    refresh: bool,
) -> Generator[Any, Any, list[Any]]:
    """Return the sensors that match; see `KATCPResource.list_sensors`.

    Parameters
    ----------
    parent_class : object
        Kept for old programs.
    sensor_items : iterable of (str, KATCPSensor)
        The sensors, by escaped name.
    filter, strategy, status, use_python_identifiers, tuple, refresh
        As for `KATCPResource.list_sensors`.
    """
    regex = re.compile(filter)
    found: list[Any] = []
    for identifier, sensor in sorted(sensor_items, key=lambda item: item[0]):
        if not regex.search(identifier if use_python_identifiers else sensor.name):
            continue
        if refresh:
            yield sensor.get_reading()
        reading, sampling = sensor.reading, sensor.sampling_strategy
        if (strategy and sampling == NO_STRATEGY) or (status and reading.status not in status):
            continue
        if tuple:
            received, timestamp, _, value = reading
            times = (timestamp, sensor.type, sensor.units, received)
            found.append((sensor.name, value, *times, reading.status, sampling))
        else:
            about = (sensor.description, sensor.type, sensor.units)
            found.append(SensorResultTuple(sensor, sensor.name, identifier, *about, reading))
    return found
