import copy
import gc
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from coltrain.losses import softmax, softmax_hard_negatives
from coltrain.model.adapter import lora_layers
from coltrain.model.build import build_for_training
from coltrain.model.dropout import stable_key
from coltrain.recipe import LossSection, load_recipe
from coltrain.training.gradient_cache import cached_gradients
from coltrain.training.live_tensors import LiveTensors
from coltrain.training.objective import objective

QUERIES = 7
SEED, STEP = 3, 11
# float64: the same sums in another order.
EXACT = {"rtol": 1e-10, "atol": 1e-13}


def batch_loss(embeddings):
    queries, pages = embeddings["query"], embeddings["page"]
    sides = [queries.vectors, pages.vectors, queries.mask, pages.mask]
    if "negative" not in embeddings:
        return softmax(*sides, temperature=0.1)
    negatives = embeddings["negative"]
    vectors = negatives.vectors.unflatten(0, (QUERIES, -1))
    mask = negatives.mask.unflatten(0, (QUERIES, -1))
    return softmax_hard_negatives(*sides, vectors, mask, temperature=0.1)


def plain(built, chunks, loss):
    """One autograd graph over the whole batch: loss, and gradients by name."""

    class Side:
        def __init__(self, vectors, mask):
            self.vectors, self.mask = vectors, mask

    model = built.model
    model.zero_grad()
    sides = {}
    for chunk in chunks:
        inputs = chunk.inputs
        keys = [stable_key(SEED, STEP, chunk.side, sample) for sample in chunk.samples]
        with model.sample_keys.use(keys, model.device):
            visual = None
            if inputs.pixel_values is not None:
                visual = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
            vectors = model(inputs.input_ids, inputs.mask, inputs.position_ids, visual)
        assert chunk.side not in sides, "plain training has one chunk for each side"
        sides[chunk.side] = Side(vectors, inputs.mask)
    value = loss(sides)
    value.backward()
    return value.item(), gradients(model)


def gradients(model):
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def set_dropout(built, probability):
    for layer in lora_layers(built.model).values():
        layer.lora_dropout["default"].p = probability


