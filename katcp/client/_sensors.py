"""Sensors of a device, as programs handle them: `AsyncClient.sensors`."""

from __future__ import annotations

import contextlib
import enum
import time
import weakref
from typing import Any, Callable, Iterator, Optional, Sequence, Union

from .._state.readings import Reading, Status
from .._state.subscriptions import Strategy, StrategyLike, parse_strategy
from .._state.validation import check_callback, check_timeout
from ..errors import (
    KatcpClientError,
    KatcpClientStopped,
    KatcpClientTimeout,
    KatcpSensorError,
    KatcpTypeError,
    KatcpUsageError,
)
from ._descriptions import Description
from ._patterns import Pattern
from ._session import Session
from ._stream import Stream
from ._tracker import Tracker

Condition = Union[Callable[[Reading], Any], Any]


class Sensors:
    """The sensors of a device, by name: `AsyncClient.sensors`.

    From other threads than the ioloop's, its methods block, as `AsyncClient.ask` does; in
    an asyncio loop, those whose names begin with ``async_`` are awaited. `watch` serves
    both. The client asks the device only for the sensors that are wanted.

    Examples
    --------
    >>> temperature = client.sensors["temperature"]
    >>> temperature.units, temperature.type
    ('degC', 'float')
    >>> temperature.read().value
    21.5
    >>> temperature.wait_for(lambda reading: reading.value > 25, timeout=10)
    >>> with client.sensors.watch("rack*.temp?") as updates:
    ...     for name, reading in updates:
    ...         print(name, reading.value, reading.status)
    """

    def __init__(self, session: Session, tracker: Tracker) -> None:
        self._session = session
        self._tracker = tracker

    def __repr__(self) -> str:
        return f"<Sensors of {self._tracker.address()}>"

    def __getitem__(self, name: str) -> RemoteSensor:
        """Return the sensor of this name.

        Raises
        ------
        KatcpSensorError
            If the device has no such sensor.
        """
        return self._sensor(self._session.run_and_wait("sensors[]", self._tracker.describe, name))

    async def async_get(self, name: str) -> RemoteSensor:
        """Return the sensor of this name; may be awaited in any asyncio loop.

        Raises
        ------
        KatcpSensorError
            If the device has no such sensor.
        """
        return self._sensor(
            await self._session.run_anywhere("async_get", self._tracker.describe, name)
        )

    def find(self, pattern: Pattern = "*", timeout: Optional[float] = None) -> list[RemoteSensor]:
        """Return the sensors that match.

        Parameters
        ----------
        pattern : str or re.Pattern, optional
            A name, with ``*``, ``?`` and ``[...]`` as in the names of files; or a regular
            expression that is searched for in the names. Default: all.
        timeout : float in seconds, optional
            How long to wait for the reply. Default: as for requests.

        Returns
        -------
        list of RemoteSensor
        """
        limit = check_timeout(timeout)
        found = self._session.run_and_wait("find", self._tracker.find, pattern, limit)
        return [*map(self._sensor, found)]

    async def async_find(
        self, pattern: Pattern = "*", timeout: Optional[float] = None
    ) -> list[RemoteSensor]:
        """Return the sensors that match, as `find`; may be awaited in any asyncio loop."""
        limit = check_timeout(timeout)
        found = await self._session.run_anywhere("async_find", self._tracker.find, pattern, limit)
        return [*map(self._sensor, found)]

    def read(self, *patterns: Pattern, timeout: Optional[float] = None) -> dict[str, Reading]:
        """Ask the device for the readings of the sensors that match.

        If they are many, the readings of all sensors are asked for with one request.

        Parameters
        ----------
        *patterns : str or re.Pattern
            As for `find`. Default: all sensors.
        timeout : float in seconds, optional
            How long to wait for each reply. Default: as for requests.

        Returns
        -------
        dict of Reading
            By name. One that makes no sense is logged, and its status is unknown; one that
            the device does not send is missing.

        Raises
        ------
        KatcpSensorError
            If the device has no such sensor.
        KatcpReplyError
            If the device refuses.
        KatcpClientTimeout, KatcpClientDisconnected, KatcpClientStopped
            If there is no reply.
        """
        limit = check_timeout(timeout)
        return self._session.run_and_wait("read", self._tracker.read_all, patterns or ("*",), limit)

    async def async_read(
        self, *patterns: Pattern, timeout: Optional[float] = None
    ) -> dict[str, Reading]:
        """Ask the device for readings, as `read`; may be awaited in any asyncio loop."""
        limit = check_timeout(timeout)
        return await self._session.run_anywhere(
            "async_read", self._tracker.read_all, patterns or ("*",), limit
        )

    def __iter__(self) -> Iterator[str]:
        return iter([sensor.name for sensor in self.find()])

    def __len__(self) -> int:
        return len(self.find())

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self[name] is not None
        except KatcpSensorError:
            return False

    def watch(
        self,
        *patterns: Pattern,
        strategy: StrategyLike = "event",
        callback: Optional[Callable[[str, Reading], Any]] = None,
        timeout: Optional[float] = None,
        maxsize: Optional[int] = 1000,
    ) -> SensorUpdates:
        """Return the updates of the sensors that match, to iterate over.

        Sampling is set on the device when the block of ``with`` or ``async with`` begins,
        or with the first iteration, and switched off at the end. It is set again after
        every reconnect and when the device says that its interface has changed; sensors
        that appear then and match are watched, too. Consumers of one sensor share its
        sampling: the finest strategy that any of them wants.

        Parameters
        ----------
        *patterns : str or re.Pattern
            As for `find`.
        strategy : str or sequence, optional
            ``"event"``, ``"period 0.5"``, ``("event-rate", 0.1, 10)``...; periods in
            seconds whatever the version of the device.
        callback : callable, optional
            Called in the ioloop as ``callback(name, reading)``, instead of the iteration.
        timeout : float in seconds, optional
            How long to wait for each update; then the iteration raises
            `KatcpClientTimeout`, and may be gone on with. Default: no limit.
        maxsize : int or None, optional
            How many updates are kept for an iteration that is slow; then the oldest are
            dropped. None: no limit.

        Returns
        -------
        SensorUpdates
            Pairs of the name of a sensor and its reading. When the connection is lost, a
            reading with status `Status.UNREACHABLE` comes at once, and the next real one
            after the return.

        Raises
        ------
        KatcpArgumentError, KatcpTypeError
            If there is no such strategy, or it makes no sense.
        """
        if not patterns:
            raise KatcpTypeError("watch() needs the name or the pattern of a sensor.")
        return SensorUpdates(
            self._session, self._tracker, patterns, strategy, callback, timeout, maxsize
        )

    def _sensor(self, description: Description) -> RemoteSensor:
        return RemoteSensor(self, description)


