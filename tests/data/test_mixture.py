"""Several sources in one plan, whatever the ranks."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from coltrain.data import BatchPlan, MixturePlan
from coltrain.errors import DataError


def lists(batches) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


def flat(plan, epoch) -> list[int]:
    return [row for batch in lists(plan.epoch(epoch)) for row in batch]


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("batches", ["mixed", "one_source"])
@pytest.mark.parametrize("weights", [None, (0.3,)])
def test_one_source_gives_the_plain_plan(drop_last, batches, weights):
    plain = BatchPlan(103, 8, 5, drop_last)
    mixture = MixturePlan((103,), 8, 5, drop_last, weights, batches)
    assert mixture.batches_per_epoch == plain.batches_per_epoch
    assert mixture.num_rows == plain.num_rows
    assert mixture.num_steps(1.5) == plain.num_steps(1.5)
    for epoch in range(3):
        assert lists(mixture.epoch(epoch)) == lists(plain.epoch(epoch))
    for step in (1, 13, 14, 30):
        got, expected = mixture.batch_at(step), plain.batch_at(step)
        assert got[0] == expected[0]
        assert np.array_equal(got[1], expected[1])


def test_without_weights_a_mixture_is_the_plan_of_the_sources_as_one():
    mixture = MixturePlan((40, 3, 60), 8, 1, drop_last=False)
    for epoch in range(2):
        assert lists(mixture.epoch(epoch)) == lists(BatchPlan(103, 8, 1, False).epoch(epoch))


def test_weights_share_out_the_epoch():
    plan = MixturePlan((100, 20, 5), 25, 0, drop_last=True, weights=(2, 2, 1))
    assert plan.rows_per_epoch == (50, 50, 25)
    counts = Counter(plan.source_of(flat(plan, 0)).tolist())
    assert counts == {0: 50, 1: 50, 2: 25}
    assert MixturePlan((7, 7, 7), 1, 0, True, (0.1, 0.1, 0.1)).rows_per_epoch == (7, 7, 7)
    assert sum(MixturePlan((7, 6, 4), 1, 0, True, (1, 1, 1)).rows_per_epoch) == 17


def test_no_row_comes_again_before_all_others_of_its_source():
    plan = MixturePlan((100, 20, 5), 25, 0, drop_last=True, weights=(2, 2, 1))
    rows = [flat(plan, epoch) for epoch in range(4)]
    # Source 0 gives 50 an epoch: two epochs are one pass.
    for pair in (rows[0] + rows[1], rows[2] + rows[3]):
        assert sorted(row for row in pair if row < 100) == list(range(100))
    # Source 1 gives 50 of 20: after two epochs, five passes.
    assert set(Counter(r for r in rows[0] + rows[1] if 100 <= r < 120).values()) == {5}
    assert set(Counter(r for r in rows[0] if 100 <= r < 120).values()) == {2, 3}
    assert set(Counter(r for r in rows[0] if r >= 120).values()) == {5}


@pytest.mark.parametrize("weights", [None, (1, 3, 1)])
@pytest.mark.parametrize("drop_last", [True, False])
def test_batches_of_one_source_hold_one_source(weights, drop_last):
    plan = MixturePlan((50, 40, 33), 8, 3, drop_last, weights, "one_source")
    batches = plan.epoch(0)
    assert len(batches) == plan.batches_per_epoch
    sources = [set(plan.source_of(batch).tolist()) for batch in batches]
    assert all(len(some) == 1 for some in sources)
    expected = [n // 8 if drop_last else -(-n // 8) for n in plan.rows_per_epoch]
    counts = Counter(next(iter(some)) for some in sources)
    assert [counts[source] for source in range(3)] == expected
    # They take turns rather than following one another.
    order = [next(iter(some)) for some in sources]
    assert order != sorted(order)
    if not drop_last:
        mixed = MixturePlan((50, 40, 33), 8, 3, drop_last, weights)
        assert sorted(flat(plan, 0)) == sorted(flat(mixed, 0))


def test_a_plan_never_changes():
    # Golden: a plan that changed would change every recorded run of a mixture.
    mixed = MixturePlan((6, 4), 4, 42, False, (1, 3))
    assert mixed.rows_per_epoch == (3, 7)
    assert lists(mixed.epoch(0)) == [[5, 7, 6, 4], [7, 3, 6, 8], [9, 8]]
    assert lists(mixed.epoch(1)) == [[7, 9, 0, 7], [2, 6, 8, 9], [6, 1]]
    one = MixturePlan((6, 4), 4, 42, False, None, "one_source")
    assert lists(one.epoch(0)) == [[2, 3, 1, 5], [0, 4], [6, 7, 9, 8]]


def test_steps_count_from_one_through_the_epochs():
    plan = MixturePlan((9, 5), 4, 0, True, (1, 2), "one_source")
    expected = [(epoch, batch) for epoch in (0, 1) for batch in plan.epoch(epoch)]
    for step, (epoch, batch) in enumerate(expected, start=1):
        got_epoch, got_batch = plan.batch_at(step)
        assert got_epoch == epoch
        assert np.array_equal(got_batch, batch)
    with pytest.raises(ValueError, match="Steps count from 1; received 0"):
        plan.batch_at(0)


def test_a_changed_batch_does_not_change_the_plan():
    plan = MixturePlan((6, 6), 3, 0, False, (1, 2))
    before = flat(plan, 0)
    plan.epoch(0)[0][:] = -1
    plan.batch_at(1)[1][:] = -1
    assert flat(plan, 0) == before


def test_another_process_has_the_same_plan():
    script = (
        "from coltrain.data import MixturePlan; import numpy; numpy.random.seed(3); "
        "p = MixturePlan((9, 5), 4, 7, False, (1, 2), 'one_source'); "
        "print([int(r) for b in p.epoch(5) for r in b])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    plan = MixturePlan((9, 5), 4, 7, False, (1, 2), "one_source")
    assert answer.stdout.strip() == str(flat(plan, 5))


def test_a_source_tells_its_rows():
    plan = MixturePlan((3, 0 + 2, 4), 2, 0, False)
    assert plan.source_of([0, 2, 3, 4, 5, 8]).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_source_that_would_never_be_met_is_refused():
    with pytest.raises(DataError) as caught:
        MixturePlan((90, 10), 32, 0, True, None, "one_source", ("scans", "charts"))
    assert str(caught.value) == (
        "DataError [too-few-rows]: a source of the mixture does not fill one global batch in an "
        "epoch.\n"
        "  where     data.train[1], charts\n"
        "  received  10 rows an epoch, of the 10 it has\n"
        "  expected  at least 32\n"
        "  try       data.batches=mixed, batch.drop_last=false, or a smaller batch.global_size"
    )
    with pytest.raises(DataError, match="would never be trained on") as caught:
        MixturePlan((90, 10), 4, 0, True, (1000, 0.1))
    assert caught.value.suggestion == "a larger weight"
    with pytest.raises(DataError, match=r"\[too-few-rows\]"):
        MixturePlan((90, 0), 4, 0, True)
    with pytest.raises(DataError, match="do not fill one global batch"):
        MixturePlan((2, 1), 4, 0, True)
    with pytest.raises(ValueError, match="2 weights for 1 sources"):
        MixturePlan((2,), 1, 0, True, (1, 2))
