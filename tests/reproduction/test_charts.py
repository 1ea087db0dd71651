import math
import re

import pytest

from coltrain.reproduction.report.charts import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Curve,
    Level,
    chart,
    running_mean,
)
from coltrain.reproduction.report.scales import Scale, log_ticks, nice_range, ticks


def drawn(curves, **more):
    given = {"last_step": 10, "pages": lambda step: str(32 * step), "number": "{:g}".format}
    return chart("some", "Some curve", curves, **(given | more))


def places(path):
    return [tuple(map(float, pair.split())) for pair in re.split("[ML]", path.strip("Z"))[1:]]


def test_points_lie_where_their_numbers_are():
    found = drawn([Curve("it", [(0, 0.0), (5, 1.0), (10, 2.0)], "mean")])
    middle = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
    assert places(found.shapes[0].line) == [(LEFT, BOTTOM), middle, (RIGHT, TOP)]
    assert [tick.label for tick in found.y_ticks] == ["0", "0.5", "1", "1.5", "2"]
    assert [(tick.label, tick.second_label) for tick in found.x_ticks][:2] == [
        ("0", "0"),
        ("5", "160"),
    ]


def test_what_is_not_finite_is_left_out_and_nothing_finite_gives_no_chart():
    found = drawn([Curve("it", [(0, 1.0), (1, math.nan), (2, math.inf), (3, 2.0)], "mean")])
    assert len(places(found.shapes[0].line)) == 2
    assert drawn([Curve("it", [(0, math.nan)], "mean")]) is None
    assert drawn([]) is None


def test_a_single_point_is_a_mark():
    [shape] = drawn([Curve("it", [(3, 1.5)], "mean")]).shapes
    assert shape.line == ""
    assert len(shape.marks) == 1


def test_many_points_become_a_band_of_their_range():
    points = [(step, float(step % 7)) for step in range(10_080)]
    found = drawn(
        [Curve("it", points, "every"), Curve("mean", running_mean(points), "mean")],
        last_step=10_080,
    )
    band, mean = found.shapes
    assert band.line == ""
    assert {y for _, y in places(band.band)} == {TOP, BOTTOM}
    assert len(places(mean.line)) < 300
    assert found.readings[-1][1].startswith("step 10,079 · ")


def test_a_spike_makes_the_axis_logarithmic_and_is_said():
    points = [(step, 1.0 + step % 2) for step in range(10)] + [(10, 500.0)]
    found = drawn([Curve("it", points, "mean")])
    assert found.is_log
    assert not drawn([Curve("it", points[:-1], "mean")]).is_log
    assert "highest 500" in found.description
    assert "it: 1 at step 0, 500 at step 10 (320 pages)" in found.description


def test_a_level_is_drawn_where_it_is_near_and_left_out_where_it_would_press_the_curve_flat():
    points = [(0, 1.0), (10, 2.0)]
    near = drawn([Curve("it", points, "mean")], levels=[Level(2.2, "near")])
    far = drawn([Curve("it", points, "mean")], levels=[Level(50.0, "far")])
    assert [name for _, name in near.levels] == ["near"]
    assert far.levels == ()
    assert far.y_ticks[-1].label == "2"


def test_the_running_mean_is_a_mean_over_a_centred_window():
    points = [(step, float(step**2)) for step in range(100)]
    means = dict(running_mean(points))
    assert means[50] == pytest.approx(sum(n**2 for n in range(48, 53)) / 5)
    assert means[0] == pytest.approx((0 + 1 + 4) / 3)


@pytest.mark.parametrize(
    "values", [[3.0, 3.0], [1.76, 3.59], [0.0, 0.0], [-2.0, -1.0], [1e-9, 3e-9], [-5, 1e6]]
)
def test_an_axis_holds_its_values_and_has_ticks(values):
    low, high = nice_range(values, from_zero=False)
    assert low <= min(values) <= max(values) <= high
    assert low < high
    marked = ticks(low, high)
    assert 2 <= len(marked) <= 11
    assert (marked[0], marked[-1]) == pytest.approx((low, high))
    scale = Scale(low, high, 0, 100)
    assert scale(low) == 0
    assert scale(high) == 100


def test_logarithmic_ticks_are_few_and_within():
    for low, high in ((0.5, 500.0), (1e-9, 1e9), (2.0, 2.5), (3.0, 4.0)):
        found = log_ticks(low, high)
        assert 1 <= len(found) <= 7
        assert all(low * 0.999 <= tick <= high * 1.001 for tick in found)
