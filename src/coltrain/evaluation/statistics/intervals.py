"""Where the true mean of one task, or of a benchmark, may lie."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from coltrain.evaluation.statistics.resampling import resampled_means
from coltrain.evaluation.statistics.sample import Sample

FEWEST_INFORMATIVE = 20
"""Units that differ from the most common value, below which resampling is not believed."""

BOOTSTRAP = "BCa bootstrap"
BOUNDED = "Gaffke's bound for a mean within known ends"
STRATIFIED = "stratified BCa bootstrap"
COMBINED = "from the tasks' bounds for a mean within known ends"


@dataclass(frozen=True)
class Interval:
    """A mean and the interval around it, in the unit of the values (fractions for measures).

    Attributes:
        mean: The estimate.
        low: Lower end.
        high: Upper end.
        method: How the ends were found.
        flag: What a reader has to know before believing it; None where nothing.
    """

    mean: float
    low: float
    high: float
    method: str
    flag: str | None = None


def mean_interval(
    values: Sequence[float] | np.ndarray,
    *,
    clusters: Sequence | None = None,
    level: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
    subsets: Sequence | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """An interval for the mean of a measure over queries like these.

    The bootstrap over queries, or over clusters of them, with its ends corrected for bias and
    skewness (BCa). Where fewer than 20 units differ from the most common value (a task near its
    ceiling: 94 of 100 queries at 1), resamples hardly vary and any such interval covers the truth
    less often than it says; there Gaffke's bound is used, which knows that a value lies between
    `bounds`, and the flag says so.

    Args:
        values: One for each query.
        clusters: What each query is drawn with: its base query, where translations are asked, or
            its page. None: each query alone.
        level: How often such an interval is to cover the true mean.
        num_resamples: Resamples.
        seed: Of the resamples. The order of the queries does not matter.
        subsets: Language of each query, where the task's score is a mean over languages.
        bounds: Least and greatest possible value; (-1, 1) for differences of measures.

    Returns:
        The mean with its interval; `method` says which of the two it is.

    Raises:
        ValueError: No values, a value outside the bounds, lengths that differ, a level that is
            none.

    Source:
        BCa: Efron, "Better bootstrap confidence intervals", 1987, equal to scipy.stats.bootstrap up
        to the draws (`tests/reference/`). Bounded: Gaffke, "Three test statistics
        for a nonparametric one-sided hypothesis on the mean of a nonnegative variable", 2005;
        Learned-Miller and Thomas, arXiv:1905.06208. The rule of 20 and both coverages:
        `benchmarks/coverage_of_intervals.py`.

    Example:
        >>> found = mean_interval([1.0] * 100)
        >>> found.mean, round(found.low, 2), found.high
        (1.0, 0.96, 1.0)
    """
    return sample_interval(
        Sample.of(values, clusters, subsets),
        level=level,
        num_resamples=num_resamples,
        seed=seed,
        bounds=bounds,
    )


def sample_interval(
    sample: Sample,
    *,
    level: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """`mean_interval` of values that are grouped already.

    Args:
        sample: The task.
        level: As there.
        num_resamples: As there.
        seed: As there.
        bounds: As there.

    Raises:
        ValueError: A value outside the bounds; a level that is none.
    """
    _check_level(level)
    slack = 1e-9 * (bounds[1] - bounds[0])
    means = sample.unit_means
    if means.min() < bounds[0] - slack or means.max() > bounds[1] + slack:
        raise ValueError(f"values from {means.min()} to {means.max()}, expected within {bounds}")
    generator = np.random.default_rng(seed)
    tail = (1 - level) / 2
    informative = num_informative(sample)
    if informative < FEWEST_INFORMATIVE:
        low, high = _gaffke(sample, tail, num_resamples, bounds, generator)
        flag = (
            f"only {informative} of {sample.num_units} differ from the most common value; "
            "the interval is wide on purpose"
        )
        return Interval(sample.mean, low, high, BOUNDED, flag)
    resamples = resampled_means(sample, num_resamples, generator)
    low, high = _bca_ends(resamples, sample.mean, sample.influences, tail)
    return Interval(sample.mean, low, high, BOOTSTRAP)


def macro_interval(
    samples: Sequence[Sample],
    *,
    level: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """An interval for the mean over the tasks of a benchmark, with these tasks fixed.

    Queries are drawn inside each task, then the means of the tasks are averaged: each task counts
    the same, however many queries it has. Where fewer than 20 units in all differ from their task's
    most common value, the tasks' own bounded intervals are put together instead, with a flag.

    Args:
        samples: One for each task.
        level: How often such an interval is to cover the true mean of these tasks.
        num_resamples: Resamples.
        seed: Of the resamples; each task has draws of its own.
        bounds: Least and greatest possible value; (-1, 1) for differences of measures.

    Raises:
        ValueError: No tasks; a level that is none.

    Source:
        Stratified bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997,
        section 3.2; BCa as in section 5.3.2, influences over all strata together. Putting together
        bounded intervals: Zou and Donner, 2008.
    """
    _check_level(level)
    if not samples:
        raise ValueError("expected at least one task")
    mean = math.fsum(sample.mean for sample in samples) / len(samples)
    informative = sum(num_informative(sample) for sample in samples)
    if informative < FEWEST_INFORMATIVE:
        flag = (
            f"only {informative} units in all differ from their task's most common value; "
            "the interval is wide on purpose"
        )
        options = {"level": level, "num_resamples": num_resamples, "seed": seed, "bounds": bounds}
        tasks = [sample_interval(sample, **options) for sample in samples]
        down = math.hypot(*(task.mean - task.low for task in tasks)) / len(tasks)
        up = math.hypot(*(task.high - task.mean for task in tasks)) / len(tasks)
        return Interval(mean, mean - down, mean + up, COMBINED, flag)
    total = np.zeros(num_resamples)
    for task, sample in enumerate(samples):
        total += resampled_means(sample, num_resamples, np.random.default_rng([seed, task]))
    influences = np.concatenate([sample.influences for sample in samples])
    tail = (1 - level) / 2
    low, high = _bca_ends(total / len(samples), mean, influences, tail)
    return Interval(mean, low, high, STRATIFIED)


def num_informative(sample: Sample) -> int:
    """How many units differ from the most common unit mean (0 where all are the same)."""
    # Rounded: a mean over three translations of one value can differ from it in the last bit.
    _, counts = np.unique(sample.unit_means.round(12), return_counts=True)
    return sample.num_units - int(counts.max())


def _bca_ends(
    resamples: np.ndarray, estimate: float, influences: np.ndarray, tail: float
) -> tuple[float, float]:
    """The quantiles of resamples that bias and skewness call for."""
    # Equal but for rounding counts as equal: half of the ties lie below.
    slack = 1e-12
    below = (resamples < estimate - slack).mean() / 2 + (resamples <= estimate + slack).mean() / 2
    spread = (influences**2).sum()
    if not 0 < below < 1 or spread < slack**2:
        low, high = np.quantile(resamples, [tail, 1 - tail])
        return float(low), float(high)
    normal = NormalDist()
    bias = normal.inv_cdf(float(below))
    acceleration = float((influences**3).sum() / (6 * spread**1.5))
    ends = []
    for share in (tail, 1 - tail):
        shifted = bias + normal.inv_cdf(share)
        ends.append(normal.cdf(bias + shifted / (1 - acceleration * shifted)))
    low, high = np.quantile(resamples, ends)
    return float(low), float(high)


def _gaffke(
    sample: Sample,
    tail: float,
    num_draws: int,
    bounds: tuple[float, float],
    generator: np.random.Generator,
) -> tuple[float, float]:
    """A Bayesian bootstrap with one more unit, at the end that each side has to fear.

    For values of 0 and 1 it is the Clopper-Pearson interval.
    """
    units, counts = np.unique(np.hstack([sample.sums, sample.sizes]), axis=0, return_counts=True)
    sums, sizes = np.hsplit(units, 2)
    weights = generator.standard_gamma(counts, size=(num_draws, len(units)))
    # The unit that was not seen is of mean size in each subset.
    unseen = generator.standard_exponential((num_draws, 1)) * sample.sizes.mean(0)
    tops, bottoms = weights @ sums, weights @ sizes + unseen
    low = np.quantile(((tops + bounds[0] * unseen) / bottoms).mean(1), tail)
    high = np.quantile(((tops + bounds[1] * unseen) / bottoms).mean(1), 1 - tail)
    # Monte Carlo draws may miss an end that the mean itself has reached.
    return min(float(low), sample.mean), max(float(high), sample.mean)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, received {level}")
