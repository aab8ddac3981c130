"""Sampling for those who take the readings elsewhere: the resource clients."""

from __future__ import annotations

from typing import Mapping, Sequence

from .._state.readings import Reading
from .._state.replies import KatcpReplyError
from .._state.subscriptions import NONE, Strategy
from ..errors import KatcpClientError
from ._patterns import Pattern
from ._tracker import Tracker


class Sampler:
    """Has sensors of a device sampled; all of it runs in the loop's thread.

    It is a consumer like others: a sensor is sampled with the finest strategy that any of
    them wants. But it is given no readings.

    Parameters
    ----------
    tracker : Tracker
        The sensors of the device.
    """

    patterns: Sequence[Pattern] = ()
    strategy = NONE
    is_over = False

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def put_reading(self, name: str, reading: Reading) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""

    async def set(self, strategies: Mapping[str, Strategy]) -> dict[str, KatcpClientError]:
        """Set strategies, whatever is set now; return those that failed, and why."""
        wanted = {
            name: self._tracker.want(name, self, strategy) for name, strategy in strategies.items()
        }
        failed = await self._tracker.set_sampling(wanted)
        for name, error in failed.items():
            if isinstance(error, KatcpReplyError):
                self.forget(name)
        return failed

    def forget(self, name: str) -> None:
        """Want a sensor no more; the device is not told now."""
        self._tracker.want(name, self, NONE)
