"""Estimates with their intervals as places on strips, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coltrain.evaluation.statistics import Interval
from coltrain.reproduction.report.figures import MINUS, score
from coltrain.reproduction.report.scales import Scale, nice_range, ticks
from coltrain.reproduction.study.contrasts import Estimate
from coltrain.reproduction.study.findings import Findings
from coltrain.reproduction.study.tables import (
    interval_of,
    percent,
    percent_interval,
    value_of,
)

WIDTH, HEIGHT = 400, 26
LEFT, RIGHT = 8, 392
_FURTHEST = 4.0  # times the largest value; an interval that is cut off gets an arrow


@dataclass(frozen=True)
class Strip:
    """One estimate, drawn.

    Attributes:
        name: What is estimated.
        remark: More about it, in small print.
        value: As text.
        interval: As text.
        low: Place of the lower end; None where nothing is known.
        high: Place of the upper end.
        middle: Place of the estimate.
        is_cut_low: The lower end lies beyond the strip.
        is_cut_high: The upper end lies beyond it.
        kind: `above`, `below` or `open`: where the interval lies beside 0; `mean` for a level.
        dots: Places of single seeds.
        description: In words, for whoever does not see it.
    """

    name: str
    remark: str
    value: str
    interval: str
    low: float | None
    high: float | None
    middle: float | None
    is_cut_low: bool
    is_cut_high: bool
    kind: str
    dots: tuple[float, ...]
    description: str


@dataclass(frozen=True)
class Picture:
    """Strips on one scale.

    Attributes:
        strips: In their order.
        zero: Place of 0; None where it is not on the scale.
        margin: Places of the ends of what does not matter; None for levels.
        ticks: Places and labels of the axis.
        unit: What the axis counts.
    """

    strips: tuple[Strip, ...]
    zero: float | None
    margin: tuple[float, float] | None
    ticks: tuple[tuple[float, str], ...]
    unit: str


@dataclass(frozen=True)
class _Row:
    name: str
    remark: str
    interval: Interval | None
    value: str
    range: str
    dots: tuple[float, ...] = ()


def gap_picture(found: Findings) -> Picture:
    """What each factor adds to the gap, and the gap."""
    rows = []
    for one in found.shares:
        ends = f"{found.study.ends['from'][one.factor]} → {found.study.ends['to'][one.factor]}"
        share = percent(one.share.mean if one.share else None)
        remark = f"{ends}; share {share} {percent_interval(one.share)}"
        rows.append(_row(one.factor, remark, one.part))
    rows.append(_row("gap", "the whole", found.gap))
    return _picture(rows, found, is_change=True)


def effects_picture(found: Findings) -> Picture:
    """What each level changes."""
    rows = [
        _row(one.factor, f"{one.reference} → {one.level}, {one.others}", one.change)
        for one in found.effects
    ]
    return _picture(rows, found, is_change=True)


def interactions_picture(found: Findings) -> Picture | None:
    """What factors do together; None where the design does not say."""
    rows = [
        _row(
            " × ".join(one.factors) + (" × all others" if len(one.factors) == 1 else ""),
            "beyond what each does alone",
            one.change,
        )
        for one in found.interactions
    ]
    return _picture(rows, found, is_change=True) if rows else None


def levels_picture(found: Findings) -> Picture:
    """The mean of each level."""
    rows = [
        _row(f"{one.factor}: {one.level}", one.others, one.mean, signed=False)
        for one in found.levels
    ]
    return _picture(rows, found, is_change=False)


def cells_picture(found: Findings) -> Picture:
    """The mean of each cell, and its seeds."""
    rows = [
        _row(", ".join(level for _, level in cell.levels), "", mean, signed=False, dots=seeds)
        for (cell, mean), seeds in zip(found.cells, found.seeds_of_cells, strict=True)
    ]
    return _picture(rows, found, is_change=False)


def _row(
    name: str,
    remark: str,
    estimate: Estimate | None,
    *,
    signed: bool = True,
    dots: Sequence[float] = (),
) -> _Row:
    value = value_of(estimate) if signed else score(estimate.value if estimate else None)
    interval = estimate.interval if estimate else None
    return _Row(name, remark, interval, value, interval_of(estimate, signed=signed), tuple(dots))


def _picture(rows: Sequence[_Row], found: Findings, *, is_change: bool) -> Picture:
    margin = found.study.margin
    known = [row.interval for row in rows if row.interval is not None]
    values = [100 * one.mean for one in known] or [0.0]
    ends = [100 * end for one in known for end in (one.low, one.high)]
    ends += [100 * dot for row in rows for dot in row.dots]
    if is_change:
        furthest = max(_FURTHEST * max(map(abs, values)), 2 * margin)
        ends = [min(max(end, -furthest), furthest) for end in ends] + [-margin, margin]
    else:
        ends = [min(max(end, 0.0), 100.0) for end in ends + values]
    low, high = nice_range(ends, from_zero=False, about=5)
    scale = Scale(low, high, LEFT, RIGHT)
    return Picture(
        strips=tuple(_strip(row, scale, is_change) for row in rows),
        zero=scale(0) if is_change else None,
        margin=(scale(-margin), scale(margin)) if is_change else None,
        ticks=tuple((scale(tick), _label(tick, is_change)) for tick in ticks(low, high, 5)),
        unit=f"{found.study.evaluation.measure} × 100" + (", change" if is_change else ""),
    )


def _label(tick: float, is_change: bool) -> str:
    text = f"{tick:+g}" if is_change and tick else f"{tick:g}"
    return text.replace("-", MINUS)


def _strip(row: _Row, scale: Scale, is_change: bool) -> Strip:
    found = row.interval
    kind = "mean"
    if is_change and found is not None:
        kind = "above" if found.low > 0 else "below" if found.high < 0 else "open"
    return Strip(
        name=row.name,
        remark=row.remark,
        value=row.value,
        interval=row.range,
        low=None if found is None else scale(100 * found.low),
        high=None if found is None else scale(100 * found.high),
        middle=None if found is None else scale(100 * found.mean),
        is_cut_low=found is not None and 100 * found.low < scale.low - 1e-9,
        is_cut_high=found is not None and 100 * found.high > scale.high + 1e-9,
        kind=kind,
        dots=tuple(scale(100 * dot) for dot in row.dots),
        description=f"{row.name}, {row.remark}: {row.value}, 95 % interval {row.range}",
    )
