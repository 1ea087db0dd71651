"""From numbers to places on a drawing, with round ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Places a number between two ends of a drawing.

    Attributes:
        low: Number at `start`.
        high: Number at `end`.
        start: Place of the lowest number.
        end: Place of the highest.
        is_log: Whether equal factors lie equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, number: float) -> float:
        """The place of a number, to a tenth of a unit; beyond the ends it stays at the end."""
        low, high = self._of(self.low), self._of(self.high)
        share = (self._of(number) - low) / ((high - low) or 1)
        return round(self.start + min(max(share, 0), 1) * (self.end - self.start), 1)

    def _of(self, number: float) -> float:
        return math.log10(max(number, 1e-300)) if self.is_log else number


def nice_range(values: Sequence[float], *, from_zero: bool, about: int = 4) -> tuple[float, float]:
    """Round ends around some numbers, such that about so many round steps lie between."""
    low, high = min(values), max(values)
    if from_zero:
        low = min(low, 0.0)
    if low == high:
        low, high = (low - 0.5, high + 0.5) if low else (0.0, 1.0)
    bottom, top = low, high
    # Rounding outwards can call for a larger step; again, so that both ends are ticks.
    for _ in range(3):
        step = _nice_step((top - bottom) / about)
        bottom, top = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return bottom, top


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from low to high, about so many."""
    step = _nice_step((high - low) / about)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two numbers, with 2 and 5 times them where there are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(found) <= 6:
            break
    return found[:: math.ceil(len(found) / 6)] if found else [low, high]


def whole_ticks(low: int, high: int, about: int = 5) -> list[int]:
    """Round whole numbers from low to high, about so many."""
    return [int(tick) for tick in ticks(low, high, about) if float(tick).is_integer()]


def _nice_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor for factor in (1, 2, 2.5, 5, 10) if step <= factor * power * 1.0001) * power
