import dataclasses
import json

import pytest
import torch
import torch.distributed as dist

from coltrain.errors import DataError, RunError, TrainingError
from coltrain.evaluation.together import RankFailed, RanksApart, connected, together
from coltrain.losses import LOSSES
from coltrain.training.gradient_sums import GradientSums
from coltrain.training.interruption import Interrupted
from coltrain.training.ranks import SINGLE, Ranks
from coltrain.training.ranks import self_check as check_module
from coltrain.training.ranks.gather import Layout
from coltrain.training.ranks.self_check import (
    Case,
    RankCheck,
    RankComparison,
    check_ranks,
    default_cases,
)
from coltrain.training.ranks.starting import on_ranks


@pytest.mark.parametrize("size", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("num", [1, 7, 16, 32])
def test_ranks_share_a_batch_without_gap_or_overlap(size, num):
    parts = [Ranks(rank, size).part(num) for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(num))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1
    if num % size == 0:
        assert set(lengths) == {num // size}


def test_one_process_has_nobody_to_talk_to():
    assert not dist.is_initialized()
    assert SINGLE.is_first
    assert SINGLE.exchange(0.5) == [0.5]
    assert SINGLE.exchange_objects("a") == ["a"]
    assert SINGLE.agree(True)
    assert not SINGLE.agree(False)
    weight = torch.nn.Parameter(torch.ones(2))
    assert SINGLE.add_up([weight, weight], [own := torch.ones(2), None]) == [own, None]
    with pytest.raises(DataError, match="gone"), SINGLE.together():
        raise DataError("worker-died", "gone")


# Three ranks with two sides: 2, 0 and 1 samples of at most 3, 0 and 5 tokens, and so on.
UNEVEN = (((2, 3), (1, 2)), ((0, 0), (0, 0)), ((1, 5), (3, 4)))


def test_what_is_packed_comes_out_again_widened():
    sides = [torch.rand(2, 3, 4), torch.rand(1, 2, 4)]
    layout = Layout(0, UNEVEN)
    row = layout.packed(sides, 0)
    assert row.shape == (1 * 5 + 3 * 4, 4)  # of the largest, rank 2
    for side, wide, tokens in zip(sides, layout.unpacked(row, 0), (5, 4), strict=True):
        assert wide.shape[1] == tokens
        torch.testing.assert_close(wide[:, : side.shape[1]], side, rtol=0, atol=0)
        assert (wide[:, side.shape[1] :] == 0).all()


def test_samples_stand_in_the_order_of_ranks_and_go_back_to_them():
    layout = Layout(0, UNEVEN)
    rows = [
        layout.packed([torch.full((n, t, 1), float(10 * rank + side + 1)) for side, (n, t) in
                       enumerate(sizes)], rank)
        for rank, sizes in enumerate(UNEVEN)
    ]  # fmt: skip
    first, second = layout.joined(rows)
    assert first[:, 0, 0].tolist() == [1, 1, 21]
    assert second[:, 0, 0].tolist() == [2, 22, 22, 22]
    for row, again in zip(rows, layout.divided((first, second)), strict=True):
        assert torch.equal(row, again)


GOOD = RankComparison(
    num_ranks=2,
    global_batch=7,
    case=Case("softmax", 0.1, 2),
    num_chunks=(4, 4),
    exchanges={"all_gather": 6},
    loss_difference=1e-16,
    gradient_difference=1e-15,
    gradient_norm=0.5,
    ranks_are_equal=True,
)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_difference": 2e-10},
        {"gradient_difference": 2e-10},
        {"gradient_difference": float("nan")},
        {"gradient_norm": 0.0},
        {"ranks_are_equal": False},
        {"exchanges": {"all_gather": 7}},
    ],
)
def test_each_finding_can_fail_the_check(changes):
    assert RankCheck([GOOD, GOOD]).passed
    found = RankCheck([GOOD, dataclasses.replace(GOOD, **changes)])
    assert not found.passed
    assert json.loads(json.dumps(found.as_document()))["passed"] is False


def test_cases_are_of_every_loss_and_of_every_further_term():
    cases = default_cases()
    plain = {(one.loss, one.dropout, one.chunk_size) for one in cases if not one.terms}
    assert plain >= {(name, p, size) for name in LOSSES for p in (0, 0.1) for size in (1, 2, None)}
    assert {key for one in cases for key, _ in one.terms} == {
        "symmetric",
        "padding",
        "filter_threshold",
    }
    assert any(one.group_size for one in cases)
    assert len(set(Case("softmax", 0.1, 2, is_shared=True).negatives(7))) == 2  # uneven


CASES = [
    Case("softmax", 0.1, 1),
    Case("softmax", 0.1, None),
    Case("softmax", 0.0, None),
    Case("pairwise", 0.0, 2, (("padding", "zero"),)),
    Case("sigmoid", 0.1, 2, group_size=3),
    Case("softmax", 0.1, 2, (("symmetric", True),)),
    Case("softmax", 0.1, 2, is_shared=True),
    Case("pairwise_hard_negatives", 0.1, 2, is_shared=True),
]


@pytest.mark.reference
def test_three_ranks_with_uneven_parts_give_what_one_process_gives():
    seen = []
    found = check_ranks([3], global_batch=7, cases=CASES, on_progress=lambda *at: seen.append(at))
    assert found.passed, found
    assert [one.case for one in found.comparisons] == CASES
    assert found.comparisons[0].num_chunks == (4, 4, 6)  # 2, 2 and 3 queries, and their pages
    assert found.comparisons[1].num_chunks == (2, 2, 2)
    assert found.comparisons[1].gradient_norm != found.comparisons[2].gradient_norm  # dropout
    assert found.exchanges_by_ranks == {3: [found.comparisons[0].exchanges]}
    assert found.comparisons[0].exchanges["all_reduce"] == 1
    assert seen[-1] == (15, 15)


