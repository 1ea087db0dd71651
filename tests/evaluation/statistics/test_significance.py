from itertools import product

import numpy as np
import pytest

from coltrain.evaluation.statistics import Sample, holm, sign_flip_test
from coltrain.evaluation.statistics.significance import _drawn

NDCG = np.array([0, 0.38685281, 0.43067656, 0.5, 0.63092975, 1.0])


def by_enumeration(contributions):
    """Two-sided p over every assignment of signs, one after the other."""
    observed = abs(sum(contributions))
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, contributions, strict=True)))
        for signs in product((-1, 1), repeat=len(contributions))
    ]
    return sum(total >= observed - 1e-9 for total in sums) / len(sums)


@pytest.mark.parametrize("seed", range(5))
def test_few_differences_are_counted_exactly(seed):
    generator = np.random.default_rng(seed)
    values = generator.standard_normal(9)
    values[7:] = values[0], 0.0
    found = sign_flip_test(values)
    assert found.method == "exact"
    assert found.p == pytest.approx(by_enumeration(values), abs=1e-12)
    assert found.num_differing == 8


def test_many_equal_differences_are_counted_exactly():
    # 30 better, 10 worse, all by the same: twice the tail of a binomial of 40, from 30 on.
    from math import comb

    found = sign_flip_test([0.37] * 30 + [-0.37] * 10 + [0.0] * 1000)
    expected = 2 * sum(comb(40, wins) for wins in range(30, 41)) / 2**40
    assert found.method == "exact"
    assert found.p == pytest.approx(expected, rel=1e-9)


def test_a_thousand_equal_differences_are_within_reach_of_floats():
    assert 0 <= sign_flip_test([1.0] * 1500).p < 1e-300
    assert sign_flip_test([1.0, -1.0] * 750).p == pytest.approx(1.0)


def test_many_distinct_differences_are_drawn_and_p_is_never_zero():
    values = np.random.default_rng(1).random(300)
    found = sign_flip_test(values)
    assert found.p == 1 / 10_001
    assert found.method == "10,000 sign flips"


def test_drawn_and_exact_agree():
    generator = np.random.default_rng(2)
    sizes, counts = np.array([0.2, 0.5, 1.0]), np.array([1, 7, 4])
    drawn = _drawn(sizes, counts, 40_000, generator)
    values = np.repeat(sizes, counts)
    exact = [
        sum(sign * value for sign, value in zip(signs, values, strict=True))
        for signs in product((-1, 1), repeat=12)
    ]
    for threshold in (1.0, 3.0, 5.0):
        share = np.mean(np.abs(exact) >= threshold - 1e-9)
        assert 0.01 < share < 0.99
        assert np.mean(np.abs(drawn) >= threshold - 1e-9) == pytest.approx(share, abs=0.01)


def test_no_difference_at_all_is_no_evidence():
    found = sign_flip_test(np.zeros(10))
    assert (found.p, found.num_differing) == (1.0, 0)


def test_translations_flip_together():
    # Ten queries in four languages, each better by the same: 2 / 2^10, not 2 / 2^40.
    sample = Sample.of([0.1] * 40, clusters=list(range(10)) * 4)
    assert sign_flip_test(sample.contributions).p == pytest.approx(2 / 2**10)


@pytest.mark.slow
def test_without_a_difference_one_in_twenty_is_claimed():
    generator = np.random.default_rng(3)
    p = []
    for _ in range(600):
        first, second = generator.choice(NDCG, size=(2, 100))
        p.append(sign_flip_test(first - second, num_flips=500).p)
    # 600 draws: one standard error is .9 %.
    assert 0.025 < np.mean(np.array(p) <= 0.05) < 0.075


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1 is .02 .03 .06 .04, never falling: .06 at the end.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("values", [[], [0.1, float("nan")]])
def test_what_cannot_be_tested_is_refused(values):
    with pytest.raises(ValueError, match="at least one contribution, all finite"):
        sign_flip_test(values)
