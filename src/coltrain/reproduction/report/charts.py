"""Curves over steps as shapes on a drawing; `chart.svg.jinja` writes them down.

Nothing here knows of a run: a chart gets numbers and says where their lines and ticks lie.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import fmean, median

from coltrain.reproduction.report.scales import (
    Scale,
    log_ticks,
    nice_range,
    ticks,
    whole_ticks,
)

WIDTH, HEIGHT = 460, 264
LEFT, RIGHT, TOP, BOTTOM = 58, 446, 16, 214
_MOST_POINTS = 240  # of one line; more than that no screen shows
_SPREAD_FOR_LOG = 30.0  # largest over median, from which a linear axis shows one spike only

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Curve:
    """Numbers over steps.

    Attributes:
        name: In the key and when pointed at.
        points: Steps and values; what is not finite is left out.
        kind: `every` (a thin line, or a band where there are many points), `mean` (thick),
            `marks` (points joined by a dashed line).
        variant: Which shape and colour marks have, from 0.
        is_read: Whether its values are said when pointed at.
    """

    name: str
    points: Points
    kind: str
    variant: int = 0
    is_read: bool = True


@dataclass(frozen=True)
class Level:
    """A horizontal line of reference, and its name in the key."""

    value: float
    name: str


@dataclass(frozen=True)
class Shape:
    """One curve, drawn."""

    name: str
    kind: str
    variant: int
    line: str
    band: str
    marks: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and what stands there."""

    place: float
    label: str
    second_label: str = ""


@dataclass(frozen=True)
class Chart:
    """A drawing and what has to be said with it."""

    identity: str
    title: str
    description: str
    shapes: tuple[Shape, ...]
    levels: tuple[tuple[float, str], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    readings: tuple[tuple[float, str], ...]
    is_log: bool


def chart(
    identity: str,
    title: str,
    curves: Sequence[Curve],
    *,
    last_step: int,
    pages: Callable[[int], str],
    number: Callable[[float], str],
    levels: Sequence[Level] = (),
    from_zero: bool = False,
) -> Chart | None:
    """Draw curves over steps; None where there is nothing finite to draw.

    Args:
        identity: Unique on the page.
        title: What is drawn.
        curves: In the order of drawing.
        last_step: Right end of the steps.
        pages: Pages seen up to a step, as the second line under the axis has it.
        number: How a value is written.
        levels: Lines of reference; drawn where they lie within the values.
        from_zero: Whether the axis begins at 0.
    """
    curves = [replace(curve, points=_finite(curve.points)) for curve in curves]
    curves = [curve for curve in curves if curve.points]
    values = [value for curve in curves for _, value in curve.points]
    if not values:
        return None
    is_log = _needs_log(values)
    low, high = _range(values, levels, is_log, from_zero)
    x = Scale(0, max(last_step, 1), LEFT, RIGHT)
    y = Scale(low, high, BOTTOM, TOP, is_log)
    y_numbers = log_ticks(low, high) if is_log else ticks(low, high)
    return Chart(
        identity=identity,
        title=title,
        description=_description(curves, number, pages),
        shapes=tuple(_shape(curve, x, y) for curve in curves),
        levels=tuple(
            (y(level.value), level.name) for level in levels if low <= level.value <= high
        ),
        x_ticks=tuple(
            Tick(x(step), f"{step:,}", pages(step)) for step in whole_ticks(0, max(last_step, 1), 4)
        ),
        y_ticks=tuple(Tick(y(value), number(value)) for value in y_numbers),
        readings=_readings(curves, x, number, pages),
        is_log=is_log,
    )


def running_mean(points: Points) -> Points:
    """A smoother curve: the mean over a window of about a twentieth of all steps, centred."""
    half = max(1, len(points) // 40)
    sums = [0.0, *accumulate(value for _, value in points)]
    means = []
    for place, (step, _) in enumerate(points):
        first, end = max(0, place - half), min(place + half + 1, len(points))
        means.append((step, (sums[end] - sums[first]) / (end - first)))
    return means


def _finite(points: Points) -> Points:
    return [(step, value) for step, value in points if value is not None and math.isfinite(value)]


def _needs_log(values: Sequence[float]) -> bool:
    middle = median(values)
    return min(values) > 0 and max(values) > _SPREAD_FOR_LOG * middle


def _range(
    values: Sequence[float], levels: Sequence[Level], is_log: bool, from_zero: bool
) -> tuple[float, float]:
    if is_log:
        return min(values), max(values)
    top = max(values)
    # A level a little above the values is worth the room; one far above would press them flat.
    near = [level.value for level in levels if min(values) <= level.value <= 1.3 * top]
    return nice_range([*values, *near], from_zero=from_zero)


def _shape(curve: Curve, x: Scale, y: Scale) -> Shape:
    points, band = curve.points, ""
    marks: tuple[tuple[float, float], ...] = ()
    if len(points) > _MOST_POINTS and curve.kind != "marks":
        buckets = _buckets(points)
        if curve.kind == "every":
            upper = [(x(bucket[0][0]), y(max(v for _, v in bucket))) for bucket in buckets]
            lower = [(x(bucket[0][0]), y(min(v for _, v in bucket))) for bucket in buckets]
            band = _path([*upper, *reversed(lower)]) + "Z"
            return Shape(curve.name, curve.kind, curve.variant, "", band, ())
        means = [(bucket[0][0], fmean(v for _, v in bucket)) for bucket in buckets]
        points = [*means, points[-1]]
    places = [(x(step), y(value)) for step, value in points]
    if curve.kind == "marks" or len(places) == 1:
        marks = tuple(places)
    return Shape(curve.name, curve.kind, curve.variant, _path(places), band, marks)


def _buckets(points: Points) -> list[Points]:
    size = math.ceil(len(points) / _MOST_POINTS)
    return [points[start : start + size] for start in range(0, len(points), size)]


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in places) if len(places) > 1 else ""


def _description(
    curves: Sequence[Curve], number: Callable[[float], str], pages: Callable[[int], str]
) -> str:
    """The curve in words, for whoever does not see it."""
    sentences = []
    for curve in curves:
        (first, start), (last, end) = curve.points[0], curve.points[-1]
        values = [value for _, value in curve.points]
        sentences.append(
            f"{curve.name}: {number(start)} at step {first:,}, {number(end)} at step {last:,} "
            f"({pages(last)} pages); lowest {number(min(values))}, highest {number(max(values))}."
        )
    return " ".join(sentences)


def _readings(
    curves: Sequence[Curve],
    x: Scale,
    number: Callable[[float], str],
    pages: Callable[[int], str],
) -> tuple[tuple[float, str], ...]:
    """What stands at each place, for whoever points at it; as many as a line has points."""
    at: dict[int, list[str]] = {}
    for curve in curves:
        points = curve.points
        if not curve.is_read:
            continue
        if len(points) > _MOST_POINTS:
            points = [*(bucket[0] for bucket in _buckets(points)), points[-1]]
        for step, value in points:
            said = f"{curve.name} {number(value)}"
            if said not in at.setdefault(step, []):
                at[step].append(said)
    return tuple(
        (x(step), f"step {step:,} · {pages(step)} pages · " + " · ".join(at[step]))
        for step in sorted(at)
    )
