"""Differences with their intervals as places on strips, one below the other."""

from dataclasses import dataclass

from coltrain.reproduction.comparison.comparison import Comparison, Row
from coltrain.reproduction.report.figures import MINUS
from coltrain.reproduction.report.scales import Scale, nice_range, ticks

WIDTH, HEIGHT = 400, 26
LEFT, RIGHT = 8, 392
_FURTHEST = 25.0  # points; an interval that is cut off gets an arrow


@dataclass(frozen=True)
class Strip:
    """One row's difference, drawn.

    Attributes:
        row: Of the comparison.
        low: Place of the lower end.
        high: Place of the upper end.
        middle: Place of the difference.
        is_cut_low: The lower end lies beyond the strip.
        is_cut_high: The upper end lies beyond it.
        description: In words, for whoever does not see it.
    """

    row: Row
    low: float
    high: float
    middle: float
    is_cut_low: bool
    is_cut_high: bool
    description: str


@dataclass(frozen=True)
class Forest:
    """All strips on one scale.

    Attributes:
        tasks: A strip for each task.
        means: A strip for each mean.
        zero: Place of no difference.
        margin: Places of the margin's ends.
        ticks: Places and labels of the axis, points.
    """

    tasks: tuple[Strip, ...]
    means: tuple[Strip, ...]
    zero: float
    margin: tuple[float, float]
    ticks: tuple[tuple[float, str], ...]


def forest_of(comparison: Comparison) -> Forest:
    """Place every difference of a comparison on one scale of points."""
    rows = (*comparison.tasks, *comparison.means)
    ends = [comparison.margin, -comparison.margin]
    for row in rows:
        ends += [100 * row.difference.interval.low, 100 * row.difference.interval.high]
        ends.append(100 * row.difference.value)
    furthest = max(_FURTHEST, 1.2 * max(abs(100 * row.difference.value) for row in rows))
    low, high = nice_range(
        [min(max(end, -furthest), furthest) for end in ends], from_zero=False, about=6
    )
    scale = Scale(low, high, LEFT, RIGHT)
    return Forest(
        tasks=tuple(_strip(row, scale) for row in comparison.tasks),
        means=tuple(_strip(row, scale) for row in comparison.means),
        zero=scale(0),
        margin=(scale(-comparison.margin), scale(comparison.margin)),
        ticks=tuple((scale(tick), _label(tick)) for tick in ticks(low, high, 6)),
    )


def _label(points: float) -> str:
    return f"{points:+g}".replace("-", MINUS) if points else "0"


def _strip(row: Row, scale: Scale) -> Strip:
    value, interval = 100 * row.difference.value, row.difference.interval
    low, high = 100 * interval.low, 100 * interval.high
    return Strip(
        row=row,
        low=scale(low),
        high=scale(high),
        middle=scale(value),
        is_cut_low=low < scale.low,
        is_cut_high=high > scale.high,
        description=f"{row.name}: {value:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}",
    )
