"""Before and after: measures, how sure the change is, and how many queries moved."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coltrain.evaluation.results import Result
from coltrain.reproduction.report import figures
from coltrain.reproduction.report.reading import RunRecord
from coltrain.reproduction.report.table import Table

HEADLINE = "nDCG@5"
_RESAMPLES = 2000
_DRAWN_AT_ONCE = 1_000_000  # queries, to bound memory
_SAME = 1e-9  # measures of one query that differ by less are the same


@dataclass(frozen=True)
class Dumbbell:
    """Two scores on a scale from 0 to 1."""

    before: float | None
    after: float | None


@dataclass(frozen=True)
class DataSetScores:
    """One data set: all its measures."""

    name: str
    table: Table
    dumbbells: tuple[Dumbbell, ...]


@dataclass(frozen=True)
class Scores:
    """What the run reached.

    Attributes:
        measure: Of the headline.
        on: What it was measured on, in words.
        before: The headline before training; None where it was not evaluated.
        after: After it, or at the last evaluation so far.
        change: Their difference.
        interval: 95% of it, in words.
        when_after: What `after` is: "after training", or "after step 40".
        summary: One row a data set.
        summary_dumbbells: One a row of it.
        data_sets: All measures of each.
    """

    measure: str
    on: str
    before: str | None
    after: str | None
    change: str | None
    interval: str | None
    when_after: str
    summary: Table
    summary_dumbbells: tuple[Dumbbell, ...]
    data_sets: tuple[DataSetScores, ...]


def scores_of(record: RunRecord) -> Scores | None:
    """Before and after of a run; None where nothing was evaluated."""
    before = _by_name(record.before.results if record.before else [])
    after = _by_name(record.after.results if record.after else [])
    names = list(dict.fromkeys([*before, *after]))
    if not names:
        return None
    pairs = [(before.get(name), after.get(name)) for name in names]
    when_after = "after training"
    if record.after is None or record.after.step != record.num_steps:
        when_after = f"after step {figures.count(record.after.step)}" if record.after else "later"
    mean_before, mean_after = _mean(left for left, _ in pairs), _mean(right for _, right in pairs)
    interval = _interval([_changes(left, right) for left, right in pairs])
    return Scores(
        measure=HEADLINE,
        on=_on([right or left for left, right in pairs]),
        before=None if mean_before is None else figures.score(mean_before),
        after=None if mean_after is None else figures.score(mean_after),
        change=None
        if mean_before is None or mean_after is None
        else figures.change(mean_after - mean_before),
        interval=interval,
        when_after=when_after,
        summary=_summary(names, pairs, when_after),
        summary_dumbbells=tuple(
            Dumbbell(_headline(left), _headline(right)) for left, right in pairs
        ),
        data_sets=tuple(
            _data_set(name, left, right, when_after)
            for name, (left, right) in zip(names, pairs, strict=True)
        ),
    )


Pair = tuple[Result | None, Result | None]


def _by_name(results: Sequence[Result]) -> dict[str, Result]:
    return {result.dataset: result for result in results}


def _headline(result: Result | None) -> float | None:
    return result.measures.get(HEADLINE) if result else None


def _mean(results) -> float | None:
    """Over data sets; None unless each of them has the headline."""
    values = [_headline(result) for result in results]
    return None if None in values or not values else sum(values) / len(values)


def _on(results: Sequence[Result]) -> str:
    queries = figures.count(sum(result.num_queries for result in results))
    pages = figures.count(sum(result.num_pages for result in results))
    name = results[0].dataset if len(results) == 1 else f"{len(results)} data sets (mean)"
    return f"{name}: {queries} queries, {pages} pages"


def _changes(left: Result | None, right: Result | None, measure: str = HEADLINE) -> np.ndarray:
    """Each query's change, for queries that both evaluations have."""
    if left is None or right is None:
        return np.zeros(0)
    shared = [
        query
        for query, table in right.per_query.items()
        if measure in table and measure in left.per_query.get(query, {})
    ]
    return np.array(
        [right.per_query[query][measure] - left.per_query[query][measure] for query in shared]
    )


def _interval(changes: Sequence[np.ndarray]) -> str | None:
    """95% interval of the mean change, by resampling queries within each data set."""
    if not changes or min(len(one) for one in changes) < 2:
        return None
    generator = np.random.default_rng(0)
    means = np.mean([_resampled(one, generator) for one in changes], axis=0)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{figures.change(low)} to {figures.change(high)}"


def _resampled(changes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Means of as many queries drawn with replacement, again and again."""
    size = len(changes)
    at_once = max(1, _DRAWN_AT_ONCE // size)
    means = [
        changes[generator.integers(0, size, (min(at_once, _RESAMPLES - start), size))].mean(axis=1)
        for start in range(0, _RESAMPLES, at_once)
    ]
    return np.concatenate(means)


def _summary(names: Sequence[str], pairs: Sequence[Pair], when_after: str) -> Table:
    rows = []
    for name, (left, right) in zip(names, pairs, strict=True):
        measured = right or left
        changes = _changes(left, right)
        has_change = left is not None and right is not None
        moved = (changes > _SAME).sum(), (abs(changes) <= _SAME).sum(), (changes < -_SAME).sum()
        change = _headline(right) - _headline(left) if has_change else None
        rows.append(
            (
                name,
                figures.count(measured.num_queries),
                figures.count(measured.num_pages),
                figures.score(_headline(left)),
                figures.score(_headline(right)),
                figures.change(change),
                _interval([changes]) or "–",
                *(figures.count(int(number)) if has_change else "–" for number in moved),
            )
        )
    return Table(
        headings=(
            "data set",
            "queries",
            "pages",
            "before",
            when_after,
            "change",
            "95% interval",
            "better",
            "same",
            "worse",
        ),
        rows=tuple(rows),
        caption=f"{HEADLINE} × 100 of each data set, and queries that moved",
    )


def _data_set(
    name: str, left: Result | None, right: Result | None, when_after: str
) -> DataSetScores:
    measures = list((right or left).measures)
    rows, dumbbells = [], []
    for measure in measures:
        low = left.measures.get(measure) if left else None
        high = right.measures.get(measure) if right else None
        change = None if low is None or high is None else high - low
        interval = _interval([_changes(left, right, measure)])
        rows.append(
            (
                measure,
                figures.score(low),
                figures.score(high),
                figures.change(change),
                interval or "–",
            )
        )
        dumbbells.append(Dumbbell(low, high))
    table = Table(
        headings=("measure × 100", "before", when_after, "change", "95% interval"),
        rows=tuple(rows),
        caption=f"All measures × 100 on {name}",
    )
    return DataSetScores(name, table, tuple(dumbbells))