class SensorsAttribute:
    """`AsyncClient.sensors`: made when it is first asked for.

    It is no property, so that a program may have an attribute of this name of its own.
    """

    def __get__(self, client: Any, owner: Any) -> Sensors:
        session: Session = client._session
        if session.sensors is None:
            session.sensors = Sensors(session, Tracker(session))
        return session.sensors  # type: ignore[no-any-return]


class RemoteSensor:
    """One sensor of a device.

    Attributes
    ----------
    name, description, units, type : str
        What the device says of it.
    options : list of str
        Those of a discrete sensor.
    """

    __slots__ = ("_enum", "_sensors", "description", "name", "options", "type", "units")

    def __init__(self, sensors: Sensors, description: Description) -> None:
        self._sensors = sensors
        self._enum: Optional[type[enum.Enum]] = None
        self.name, self.description, self.units, self.type, params = description
        self.options = (
            [param.decode("utf-8", "surrogateescape") for param in params]
            if self.type == "discrete"
            else []
        )

    def __repr__(self) -> str:
        units = f" in {self.units}" if self.units else ""
        return f"<RemoteSensor {self.name}: {self.type}{units}>"

    def use_enum(self, enum_class: type[enum.Enum]) -> RemoteSensor:
        """Return this sensor, with members of an enumeration as its values from now on.

        Parameters
        ----------
        enum_class : type of enum.Enum
            The values of its members are the options of the sensor.
        """
        self._enum = enum_class
        return self

    def read(self, timeout: Optional[float] = None) -> Reading:
        """Ask the device for a reading.

        May be called from any thread but the ioloop's.

        Parameters
        ----------
        timeout : float in seconds, optional
            How long to wait for the reply. Default: as for requests.

        Returns
        -------
        Reading
            Its value is an int, float, bool or str, a (host, port) for an address and
            seconds for a timestamp; None if the status says that it is not usable and it
            cannot be read.

        Raises
        ------
        KatcpSensorError
            If the device has no such sensor any more, or its value does not fit the type.
        KatcpClientTimeout, KatcpClientDisconnected, KatcpClientStopped
            If there is no reply.
        """
        sensors = self._sensors
        limit = check_timeout(timeout)
        return self._converted(
            sensors._session.run_and_wait("read", sensors._tracker.read, self.name, limit)
        )

    async def async_read(self, timeout: Optional[float] = None) -> Reading:
        """Ask the device for a reading, as `read`; may be awaited in any asyncio loop."""
        sensors = self._sensors
        limit = check_timeout(timeout)
        return self._converted(
            await sensors._session.run_anywhere(
                "async_read", sensors._tracker.read, self.name, limit
            )
        )

    def watch(
        self,
        strategy: StrategyLike = "event",
        callback: Optional[Callable[[str, Reading], Any]] = None,
        timeout: Optional[float] = None,
        maxsize: Optional[int] = 1000,
    ) -> SensorUpdates:
        """Return the updates of this sensor; see `Sensors.watch`."""
        updates = self._sensors.watch(
            self.name, strategy=strategy, callback=callback, timeout=timeout, maxsize=maxsize
        )
        updates._convert = self._converted
        return updates

    def wait_for(
        self,
        condition: Condition,
        timeout: Optional[float] = None,
        *,
        update_timeout: Optional[float] = None,
        strategy: StrategyLike = "event",
    ) -> Reading:
        """Wait until the sensor shows a value.

        May be called from any thread but the ioloop's.

        Parameters
        ----------
        condition : callable or object
            Called with each reading, the present one first, until it returns something
            true; or the value that a usable reading must have.
        timeout : float in seconds, optional
            How long to wait at most. Default: no limit.
        update_timeout : float in seconds, optional
            How long to wait for each update. Default: no limit.
        strategy : str or sequence, optional
            How the sensor is sampled meanwhile.

        Returns
        -------
        Reading
            The one that fulfils the condition.

        Raises
        ------
        KatcpClientTimeout
            If it does not come in time; the text tells the last reading.
        KatcpClientStopped
            If the client is stopped first.
        """
        is_met, deadline = _checker(condition), _deadline(check_timeout(timeout))
        with self.watch(strategy, maxsize=None) as updates:
            # Not all devices send the present reading by themselves.
            reading = self.read()
            while not is_met(reading):
                try:
                    _, reading = updates._next(_patience(deadline, update_timeout))
                except (KatcpClientTimeout, StopIteration) as error:
                    raise self._not_met(condition, reading, error) from None
        return reading

    async def async_wait_for(
        self,
        condition: Condition,
        timeout: Optional[float] = None,
        *,
        update_timeout: Optional[float] = None,
        strategy: StrategyLike = "event",
    ) -> Reading:
        """Wait until the sensor shows a value, as `wait_for`; any asyncio loop."""
        is_met, deadline = _checker(condition), _deadline(check_timeout(timeout))
        async with self.watch(strategy, maxsize=None) as updates:
            reading = await self.async_read()
            while not is_met(reading):
                try:
                    _, reading = await updates._anext(_patience(deadline, update_timeout))
                except (KatcpClientTimeout, StopAsyncIteration) as error:
                    raise self._not_met(condition, reading, error) from None
        return reading

    def _converted(self, reading: Reading) -> Reading:
        """Return a reading with a member of the program's enumeration as its value."""
        if self._enum is None or reading.value is None:
            return reading
        try:
            return reading._replace(value=self._enum(reading.value))
        except ValueError:
            address = self._sensors._tracker.address()
            raise KatcpSensorError(
                f"{address} sensor {self.name}: {reading.value!r} is no value of "
                f"{self._enum.__name__}"
            ) from None

    def _not_met(
        self, condition: Condition, reading: Reading, error: BaseException
    ) -> KatcpClientError:
        text = (
            f"{self._sensors._tracker.address()} sensor {self.name} is "
            f"{reading.value!r} ({Status(reading.status)}), not what was waited for"
        )
        if isinstance(error, KatcpClientTimeout):
            return KatcpClientTimeout(text)
        return KatcpClientStopped(f"{text}: the client was stopped")


