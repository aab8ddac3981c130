"""Plots of one line."""

from __future__ import annotations

import math
from typing import Iterable

LEVELS = "▁▂▃▄▅▆▇█"
ASCII_LEVELS = "_.-=+*%#"


def plot(numbers: Iterable[float], width: int, levels: str = LEVELS) -> str:
    """Return the last *width* numbers as a line of characters, the highest at the top level."""
    shown = list(numbers)[-width:] if width > 0 else []
    low, high = extent(shown)
    # Halves, because the difference of two numbers can be too large for one.
    span = high / 2 - low / 2

    def level(number: float) -> str:
        if not math.isfinite(number):
            return " "
        if span <= 0:
            return levels[0]
        part = (number / 2 - low / 2) / span
        return levels[min(int(part * len(levels)), len(levels) - 1)]

    return "".join(map(level, shown))


def extent(numbers: Iterable[float]) -> tuple[float, float]:
    """Return the lowest and the highest number; NaN if there is none."""
    finite = [number for number in numbers if math.isfinite(number)]
    return (min(finite), max(finite)) if finite else (math.nan, math.nan)
