"""Two evaluations side by side: what differs, and whether the difference means anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from coltrain.errors import UsageError
from coltrain.evaluation.published.names import MAIN_MEASURES, tasks_of
from coltrain.evaluation.published.scores import largest_rerun_change
from coltrain.evaluation.statistics import holm
from coltrain.evaluation.statistics.equivalence import within
from coltrain.evaluation.statistics.intervals import FEWEST_INFORMATIVE
from coltrain.recipe.wording import listed
from coltrain.reproduction.comparison.difference import (
    LEVEL,
    PAIRED,
    UNPAIRED,
    Compared,
    Difference,
    compare_means,
    compare_task,
)
from coltrain.reproduction.comparison.sides import Side
from coltrain.reproduction.comparison.verdict import in_words, verdict_on

DEFAULT_MEASURE = "nDCG@5"


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a task, or a mean over several.

    Attributes:
        name: The task, or what the mean is over.
        is_mean: Whether it is a mean over tasks.
        num_tasks: How many.
        is_in_domain: The training data have the same source; None where that is not known.
        left: Score of this side, a fraction.
        right: Score of the other.
        difference: With its interval.
        p_adjusted: After Holm over the tasks; of a mean, as it is.
        verdict: One of four.
        words: The verdict as a sentence.
    """

    name: str
    is_mean: bool
    num_tasks: int
    is_in_domain: bool | None
    left: float
    right: float
    difference: Difference
    p_adjusted: float
    verdict: str
    words: str


@dataclass(frozen=True)
class Comparison:
    """Two evaluations, compared.

    Attributes:
        left: What was compared.
        right: With what.
        measure: Of which.
        margin: Points within which a difference does not matter, stated beforehand.
        tasks: A row for each task of both.
        means: A row for each mean over them; the first is that of all tasks of a benchmark.
        only_left: Data sets of this side alone.
        only_right: Of the other alone.
        remarks: What a reader has to know.
    """

    left: str
    right: str
    measure: str
    margin: float
    tasks: tuple[Row, ...]
    means: tuple[Row, ...]
    only_left: tuple[str, ...]
    only_right: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def pairing(self) -> str:
        """Paired, unpaired, or both."""
        return " and ".join(sorted({row.difference.pairing for row in self.tasks}))


