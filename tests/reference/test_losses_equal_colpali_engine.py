"""Losses equal colpali-engine 0.3.18: values and gradients, in float32 and float64.

On embeddings of uneven lengths, zero where padded, no query token's best match negative (there
the libraries differ on purpose, but for `padding="zero"`, which the last tests hold). Gradients are compared with respect to embeddings
before padding is zeroed, as both libraries' models do it: what flows into padding is nobody's.
"""

import importlib.metadata

import pytest
import torch
from reference_loops.ragged import positive_ragged, ragged

from coltrain.losses import LOSSES

pytestmark = pytest.mark.reference

CLASSES = {
    "softmax": "ColbertLoss",
    "pairwise": "ColbertPairwiseCELoss",
    "sigmoid": "ColbertSigmoidLoss",
    "softmax_hard_negatives": "ColbertNegativeCELoss",
    "pairwise_hard_negatives": "ColbertPairwiseNegativeCELoss",
}


def engine_loss(name, **terms):
    # Imported here, so that collecting the fast tests needs no engine, and a missing one fails.
    from colpali_engine.loss import late_interaction_losses

    return getattr(late_interaction_losses, CLASSES[name])(**terms)


IN_BATCH = ["softmax", "pairwise", "sigmoid"]
HARD = ["softmax_hard_negatives", "pairwise_hard_negatives"]
# float32: both sides round scores of about 1 before dividing by temperatures down to 0.02.
TOLERANCES = {torch.float32: 1e-6, torch.float64: 1e-10}

# (lengths of queries, lengths of pages, dim): as in training, and smaller.
SIZES = {
    "small": ([3, 7, 5, 2, 7], [9, 4, 11, 6, 10], 16),
    "medium": ([12, 5, 9, 12, 7, 3, 11, 6], [20, 11, 17, 5, 20, 8, 14, 19], 128),
    "large": ([20, 7, 31, 12] * 3, [64, 200, 131, 90] * 3, 128),
}


@pytest.fixture(autouse=True)
def _plain_torch(monkeypatch):
    # Never the fused kernel, should it be installed: it is not what is compared.
    monkeypatch.setenv("COLPALI_SCORES_BACKEND", "torch")


def test_the_version_is_the_one_that_we_name():
    assert importlib.metadata.version("colpali-engine") == "0.3.18"


def batch(size, dtype, seed, hard=False):
    query_lengths, page_lengths, dim = SIZES[size]
    tensors = [
        positive_ragged(query_lengths, dim, seed=seed, dtype=dtype),
        positive_ragged(page_lengths, dim, seed=seed + 1, dtype=dtype),
    ]
    if hard:
        lengths = page_lengths[::-1] + page_lengths
        negatives, mask = positive_ragged(lengths, dim, seed=seed + 2, dtype=dtype)
        shape = (len(query_lengths), 2, max(page_lengths))
        tensors.append((negatives.view(*shape, dim), mask.view(shape)))
    embeddings = [tensor.requires_grad_() for tensor, _ in tensors]
    masks = [mask for _, mask in tensors]
    assert all(len(set(mask.sum(-1).flatten().tolist())) > 2 for mask in masks)
    best = torch.einsum("qid,kjd->qkij", *embeddings[:2]).topk(2, dim=-1).values
    real = masks[0][:, None].expand(best.shape[:3])
    assert (best[..., 0] >= 0).all()
    # Of tokens that tie, theirs share the gradient and ours takes the first.
    assert (best[..., 0] > best[..., 1])[real].all()
    return embeddings, masks


def zero_padding(embeddings, masks):
    return [x * mask.unsqueeze(-1) for x, mask in zip(embeddings, masks, strict=True)]


def assert_equal(ours, theirs, embeddings, dtype):
    tolerance = TOLERANCES[dtype]
    assert ours.dtype == dtype
    assert theirs.item() > 0
    assert abs(ours.item() - theirs.item()) <= tolerance * theirs.item()
    left = torch.autograd.grad(ours, embeddings, retain_graph=True)
    right = torch.autograd.grad(theirs, embeddings)
    for our_gradient, their_gradient in zip(left, right, strict=True):
        assert their_gradient.norm() > 0
        difference = our_gradient - their_gradient
        assert difference.norm() <= tolerance * their_gradient.norm()
        # Theirs sums up to a hundred terms in float32; single numbers are a little less exact.
        assert difference.abs().max() <= 2 * tolerance * their_gradient.abs().max()


def filtering(threshold):
    if threshold is None:
        return {}, {}
    return {"filter_threshold": threshold, "filter_factor": 0.4}, {
        "pos_aware_negative_filtering": True,
        "filter_threshold": threshold,
        "filter_factor": 0.4,
    }


