"""Sampling strategies: when the readings of a sensor are reported.

Strategy
--------
A strategy observes one sensor for one callback. Strategies differ in a few points: does it observe
updates or the clock, which update is a change, how soon after the last report may a change be
reported, and how late must a report come without one.

Rules
-----
- Reports are made in the loop's thread. Updates from other threads are passed to it; those of the
  loop's own thread are handled at once.
- Timers and the last reported reading belong to that thread, too.
- A report is noted before the callback is called, which may set the sensor or cancel the strategy.
- Times are those of the loop's clock, which is monotonic.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import threading
from typing import Any, Callable, ClassVar, Optional, Sequence, cast

from tornado.ioloop import IOLoop

from ._sensor import Sensor
from ._state.readings import Reading
from ._wire import arguments
from ._wire.message import Message

log = logging.getLogger("katcp.sampling")

InformCallback = Callable[[Sensor, Reading], Any]


def format_inform_v5(sensor: Sensor, *reading: Any) -> Message:
    """Return the ``#sensor-status`` that reports a reading, in version 5 of the protocol.

    Parameters
    ----------
    sensor : katcp.Sensor
        The sensor.
    *reading
        Timestamp, status and value.

    Returns
    -------
    Message
    """
    return _format_inform(sensor, reading, 5)


def format_inform_v4(sensor: Sensor, *reading: Any) -> Message:
    """Return the ``#sensor-status`` that reports a reading, in version 4 of the protocol.

    Parameters
    ----------
    sensor : katcp.Sensor
        The sensor.
    *reading
        Timestamp, status and value.

    Returns
    -------
    Message
    """
    return _format_inform(sensor, reading, 4)


def _format_inform(sensor: Sensor, reading: Sequence[Any], major: int) -> Message:
    timestamp, status, value = sensor.format_reading(reading, major)
    return Message.inform("sensor-status", timestamp, b"1", sensor.name, status, value)


def update_in_ioloop(update: Callable[..., None]) -> Callable[..., None]:
    """Decorate an ``update`` method to run in the thread of the strategy's loop.

    Parameters
    ----------
    update : callable
        The method, of a `SampleStrategy`.

    Returns
    -------
    callable
        It calls the method at once in the loop's thread, and soon if called in another one. After
        `SampleStrategy.cancel` it does nothing.
    """

    @functools.wraps(update)
    def wrapper(self: SampleStrategy, sensor: Sensor, reading: Reading) -> None:
        if threading.get_ident() != self._thread:
            self.ioloop.add_callback(self._call_in_loop, wrapper, self, sensor, reading)
        elif not self._is_cancelled:
            update(self, sensor, reading)

    return wrapper


class SampleStrategy:
    """Base class of all strategies; `get_strategy` creates them.

    Parameters
    ----------
    inform_callback : callable
        Called with the sensor and a `katcp.Reading`, in the loop's thread.
    sensor : katcp.Sensor
        The sensor.
    *params
        The parameters of the strategy, in seconds if they are times: bytes like the arguments of
        ``?sensor-sampling``, text or numbers.
    ioloop : tornado.ioloop.IOLoop, optional
        The loop. Default: the current one.

    Attributes
    ----------
    ioloop : tornado.ioloop.IOLoop
        The loop.
    OBSERVE_UPDATES : bool
        Whether the strategy observes each update of the sensor.

    Notes
    -----
    `start` and `cancel` may be called in any thread.
    """

    NONE: ClassVar[int] = 0
    AUTO: ClassVar[int] = 1
    PERIOD: ClassVar[int] = 2
    EVENT: ClassVar[int] = 3
    DIFFERENTIAL: ClassVar[int] = 4
    EVENT_RATE: ClassVar[int] = 5
    DIFFERENTIAL_RATE: ClassVar[int] = 6

    SAMPLING_LOOKUP: ClassVar[dict[int, bytes]] = {
        NONE: b"none",
        AUTO: b"auto",
        PERIOD: b"period",
        EVENT: b"event",
        DIFFERENTIAL: b"differential",
        EVENT_RATE: b"event-rate",
        DIFFERENTIAL_RATE: b"differential-rate",
    }
    SAMPLING_LOOKUP_REV: ClassVar[dict[bytes, int]] = {
        name: strategy for strategy, name in SAMPLING_LOOKUP.items()
    }

    OBSERVE_UPDATES: ClassVar[bool] = False

    # How many parameters it takes, also in words.
    _COUNT: ClassVar[tuple[int, str]] = (0, "no parameters")

    def __init__(
        self, inform_callback: InformCallback, sensor: Sensor, *params: Any, **kwargs: Any
    ) -> None:
        self.ioloop: IOLoop = kwargs.get("ioloop") or IOLoop.current()
        self._inform_callback = inform_callback
        self._sensor = sensor
        self._params = params
        self._is_cancelled = False
        self._loop: asyncio.AbstractEventLoop = cast(Any, self.ioloop).asyncio_loop
        # The loop's thread; known after the first call in it.
        self._thread: Optional[int] = None
        count, words = self._COUNT
        if len(params) != count:
            name = self.SAMPLING_LOOKUP[self.get_sampling()].decode()
            raise ValueError(f"The '{name}' strategy takes {words}.")
        self._parse(*params)

    def _parse(self, *params: Any) -> None:
        """Parse the parameters, or raise ValueError."""

    @classmethod
    def get_strategy(
        cls,
        strategyName: Any,  # noqa: N803
        inform_callback: InformCallback,
        sensor: Sensor,
        *params: Any,
        **kwargs: Any,
    ) -> SampleStrategy:
        """Create a strategy.

        Parameters
        ----------
        strategyName : str or bytes
            Its name, for example ``"event-rate"``.
        inform_callback, sensor, *params, **kwargs
            As for the class.

        Returns
        -------
        SampleStrategy
            The strategy, not started.

        Raises
        ------
        ValueError
            If there is no such strategy, or it does not accept these parameters or this sensor.
        """
        name = strategyName.encode() if isinstance(strategyName, str) else strategyName
        if name not in cls.SAMPLING_LOOKUP_REV:
            raise ValueError(
                f"Unknown sampling strategy '{name!r}'. "
                f"Known strategies are {list(cls.SAMPLING_LOOKUP.values())}."
            )
        return _STRATEGIES[name](inform_callback, sensor, *params, **kwargs)

    def get_sampling(self) -> int:
        """Return the kind of strategy.

        Returns
        -------
        int
            One of `NONE`, `AUTO`, `PERIOD`, `EVENT`, `DIFFERENTIAL`, `EVENT_RATE`
            and `DIFFERENTIAL_RATE`.
        """
        raise NotImplementedError

    def get_sampling_formatted(self) -> tuple[bytes, list[bytes]]:
        """Return the name of the strategy, and its parameters as given.

        Returns
        -------
        tuple
            The name, and a list of bytes.
        """
        params = [arguments.write_string(param) for param in self._params]
        return self.SAMPLING_LOOKUP[self.get_sampling()], params

    # ---- start and end ----

    def start(self) -> None:
        """Report the present reading soon, and from then on as the strategy requires."""
        self._is_cancelled = False
        self.ioloop.add_callback(self._call_in_loop, self._start_unless_cancelled)

    def start_in_loop(self) -> None:
        """Start, and report the present reading before returning.

        Must be called in the loop's thread.
        """
        self._is_cancelled = False
        self._call_in_loop(self._start_unless_cancelled)

    def cancel(self) -> None:
        """Stop reporting; the strategy may be started again."""
        self._is_cancelled = True
        self.detach()
        if threading.get_ident() == self._thread:
            self.cancel_timeouts()
        else:
            self.ioloop.add_callback(self._call_in_loop, self._end_in_loop)

    def attach(self) -> None:
        """Observe the sensor; its present reading counts as an update."""
        self._sensor.attach(self)
        self.update(self._sensor, self._sensor.read())

    def detach(self) -> None:
        """Stop observing the sensor."""
        self._sensor.detach(self)

    def cancel_timeouts(self) -> None:
        """Cancel all timers; in the loop's thread."""

    def update(self, sensor: Sensor, reading: Reading) -> None:
        """Handle an update of the sensor; any thread.

        Parameters
        ----------
        sensor : katcp.Sensor
            The sensor.
        reading : katcp.Reading
            Its reading.
        """

    def inform(self, reading: Reading) -> None:
        """Report a reading; an exception of the callback is logged.

        Parameters
        ----------
        reading : katcp.Reading
            The reading.
        """
        try:
            self._inform_callback(self._sensor, reading)
        except Exception:
            log.exception(
                "Unhandled exception trying to send %s for sensor %r of type %r",
                reading,
                self._sensor.name,
                self._sensor.type,
            )

    def _call_in_loop(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function, and note the loop's thread."""
        self._thread = threading.get_ident()
        function(*args)

    def _start_unless_cancelled(self) -> None:
        if not self._is_cancelled:
            self.cancel_timeouts()
            self._begin()

    def _end_in_loop(self) -> None:
        # It may have been started again meanwhile.
        self.detach()
        self.cancel_timeouts()

    def _begin(self) -> None:
        if self.OBSERVE_UPDATES:
            self.attach()


class SampleNone(SampleStrategy):
    """Report nothing."""

    def get_sampling(self) -> int:
        return self.NONE


class SampleAuto(SampleStrategy):
    """Report each update."""

    OBSERVE_UPDATES = True

    def get_sampling(self) -> int:
        return self.AUTO

    @update_in_ioloop
    def update(self, sensor: Sensor, reading: Reading) -> None:
        self.inform(reading)


class SamplePeriod(SampleStrategy):
    """Report at intervals; missed reports are not repeated.

    The parameter is the period, in seconds.
    """

    _COUNT = (1, "one parameter")

    def _parse(self, *params: Any) -> None:
        self._period = _to_float(params[0])
        if not self._period > 0:
            raise ValueError("The period must be a positive float in seconds.")
        self._due = 0.0
        self._timer: Optional[asyncio.TimerHandle] = None

    def get_sampling(self) -> int:
        return self.PERIOD

    def cancel_timeouts(self) -> None:
        _cancel(self._timer)

    def _begin(self) -> None:
        self._due = self._loop.time()
        self._report()

    def _report(self) -> None:
        if self._is_cancelled:
            return
        now = self._loop.time()
        self._due += self._period
        if self._due <= now:
            self._due = now + self._period
        if self._due < math.inf:
            self._timer = self._loop.call_at(self._due, self._report)
        self.inform(self._sensor.read())


class SampleEventRate(SampleStrategy):
    """Report changes of value or status, at a limited rate.

    The parameters are the shortest and the longest period, in seconds: a change is reported when
    the shortest one has passed since the last report, with the reading at that time. After the
    longest one the reading is reported without a change.
    """

    OBSERVE_UPDATES = True

    _COUNT = (2, "two parameters")

    # The least change of the value that counts; None: any.
    difference: Optional[float] = None

    def _parse(self, *params: Any) -> None:
        self._shortest, self._longest = map(_to_float, params)
        if not 0 <= self._shortest <= self._longest:
            raise ValueError(
                "The shortest and longest periods must satisfy "
                "0 <= shortest_period <= longest_period"
            )
        if self._longest == 0:
            raise ValueError("The longest period must be greater than 0.")
        self._last: Optional[Reading] = None
        self._not_before = -math.inf
        # The time of the next report, if a change is *pending* or not.
        self._timer: Optional[asyncio.TimerHandle] = None
        self._is_pending = False

    def get_sampling(self) -> int:
        return self.EVENT_RATE

    def cancel_timeouts(self) -> None:
        _cancel(self._timer)
        self._is_pending = False

    def _begin(self) -> None:
        self._last = None
        super()._begin()

    @update_in_ioloop
    def update(self, sensor: Sensor, reading: Reading) -> None:
        if self._is_pending or not self._is_change(reading):
            return
        if self._loop.time() >= self._not_before:
            self.inform(reading)
        else:
            self._set_timer(self._not_before)
            self._is_pending = True

    def inform(self, reading: Reading) -> None:
        now = self._loop.time()
        self._last = reading
        self._not_before = now + self._shortest
        self._is_pending = False
        self._set_timer(now + self._longest)
        super().inform(reading)

    def _is_change(self, reading: Reading) -> bool:
        if self._last is None:
            return True
        _, status, value = reading
        _, last_status, last_value = self._last
        return status != last_status or _has_changed(value, last_value, self.difference)

    def _set_timer(self, when: float) -> None:
        """Set the timer for a report of the reading at that time."""
        _cancel(self._timer)
        if when < math.inf:
            self._timer = self._loop.call_at(when, self._report)

    def _report(self) -> None:
        if not self._is_cancelled:
            self.inform(self._sensor.read())


class SampleEvent(SampleEventRate):
    """Report changes of value or status."""

    _COUNT = (0, "no parameters")

    def _parse(self, *params: Any) -> None:
        super()._parse(0.0, math.inf)

    def get_sampling(self) -> int:
        return self.EVENT


class SampleDifferential(SampleEventRate):
    """Report changes of the status, and large enough changes of the value.

    The parameter is the difference from the last reported value that must be
    exceeded: an integer, a float, or seconds for a timestamp.
    """

    _COUNT = (1, "one parameter")

    def _parse(self, *params: Any) -> None:
        if self._sensor.type not in _DIFFERENCES:
            raise ValueError(
                "The 'differential' strategy is only valid for float, integer and timestamp "
                "sensors."
            )
        self.difference = _to_difference(params[0], self._sensor)
        if not self.difference > 0:
            raise ValueError(
                f"The diff amount must be a positive {_DIFFERENCES[self._sensor.type]}."
            )
        super()._parse(0.0, math.inf)

    def get_sampling(self) -> int:
        return self.DIFFERENTIAL


class SampleDifferentialRate(SampleEventRate):
    """Report like `SampleEventRate`, but only large changes of the value.

    The parameters are the difference, as for `SampleDifferential`, and the
    shortest and the longest period.
    """

    _COUNT = (3, "three parameters")

    def _parse(self, *params: Any) -> None:
        if self._sensor.type not in ("integer", "float"):
            raise ValueError(
                "The differential-rate strategy can only be defined for integer or float sensors"
            )
        self.difference = _to_difference(params[0], self._sensor)
        if not self.difference >= 0:
            raise ValueError("The diff amount must not be negative.")
        super()._parse(*params[1:])

    def get_sampling(self) -> int:
        return self.DIFFERENTIAL_RATE


_STRATEGIES: dict[bytes, type[SampleStrategy]] = {
    b"none": SampleNone,
    b"auto": SampleAuto,
    b"period": SamplePeriod,
    b"event": SampleEvent,
    b"differential": SampleDifferential,
    b"event-rate": SampleEventRate,
    b"differential-rate": SampleDifferentialRate,
}

# What the difference is called, for the types that have one.
_DIFFERENCES = {"integer": "integer", "float": "float", "timestamp": "number of seconds"}


def _to_difference(param: Any, sensor: Sensor) -> float:
    return _to_int(param) if sensor.type == "integer" else _to_float(param)


def _to_float(param: Any) -> float:
    try:
        return arguments.read_float(param) if isinstance(param, bytes) else float(param)
    except ValueError:
        raise ValueError(f"could not convert string to float: {param!r}") from None


def _to_int(param: Any) -> int:
    try:
        return arguments.read_int(param) if isinstance(param, bytes) else int(param)
    except ValueError:
        raise ValueError(f"invalid literal for int() with base 10: {param!r}") from None


def _has_changed(value: Any, last: Any, difference: Optional[float]) -> bool:
    """Return whether a value differs, or differs by more than *difference*."""
    # Bytes are compared with nothing else: ``python -bb`` forbids it.
    if isinstance(value, bytes) is not isinstance(last, bytes):
        return True
    # NaN has changed only if the last value was a number.
    if value == last or (value != value and last != last):
        return False
    if difference is None:
        return True
    try:
        return not abs(value - last) <= difference
    except TypeError:
        # One of them is not a number.
        return True


def _cancel(timer: Optional[asyncio.TimerHandle]) -> None:
    if timer is not None:
        timer.cancel()
