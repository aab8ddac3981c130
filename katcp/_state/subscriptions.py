"""Sampling of sensors: what consumers want, and what the device was told.

`Subscriptions` holds, for each sensor, the strategies that its consumers want and the one that the
device uses on this connection. It makes no calls: the client asks it what to change, makes the
requests, and notes their outcome.

Several consumers of one sensor share its sampling: the finest strategy that any of them wants is
set, and all get its updates. When the last consumer goes, sampling is switched off. A new
connection starts without sampling.
"""

from __future__ import annotations

import math
from typing import Any, Generic, Iterable, NamedTuple, Optional, Sequence, TypeVar, Union

from .._wire import arguments
from ..errors import KatcpArgumentError, KatcpTypeError

# Strategies by name, with the number of their parameters, the coarsest first.
_PARAMETERS = {
    "none": 0,
    "period": 1,
    "differential-rate": 3,
    "event-rate": 2,
    "differential": 1,
    "auto": 0,
    "event": 0,
}
_RANKS = {name: rank for rank, name in enumerate(_PARAMETERS)}
_HAS_DIFFERENCE = ("differential", "differential-rate")

_Consumer = TypeVar("_Consumer")

StrategyLike = Union[str, Sequence[Any], "Strategy"]


class Strategy(NamedTuple):
    """A sampling strategy: its name, and its parameters as numbers; periods are in seconds."""

    name: str
    params: tuple[float, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{param:g}" for param in self.params)])

    @property
    def fineness(self) -> tuple[int, tuple[float, ...]]:
        """A key for comparing: the larger, the more updates."""
        return _RANKS[self.name], tuple(-param for param in self.params)

    def arguments(self, sensor_type: str, major: int) -> list[bytes]:
        """Return the arguments of ``?sensor-sampling`` after the sensor's name."""
        params = list(self.params)
        formatted = [self.name.encode("ascii")]
        if self.name in _HAS_DIFFERENCE:
            difference = params.pop(0)
            if sensor_type == "integer" and difference == int(difference):
                formatted.append(arguments.write_int(int(difference)))
            else:
                formatted.append(arguments.write_float(difference))
        return formatted + [arguments.write_timestamp(seconds, major) for seconds in params]


NONE = Strategy("none")


def parse_strategy(strategy: StrategyLike) -> Strategy:
    """Parse a strategy like ``"period 0.5"``, ``("period", 0.5)`` or ``"event"``.

    Raises
    ------
    KatcpArgumentError
        If there is no such strategy, or its parameters make no sense.
    KatcpTypeError
        If it is anything else.
    """
    if isinstance(strategy, Strategy):
        return strategy
    parts: Sequence[Any] = strategy.split() if isinstance(strategy, str) else strategy
    if not isinstance(parts, Sequence) or not parts or not isinstance(parts[0], str):
        raise KatcpTypeError(
            f'A strategy must be like "event", "period 0.5" or ("period", 0.5), not {strategy!r}.'
        )
    name = parts[0]
    if name not in _PARAMETERS:
        known = ", ".join(sorted(_PARAMETERS))
        raise KatcpArgumentError(f"There is no sampling strategy {name!r}; there are {known}.")
    try:
        params = tuple(map(float, parts[1:]))
    except (TypeError, ValueError):
        raise KatcpTypeError(
            f"The parameters of a strategy must be numbers: {strategy!r}."
        ) from None
    if len(params) != _PARAMETERS[name]:
        raise KatcpArgumentError(
            f"The strategy {name!r} has {_PARAMETERS[name]} parameters, not {len(params)}."
        )
    if not all(math.isfinite(param) and param >= 0 for param in params):
        raise KatcpArgumentError(f"A parameter of a strategy is 0 or more: {strategy!r}.")
    if name.endswith("-rate") and params[-2] > params[-1]:
        raise KatcpArgumentError(
            f"The shortest period is longer than the longest one: {strategy!r}."
        )
    return Strategy(name, params)


class _Subscribed(Generic[_Consumer]):
    """One sensor: its consumers, and how the device samples it."""

    __slots__ = ("consumers", "sampled")

    def __init__(self) -> None:
        self.consumers: dict[_Consumer, Strategy] = {}
        # None: unknown, the device may have changed it.
        self.sampled: Optional[Strategy] = NONE

    @property
    def wanted(self) -> Strategy:
        return max(self.consumers.values(), key=lambda s: s.fineness, default=NONE)


class Subscriptions(Generic[_Consumer]):
    """The sensors of one device that have consumers."""

    def __init__(self) -> None:
        self._sensors: dict[str, _Subscribed[_Consumer]] = {}
        # Sensors whose sampling may have to be changed.
        self._dirty: dict[str, None] = {}

    def add(self, name: str, consumer: _Consumer, strategy: Strategy) -> None:
        """Note the strategy that *consumer* wants for a sensor, replacing its previous one."""
        self._sensors.setdefault(name, _Subscribed()).consumers[consumer] = strategy
        self._dirty[name] = None

    def remove(self, name: str, consumer: _Consumer) -> None:
        """Note that *consumer* does not want a sensor any more."""
        subscribed = self._sensors.get(name)
        if subscribed is not None and subscribed.consumers.pop(consumer, None) is not None:
            self._dirty[name] = None

    def consumers(self, name: str) -> tuple[_Consumer, ...]:
        """Return the consumers of a sensor, in the order in which they came."""
        subscribed = self._sensors.get(name)
        return () if subscribed is None else tuple(subscribed.consumers)

    def wanted(self, name: str) -> Strategy:
        """Return the finest strategy that somebody wants for a sensor."""
        subscribed = self._sensors.get(name)
        return NONE if subscribed is None else subscribed.wanted

    def names(self) -> list[str]:
        """Return the sensors that have consumers."""
        return [name for name, subscribed in self._sensors.items() if subscribed.consumers]

    def sampled(self, name: str) -> Strategy:
        """Return how the device samples a sensor, if known."""
        subscribed = self._sensors.get(name)
        return (subscribed and subscribed.sampled) or NONE

    def note_connected(self) -> None:
        """Note that the device samples nothing: the connection is new."""
        for name, subscribed in list(self._sensors.items()):
            subscribed.sampled = NONE
            self._dirty[name] = None
            self._tidy(name, subscribed)

    def forget_sampling(self, names: Optional[Iterable[str]] = None) -> None:
        """Note that the sampling of these sensors is unknown; None: all."""
        for name in self._sensors if names is None else names:
            if name in self._sensors:
                self._sensors[name].sampled = None
                self._dirty[name] = None

    def take_changes(self) -> dict[str, Strategy]:
        """Return the changes to make, by sensor; they count as requested now."""
        changes = {}
        for name in self._dirty:
            subscribed = self._sensors.get(name)
            if subscribed is None:
                continue
            wanted = subscribed.wanted
            if wanted != subscribed.sampled:
                changes[name] = wanted
            self._tidy(name, subscribed)
        self._dirty.clear()
        return changes

    def note_set(self, name: str, strategy: Strategy) -> None:
        """Note that the device has accepted a strategy."""
        subscribed = self._sensors.get(name)
        if subscribed is not None:
            subscribed.sampled = strategy
            self._tidy(name, subscribed)

    def _tidy(self, name: str, subscribed: _Subscribed[_Consumer]) -> None:
        """Forget a sensor without consumers that is not sampled."""
        if not subscribed.consumers and subscribed.sampled == NONE:
            self._sensors.pop(name, None)
