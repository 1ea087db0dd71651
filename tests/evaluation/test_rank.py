import pytest
import torch
from torch.nn.functional import normalize

from coltrain.evaluation.rank import score_all


def embeddings(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    return [normalize(torch.randn(n, 16, generator=generator), dim=-1) for n in lengths]


def test_scores_are_sums_of_best_matches_of_unpadded_tokens():
    queries, pages = embeddings([3, 1, 7], 1), embeddings([5, 12, 1, 2], 2)
    scores = score_all(queries, pages)
    expected = torch.tensor([[(q @ p.T).amax(1).sum() for p in pages] for q in queries])
    assert scores.shape == (3, 4)
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)


def test_a_score_does_not_depend_on_what_is_scored_beside_it():
    queries, pages = embeddings([3, 1, 7], 1), embeddings([5, 12, 1, 2], 2)
    alone = score_all(queries[:1], pages[1:2])
    assert alone.item() == pytest.approx(score_all(queries, pages)[0, 1].item(), rel=1e-6)


def test_a_page_whose_tokens_all_point_away_scores_below_zero():
    query = torch.tensor([[1.0, 0.0]])
    assert score_all([query], [torch.tensor([[-0.6, 0.8], [-1.0, 0.0]])]).item() == pytest.approx(
        -0.6
    )


def test_scores_keep_float64():
    queries = [query.double() for query in embeddings([3], 1)]
    pages = [page.double() for page in embeddings([5], 2)]
    assert score_all(queries, pages).dtype == torch.float64


def test_half_precision_embeddings_are_scored_in_float32():
    queries = [query.bfloat16() for query in embeddings([3], 1)]
    pages = [page.bfloat16() for page in embeddings([5], 2)]
    scores = score_all(queries, pages)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(
        scores, score_all([q.float() for q in queries], [p.float() for p in pages])
    )
