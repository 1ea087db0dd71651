"""Intervals and tests beside scipy's, on scores like those of a benchmark."""

import numpy as np
import pytest

from coltrain.evaluation.statistics import mean_interval

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
