"""Hard negatives and mixtures, from the data to the loss."""

import dataclasses

import numpy as np
import pytest
import torch
from small_pages import small_collection

from coltrain.errors import DataError, RunError
from coltrain.training.events import StepResult

# Relevant is the page of the row; pages 30 to 39 are asked for by no row of a small batch.
HARD = ("loss.name=softmax_hard_negatives", "hard_negatives.per_query=2")


@pytest.fixture
def mined(use_small_data):
    """The small training set with three hard negatives a row, one of them its own page."""
    plain = small_collection("small-mined", 40)
    rows = [
        dataclasses.replace(row, negatives=((row.page + 5) % 40, row.page, (row.page + 9) % 40))
        for row in plain.rows
    ]
    use_small_data["small-mined"] = dataclasses.replace(plain, rows=rows)
    return "data.train=[small-mined]"


def losses(training):
    return [event.loss for event in training.events() if isinstance(event, StepResult)]


@pytest.mark.slow
def test_hard_negatives_move_the_loss_and_a_false_one_is_left_out(start, mined):
    training = start(mined, *HARD)
    assert training.setup.collection.left_out["false-negative"] == 40
    batch = training._batch(1)
    rows = training.setup.collection.rows
    for row, pages in zip(batch.rows, batch.negatives, strict=True):
        assert set(pages) == {(rows[row].page + 5) % 40, (rows[row].page + 9) % 40}
    assert losses(training) != losses(start(mined))
    assert losses(start(mined, *HARD)) == losses(start(mined, *HARD))


@pytest.mark.slow
def test_the_chunk_does_not_change_a_step_with_hard_negatives(start, mined):
    one, all_at_once = (losses(start(mined, *HARD, f"batch.chunk_size={n}")) for n in (3, 16))
    assert one == pytest.approx(all_at_once, rel=1e-5)


@pytest.mark.slow
def test_shared_negatives_are_further_candidates_of_every_query(start, mined):
    shared = start(mined, "hard_negatives.shared=true", "hard_negatives.per_query=2")
    steps = [event for event in shared.events() if isinstance(event, StepResult)]
    # 8 own pages and 16 hard negatives, less those that are candidates already.
    assert 8 < steps[0].candidates_per_query <= 24
    alone = [event for event in start(mined).events() if isinstance(event, StepResult)]
    assert alone[0].candidates_per_query == 8
    assert steps[0].loss > alone[0].loss  # more negatives, a larger softmax loss


def test_data_without_hard_negatives_cannot_serve_a_loss_that_wants_them(start):
    with pytest.raises(DataError, match=r"\[no-hard-negatives\]"):
        start(*HARD)
    with pytest.raises(DataError, match=r"\[no-hard-negatives\]"):
        start("hard_negatives.shared=true")


def test_a_symmetric_loss_refuses_shared_negatives(start, mined):
    with pytest.raises(RunError, match=r"\[symmetric-with-shared-negatives\]"):
        start(mined, "hard_negatives.shared=true", "loss.symmetric=true")


@pytest.mark.slow
def test_a_mixture_says_how_each_source_fares(start, use_small_data):
    use_small_data["small-other"] = small_collection("small-other", 20, first=300)
    training = start("data.train=[small-train, small-other]")
    steps = [event for event in training.events() if isinstance(event, StepResult)]
    for step in steps:
        parts = step.by_source
        assert sum(part["rows"] for part in parts.values()) == 8
        mean = sum(part["rows"] * part["loss"] for part in parts.values()) / 8
        assert mean == pytest.approx(step.loss, rel=1e-5)
    assert {name for step in steps for name in step.by_source} == {"small-train", "small-other"}


@pytest.mark.slow
def test_batches_of_one_source_hold_one_source(start, use_small_data):
    use_small_data["small-other"] = small_collection("small-other", 24, first=300)
    training = start("data.train=[small-train, small-other]", "data.batches=one_source")
    for batch in training.setup.plan.epoch(0):
        assert len(np.unique(training.setup.plan.source_of(batch))) == 1
    assert all(
        len(event.by_source) == 1 for event in training.events() if isinstance(event, StepResult)
    )


@pytest.mark.slow
def test_hard_negatives_of_a_source_keep_their_loss_apart(start, mined, use_small_data):
    use_small_data["small-twin"] = dataclasses.replace(
        use_small_data["small-mined"], name="small-twin"
    )
    training = start("data.train=[small-mined, small-twin]", *HARD)
    [step, *_] = [event for event in training.events() if isinstance(event, StepResult)]
    mean = sum(part["rows"] * part["loss"] for part in step.by_source.values()) / 8
    assert len(step.by_source) == 2
    assert mean == pytest.approx(step.loss, rel=1e-5)
    assert torch.isfinite(torch.tensor(step.loss))
