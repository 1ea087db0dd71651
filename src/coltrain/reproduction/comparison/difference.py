"""The difference of two sides, on one task and on the mean of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from statistics import NormalDist

import numpy as np

from coltrain.evaluation.statistics import (
    Interval,
    Sample,
    effect_size,
    macro_interval,
    sample_interval,
    sign_flip_test,
    smallest_difference,
)
from coltrain.reproduction.comparison.sides import TaskScores
from coltrain.reproduction.comparison.spread import (
    Spread,
    labels_of,
    sample_of,
    spread_of,
    standard_error_within,
)

LEVEL = 0.95
LEVEL_OF_SAMENESS = 0.90
"""Two one-sided tests at 5 % are an interval at 90 %."""

_FEWEST_FOR_A_CLAIM = 6  # of five differences, all one way, a sign-flip test gives p = 2 / 32

PAIRED, UNPAIRED = "paired", "unpaired"


@dataclass(frozen=True)
class Difference:
    """One side minus the other, in fractions.

    Attributes:
        value: The difference of the means.
        interval: At 95 %.
        narrower: At 90 %, which has to lie within the margin to call them the same.
        p: Two-sided, not adjusted.
        test: What gave p.
        standard_error: Of the difference.
        pairing: Whether queries were compared with themselves.
        num_queries: Of one side.
        effect_size: Mean over standard deviation of the paired differences.
        are_equal: Both sides have the same value on every query.
        sources: Where the spread of each side came from, if unpaired.
    """

    value: float
    interval: Interval
    narrower: Interval
    p: float
    test: str
    standard_error: float
    pairing: str
    num_queries: int
    effect_size: float | None = None
    are_equal: bool = False
    sources: tuple[str, ...] = ()

    @property
    def smallest(self) -> float:
        """The least difference that would have been found 4 times in 5."""
        return smallest_difference(self.standard_error, level=LEVEL)


@dataclass(frozen=True)
class Compared:
    """A task of both sides, with what is needed to average it.

    Attributes:
        difference: On this task.
        paired: Differences by unit; None where nothing could be paired.
        spreads: Of both sides at both levels, if unpaired.
        remarks: What a reader has to know.
    """

    difference: Difference
    paired: Sample | None
    spreads: tuple[dict[float, Spread], dict[float, Spread]] | None
    remarks: tuple[str, ...] = ()


def compare_task(
    left: TaskScores,
    right: TaskScores,
    measure: str,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Compared:
    """Compare two sides on a task, query by query where both have the same queries.

    Args:
        left: This side.
        right: The one that it is compared with.
        measure: Of which the means are compared.
        num_resamples: Resamples of intervals, and flips of signs.
        seed: Of both.
    """
    ours, theirs = left.per_query, right.per_query
    if ours and ours.keys() == theirs.keys():
        paired = _paired_sample(left, right, measure)
        difference = _paired([paired], num_resamples, seed)
        return Compared(difference, paired, None, _remarks(left, right, measure))
    remarks = _remarks(left, right, measure)
    if ours and theirs:
        apart = len(ours.keys() ^ theirs.keys())
        remarks = (
            *remarks,
            f"{apart} query ids are on one side only ({len(ours.keys() & theirs.keys())} on both), "
            "so queries were not compared with themselves",
        )
    spreads = tuple(
        {
            level: spread_of(side, measure, other, level=level, seed=seed)
            for level in (LEVEL, LEVEL_OF_SAMENESS)
        }
        for side, other in ((left, right), (right, left))
    )
    num_queries = left.num_queries or right.num_queries
    return Compared(_unpaired([spreads], num_queries), None, spreads, remarks)


def compare_means(
    tasks: Sequence[Compared], *, num_resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Compare the means over several tasks.

    Args:
        tasks: Each compared.
        num_resamples: Resamples of intervals, and flips of signs.
        seed: Of both.
    """
    if all(task.paired is not None for task in tasks):
        return _paired([task.paired for task in tasks], num_resamples, seed)
    num_queries = sum(task.difference.num_queries for task in tasks)
    spreads = []
    for task in tasks:
        if task.spreads is not None:
            spreads.append(task.spreads)
            continue
        # A paired task among unpaired ones: its difference is one side, nothing the other.
        difference = task.difference
        both = {LEVEL: difference.interval, LEVEL_OF_SAMENESS: difference.narrower}
        one = {
            level: Spread(
                difference.value, i.low, i.high, difference.standard_error, PAIRED, i.flag
            )
            for level, i in both.items()
        }
        nothing = dict.fromkeys(both, Spread(0.0, 0.0, 0.0, 0.0, PAIRED, None))
        spreads.append((one, nothing))
    return _unpaired(spreads, num_queries)