every_case = [
    # A threshold of 1 takes the negatives above the positive, which here are some of them.
    pytest.mark.parametrize("threshold", [None, 1.0]),
    # Sums over all tokens at a temperature of 0.02 saturate: no gradient would be left to compare.
    pytest.mark.parametrize(
        ("temperature", "normalize"), [(0.02, True), (1.0, True), (1.0, False), (4.0, False)]
    ),
    pytest.mark.parametrize("size", SIZES),
    pytest.mark.parametrize("dtype", TOLERANCES, ids=str),
]


def in_every_case(test):
    for mark in every_case:
        test = mark(test)
    return test


@in_every_case
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", IN_BATCH)
def test_in_batch_losses(name, symmetric, dtype, size, temperature, normalize, threshold):
    embeddings, masks = batch(size, dtype, 100)
    queries, pages = zero_padding(embeddings, masks)
    options, their_options = filtering(threshold)
    ours = LOSSES[name](
        queries,
        pages,
        *masks,
        temperature=temperature,
        normalize=normalize,
        symmetric=symmetric,
        **options,
    )
    loss = engine_loss(name, temperature=temperature, normalize_scores=normalize, **their_options)
    theirs = loss(queries, pages)
    if symmetric:  # colpali_engine/trainer/contrastive_trainer.py, compute_loss
        theirs = (theirs + loss(pages, queries)) / 2
    assert_equal(ours, theirs, embeddings, dtype)


@in_every_case
@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("name", HARD)
def test_hard_negative_losses(name, weight, dtype, size, temperature, normalize, threshold):
    embeddings, masks = batch(size, dtype, 100, hard=True)
    queries, pages, negatives = zero_padding(embeddings, masks)
    options, their_options = filtering(threshold)
    ours = LOSSES[name](
        queries,
        pages,
        *masks[:2],
        negatives,
        masks[2],
        in_batch_weight=weight,
        temperature=temperature,
        normalize=normalize,
        **options,
    )
    theirs = engine_loss(
        name,
        temperature=temperature,
        normalize_scores=normalize,
        in_batch_term_weight=weight,
        **their_options,
    )(queries, pages, negatives)
    assert_equal(ours, theirs, embeddings, dtype)


@pytest.mark.parametrize("seed", range(0, 100, 10))
@pytest.mark.parametrize("size", ["small", "medium"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", list(CLASSES))
def test_defaults(name, dtype, size, seed):
    embeddings, masks = batch(size, dtype, seed, hard=name in HARD)
    tensors = zero_padding(embeddings, masks)
    more = [tensors[2], masks[2]] if name in HARD else []
    ours = LOSSES[name](*tensors[:2], *masks[:2], *more)
    assert_equal(ours, engine_loss(name)(*tensors), embeddings, dtype)


@pytest.mark.parametrize("name", ["softmax", "pairwise"])
def test_positives_at_an_offset(name):
    embeddings, masks = batch("medium", torch.float64, 9)
    queries, pages = zero_padding(embeddings, masks)
    ours = LOSSES[name](
        queries[:3], pages, masks[0][:3], masks[1], positives=torch.arange(2, 5), temperature=0.1
    )
    theirs = engine_loss(name, temperature=0.1)(queries[:3], pages, offset=2)
    assert_equal(ours, theirs, embeddings, torch.float64)


def negative_matches(name, dtype):
    """Few directions and short pages: many a query token has no match above 0 on a page."""
    lengths = {"queries": [3, 7, 5, 2, 7], "pages": [2, 1, 4, 1, 3], "negatives": [1, 3] * 5}
    tensors = [
        ragged(of, 4, seed=seed, rubbish=0.0, dtype=dtype)
        for seed, (side, of) in enumerate(lengths.items(), start=3)
        if side != "negatives" or name in HARD
    ]
    if name in HARD:
        negatives, mask = tensors[2]
        tensors[2] = (negatives.view(5, 2, *negatives.shape[1:]), mask.view(5, 2, -1))
    embeddings = [tensor.requires_grad_() for tensor, _ in tensors]
    return embeddings, [mask for _, mask in tensors]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("temperature", "normalize"), [(0.3, True), (1.0, False)])
@pytest.mark.parametrize(
    ("name", "symmetric"),
    [*((name, False) for name in CLASSES), *((name, True) for name in IN_BATCH)],
)
def test_zero_padding_is_the_engines_where_matches_are_negative(
    name, symmetric, temperature, normalize, dtype
):
    embeddings, masks = negative_matches(name, dtype)
    tensors = zero_padding(embeddings, masks)
    more = [tensors[2], masks[2]] if name in HARD else []
    terms = {"temperature": temperature, "normalize": normalize, "symmetric": symmetric}
    loss = engine_loss(name, temperature=temperature, normalize_scores=normalize)
    theirs = loss(*tensors)
    if symmetric:
        theirs = (theirs + loss(*tensors[1::-1])) / 2
    masked = LOSSES[name](*tensors[:2], *masks[:2], *more, **terms)
    assert abs(masked.item() - theirs.item()) > 0.01 * theirs.item()
    ours = LOSSES[name](*tensors[:2], *masks[:2], *more, **terms, padding="zero")
    assert_equal(ours, theirs, embeddings, dtype)
