"""An interval that counts both what the queries and what the training seeds leave open."""

from collections.abc import Sequence
from math import fsum, sqrt

import numpy as np

from coltrain.evaluation.statistics.intervals import Interval
from coltrain.evaluation.statistics.sample import Sample
from coltrain.evaluation.statistics.student import t_quantile

TWO_LEVEL = "two-level t: seeds and queries"


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
    mean = fsum(means) / num_seeds
    share = (1 + level) / 2
    seed_part = t_quantile(share, num_seeds - 1) ** 2 * of_seeds
    squared = seed_part
    if freedom > 0:
        factor = t_quantile(share, of_queries**2 / freedom) ** 2
        # The parts are estimates; together they are never less than the queries alone leave open.
        squared = max(seed_part + factor * max(of_queries - of_both, 0.0), factor * of_queries)
    half = sqrt(squared)
    flag = f"only {num_seeds} seeds" if num_seeds < 5 else None
    return Interval(mean, mean - half, mean + half, TWO_LEVEL, flag)