def compare(
    left: Side,
    right: Side,
    *,
    measure: str | None = None,
    margin: float = 1.0,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two evaluations on the tasks that both have.

    Args:
        left: What is compared.
        right: With what: another evaluation, or published scores.
        measure: Of which. None: the main measure of the tasks' benchmark, else nDCG@5.
        margin: Points within which a difference does not matter.
        num_resamples: Resamples of intervals, and flips of signs.
        seed: Of both.

    Returns:
        A row for each task, its p-value adjusted over the tasks after Holm, and for each mean. A
        verdict is `reproduced` where the 90 % interval lies within the margin (two one-sided tests
        at 5 %), `above` or `below` where the p-value is at most .05, else `cannot tell`.

    Raises:
        UsageError: `[bad-margin]`, `[no-common-task]`, `[measure-not-in-both]`.
    """
    if not 0 < margin < 100:
        raise UsageError(
            "bad-margin",
            "the margin has to be a positive number of points.",
            where="--margin",
            received=f"{margin:g}",
            expected="points of a measure x 100, such as 1.0",
        )
    common = [key for key in left.tasks if key in right.tasks]
    if not common:
        raise UsageError(
            "no-common-task",
            "the two evaluations have no task in common.",
            received=f"{left.label}: {_names(left)}\n{right.label}: {_names(right)}",
            expected="at least one data set on both sides",
        )
    measure = measure or _main_measure(left, common)
    _refuse_missing(measure, left, right, common)
    compared = {
        key: compare_task(
            left.tasks[key], right.tasks[key], measure, num_resamples=num_resamples, seed=seed
        )
        for key in common
    }
    adjusted = dict(zip(common, holm([compared[key].difference.p for key in common]), strict=True))
    rows = []
    for key in common:
        task = left.tasks[key].task
        rows.append(
            _row(
                key,
                compared[key].difference,
                adjusted[key],
                margin,
                (left.tasks[key].measures[measure], right.tasks[key].measures[measure]),
                is_in_domain=task.is_in_domain if task else None,
            )
        )
    means = []
    for name, keys, is_in_domain in _groups(left, common):
        difference = compare_means(
            [compared[key] for key in keys], num_resamples=num_resamples, seed=seed
        )
        scores = tuple(
            fsum(side.tasks[key].measures[measure] for key in keys) / len(keys)
            for side in (left, right)
        )
        means.append(
            _row(
                name,
                difference,
                difference.p,
                margin,
                scores,
                is_in_domain=is_in_domain,
                num_tasks=len(keys),
            )
        )
    return Comparison(
        left=left.label,
        right=right.label,
        measure=measure,
        margin=margin,
        tasks=tuple(rows),
        means=tuple(means),
        only_left=tuple(t.name for key, t in left.tasks.items() if key not in right.tasks),
        only_right=tuple(t.name for key, t in right.tasks.items() if key not in left.tasks),
        remarks=_remarks(left, right, compared),
    )


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as a document: scores as fractions, differences in points."""
    return {
        "left": comparison.left,
        "right": comparison.right,
        "measure": comparison.measure,
        "margin_points": comparison.margin,
        "pairing": comparison.pairing,
        "tasks": [_row_to_json(row) for row in comparison.tasks],
        "means": [_row_to_json(row) for row in comparison.means],
        "only_left": list(comparison.only_left),
        "only_right": list(comparison.only_right),
        "remarks": list(comparison.remarks),
    }


def _row_to_json(row: Row) -> dict[str, Any]:
    found = row.difference
    return {
        ("mean" if row.is_mean else "task"): row.name,
        "num_tasks": row.num_tasks,
        "num_queries": found.num_queries,
        "is_in_domain": row.is_in_domain,
        "left": row.left,
        "right": row.right,
        "difference_points": 100 * found.value,
        "low_points": 100 * found.interval.low,
        "high_points": 100 * found.interval.high,
        "level": LEVEL,
        "low_90_points": 100 * found.narrower.low,
        "high_90_points": 100 * found.narrower.high,
        "method": found.interval.method,
        "flag": found.interval.flag,
        "pairing": found.pairing,
        "spread_from": list(found.sources),
        "p": found.p,
        "p_adjusted": row.p_adjusted,
        "test": found.test,
        "effect_size": found.effect_size,
        "smallest_difference_points": 100 * found.smallest,
        "verdict": row.verdict,
        "words": row.words,
    }


def _row(
    name: str,
    difference: Difference,
    p: float,
    margin: float,
    scores: tuple[float, float],
    *,
    is_in_domain: bool | None,
    num_tasks: int | None = None,
) -> Row:
    verdict = verdict_on(
        difference.value,
        p,
        is_within_margin=within(difference.narrower, margin / 100),
        are_equal=difference.are_equal,
    )
    words = in_words(
        verdict,
        difference=100 * difference.value,
        p=p,
        margin=margin,
        num_queries=difference.num_queries,
        smallest=100 * difference.smallest,
        are_equal=difference.are_equal,
    )
    return Row(
        name=name,
        is_mean=num_tasks is not None,
        num_tasks=num_tasks or 1,
        is_in_domain=is_in_domain,
        left=scores[0],
        right=scores[1],
        difference=difference,
        p_adjusted=p,
        verdict=verdict,
        words=words,
    )


def _groups(left: Side, common: Sequence[str]) -> list[tuple[str, list[str], bool | None]]:
    """The means worth a line: of each benchmark, and of its parts in and out of domain."""
    by_benchmark: dict[str | None, list[str]] = {}
    for key in common:
        task = left.tasks[key].task
        by_benchmark.setdefault(task.benchmark if task else None, []).append(key)
    groups = []
    for benchmark, keys in by_benchmark.items():
        if len(keys) < 2:
            continue
        if benchmark is None:
            groups.append((f"mean of {len(keys)} data sets", keys, None))
            continue
        expected = {task.name for task in tasks_of(benchmark)}
        is_whole = expected <= set(keys)
        name = f"{benchmark} mean" if is_whole else f"mean of {len(keys)} tasks of {benchmark}"
        groups.append((name, keys, None))
        for part, is_in_domain in (("in-domain", True), ("out-of-domain", False)):
            inside = [key for key in keys if left.tasks[key].task.is_in_domain == is_in_domain]
            if 1 < len(inside) < len(keys):
                groups.append((f"{len(inside)} {part} tasks", inside, is_in_domain))
    return groups


def _main_measure(left: Side, common: Sequence[str]) -> str:
    tasks = [left.tasks[key].task for key in common]
    measures = {MAIN_MEASURES[task.benchmark] if task else DEFAULT_MEASURE for task in tasks}
    return measures.pop() if len(measures) == 1 else DEFAULT_MEASURE


def _refuse_missing(measure: str, left: Side, right: Side, common: Sequence[str]) -> None:
    shared: set[str] | None = None
    missing = []
    for side in (left, right):
        for key in common:
            scores = side.tasks[key]
            names = set(scores.measures)
            for values in scores.per_query.values():
                names &= values.keys()
            shared = names if shared is None else shared & names
            if measure not in names:
                missing.append(f"{side.label} on {scores.name}")
    if missing:
        raise UsageError(
            "measure-not-in-both",
            "the measure was not computed on both sides.",
            where=missing[0] + (f", and {len(missing) - 1} more" if len(missing) > 1 else ""),
            received=measure,
            expected=listed(sorted(shared or ())) if shared else "a measure of both sides",
        )


def _remarks(left: Side, right: Side, compared: dict[str, Compared]) -> tuple[str, ...]:
    stated = [side.tasks[key].provenance for side in (left, right) for key in compared]
    found = [text for text in dict.fromkeys(stated) if text]
    for key, task in compared.items():
        found.extend(f"{key}: {remark}" for remark in task.remarks)
    pairings = {task.difference.pairing for task in compared.values()}
    if PAIRED in pairings:
        found.append("paired: each query of one side was compared with itself on the other")
    if UNPAIRED in pairings:
        sources = dict.fromkeys(s for task in compared.values() for s in task.difference.sources)
        found.append(
            "unpaired: two independent means, though the queries are the same, which makes the "
            f"intervals wider than they need be; spread from {listed(sources, 'and')}"
        )
    if left.is_published or right.is_published:
        found.append("published are means only: their spread is an estimate")
        changes = {key: largest_rerun_change(key) for key in compared}
        known = {key: change for key, change in changes.items() if change}
        if known:
            key = max(known, key=known.__getitem__)
            found.append(
                "the same published checkpoints moved by up to "
                f"{100 * known[key]:.1f} points ({key}) between two versions of the software"
            )
    if any(task.difference.interval.flag for task in compared.values()):
        found.append(
            f"* fewer than {FEWEST_INFORMATIVE} queries differ: the interval is wide on purpose, while "
            "the test only asks whether those that differ could as well have done so the other way"
        )
    found.append(
        "the intervals are over queries, of these two models: how much another training seed would "
        "move them is not in them"
    )
    return tuple(found)


def _names(side: Side) -> str:
    names = [scores.name for scores in side.tasks.values()]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return (", ".join(names[:6]) + more) or "no task"
