import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from coltrain import losses
from coltrain.recipe import LossSection
from coltrain.training.gradient_cache import Embeddings
from coltrain.training.objective import objective

QUERIES = 4
NONE = np.zeros((QUERIES, QUERIES), dtype=bool)


def side(num_samples, num_tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(num_samples, num_tokens, 8, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, num_tokens + 1, (num_samples,), generator=generator)
    mask = torch.arange(num_tokens)[None, :] < lengths[:, None]
    return Embeddings(normalize(vectors, dim=-1) * mask[:, :, None], mask)


@pytest.fixture
def embeddings():
    return {"query": side(QUERIES, 5, 1), "page": side(QUERIES, 9, 2)}


def arguments(embeddings):
    queries, pages = embeddings["query"], embeddings["page"]
    return queries.vectors, pages.vectors, queries.mask, pages.mask


@pytest.mark.parametrize("name", ["pairwise", "softmax", "sigmoid"])
@pytest.mark.parametrize("normalized", [True, False])
def test_every_term_of_the_recipe_reaches_the_loss(embeddings, name, normalized):
    terms = {
        "temperature": 0.3,
        "normalize": normalized,
        "filter_threshold": 0.8,
        "filter_factor": 0.25,
        "symmetric": name != "sigmoid",
    }
    plain = {"temperature": 1.0, "normalize": not normalized}
    value = objective(LossSection(name=name, **terms), NONE)(embeddings)
    expected = getattr(losses, name)(*arguments(embeddings), **terms)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    other = objective(LossSection(name=name, **plain), NONE)(embeddings)
    assert other.item() != pytest.approx(value.item(), rel=1e-3)


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_recipe_s_padding_reaches_the_loss(embeddings, symmetric):
    terms = {"temperature": 0.3, "normalize": True, "symmetric": symmetric}
    expected = losses.softmax(*arguments(embeddings), **terms, padding="zero").item()
    found = [
        objective(LossSection(name="softmax", padding=padding, **terms), NONE)(embeddings).item()
        for padding in ("zero", "masked")
    ]
    assert found[0] == pytest.approx(expected, rel=1e-12)
    assert found[1] != pytest.approx(expected, rel=1e-4)


def test_pairs_that_are_no_negatives_are_left_out(embeddings):
    ignore = NONE.copy()
    ignore[0, 2] = ignore[3, 1] = True
    settings = LossSection(name="softmax", temperature=0.3, normalize=True)
    expected = losses.softmax(
        *arguments(embeddings), temperature=0.3, ignore=torch.from_numpy(ignore)
    )
    assert objective(settings, ignore)(embeddings).item() == pytest.approx(expected.item())
    assert objective(settings, NONE)(embeddings).item() != pytest.approx(expected.item())


def test_each_query_meets_its_own_hard_negatives(embeddings):
    embeddings["negative"] = side(QUERIES * 3, 7, 3)
    settings = LossSection(
        name="softmax_hard_negatives", temperature=0.3, normalize=True, in_batch_weight=0.2
    )
    negatives = embeddings["negative"]
    expected = losses.softmax_hard_negatives(
        *arguments(embeddings),
        negatives.vectors.reshape(QUERIES, 3, 7, 8),
        negatives.mask.reshape(QUERIES, 3, 7),
        temperature=0.3,
        in_batch_weight=0.2,
    )
    value = objective(settings, NONE)(embeddings)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    negatives = Embeddings(negatives.vectors.roll(3, 0), negatives.mask.roll(3, 0))
    shuffled = objective(settings, NONE)({**embeddings, "negative": negatives})
    assert shuffled.item() != pytest.approx(expected.item(), rel=1e-6)
