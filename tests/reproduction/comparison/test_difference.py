import numpy as np
import pytest

from coltrain.evaluation.statistics import equivalence
from coltrain.reproduction.comparison.difference import _unpaired, compare_task
from coltrain.reproduction.comparison.sides import TaskScores
from coltrain.reproduction.comparison.spread import Spread


def scores_of(values):
    per_query = {f"q{i}": {"nDCG@5": float(v)} for i, v in enumerate(values)}
    return TaskScores("pages", {"nDCG@5": float(np.mean(values))}, len(values), per_query)


def test_unpaired_ends_are_put_together_as_newcombe_does():
    # Newcombe 1998, method 10, example of 56/70 against 48/80: Wilson's intervals .6917 to .8784
    # (mean .8) and .4904 to .7003 (mean .6).
    # Lower .2 - sqrt((.8 - .6917)^2 + (.7003 - .6)^2), upper .2 + sqrt(.0784^2 + .1096^2):
    # .0524 to .3348 (published: .0524 to .3339, from ends that are not rounded).
    ours = dict.fromkeys((0.95, 0.90), Spread(0.8, 0.6917, 0.8784, 0.05, "given", None))
    theirs = dict.fromkeys((0.95, 0.90), Spread(0.6, 0.4904, 0.7003, 0.05, "given", None))
    found = _unpaired([(ours, theirs)], 70)
    assert found.value == pytest.approx(0.2)
    assert found.interval.low == pytest.approx(0.0524, abs=2e-4)
    assert found.interval.high == pytest.approx(0.3348, abs=2e-4)
    # Two tasks alike: the same middle, each side shorter by sqrt(2).
    twice = _unpaired([(ours, theirs)] * 2, 140)
    assert 0.2 - twice.interval.low == pytest.approx((0.2 - found.interval.low) / 2**0.5)


def test_the_narrower_interval_is_that_of_two_one_sided_tests():
    generator = np.random.default_rng(0)
    first, second = generator.random((2, 400))
    compared = compare_task(scores_of(first), scores_of(second), "nDCG@5")
    found = compared.difference
    tost = equivalence(compared.paired, 0.05).interval
    assert (found.narrower.low, found.narrower.high) == (tost.low, tost.high)
    wide = found.interval.high - found.interval.low
    # 1.645 and 1.960 standard errors.
    assert (tost.high - tost.low) / wide == pytest.approx(1.645 / 1.960, rel=0.03)
