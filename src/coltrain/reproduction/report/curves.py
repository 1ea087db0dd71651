"""What went on between the first step and the last."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from coltrain.reproduction.report import figures
from coltrain.reproduction.report.charts import Chart, Curve, Level, chart, running_mean
from coltrain.reproduction.report.ledger import Presented
from coltrain.reproduction.report.reading import RunRecord
from coltrain.reproduction.report.scores import HEADLINE
from coltrain.reproduction.report.table import Table

_FROM_HOW_MANY_STEPS_A_MEAN = 25
_DATA_SETS_APART = 4  # in the chart of scores; more of them would be a thicket
_ROWS = 16  # of the table of steps


@dataclass(frozen=True)
class Curves:
    """Charts, and the same as tables.

    Attributes:
        charts: Those for which there are numbers.
        evaluations: One evaluation of one data set a row.
        steps: Some steps at even distances.
        sparklines: Name, curve in one line of text, and its ends in words.
    """

    charts: tuple[Chart, ...]
    evaluations: Table | None
    steps: Table | None
    sparklines: tuple[tuple[str, str, str], ...]


def curves_of(record: RunRecord, presented: Presented) -> Curves:
    """All curves of a run."""
    last_step = max(record.num_steps or 0, record.step)

    def pages(step: int) -> str:
        return figures.count(presented.pages(step))

    def draw(identity: str, title: str, curves: Sequence[Curve], **more: Any) -> Chart | None:
        return chart(identity, title, curves, last_step=last_step, pages=pages, **more)

    loss, rate = _points(record.steps, "loss"), _points(record.steps, "lr")
    norm = _points(record.steps, "grad_norm")
    drawn = [
        draw(
            "chart-score",
            f"{HEADLINE} × 100",
            _scores(record.evaluations),
            number=lambda value: f"{value:g}" if value.is_integer() else f"{value:.1f}",
            from_zero=True,
        ),
        draw(
            "chart-loss",
            "Loss",
            [
                *_line("each step", loss),
                Curve("evaluation", _means(record.evaluations, "loss"), "marks", variant=1),
            ],
            number=figures.significant,
            levels=_no_information(record),
        ),
        draw("chart-sources", "Loss by source", _by_source(record), number=figures.significant),
        draw(
            "chart-rate",
            "Learning rate",
            [Curve("learning rate", rate, "mean")],
            number=lambda value: figures.significant(value, 3),
            from_zero=True,
        ),
        draw(
            "chart-norm",
            "Gradient norm",
            _line("each step", norm),
            number=lambda value: figures.significant(value, 3),
            levels=_clipping(record),
            from_zero=True,
        ),
    ]
    return Curves(
        charts=tuple(one for one in drawn if one is not None),
        evaluations=_evaluations(record, pages),
        steps=_steps(record, pages),
        sparklines=tuple(
            _sparkline(name, points)
            for name, points in (("loss", loss), ("learning rate", rate), ("gradient norm", norm))
            if len(points) > 1
        ),
    )


def clipped_steps(record: RunRecord) -> tuple[int, int, float] | None:
    """Steps whose gradient was clipped, of how many, and above which norm."""
    limit = record.fact("recipe.optimizer.max_grad_norm")
    norms = [value for _, value in _points(record.steps, "grad_norm")]
    if limit is None or not norms:
        return None
    return sum(value > limit for value in norms), len(norms), limit


def median_speed(record: RunRecord) -> float | None:
    """Pages trained on in a second, the median of steps."""
    speeds = [value for _, value in _points(record.steps, "pages_per_second")]
    return median(speeds) if speeds else None


def _points(lines: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    return [
        (line["step"], line[key])
        for line in lines
        if isinstance(line.get(key), int | float) and math.isfinite(line[key])
    ]


def _line(name: str, points: list[tuple[int, float]]) -> list[Curve]:
    if len(points) < _FROM_HOW_MANY_STEPS_A_MEAN:
        return [Curve(name, points, "mean")]
    mean = Curve("mean", running_mean(points), "mean", is_read=False)
    return [Curve(name, points, "every"), mean]


def _scores(lines: Sequence[dict[str, Any]]) -> list[Curve]:
    """Marks for each data set; for many of them thin lines, and marks for their mean."""
    by_name: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        points = _points([line], HEADLINE)
        by_name.setdefault(str(line.get("dataset")), []).extend(
            (step, 100 * value) for step, value in points
        )
    if len(by_name) <= _DATA_SETS_APART:
        return [
            Curve(name, points, "marks", variant)
            for variant, (name, points) in enumerate(by_name.items())
        ]
    each = [Curve("each data set", points, "every", is_read=False) for points in by_name.values()]
    mean = [(step, 100 * value) for step, value in _means(lines, HEADLINE)]
    return [*each, Curve(f"mean of {len(by_name)} data sets", mean, "marks")]


def _means(lines: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """The mean over data sets at each step that has been evaluated."""
    at: dict[int, list[float]] = {}
    for step, value in _points(lines, key):
        at.setdefault(step, []).append(value)
    return [(step, fmean(values)) for step, values in at.items()]


def _by_source(record: RunRecord) -> list[Curve]:
    """A line for each source of a mixture."""
    points: dict[str, list[tuple[int, float]]] = {}
    for line in record.steps:
        for name, found in (line.get("by_source") or {}).items():
            points.setdefault(name, []).extend(_points([{"step": line["step"], **found}], "loss"))
    return [
        Curve(name, running_mean(own), "mean", variant)
        for variant, (name, own) in enumerate(points.items())
    ]


def _no_information(record: RunRecord) -> list[Level]:
    """The loss of a model that gives every page the same score."""
    name = record.fact("recipe.loss.name")
    candidates = [value for _, value in _points(record.steps, "candidates_per_query")]
    if name == "pairwise":
        return [Level(math.log(2), "ln 2: guessing")]
    if name == "softmax" and candidates and median(candidates) > 1:
        middle = median(candidates)
        return [Level(math.log(middle), f"ln {middle:.0f}: guessing")]
    return []


def _clipping(record: RunRecord) -> list[Level]:
    limit = record.fact("recipe.optimizer.max_grad_norm")
    return [] if limit is None else [Level(limit, f"clipped above {figures.significant(limit)}")]


def _evaluations(record: RunRecord, pages) -> Table | None:
    if not record.evaluations:
        return None
    shown = [HEADLINE, "nDCG@10", "Recall@1", "Recall@5", "MRR@10"]
    return Table(
        headings=("data set", "step", "pages", *(f"{name} × 100" for name in shown), "loss"),
        rows=tuple(
            (
                str(line.get("dataset", "–")),
                figures.count(line["step"]),
                pages(line["step"]),
                *(figures.score(line.get("measures", {}).get(name)) for name in shown),
                figures.significant(line.get("loss")),
            )
            for line in record.evaluations
        ),
        caption="Every evaluation",
    )


def _steps(record: RunRecord, pages) -> Table | None:
    lines = record.steps
    if not lines:
        return None
    count = min(_ROWS, len(lines))
    places = {round(i * (len(lines) - 1) / max(1, count - 1)) for i in range(count)}
    return Table(
        headings=("step", "pages", "loss", "learning rate", "gradient norm", "pages/s"),
        rows=tuple(
            (
                figures.count(line["step"]),
                pages(line["step"]),
                figures.significant(line.get("loss")),
                figures.significant(line.get("lr"), 3),
                figures.significant(line.get("grad_norm"), 3),
                figures.significant(line.get("pages_per_second"), 3),
            )
            for line in (lines[place] for place in sorted(places))
        ),
        caption="Some steps; metrics.jsonl has them all",
        text_columns=(),
    )


def _sparkline(name: str, points: list[tuple[int, float]]) -> tuple[str, str, str]:
    values = [value for _, value in points]
    ends = f"{figures.significant(values[0])} to {figures.significant(values[-1])}"
    return name, figures.sparkline(values), ends