def _paired_sample(left: TaskScores, right: TaskScores, measure: str) -> Sample:
    queries = list(left.per_query)
    values = [left.per_query[q][measure] - right.per_query[q][measure] for q in queries]
    labelled = left if left.base_of or left.language_of else right
    return Sample.of(values, *labels_of(labelled, queries))


def _paired(samples: Sequence[Sample], num_resamples: int, seed: int) -> Difference:
    options = {"num_resamples": num_resamples, "seed": seed, "bounds": (-1.0, 1.0)}
    intervals = {}
    for level in (LEVEL, LEVEL_OF_SAMENESS):
        if len(samples) == 1:
            intervals[level] = sample_interval(samples[0], level=level, **options)
        else:
            intervals[level] = macro_interval(samples, level=level, **options)
    contributions = np.concatenate([s.contributions / len(samples) for s in samples])
    flips = sign_flip_test(contributions, num_flips=num_resamples, seed=seed)
    if flips.num_differing < _FEWEST_FOR_A_CLAIM and len(samples) == 1:
        z = NormalDist().inv_cdf((1 + LEVEL) / 2)
        error = standard_error_within(samples[0], intervals[LEVEL], z)
    else:
        error = sqrt(sum(s.standard_error**2 for s in samples)) / len(samples)
    return Difference(
        value=intervals[LEVEL].mean,
        interval=intervals[LEVEL],
        narrower=intervals[LEVEL_OF_SAMENESS],
        p=flips.p,
        test=f"sign flips, {flips.method}",
        standard_error=error,
        pairing=PAIRED,
        num_queries=sum(sample.num_queries for sample in samples),
        effect_size=effect_size(samples[0]) if len(samples) == 1 else None,
        are_equal=flips.num_differing == 0,
    )


def _unpaired(
    tasks: Sequence[tuple[dict[float, Spread], dict[float, Spread]]], num_queries: int
) -> Difference:
    """Intervals of two means as the interval of their difference.

    Source:
        The method of variance estimates recovery (Zou and Donner, 2008; Newcombe, 1998, for
        proportions): each end takes the square root of the sum of the squared distances to the ends
        that pull it, so that skew intervals near a ceiling stay skew.
    """
    value = fsum(ours[LEVEL].mean - theirs[LEVEL].mean for ours, theirs in tasks) / len(tasks)
    intervals = {}
    for level in (LEVEL, LEVEL_OF_SAMENESS):
        down = up = 0.0
        for ours, theirs in tasks:
            a, b = ours[level], theirs[level]
            down += (a.mean - a.low) ** 2 + (b.high - b.mean) ** 2
            up += (a.high - a.mean) ** 2 + (b.mean - b.low) ** 2
        low, high = value - sqrt(down) / len(tasks), value + sqrt(up) / len(tasks)
        flags = [s[level].flag for pair in tasks for s in pair if s[level].flag]
        flag = flags[0] if len(tasks) == 1 and flags else None
        intervals[level] = Interval(value, low, high, "from both sides' intervals", flag)
    error = sqrt(sum(s[LEVEL].standard_error ** 2 for pair in tasks for s in pair)) / len(tasks)
    p = 2 * (1 - NormalDist().cdf(abs(value) / error)) if error > 0 else float(value == 0)
    return Difference(
        value=value,
        interval=intervals[LEVEL],
        narrower=intervals[LEVEL_OF_SAMENESS],
        p=p,
        test="z test of two independent means",
        standard_error=error,
        pairing=UNPAIRED,
        num_queries=num_queries,
        sources=tuple(dict.fromkeys(s[LEVEL].source for pair in tasks for s in pair)),
    )


def _remarks(left: TaskScores, right: TaskScores, measure: str) -> tuple[str, ...]:
    """That the stated mean of a side is not that of its queries."""
    found = []
    for side in (left, right):
        if side.per_query:
            mean = sample_of(side, measure).mean
            if abs(mean - side.measures[measure]) > 1e-6:
                found.append(
                    f"{side.name} states {100 * side.measures[measure]:.2f}, its queries have a mean "
                    f"of {100 * mean:.2f}; the queries are compared"
                )
    return tuple(found)
