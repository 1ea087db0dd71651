"""The noise floor: what is tried, what it moves, and that nothing stays changed."""

import types

import pytest
import torch
from small_pages import small_collection

from coltrain.evaluation import noise
from coltrain.evaluation.encoding import encode_pages
from coltrain.evaluation.evaluate import evaluate
from coltrain.evaluation.noise import noise_floor, variations
from coltrain.model.attention import ATTENTION


@pytest.fixture(scope="module")
def collection():
    return small_collection("pages", 6)


@pytest.fixture(scope="module")
def groups():
    """Sizes of the groups of pages that were encoded, and whether they were padded."""
    return []


@pytest.fixture(scope="module")
def floors(tiny_retriever, collection, groups):
    evaluation = evaluate(tiny_retriever, collection)

    def counted(retriever, images, padded):
        groups.append((len(images), padded))
        return encode_pages(retriever, images, padded)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise, "encode_pages", counted)
        return {f.name: f for f in noise_floor(tiny_retriever, collection, evaluation)}


def test_each_variation_is_measured(floors, groups):
    assert list(floors) == [
        "batches of 4, padded",
        "batches of 32, padded",
        "weights in bfloat16",
        "attention: sdpa's math kernel",
        "attention: eager",
    ]
    for name, floor in floors.items():
        assert floor.error is None
        assert floor.num_queries == 6
        # Each of them really computes otherwise; a padded batch of so few tokens may round alike.
        assert floor.max_score_change > 0 or "padded" in name
    assert groups[:3] == [(4, True), (2, True), (6, True)]
    assert groups[3:] == [(1, False)] * 18


def test_another_order_of_additions_moves_little_and_another_precision_much(floors):
    for name, floor in floors.items():
        if name == "weights in bfloat16":
            assert floor.max_score_change > 1e-3
        else:
            assert floor.max_score_change < 1e-4
            assert floor.num_reordered == 0
            assert set(floor.measure_changes.values()) == {0.0}


def test_the_model_is_as_before_afterwards(tiny_retriever, collection, floors):
    built = tiny_retriever.built
    assert built.model.config._attn_implementation == ATTENTION
    assert built.model.config.text_config._attn_implementation == ATTENTION
    assert {p.dtype for p in built.model.parameters()} == {torch.float32}


def test_a_gpu_tries_float16_as_well_and_bfloat16_weights_try_the_others(monkeypatch):
    model = types.SimpleNamespace(dtype=torch.bfloat16, device=torch.device("cuda"))
    retriever = types.SimpleNamespace(built=types.SimpleNamespace(model=model))
    names = [one.name for one in variations(retriever)]
    assert [name for name in names if "weights" in name] == [
        "weights in float32",
        "weights in float16",
    ]


def test_a_precision_that_overflows_is_a_finding_and_no_end(
    monkeypatch, tiny_retriever, collection
):
    evaluation = evaluate(tiny_retriever, collection)
    one = noise.Variation("weights in bfloat16", dtype=torch.bfloat16)
    monkeypatch.setattr(noise, "variations", lambda retriever: [one])
    weight = tiny_retriever.built.model.language_model.norm.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0] = 3.4e38  # finite in float32, infinite in bfloat16
    try:
        [floor] = noise_floor(tiny_retriever, collection, evaluation)
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert floor.error.startswith("not-finite-embedding: pages, query 'q0'")
    assert floor.max_score_change is None
