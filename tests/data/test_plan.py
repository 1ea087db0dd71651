import subprocess
import sys

import numpy as np
import pytest

from coltrain.data import BatchPlan
from coltrain.errors import DataError


def splitmix64(word: int) -> int:
    """The finaliser in plain integers, from the published algorithm."""
    mask = (1 << 64) - 1
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
    return word ^ (word >> 31)


def slow_order(num_rows: int, seed: int, epoch: int) -> list[int]:
    stream = splitmix64(splitmix64(seed) ^ epoch)
    mask = (1 << 64) - 1
    keys = [splitmix64((stream + (row + 1) * 0x9E3779B97F4A7C15) & mask) for row in range(num_rows)]
    return sorted(range(num_rows), key=keys.__getitem__)


def flat(plan: BatchPlan, epoch: int) -> list[int]:
    return [int(row) for batch in plan.epoch(epoch) for row in batch]


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (0, 1), (1, 0), (2**40 + 7, 3)])
def test_the_order_is_the_published_hash_of_seed_epoch_and_row(seed, epoch):
    plan = BatchPlan(37, 5, seed, drop_last=False)
    assert flat(plan, epoch) == slow_order(37, seed, epoch)


def test_the_order_never_changes():
    # Golden: an order that changed would change every run that was ever recorded.
    plan = BatchPlan(10, 4, 42, drop_last=False)
    assert [batch.tolist() for batch in plan.epoch(0)] == [[2, 6, 3, 1], [5, 0, 4, 7], [9, 8]]
    assert [batch.tolist() for batch in plan.epoch(1)] == [[5, 8, 0, 6], [2, 3, 7, 9], [4, 1]]


def test_every_epoch_holds_every_row_once_in_another_order():
    plan = BatchPlan(101, 8, 0, drop_last=False)
    assert sorted(flat(plan, 0)) == sorted(flat(plan, 1)) == list(range(101))
    assert flat(plan, 0) != flat(plan, 1)
    assert flat(plan, 0) != flat(BatchPlan(101, 8, 1, drop_last=False), 0)


def test_the_global_batch_size_only_cuts_the_order():
    orders = {tuple(flat(BatchPlan(24, size, 3, drop_last=True), 2)) for size in (2, 4, 12, 24)}
    assert len(orders) == 1


def test_the_last_batch_is_short_or_left_out():
    assert [len(batch) for batch in BatchPlan(10, 4, 0, drop_last=False).epoch(0)] == [4, 4, 2]
    assert [len(batch) for batch in BatchPlan(10, 4, 0, drop_last=True).epoch(0)] == [4, 4]


def test_steps_count_from_one_through_the_epochs():
    plan = BatchPlan(10, 4, 0, drop_last=False)
    expected = [(epoch, batch) for epoch in (0, 1) for batch in plan.epoch(epoch)]
    for step, (epoch, batch) in enumerate(expected, start=1):
        got_epoch, got_batch = plan.batch_at(step)
        assert got_epoch == epoch
        assert np.array_equal(got_batch, batch)
    with pytest.raises(ValueError, match="Steps count from 1; received 0"):
        plan.batch_at(0)


def test_epochs_become_whole_steps():
    plan = BatchPlan(118_195, 32, 0, drop_last=True)
    assert plan.num_steps(1) == 3693
    assert plan.num_steps(0.5) == 1846
    assert plan.num_steps(1e-9) == 1


def test_no_random_state_is_read_or_changed():
    np.random.seed(5)
    before = np.random.get_state()[1].tolist()
    first = flat(BatchPlan(50, 5, 0, drop_last=False), 7)
    assert np.random.get_state()[1].tolist() == before
    script = (
        "from coltrain.data import BatchPlan; "
        "print([int(r) for b in BatchPlan(50, 5, 0, False).epoch(7) for r in b])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert answer.stdout.strip() == str(first)


def test_a_changed_batch_does_not_change_the_plan():
    plan = BatchPlan(6, 3, 0, drop_last=False)
    before = flat(plan, 0)
    plan.epoch(0)[0][:] = -1
    assert flat(plan, 0) == before


def test_data_that_do_not_fill_a_batch_are_refused():
    with pytest.raises(DataError) as caught:
        BatchPlan(3, 4, 0, drop_last=True)
    assert str(caught.value) == (
        "DataError [too-few-rows]: the training data do not fill one global batch.\n"
        "  where     batch.global_size, data.train\n"
        "  received  3 rows for a global batch of 4\n"
        "  expected  at least 4 rows\n"
        "  try       more data, a smaller batch.global_size, or batch.drop_last=false"
    )