class SensorUpdates(Stream[tuple[str, Reading]]):
    """Updates of sensors in the order of their arrival, as `Sensors.watch` returns them.

    Iterate over it with ``for`` in any thread but the ioloop's, or with ``async for`` in any
    asyncio loop. As a context manager it sets the sampling at the beginning and switches it
    off at the end. The iteration ends when the client stops.
    """

    __slots__ = ("_callback", "_consumer", "_convert", "_is_open", "_tracker")

    _kind = "update"

    def __init__(
        self,
        session: Session,
        tracker: Tracker,
        patterns: Sequence[Pattern],
        strategy: StrategyLike,
        callback: Optional[Callable[[str, Reading], Any]],
        timeout: Optional[float],
        maxsize: Optional[int],
    ) -> None:
        super().__init__(session, maxsize, check_timeout(timeout))
        self._tracker = tracker
        self._consumer = _WeakConsumer(self, patterns, parse_strategy(strategy))
        self._callback = None if callback is None else check_callback(callback)
        self._convert: Optional[Callable[[Reading], Reading]] = None
        self._is_open = False

    def open(self) -> None:
        """Set the sampling on the device, unless it is set; any thread but the ioloop's.

        Raises
        ------
        KatcpSensorError
            If the device has no such sensor.
        KatcpReplyError
            If the device refuses the strategy.
        KatcpClientTimeout, KatcpClientDisconnected, KatcpClientStopped
            If there is no reply.
        """
        if not self._is_open and not self.closed:
            self._session.run_and_wait("open", self._tracker.subscribe, self._consumer)
            self._is_open = True

    async def async_open(self) -> None:
        """Set the sampling on the device, unless it is set; any asyncio loop."""
        if not self._is_open and not self.closed:
            await self._session.run_anywhere("async_open", self._tracker.subscribe, self._consumer)
            self._is_open = True

    def close(self) -> None:
        """Switch the sampling off, and end the iterations; may be called again."""
        super().close()
        self._consumer.unsubscribe_soon(self._session, self._tracker)

    def __enter__(self) -> SensorUpdates:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    async def __aenter__(self) -> SensorUpdates:
        try:
            await self.async_open()
        except BaseException:
            self.close()
            raise
        return self

    def __next__(self) -> tuple[str, Reading]:
        if not self._is_open:
            self.open()
        return self._next(self._timeout)

    async def __anext__(self) -> tuple[str, Reading]:
        if not self._is_open:
            await self.async_open()
        return await self._anext(self._timeout)

    def take(self, name: str, reading: Reading) -> None:
        """Take a reading; in the loop's thread."""
        if self._convert is not None:
            reading = self._convert(reading)
        if self._callback is None:
            self.put((name, reading))
        elif not self.closed:
            self._session.dispatcher.call_back("update", self._callback, (reading,), name)

    def _described(self) -> str:
        patterns = ", ".join(map(str, self._consumer.patterns))
        return f"of {patterns} of {self._address()}"


