"""Intervals and tests beside scipy's, on scores like those of a benchmark."""

import numpy as np
import pytest

from coltrain.evaluation.statistics import mean_interval, sign_flip_test
from coltrain.evaluation.statistics.student import t_quantile

scipy_stats = pytest.importorskip("scipy.stats")
pytestmark = pytest.mark.reference

NDCG = np.array([0, 0.38685281, 0.43067656, 0.5, 0.63092975, 1.0])


@pytest.mark.parametrize("count", [52, 280, 1000])
def test_the_interval_is_scipy_s_bca_bootstrap(count):
    values = np.random.default_rng(count).choice(
        NDCG, size=count, p=[0.05, 0.05, 0.05, 0.1, 0.25, 0.5]
    )
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=0, batch=500
    ).confidence_interval
    plain = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=0, batch=500
    ).confidence_interval
    ours = mean_interval(values, num_resamples=20_000)
    half = (theirs.high - theirs.low) / 2
    # 20,000 resamples on each side: an end moves by about 1.2 % of the half-width.
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.04 * half)
    if count == 52:  # the case bites: the percentile interval lies elsewhere
        assert abs(plain.low - theirs.low) > 0.04 * half


@pytest.mark.parametrize("seed", range(4))
def test_the_sign_flip_test_is_scipy_s_permutation_test(seed):
    generator = np.random.default_rng(seed)
    differences = generator.choice(NDCG, size=(2, 12)) * [[1], [-1]]
    differences = differences.sum(0) + 0.1
    theirs = scipy_stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=False
    )
    ours = sign_flip_test(differences)
    assert ours.method == "exact"
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-12)


def test_on_many_queries_the_sign_flip_test_is_nearly_the_t_test():
    differences = np.random.default_rng(5).normal(0.012, 0.2, 1000)
    theirs = scipy_stats.ttest_1samp(differences, 0).pvalue
    assert 0.01 < theirs < 0.5
    # 40,000 flips: one standard error of the p-value is at most .0025.
    assert sign_flip_test(differences, num_flips=40_000).p == pytest.approx(theirs, abs=0.008)


@pytest.mark.parametrize("degrees", [0.7, 1, 2.5, 30, 1000])
@pytest.mark.parametrize("share", [0.01, 0.6, 0.975, 0.999])
def test_the_t_quantile_is_scipy_s(share, degrees):
    assert t_quantile(share, degrees) == pytest.approx(scipy_stats.t.ppf(share, degrees), rel=1e-9)