def assert_equal_to_plain(built, make_chunks, chunk_size, num_negatives=0, reference=None):
    """Compare cached with plain, and see that the case can tell them apart."""
    whole = list(make_chunks(built, QUERIES, 10 * QUERIES, num_negatives))
    for chunk in whole:
        lengths = chunk.inputs.mask.sum(1)
        assert lengths.min() < lengths.max()
    plain_loss, expected = plain(reference or built, whole, batch_loss)
    built.model.zero_grad()
    step = cached_gradients(
        built.model,
        make_chunks(built, QUERIES, chunk_size, num_negatives),
        batch_loss,
        seed=SEED,
        step=STEP,
    )
    sides = 2 + bool(num_negatives)
    assert step.num_chunks == -(-QUERIES // chunk_size) * 2 + -(
        -QUERIES * num_negatives // chunk_size
    )
    assert step.num_chunks > sides or chunk_size >= QUERIES
    assert step.loss == pytest.approx(plain_loss, rel=1e-12)
    found = gradients(built.model)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert expected[name].abs().max() > 1e-9, f"{name} has no gradient to compare"
        torch.testing.assert_close(gradient, expected[name], **EXACT, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("chunk_size", [1, 2, 5, QUERIES])
def test_cached_gradients_equal_plain_autograd(float64_built, uneven_chunks, chunk_size, dropout):
    set_dropout(float64_built, dropout)
    assert_equal_to_plain(float64_built, uneven_chunks, chunk_size)


def test_hard_negatives_are_chunked_as_pages_are(float64_built, uneven_chunks):
    assert_equal_to_plain(float64_built, uneven_chunks, 3, num_negatives=2)


def test_a_projection_that_is_trained_whole_gets_its_gradient(uneven_chunks):
    recipe = load_recipe("tiny", ["projection.train=full"])
    built = build_for_training(recipe, torch.device("cpu"))
    built.model.double()
    for layer in lora_layers(built.model).values():
        layer.lora_B["default"].weight.data.normal_(std=0.02)
    names = [name for name, p in built.model.named_parameters() if p.requires_grad]
    assert "custom_text_proj.weight" in names
    assert "custom_text_proj.bias" in names
    assert not any("custom_text_proj.lora" in name for name in names)
    assert_equal_to_plain(built, uneven_chunks, 2)


def train_vision(built):
    for parameter in built.model.visual.parameters():
        parameter.requires_grad_(True)


def test_a_vision_tower_that_is_trained_gets_its_gradient(float64_built, uneven_chunks):
    train_vision(float64_built)
    assert_equal_to_plain(float64_built, uneven_chunks, 2)


def test_text_sends_no_gradient_where_only_the_vision_tower_learns(float64_built, uneven_chunks):
    for parameter in float64_built.model.parameters():
        parameter.requires_grad_(False)
    train_vision(float64_built)
    assert_equal_to_plain(float64_built, uneven_chunks, 2)


def test_checkpointed_activations_give_the_same_gradients(float64_built, uneven_chunks):
    reference = copy.deepcopy(float64_built)
    float64_built.model.checkpoint_activations()
    forwards = []
    attention = float64_built.model.language_model.layers[0].self_attn
    attention.register_forward_pre_hook(lambda *_: forwards.append(1))
    assert_equal_to_plain(float64_built, uneven_chunks, 2, reference=reference)
    # Eight chunks, each: first pass, second pass, and again in the backward pass; but the last one's
    # first pass is its second.
    assert len(forwards) == 8 * 3 - 1


def count_pages(model, calls):
    def hook(module, args, kwargs):
        calls.append(len(kwargs["grid_thw"]))

    return model.visual.register_forward_pre_hook(hook, with_kwargs=True)


@pytest.mark.parametrize("is_trained", [False, True])
def test_a_frozen_vision_tower_sees_each_page_once(float64_built, uneven_chunks, is_trained):
    if is_trained:
        train_vision(float64_built)
    calls = []
    count_pages(float64_built.model, calls)
    chunks = uneven_chunks(float64_built, QUERIES, 2)
    cached_gradients(float64_built.model, chunks, batch_loss, seed=SEED, step=STEP)
    # A trained tower sees all but the last chunk again, whose graph was kept.
    assert calls == [2, 2, 2, 1] + [2, 2, 2] * is_trained


@pytest.mark.parametrize("num_negatives", [0, 1])
def test_plain_training_encodes_once(float64_built, uneven_chunks, num_negatives):
    forwards = []
    float64_built.model.language_model.register_forward_pre_hook(lambda *_: forwards.append(1))
    assert_equal_to_plain(float64_built, uneven_chunks, 2 * QUERIES, num_negatives)
    # Once by plain autograd and once cached: queries, pages; hard negatives come last, so that the
    # pages' own graph would be a second one beside theirs.
    assert len(forwards) == (2 + 2 if num_negatives == 0 else 3 + 4)


def peak_of_a_step(built, make_chunks):
    step = partial(cached_loss, built, make_chunks, 2 * QUERIES)
    step()  # gradient buffers exist then
    with LiveTensors() as watch:
        step()
    return watch.peak_bytes


def test_checkpointed_plain_training_needs_the_memory_of_a_pass(
    float64_built, uneven_chunks, monkeypatch
):
    reference = copy.deepcopy(float64_built)
    float64_built.model.checkpoint_activations()
    # The rest of the step, pixels first of all, is large beside a layer of these small pages.
    whole = peak_of_a_step(float64_built, uneven_chunks)
    monkeypatch.setattr("coltrain.training.gradient_cache.PASS_TOKENS", 100)
    forwards = []
    attention = float64_built.model.language_model.layers[0].self_attn
    attention.register_forward_pre_hook(lambda *_: forwards.append(1))
    float64_built.model.zero_grad()
    step = cached_loss(float64_built, uneven_chunks, 2 * QUERIES)
    assert step.num_chunks > 3
    # Each part: once, and again in the backward pass.
    assert len(forwards) == 2 * step.num_chunks
    plain_loss, expected = plain(
        reference, list(uneven_chunks(reference, QUERIES, 2 * QUERIES)), batch_loss
    )
    assert step.loss == pytest.approx(plain_loss, rel=1e-12)
    for name, gradient in gradients(float64_built.model).items():
        torch.testing.assert_close(gradient, expected[name], **EXACT)
    assert peak_of_a_step(float64_built, uneven_chunks) < whole


def test_no_two_graphs_of_pages_live_at_once(float64_built, uneven_chunks):
    graphs, most = [], []

    def hook(model, args, vectors):
        if vectors.requires_grad and args[3] is not None:  # pages
            graphs.append(weakref.ref(vectors))
            most.append(sum(graph() is not None for graph in graphs))

    float64_built.model.register_forward_hook(hook)
    cached_loss(float64_built, uneven_chunks, 2)
    assert most == [1, 1, 1, 1]


@pytest.mark.parametrize("is_trained", [False, True])
def test_pixels_go_after_the_first_pass_unless_the_tower_is_trained(
    float64_built, uneven_chunks, is_trained
):
    if is_trained:
        train_vision(float64_built)
    seen = []

    def watched():
        for chunk in uneven_chunks(float64_built, QUERIES, 2):
            if chunk.inputs.pixel_values is not None:
                seen.append(weakref.ref(chunk.inputs.pixel_values))
            yield chunk
            del chunk

    def loss(embeddings):
        gc.collect()
        alive = [reference() is not None for reference in seen]
        # The last chunk's graph, if any, holds what it needs of them itself.
        assert alive[:3] == [is_trained] * 3
        return batch_loss(embeddings)

    cached_gradients(float64_built.model, watched(), loss, seed=SEED, step=STEP)
    assert len(seen) == 4


def test_gradients_are_added_to_what_stands_there(float64_built, uneven_chunks):
    model = float64_built.model

    def once():
        chunks = uneven_chunks(float64_built, QUERIES, 3)
        cached_gradients(model, chunks, batch_loss, seed=SEED, step=STEP)
        return gradients(model)

    first, second = once(), once()
    for name, gradient in first.items():
        torch.testing.assert_close(second[name], 2 * gradient, **EXACT)


def test_a_loss_that_is_not_finite_adds_nothing(float64_built, uneven_chunks):
    model = float64_built.model
    chunks = uneven_chunks(float64_built, QUERIES, 3)
    with pytest.raises(FloatingPointError, match="loss = nan"):
        cached_gradients(
            model, chunks, lambda e: batch_loss(e) * float("nan"), seed=SEED, step=STEP
        )
    assert all(parameter.grad is None for parameter in model.parameters())


def cached_loss(built, make_chunks, chunk_size=3, *, seed=SEED, step=STEP, **more):
    chunks = make_chunks(built, QUERIES, chunk_size)
    return cached_gradients(built.model, chunks, batch_loss, seed=seed, step=step, **more)


@pytest.mark.slow
def test_dropout_follows_the_seed_and_the_step(float64_built, uneven_chunks):
    losses = [
        cached_loss(float64_built, uneven_chunks, seed=seed, step=step).loss
        for seed, step in [(3, 11), (3, 12), (4, 11)]
    ]
    set_dropout(float64_built, 0.0)
    losses.append(cached_loss(float64_built, uneven_chunks).loss)
    assert len(set(losses)) == 4


def test_nothing_drops_after_the_step(float64_built, uneven_chunks):
    cached_loss(float64_built, uneven_chunks)
    assert float64_built.model.sample_keys.current is None


def test_embeddings_are_unit_vectors_and_zero_where_padded(float64_built, uneven_chunks):
    embeddings = cached_loss(float64_built, uneven_chunks, 2).embeddings
    assert list(embeddings) == ["query", "page"]
    for side in embeddings.values():
        assert not side.vectors.requires_grad
        lengths = side.vectors.norm(dim=-1)
        torch.testing.assert_close(lengths, side.mask.double())
        assert not side.mask.all()


def test_lower_precision_is_the_encoders_alone(tiny_built, uneven_chunks):
    whole = cached_loss(tiny_built, uneven_chunks)
    seen = []

    def loss(embeddings):
        seen.append((embeddings["page"].vectors.dtype, torch.is_autocast_enabled("cpu")))
        return batch_loss(embeddings)

    half = cached_gradients(
        tiny_built.model,
        uneven_chunks(tiny_built, QUERIES, 3),
        loss,
        seed=SEED,
        step=STEP,
        compute=torch.autocast("cpu", torch.bfloat16),
    )
    assert seen == [(torch.float64, False)]
    assert half.loss != whole.loss
    assert half.loss == pytest.approx(whole.loss, rel=0.1)  # bfloat16 keeps 8 bits
    same = normalize(half.embeddings["page"].vectors, dim=-1) * whole.embeddings["page"].vectors
    assert same.sum(-1)[half.embeddings["page"].mask].min() > 0.99


@pytest.mark.parametrize("name", ["pairwise", "softmax"])
def test_ignored_pairs_send_no_gradient_whatever_the_chunk(float64_built, uneven_chunks, name):
    ignore = np.zeros((QUERIES, QUERIES), dtype=bool)
    ignore[0, 1] = ignore[1, 0] = True
    settings = LossSection(name=name, temperature=0.1, normalize=True)

    def run(chunk_size, ignore):
        float64_built.model.zero_grad()
        chunks = uneven_chunks(float64_built, QUERIES, chunk_size)
        loss = objective(settings, ignore)
        cached = cached_gradients(float64_built.model, chunks, loss, seed=SEED, step=STEP)
        return cached.loss, gradients(float64_built.model)

    loss, whole = run(QUERIES, ignore)
    chunked_loss, chunked = run(2, ignore)
    unmasked_loss, _ = run(2, np.zeros_like(ignore))
    assert chunked_loss == pytest.approx(loss, rel=1e-12)
    for parameter, gradient in whole.items():
        torch.testing.assert_close(chunked[parameter], gradient, **EXACT)
    if name != "pairwise":  # its maximum may lie elsewhere
        assert unmasked_loss != loss