class _WeakConsumer:
    """Gives readings to a stream as long as there is one: what a program drops, ends."""

    def __init__(
        self, updates: SensorUpdates, patterns: Sequence[Pattern], strategy: Strategy
    ) -> None:
        self.patterns = patterns
        self.strategy = strategy
        self.is_over = False
        session, tracker = updates._session, updates._tracker
        self._updates = weakref.ref(updates, lambda _: self.unsubscribe_soon(session, tracker))

    def put_reading(self, name: str, reading: Reading) -> None:
        updates = self._updates()
        if updates is None:
            return
        if updates._convert is None and updates._callback is None:
            updates.put((name, reading))
        else:
            updates.take(name, reading)

    def end(self) -> None:
        updates = self._updates()
        if updates is not None:
            Stream.close(updates)

    def unsubscribe_soon(self, session: Session, tracker: Tracker) -> None:
        """Give no more readings, once; any thread."""
        if not self.is_over and session.run.portal is not None:
            self.is_over = True
            # Without a loop nothing is sampled.
            with contextlib.suppress(KatcpUsageError):
                session.run.portal.call_soon(tracker.unsubscribe, self)


def _checker(condition: Condition) -> Callable[[Reading], Any]:
    if callable(condition) and not isinstance(condition, type):
        return condition
    return lambda reading: Status(reading.status).is_usable and reading.value == condition


def _deadline(timeout: Optional[float]) -> Optional[float]:
    return None if timeout is None else time.monotonic() + timeout


def _patience(deadline: Optional[float], update_timeout: Optional[float]) -> Optional[float]:
    """Return how long to wait for the next update."""
    if deadline is None:
        return update_timeout
    remaining = max(deadline - time.monotonic(), 0)
    return remaining if update_timeout is None else min(remaining, update_timeout)