@pytest.mark.reference
def test_a_rank_may_have_no_part_of_a_short_batch():
    found = check_ranks([3], global_batch=2, cases=CASES[:1])
    assert found.passed, found
    assert found.comparisons[0].num_chunks == (0, 2, 2)


def steps_with_local_pages(ranks, global_batch, cases):
    """What many trainers do: the pages of other ranks send no gradient back."""
    check_module.cached_gradients.__globals__["gather_vectors"] = detached_elsewhere
    yield from check_module.steps_of_a_rank(ranks, global_batch, cases)


def detached_elsewhere(layout, vectors):
    from coltrain.training.ranks.gather import gather_vectors

    whole = [side.detach().clone() for side in gather_vectors(layout, vectors)]
    for number, (side, own) in enumerate(zip(whole, vectors, strict=True)):
        start = sum(sizes[number][0] for sizes in layout.sizes[: layout.rank])
        side[start : start + len(own), : own.shape[1]] = own
    for side in whole:
        side += sum(0 * own.sum() for own in vectors)  # empty ones are in the graph, too
    return whole


@pytest.mark.slow
@pytest.mark.reference
def test_a_gather_that_sends_no_gradient_back_would_be_seen(monkeypatch):
    monkeypatch.setattr(
        check_module,
        "on_ranks",
        lambda number, work, *rest, **more: on_ranks(number, steps_with_local_pages, *rest),
    )
    found = check_ranks([2], global_batch=6, cases=[Case("softmax", 0.0, None)])
    (one,) = found.comparisons
    assert one.loss_difference < 1e-12  # the loss does not tell
    assert one.gradient_difference > 1e-2
    assert not found.passed


def gradients_of_a_rank(ranks):
    """One that all have, one that rank 1 alone has, one that nobody has; in two types."""
    everywhere, somewhere, nowhere = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    half = torch.nn.Parameter(torch.zeros(3, 1, dtype=torch.bfloat16))
    frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    everywhere.grad = torch.tensor([1.0, 10.0]) * (ranks.rank + 1)
    if ranks.rank == 1:
        somewhere.grad = torch.tensor([3.0, 4.0])
    half.grad = torch.full((3, 1), 256.0 if ranks.rank == 0 else 1.0, dtype=torch.bfloat16)
    GradientSums([everywhere, somewhere, nowhere, half, frozen], ranks).finish()
    yield everywhere.grad, somewhere.grad, nowhere.grad, half.grad


def what_a_rank_meets(ranks):
    """Each time around, rank 1 meets something."""
    for trouble in (
        None,
        DataError("worker-died", "a worker died."),
        Interrupted("SIGTERM"),
        FloatingPointError("loss = nan"),
        UnportableError(),
    ):
        try:
            with ranks.together():
                if ranks.rank == 1 and trouble is not None:
                    raise trouble
        except Exception as error:
            yield type(error), str(error)
        else:
            yield None, ""
    yield ranks.agree(True), ranks.agree(ranks.rank == 1)
    yield ranks.exchange(ranks.rank / 2), ranks.exchange_objects("ab"[ranks.rank])


class UnportableError(Exception):
    """Cannot be sent to another process."""

    def __init__(self):
        super().__init__("of a kind of its own")
        self.lock = open
        self.generator = (number for number in range(3))


@pytest.mark.slow
def test_gradients_add_up_and_none_stays_none():
    for ((everywhere, somewhere, nowhere, half),) in on_ranks(2, gradients_of_a_rank):
        assert everywhere.tolist() == [3, 30]
        assert somewhere.tolist() == [3, 4]
        assert nowhere is None
        assert half.dtype == torch.bfloat16
        assert half.shape == (3, 1)
        assert half[0].item() == 256  # 257 rounded to even, after the sum in float32


@pytest.mark.slow
def test_what_one_rank_meets_all_hear_of():
    first, second = on_ranks(2, what_a_rank_meets)
    assert [kind for kind, _ in second[:5]] == [
        None,
        DataError,
        Interrupted,
        FloatingPointError,
        UnportableError,
    ]
    assert [kind for kind, _ in first[:5]] == [
        None,
        RunError,
        Interrupted,
        TrainingError,
        TrainingError,
    ]
    assert "[rank-failed]" in first[1][1]
    assert "rank 1 cannot go on" in first[1][1]
    assert "a worker died." in first[1][1]
    assert first[2][1] == "SIGTERM"
    assert "loss = nan" in first[3][1]
    assert "UnportableError: of a kind of its own" in first[4][1]
    assert first[5] == second[5] == (True, False)
    assert first[6] == second[6] == ([0.0, 0.5], ["a", "b"])


def a_rank_that_leaves(ranks):
    yield "here"
    if ranks.rank == 1:
        raise ValueError("had enough")
    ranks.exchange(1.0)


@pytest.mark.slow
def test_a_rank_that_fails_is_named():
    with pytest.raises(RuntimeError, match=r"rank \d of 2 failed") as caught:
        on_ranks(2, a_rank_that_leaves)
    assert "had enough" in str(caught.value) or "RanksApart" in str(caught.value)


def test_what_torch_says_of_a_broken_connection_gets_a_name():
    with pytest.raises(RanksApart, match="Connection closed"), connected():
        raise RuntimeError("Connection closed by peer")
    with together(False):
        pass
    assert "rank 3 cannot go on: KeyError" in str(RankFailed(3, KeyError()))
