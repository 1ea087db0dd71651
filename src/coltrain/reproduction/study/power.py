"""What so few seeds leave open, and how many would be needed."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from coltrain.evaluation.statistics.seeds import Parts

MOST_SEEDS = 1000
_LEVEL, _POWER = 0.95, 0.8


@dataclass(frozen=True)
class Power:
    """How small an effect could have been found.

    Attributes:
        smallest: The least true effect that these seeds would have found 4 times in 5, a fraction.
        seeds_for_margin: Seeds that would find an effect of the margin so often; None where no
            number of seeds would, since the queries are too few.
        smallest_with_any_seeds: What the queries alone leave open, however many seeds.
    """

    smallest: float
    seeds_for_margin: int | None
    smallest_with_any_seeds: float


def power_of(parts: Parts, margin: float) -> Power:
    """Power of an effect whose variance was measured.

    Args:
        parts: Of the effect.
        margin: The smallest effect that matters, a fraction.
    """
    return Power(
        smallest=smallest_effect(parts, parts.num_seeds),
        seeds_for_margin=_fewest(parts, margin),
        smallest_with_any_seeds=smallest_effect(parts, MOST_SEEDS),
    )


def smallest_effect(parts: Parts, num_seeds: int) -> float:
    """The least true effect that an interval over so many seeds leaves 0 out of, 4 times in 5.

    Args:
        parts: Of the effect, as measured with the seeds that there are.
        num_seeds: Seeds, at least two.

    Source:
        Half-width of the interval and the normal quantile of the power times the standard error:
        Cohen, Statistical Power Analysis, 1988, chapter 2, with the two-level half-width.
    """
    half = sqrt(parts.half_width_squared((1 + _LEVEL) / 2, num_seeds))
    return half + NormalDist().inv_cdf(_POWER) * sqrt(parts.variance(num_seeds))


def _fewest(parts: Parts, margin: float) -> int | None:
    low, high = 2, MOST_SEEDS
    if smallest_effect(parts, high) > margin:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if smallest_effect(parts, middle) <= margin else (middle + 1, high)
        )
    return low
