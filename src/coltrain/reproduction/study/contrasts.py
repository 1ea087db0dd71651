"""Weighted sums of cells: a level's mean, an effect, an interaction, a Shapley value.

All that a study says is such a sum. Cells share seeds and queries, so the sum is taken run by run
and query by query before anything is averaged, and what seeds or queries have in common cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import fsum

import numpy as np

from coltrain.evaluation.statistics import (
    Interval,
    Sample,
    macro_interval,
    sample_interval,
    two_level_interval,
)
from coltrain.evaluation.statistics.seeds import Parts, parts_of
from coltrain.reproduction.study.design import Cell
from coltrain.reproduction.study.scores import Scores, Tasks

Weights = Mapping[Cell, float]
"""How much each cell counts; 0 for cells that are absent."""

ONE_SEED = "one seed: the interval counts the queries only"


@dataclass(frozen=True)
class Estimate:
    """A weighted sum of cells, estimated.

    Attributes:
        interval: Its value and 95 % interval, counting seeds and queries.
        seeds: The seeds that it rests on.
        parts: What seeds and queries contribute to its variance; None with one seed.
    """

    interval: Interval
    seeds: tuple[int, ...]
    parts: Parts | None

    @property
    def value(self) -> float:
        """The estimate, a fraction."""
        return self.interval.mean

    @property
    def is_told(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval.low > 0 or self.interval.high < 0


def together(*terms: tuple[float, Weights]) -> dict[Cell, float]:
    """A sum of weights, each times a number; cells whose parts cancel are left out."""
    total: dict[Cell, float] = {}
    for times, weights in terms:
        for cell, weight in weights.items():
            total[cell] = total.get(cell, 0.0) + times * weight
    return {cell: weight for cell, weight in total.items() if abs(weight) > 1e-12}


def mean_of(cells: list[Cell]) -> dict[Cell, float]:
    """Each of some cells counts the same."""
    return dict.fromkeys(cells, 1 / len(cells))


def estimate(scores: Scores, weights: Weights, *, level: float = 0.95) -> Estimate | None:
    """A weighted sum of cells with its interval.

    Args:
        scores: The finished runs.
        weights: Of the cells.
        level: How often such an interval is to cover.

    Returns:
        None where some cell has no run with a seed that all the others have too.

    Source:
        The interval of `two_level_interval`, on sums instead of single recipes; coverage of the
        effects: `benchmarks/coverage_of_study.py`.
    """
    seeds = scores.seeds(weights)
    if not seeds or not weights:
        return None
    runs = [_sum(scores, weights, seed) for seed in seeds]
    up = fsum(weight for weight in weights.values() if weight > 0)
    down = fsum(weight for weight in weights.values() if weight < 0)
    if len(seeds) > 1:
        found = two_level_interval(runs, level=level)
        # A measure lies between 0 and 1; what lies beyond is no possible mean.
        low, high = max(found.low, down), min(found.high, up)
        interval = Interval(found.mean, low, high, found.method, found.flag)
        return Estimate(interval, tuple(seeds), parts_of(runs))
    options = {"level": level, "bounds": (down - 1e-9, up + 1e-9)}
    (tasks,) = runs
    found = sample_interval(tasks[0], **options) if len(tasks) == 1 else None
    found = found or macro_interval(tasks, **options)
    interval = Interval(found.mean, found.low, found.high, found.method, ONE_SEED)
    return Estimate(interval, tuple(seeds), None)


def share_interval(
    scores: Scores, part: Weights, whole: Weights, *, level: float = 0.95
) -> Interval | None:
    """The share that a part has in a whole, with its interval.

    A share ρ is within the interval where the data do not tell part - ρ · whole from 0. This also
    counts that part and whole come from the same runs.

    Args:
        scores: The finished runs.
        part: Such as a factor's Shapley value.
        whole: Such as the gap.
        level: How often such an interval is to cover.

    Returns:
        None with fewer than two seeds, or where the whole itself cannot be told from 0: then no
        share of it is known.

    Source:
        Fieller, "Some problems in interval estimation", 1954, with the two-level interval in the
        place of Student's.
    """
    seeds = scores.seeds({**whole, **part})
    if len(seeds) < 2:
        return None
    runs_of_part = [_sum(scores, part, seed) for seed in seeds]
    runs_of_whole = [_sum(scores, whole, seed) for seed in seeds]

    @cache
    def is_within(share: float) -> bool:
        runs = [
            tuple(
                Sample(mine.sums - share * all_.sums, mine.sizes)
                for mine, all_ in zip(tasks, whole_tasks, strict=True)
            )
            for tasks, whole_tasks in zip(runs_of_part, runs_of_whole, strict=True)
        ]
        found = two_level_interval(runs, level=level)
        return found.low <= 0 <= found.high

    gap = two_level_interval(runs_of_whole, level=level)
    if gap.low <= 0 <= gap.high:
        return None
    value = two_level_interval(runs_of_part, level=level).mean / gap.mean
    low, high = (_edge(is_within, value, direction) for direction in (-1.0, 1.0))
    return Interval(value, low, high, "Fieller, over seeds and queries")


def _edge(is_within, inside: float, direction: float) -> float:
    """The last share within, going from one that is."""
    step = 0.05
    while is_within(inside + direction * step) and step < 1e4:
        step *= 2
    low, high = 0.0 if step == 0.05 else step / 2, step
    while high - low > 1e-3 * max(1.0, abs(inside)):
        middle = (low + high) / 2
        low, high = (middle, high) if is_within(inside + direction * middle) else (low, middle)
    return inside + direction * (low + high) / 2


def _sum(scores: Scores, weights: Weights, seed: int) -> Tasks:
    """The weighted sum for one seed, query by query."""
    runs = [(weight, scores.by_cell[cell][seed]) for cell, weight in weights.items()]
    return tuple(
        Sample(
            np.sum([weight * tasks[task].sums for weight, tasks in runs], axis=0),
            runs[0][1][task].sizes,
        )
        for task in range(len(runs[0][1]))
    )
