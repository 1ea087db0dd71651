import dataclasses

import pytest
import torch

from coltrain.losses import LOSSES
from coltrain.training import self_check as module
from coltrain.training.live_tensors import LiveTensors
from coltrain.training.self_check import Comparison, MemoryCheck, SelfCheck, self_check

GOOD = SelfCheck(
    maxsim_difference=1e-16,
    comparisons=[
        Comparison(
            loss="softmax",
            dropout=0.1,
            chunk_size=5,
            num_chunks=6,
            loss_difference=1e-16,
            gradient_difference=1e-15,
            gradient_norm=0.5,
            vision_forwards_per_page=1.0,
        )
    ],
    memory=[
        MemoryCheck(8, 80, 3_000, 1_000, 100, (10, 10), 110),
        MemoryCheck(32, 80, 6_000, 4_500, 400, (20, 20), 1_700),
    ],
)


def with_comparison(**changes):
    return dataclasses.replace(
        GOOD, comparisons=[dataclasses.replace(GOOD.comparisons[0], **changes)]
    )


def with_memory(**changes):
    return dataclasses.replace(
        GOOD, memory=[GOOD.memory[0], dataclasses.replace(GOOD.memory[1], **changes)]
    )


def test_what_is_as_it_must_be_passes():
    assert GOOD.passed
    assert GOOD.largest_difference == 1e-15
    assert GOOD.growth_beyond_kept == pytest.approx(3_000 / 3_500)
    assert GOOD.as_document()["passed"] is True


@pytest.mark.parametrize(
    "found",
    [
        dataclasses.replace(GOOD, maxsim_difference=2e-10),
        with_comparison(loss_difference=2e-10),
        with_comparison(gradient_difference=2e-10),
        with_comparison(gradient_norm=0.0),
        with_comparison(vision_forwards_per_page=2.0),
        with_memory(largest_elements=1_700),
        with_memory(peak_bytes=7_000),
    ],
    ids=["maxsim", "loss", "gradient", "no gradient", "vision twice", "all pairs", "growth"],
)
def test_each_finding_can_fail_the_check(found):
    assert not found.passed
    assert found.as_document()["passed"] is False


def test_a_difference_that_is_no_number_fails():
    assert not with_comparison(gradient_difference=float("nan")).passed


def all_pairs_maxsim(queries, pages, query_mask, page_mask):
    similarities = torch.einsum("qid,kjd->qkij", queries, pages)
    similarities = similarities.masked_fill(~page_mask[None, :, None, :], -torch.inf)
    return (similarities.amax(3) * query_mask[:, None, :]).sum(2)


@pytest.mark.slow
def test_the_all_pairs_tensor_would_be_seen(monkeypatch):
    def plain_softmax(queries, pages, query_mask, page_mask, *, temperature, **_):
        scores = all_pairs_maxsim(queries, pages, query_mask, page_mask)
        target = torch.arange(len(queries))
        return torch.nn.functional.cross_entropy(scores / temperature, target)

    monkeypatch.setitem(LOSSES, "softmax", plain_softmax)
    found = module._memory(8)
    assert found.largest_elements >= found.all_pairs_elements


def test_the_product_of_tokens_is_what_the_counter_counts():
    queries, pages = torch.randn(3, 5, 8), torch.randn(4, 7, 8)
    masks = torch.ones(3, 5, dtype=torch.bool), torch.ones(4, 7, dtype=torch.bool)
    with LiveTensors() as watch:
        all_pairs_maxsim(queries, pages, *masks)
    assert watch.largest_elements == 3 * 4 * 5 * 7


@pytest.mark.slow
def test_a_gradient_of_wrong_size_would_be_seen(monkeypatch):
    really = module.cached_gradients

    def scaled(model, *arguments, **more):
        step = really(model, *arguments, **more)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad *= 1 + 1e-9
        return step

    monkeypatch.setattr(module, "cached_gradients", scaled)
    monkeypatch.setattr(module, "CHUNK_SIZES", (5,))
    built = module.model_as_if_trained(0.1, torch.float64)
    (comparison,) = module._compare(built, "softmax", 0.1)
    assert comparison.gradient_difference == pytest.approx(1e-9, rel=1e-3)
    assert not dataclasses.replace(GOOD, comparisons=[comparison]).passed


@pytest.mark.slow
def test_pages_and_queries_are_uneven():
    built = module.model_as_if_trained(0.0, torch.float32)
    for chunk in module.uneven_chunks(built, 12, 12, [1] * 12):
        lengths = chunk.inputs.mask.sum(1)
        assert lengths.min() < lengths.max(), chunk.side


@pytest.mark.reference
def test_the_step_is_exact_here():
    seen = []
    found = self_check(lambda done, total: seen.append((done, total)))
    assert found.passed, found
    cases = {(one.loss, one.dropout, one.chunk_size) for one in found.comparisons}
    assert cases == {(name, p, size) for name in LOSSES for p in (0, 0.1) for size in (1, 2, 5, 12)}
    assert {one.global_batch for one in found.memory} == {8, 32}
    assert all(one.page_tokens >= 64 for one in found.memory)
    total = len(cases) + 3
    assert seen == [(done, total) for done in range(1, total + 1)]
