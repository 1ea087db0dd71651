"""What a study found: levels, effects, interactions, shares of the gap, and what it cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from math import fsum, sqrt
from typing import Any

import numpy as np

from coltrain.evaluation.statistics import Interval
from coltrain.reproduction.study.contrasts import (
    Estimate,
    Weights,
    estimate,
    mean_of,
    share_interval,
    together,
)
from coltrain.reproduction.study.design import Cell, cells, ends
from coltrain.reproduction.study.power import Power, power_of
from coltrain.reproduction.study.schema import Study
from coltrain.reproduction.study.scores import Scores
from coltrain.reproduction.study.shapley import Method, interaction, mixed, shares


@dataclass(frozen=True)
class LevelMean:
    """A level of a factor.

    Attributes:
        factor: The factor.
        level: Its level.
        others: What the other factors are meanwhile, in words.
        mean: Of the measure; None where runs are missing.
    """

    factor: str
    level: str
    others: str
    mean: Estimate | None


@dataclass(frozen=True)
class Effect:
    """What a level changes, beside the level that the start has.

    Attributes:
        factor: The factor.
        level: The level that it goes to.
        reference: The level that it comes from.
        others: What the other factors are meanwhile, in words.
        change: Of the measure; None where runs are missing.
        power: What could have been found; None with one seed.
    """

    factor: str
    level: str
    reference: str
    others: str
    change: Estimate | None
    power: Power | None


@dataclass(frozen=True)
class Interaction:
    """What two factors, or one and all others, do beyond what each does alone.

    Attributes:
        factors: Two factors; one where it is with all others together.
        change: Of the measure.
    """

    factors: tuple[str, ...]
    change: Estimate | None


@dataclass(frozen=True)
class GapShare:
    """A factor's part of the gap.

    Attributes:
        factor: The factor.
        part: Its part, in the unit of the measure.
        share: Of the gap; None where that cannot be told.
        of_explained: Its size beside the sizes of all parts; these sum to 1.
    """

    factor: str
    part: Estimate | None
    share: Interval | None
    of_explained: float | None


@dataclass(frozen=True)
class SeedSpread:
    """How far runs of the same recipe lie apart.

    Attributes:
        sd: Standard deviation over seeds within a cell, over all cells together; None with one seed.
        largest: Largest difference of two seeds of a cell.
        degrees: Of freedom of `sd`.
    """

    sd: float | None
    largest: float | None
    degrees: int

    @property
    def two_runs(self) -> float | None:
        """Two single runs of one recipe differ by less than this 95 times of 100."""
        return None if self.sd is None else 1.96 * sqrt(2) * self.sd


@dataclass(frozen=True)
class Findings:
    """All that a study says.

    Attributes:
        study: The study.
        cells: Each cell with its mean; None where no run of it finished.
        seeds_of_cells: What each seed of each cell reached, in the order of `cells`.
        gap: The end minus the start.
        method: How the gap was shared out.
        shares: The largest first.
        remainder: The gap minus all parts; 0 but for rounding where the shares are exact.
        levels: In the order of the study.
        effects: Likewise.
        interactions: The largest first.
        spread: Of the seeds.
        num_runs: Finished.
        num_queries: That each run answered.
        failed: Cell and seed of what failed, with the reason.
        missing: How many runs have not ended.
        shared: What the runs took of each other's visual tokens; None where nothing.
    """

    study: Study
    cells: tuple[tuple[Cell, Estimate | None], ...]
    seeds_of_cells: tuple[tuple[float, ...], ...]
    gap: Estimate | None
    method: Method
    shares: tuple[GapShare, ...]
    remainder: float | None
    levels: tuple[LevelMean, ...]
    effects: tuple[Effect, ...]
    interactions: tuple[Interaction, ...]
    spread: SeedSpread
    num_runs: int
    num_queries: int
    failed: tuple[tuple[str, int, str], ...] = ()
    missing: int = 0
    shared: dict[str, Any] | None = None


ALL = "averaged over all others"
AT: Mapping[str, str] = {"from": "others as at the start", "to": "others as at the end"}


def findings(
    study: Study,
    scores: Scores,
    *,
    failed: Sequence[tuple[str, int, str]] = (),
    missing: int = 0,
) -> Findings:
    """Work out what the finished runs of a study say.

    Args:
        study: The study.
        scores: Of its finished runs.
        failed: Cell, seed and reason of each run that failed.
        missing: Runs that have not ended.
    """
    start, end = ends(study)
    shared = shares(start, end, cells(study))
    gap = estimate(scores, shared.gap)
    runs = [tasks for by_seed in scores.by_cell.values() for tasks in by_seed.values()]
    parts = _gap_shares(scores, shared.gap, shared.of)
    known = [one.part.value for one in parts if one.part is not None]
    complete = gap is not None and len(known) == len(parts)
    return Findings(
        study=study,
        cells=tuple((cell, estimate(scores, {cell: 1.0})) for cell in cells(study)),
        seeds_of_cells=tuple(tuple(_means(scores, cell)) for cell in cells(study)),
        gap=gap,
        method=shared.method,
        shares=parts,
        remainder=gap.value - fsum(known) if complete else None,
        levels=tuple(_levels(study, scores)),
        effects=tuple(_effects(study, scores)),
        interactions=tuple(_interactions(study, scores)),
        spread=_spread(scores),
        num_runs=len(runs),
        num_queries=sum(task.num_queries for task in runs[0]) if runs else 0,
        failed=tuple(failed),
        missing=missing,
    )


def _gap_shares(scores: Scores, gap: Weights, of: Mapping[str, Weights]) -> tuple[GapShare, ...]:
    found = []
    for factor, weights in of.items():
        part = estimate(scores, weights)
        share = share_interval(scores, weights, gap) if part is not None else None
        found.append(GapShare(factor, part, share, None))
    total = fsum(abs(one.part.value) for one in found if one.part is not None)
    if total and all(one.part is not None for one in found):
        found = [replace(one, of_explained=abs(one.part.value) / total) for one in found]
    return tuple(sorted(found, key=lambda one: -abs(one.part.value) if one.part else 1.0))


def _places(study: Study) -> list[tuple[str, Cell | None]]:
    """Where factors are looked at: over all combinations, or at an end."""
    if study.design == "full":
        return [(ALL, None)]
    start, end = ends(study)
    return [
        (AT[name], cell)
        for name, cell in (("from", start), ("to", end))
        if study.around in (name, "both")
    ]


def _cells_of(study: Study, factor: str, level: str, place: Cell | None) -> list[Cell]:
    if place is not None:
        return [place.with_level(factor, level)]
    return [cell for cell in cells(study) if cell.level(factor) == level]


def _levels(study: Study, scores: Scores):
    for factor, levels in study.factors.items():
        for others, place in _places(study):
            for level in levels:
                mean = estimate(scores, mean_of(_cells_of(study, factor, level, place)))
                yield LevelMean(factor, level, others, mean)


def _effects(study: Study, scores: Scores):
    for factor, levels in study.factors.items():
        reference = study.ends["from"][factor]
        for others, place in _places(study):
            before = mean_of(_cells_of(study, factor, reference, place))
            for level in levels:
                if level == reference:
                    continue
                after = mean_of(_cells_of(study, factor, level, place))
                change = estimate(scores, together((1.0, after), (-1.0, before)))
                power = None
                if change is not None and change.parts is not None:
                    power = power_of(change.parts, study.margin / 100)
                yield Effect(factor, level, reference, others, change, power)


def _interactions(study: Study, scores: Scores) -> list[Interaction]:
    start, end = ends(study)
    known, names = set(cells(study)), list(study.factors)
    found = []
    for pair in combinations(names, 2):
        weights = interaction(start, end, pair)
        if all(cell in known for cell in weights):
            found.append(Interaction(pair, estimate(scores, weights)))
    if not found:
        for name in names if len(names) > 1 else []:
            others = [other for other in names if other != name]
            weights = together(
                (1.0, {end: 1.0}),
                (-1.0, {mixed(start, end, others): 1.0}),
                (-1.0, {mixed(start, end, [name]): 1.0}),
                (1.0, {start: 1.0}),
            )
            if all(cell in known for cell in weights):
                found.append(Interaction((name,), estimate(scores, weights)))
    return sorted(found, key=lambda one: -abs(one.change.value) if one.change else 1.0)


def _spread(scores: Scores) -> SeedSpread:
    squares, degrees, largest = 0.0, 0, None
    for cell in scores.by_cell:
        means = _means(scores, cell)
        if len(means) > 1:
            squares += float(np.var(means)) * len(means)
            degrees += len(means) - 1
            ordered = sorted(means)
            largest = max(largest or 0.0, fsum(b - a for a, b in pairwise(ordered)))
    return SeedSpread(sqrt(squares / degrees) if degrees else None, largest, degrees)


def _means(scores: Scores, cell: Cell) -> list[float]:
    """What each seed of a cell reached, the mean over data sets."""
    return [
        fsum(task.mean for task in tasks) / len(tasks)
        for tasks in scores.by_cell.get(cell, {}).values()
    ]
