"""How the gap between two ends is shared out among the factors that make it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from typing import Literal

from coltrain.reproduction.study.contrasts import together
from coltrain.reproduction.study.design import Cell

Method = Literal["exact", "first and last", "first", "last"]

METHODS: dict[Method, str] = {
    "exact": "exact Shapley values: a factor's part is the mean of what it adds over all orders in "
    "which the factors can be changed; the parts sum to the gap",
    "first and last": "an approximation of Shapley values: the mean of what a factor adds as the first "
    "to be changed and as the last; the parts need not sum to the gap",
    "first": "what a factor adds as the first to be changed; what factors do together is missing",
    "last": "what a factor adds as the last to be changed; what factors do together is counted "
    "once for each of them",
}


@dataclass(frozen=True)
class Shares:
    """The parts of the gap, as weighted sums of cells.

    Attributes:
        method: How they were shared out.
        gap: The end minus the start.
        of: The part of each factor.
    """

    method: Method
    gap: dict[Cell, float]
    of: dict[str, dict[Cell, float]]


def mixed(start: Cell, end: Cell, changed: Collection[str]) -> Cell:
    """The start with some factors as at the end."""
    return Cell(
        tuple((name, end.level(name) if name in changed else level) for name, level in start.levels)
    )


def shares(start: Cell, end: Cell, design: Collection[Cell]) -> Shares:
    """Share out the gap between two cells, as well as the cells of a design allow.

    Exact where all mixtures of both ends are there (a full design; two factors changed one at a
    time from both ends).

    Args:
        start: One end.
        end: The other.
        design: The cells that are run.

    Source:
        Shapley, "A value for n-person games", 1953: Σ over sets S of the others of
        |S|! (n - |S| - 1)! / n! · (v(S with it) - v(S)).
    """
    names = [name for name, _ in start.levels]
    known = set(design)
    gap = together((1.0, {end: 1.0}), (-1.0, {start: 1.0}))
    mixtures = [mixed(start, end, some) for some in _subsets(names)]
    if all(cell in known for cell in mixtures):
        of = {name: _exact(start, end, name, names) for name in names}
        return Shares("exact", gap, of)
    firsts = {name: _added(start, end, (), name) for name in names}
    lasts = {
        name: _added(start, end, [other for other in names if other != name], name)
        for name in names
    }
    has_first = all(cell in known for weights in firsts.values() for cell in weights)
    has_last = all(cell in known for weights in lasts.values() for cell in weights)
    if has_first and has_last:
        both = {name: together((0.5, firsts[name]), (0.5, lasts[name])) for name in names}
        return Shares("first and last", gap, both)
    return Shares("first", gap, firsts) if has_first else Shares("last", gap, lasts)


def interaction(start: Cell, end: Cell, pair: tuple[str, str]) -> dict[Cell, float]:
    """What two factors do together beyond what each does alone, averaged over the others' ends."""
    others = [name for name, _ in start.levels if name not in pair]
    terms = []
    for some in _subsets(others):
        for changed, sign in (((), 1), (pair[:1], -1), (pair[1:], -1), (pair, 1)):
            cell = mixed(start, end, [*some, *changed])
            terms.append((sign / 2 ** len(others), {cell: 1.0}))
    return together(*terms)


def _exact(start: Cell, end: Cell, name: str, names: list[str]) -> dict[Cell, float]:
    others = [other for other in names if other != name]
    terms = []
    for some in _subsets(others):
        size = len(some)
        weight = factorial(size) * factorial(len(names) - size - 1) / factorial(len(names))
        terms.append((weight, _added(start, end, some, name)))
    return together(*terms)


def _added(start: Cell, end: Cell, changed: Collection[str], name: str) -> dict[Cell, float]:
    """What a factor adds where some others are changed already."""
    return together(
        (1.0, {mixed(start, end, [*changed, name]): 1.0}),
        (-1.0, {mixed(start, end, changed): 1.0}),
    )


def _subsets(names: list[str]) -> list[tuple[str, ...]]:
    return [some for size in range(len(names) + 1) for some in combinations(names, size)]
