"""How far a device is known, and how long to wait after failures."""

from __future__ import annotations

import random
from typing import NamedTuple


class InspectingClientStateType(NamedTuple):
    """How far an `InspectingClientAsync` knows its device.

    Attributes
    ----------
    connected : bool
        Whether it is connected.
    synced : bool
        Whether all is known, and those who want to know have taken it in.
    model_changed : bool
        Whether sensors or requests have just been added or removed.
    data_synced : bool
        Whether all is known.
    """

    connected: bool
    synced: bool
    model_changed: bool
    data_synced: bool


DISCONNECTED = InspectingClientStateType(False, False, False, False)
SYNCING = InspectingClientStateType(True, False, False, False)
UNCHANGED = InspectingClientStateType(True, False, False, True)
CHANGED = InspectingClientStateType(True, False, True, True)
SYNCED = InspectingClientStateType(True, True, False, True)
STATES = (DISCONNECTED, SYNCING, UNCHANGED, CHANGED, SYNCED)


class ExponentialRandomBackoff:
    """Delays that grow with each failure, and are cut by chance.

    Parameters
    ----------
    delay_initial, delay_max : float in seconds, optional
        The first delay and the longest.
    exp_fac : float, optional
        How many times the last delay the next one is.
    randomicity : float, optional
        Which part of a delay may be cut.
    """

    def __init__(
        self,
        delay_initial: float = 1.0,
        delay_max: float = 90.0,
        exp_fac: float = 3.0,
        randomicity: float = 0.95,
    ) -> None:
        self.delay_initial = delay_initial
        self.delay_max = delay_max
        self.exp_fac = exp_fac
        self.randomicity = randomicity
        self.success()

    @property
    def delay(self) -> float:
        """How long to wait now, in seconds."""
        return self._delay

    def success(self) -> None:
        """Begin with the first delay again."""
        self._use(self.delay_initial)

    def failed(self) -> None:
        """Make the delay longer."""
        self._use(self._longest * self.exp_fac)

    def _use(self, longest: float) -> None:
        self._longest = min(longest, self.delay_max)
        self._delay = self._longest * (1 - self.randomicity * random.random())
