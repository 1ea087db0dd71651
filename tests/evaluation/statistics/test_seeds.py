import numpy as np
import pytest

from coltrain.evaluation.statistics import Sample, two_level_interval
from coltrain.evaluation.statistics.student import t_quantile


def runs_of(scores):
    return [[Sample.of(row)] for row in scores]


def test_with_seeds_that_are_all_that_varies_it_is_the_t_interval_of_the_seeds():
    means = [0.80, 0.82, 0.84]
    # sd .02, t with 2 degrees 4.3027: 2.48 sd.
    found = two_level_interval(runs_of([[mean] * 50 for mean in means]))
    assert found.mean == pytest.approx(0.82)
    assert found.high - found.mean == pytest.approx(4.30265 * 0.02 / 3**0.5, rel=1e-5)
    assert found.flag == "only 3 seeds"


def test_with_seeds_that_agree_it_is_the_t_interval_of_the_queries():
    values = np.random.default_rng(0).random(40)
    found = two_level_interval(runs_of([values] * 5))
    expected = t_quantile(0.975, 39) * values.std(ddof=1) / 40**0.5
    assert found.high - found.mean == pytest.approx(expected, rel=1e-9)
    assert found.flag is None


def test_tasks_count_the_same():
    values = np.random.default_rng(1).random(60)
    one = two_level_interval(runs_of([values] * 3))
    twice = two_level_interval([[Sample.of(values), Sample.of(values)]] * 3)
    assert twice.mean == pytest.approx(one.mean)
    # Two tasks drawn apart: half the variance, and twice the degrees of freedom.
    ratio = t_quantile(0.975, 118) / t_quantile(0.975, 59) / 2**0.5
    assert (twice.high - twice.low) / (one.high - one.low) == pytest.approx(ratio, rel=1e-6)


@pytest.mark.slow
def test_it_covers_where_queries_alone_do_not():
    generator = np.random.default_rng(2)
    hits = plain = 0
    for _ in range(400):
        scores = (
            0.3 * generator.standard_normal(300)
            + 0.02 * generator.standard_normal((3, 1))
            + 0.1 * generator.standard_normal((3, 300))
        )
        found = two_level_interval(runs_of(scores))
        hits += found.low <= 0 <= found.high
        plain += abs(scores.mean()) <= 1.96 * scores.mean(0).std() / 300**0.5
    # 400 draws: one standard error is 1.1 %.
    assert 0.92 < hits / 400 < 0.99
    assert plain / 400 < 0.91


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (runs_of([[0.1, 0.2]]), "at least two seeds, received 1"),
        (runs_of([[0.1], [0.2]]), "at least two queries"),
        ([[Sample.of([0.1, 0.2])], [Sample.of([0.1, 0.2, 0.3])]], "the same queries"),
    ],
)
def test_runs_that_do_not_fit_are_refused(runs, words):
    with pytest.raises(ValueError, match=words):
        two_level_interval(runs)


@pytest.mark.parametrize(
    ("share", "degrees", "expected"),
    # Student's table.
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.95, 10, 1.81246), (0.025, 30, -2.04227)],
)
def test_t_quantiles_are_those_of_the_table(share, degrees, expected):
    assert t_quantile(share, degrees) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("share", "degrees"), [(1.0, 3), (0.5, 0)])
def test_a_quantile_that_is_none_is_refused(share, degrees):
    with pytest.raises(ValueError, match="a probability and degrees of freedom"):
        t_quantile(share, degrees)
