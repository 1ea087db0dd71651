"""An interval that counts both what the queries and what the training seeds leave open."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import fsum, sqrt

import numpy as np

from coltrain.evaluation.statistics.intervals import Interval
from coltrain.evaluation.statistics.sample import Sample
from coltrain.evaluation.statistics.student import t_quantile

_quantile = lru_cache(maxsize=1024)(t_quantile)  # a share's interval asks for the same ones again

TWO_LEVEL = "two-level t: seeds and queries"


@dataclass(frozen=True)
class Parts:
    """What the variance of a mean over seeds and queries is made of.

    Attributes:
        mean: Over seeds of the mean over tasks.
        num_seeds: Seeds.
        of_seeds: Variance of the runs' means, divided by the seeds.
        of_queries: Variance of the queries' means over seeds, divided by the queries.
        of_both: What both of these contain: how differently the seeds do on the same query.
        degrees: Of freedom of `of_queries`.
    """

    mean: float
    num_seeds: int
    of_seeds: float
    of_queries: float
    of_both: float
    degrees: float

    def half_width_squared(self, share: float, num_seeds: int) -> float:
        """Square of an interval's half-width, for as many seeds as there are or for more.

        Args:
            share: Probability below its upper end.
            num_seeds: Seeds that it is to rest on.
        """
        times = self.num_seeds / num_seeds
        seed_part = _quantile(share, num_seeds - 1) ** 2 * self.of_seeds * times
        if self.degrees == 0:
            return seed_part
        factor = _quantile(share, self.degrees) ** 2
        alone = max(self.of_queries - self.of_both, 0.0)
        # The parts are estimates; together they are never less than the queries alone leave open.
        least = self.of_queries if num_seeds == self.num_seeds else alone
        return max(seed_part + factor * alone, factor * least)

    def variance(self, num_seeds: int) -> float:
        """Of the mean, for so many seeds."""
        alone = max(self.of_queries - self.of_both, 0.0)
        return self.of_seeds * self.num_seeds / num_seeds + alone


def parts_of(runs: Sequence[Sequence[Sample]]) -> Parts:
    """Take the variance of a mean apart.

    Args:
        runs: For each seed, its tasks, in the same order and with the same units.

    Raises:
        ValueError: As `two_level_interval`.
    """
    num_seeds = len(runs)
    if num_seeds < 2:
        raise ValueError(f"expected at least two seeds, received {num_seeds}")
    for run in runs[1:]:
        if len(run) != len(runs[0]) or not all(
            np.array_equal(mine.sizes, first.sizes)
            for mine, first in zip(run, runs[0], strict=False)
        ):
            raise ValueError("the runs were not measured on the same queries")
    if any(sample.num_units < 2 for sample in runs[0]):
        raise ValueError("expected at least two queries in each task")
    num_tasks = len(runs[0])
    means = [fsum(sample.mean for sample in run) / num_tasks for run in runs]
    of_seeds = float(np.var(means, ddof=1)) / num_seeds
    of_queries, of_both, freedom = 0.0, 0.0, 0.0
    for task in range(num_tasks):
        samples = [run[task] for run in runs]
        units = samples[0].num_units
        influences = np.stack([sample.influences for sample in samples])
        scale = units / (units - 1) / num_tasks**2
        query_part = scale * float((influences.mean(0) ** 2).sum())
        residuals = influences - influences.mean(0)
        of_both += scale * float((residuals**2).sum()) / (num_seeds - 1) / num_seeds
        of_queries += query_part
        freedom += query_part**2 / (units - 1)
    # Of one task they are its queries less one, but for rounding.
    degrees = round(of_queries**2 / freedom, 6) if freedom > 0 else 0.0
    return Parts(fsum(means) / num_seeds, num_seeds, of_seeds, of_queries, of_both, degrees)


def two_level_interval(runs: Sequence[Sequence[Sample]], *, level: float = 0.95) -> Interval:
    """An interval for the mean of a recipe over seeds and queries like these.

    Resampling three seeds would cover far too rarely (three values have few resamples, and those
    vary by a third too little), so the half-width is put together from its parts, each with the t
    quantile of its own degrees of freedom: the variance of the runs' means, and that of the queries'
    means, less what both contain, how differently the seeds do on the same query.

    Args:
        runs: For each seed, its tasks, in the same order and with the same units.
        level: How often such an interval is to cover.

    Returns:
        The mean over seeds of the mean over tasks. Flagged below five seeds.

    Raises:
        ValueError: Fewer than two seeds or queries, or tasks or units that differ between seeds.

    Source:
        Two-way random effects without replication (Searle, Casella and McCulloch, Variance
        Components, 1992, chapter 4), the parts put together as in Burdick and Graybill, Confidence
        Intervals on Variance Components, 1992: one quantile with Satterthwaite's degrees of freedom
        covers too rarely where three seeds lie far apart. Coverage: `benchmarks/coverage_over_seeds.py`.
    """
    parts = parts_of(runs)
    share = (1 + level) / 2
    half = sqrt(parts.half_width_squared(share, parts.num_seeds))
    flag = f"only {parts.num_seeds} seeds" if parts.num_seeds < 5 else None
    return Interval(parts.mean, parts.mean - half, parts.mean + half, TWO_LEVEL, flag)
