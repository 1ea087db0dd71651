import numpy as np
import pytest

from coltrain.evaluation.statistics import (
    Sample,
    effect_size,
    equivalence,
    planned_smallest_difference,
    sign_flip_test,
    smallest_difference,
)


def test_the_effect_size_is_the_mean_in_standard_deviations():
    # Mean .1, deviations -.2 -.1 .1 .2, squares sum .1, sd sqrt(.1 / 3).
    found = effect_size(Sample.of([-0.1, 0.0, 0.2, 0.3]))
    assert found == pytest.approx(0.1 / (0.1 / 3) ** 0.5)
    assert effect_size(Sample.of([0.1, 0.1])) is None
    assert effect_size(Sample.of([0.1])) is None


@pytest.mark.parametrize(
    ("sd", "queries", "correlation", "expected"),
    [(0.2859, 500, 0.5, 0.0358), (0.4489, 451, 0.8, 0.0375), (0.0709, 100, 0.9, 0.0089)],
)
def test_the_smallest_difference_is_that_of_the_table(sd, queries, correlation, expected):
    # MDD = 2.802 * sd * sqrt(2 (1 - rho)) / sqrt(n); rows of ArxivQA, DocVQA and SyntheticDocQA AI.
    found = planned_smallest_difference(sd, queries, correlation)
    assert found == pytest.approx(expected, abs=5e-5)


@pytest.mark.slow
def test_a_difference_as_small_as_that_is_found_four_times_in_five():
    generator = np.random.default_rng(0)
    true = smallest_difference(0.2 / 400**0.5)
    found = [
        sign_flip_test(generator.normal(true, 0.2, 400), num_flips=300).p <= 0.05
        for _ in range(400)
    ]
    # 400 draws: one standard error is 2 %.
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)


def test_systems_that_hardly_differ_are_shown_equivalent_and_few_queries_show_nothing():
    generator = np.random.default_rng(1)
    many = Sample.of(generator.normal(0, 0.1, 2000).clip(-1, 1))
    few = Sample.of(generator.normal(0, 0.1, 30).clip(-1, 1))
    assert equivalence(many, 0.01).is_shown
    assert not equivalence(few, 0.01).is_shown
    assert equivalence([many, many], 0.01).is_shown


@pytest.mark.slow
def test_a_difference_as_large_as_the_margin_is_called_equivalent_once_in_twenty():
    generator = np.random.default_rng(2)
    shown = [
        equivalence(
            Sample.of(generator.normal(0.03, 0.15, 500).clip(-1, 1)), 0.03, num_resamples=1000
        ).is_shown
        for _ in range(500)
    ]
    # 500 draws: one standard error is 1 %.
    assert 0.02 < np.mean(shown) < 0.08


def test_equal_systems_on_few_queries_are_not_shown_equivalent():
    # None of 100 queries differs; up to 3 in 100 might, each by as much as 1.
    found = equivalence(Sample.of(np.zeros(100)), 0.01)
    assert not found.is_shown
    assert found.interval.high == pytest.approx(1 - 0.05 ** (1 / 100), abs=3e-3)


def test_a_margin_is_positive():
    with pytest.raises(ValueError, match="a positive margin, received 0"):
        equivalence(Sample.of([0.1, 0.2]), 0)
