import weakref

import pytest
import torch
from torch.nn.functional import normalize

from coltrain.evaluation import rank
from coltrain.evaluation.rank import score_all
from coltrain.evaluation.scoring import Scoring


def embeddings(lengths, seed, dim=16):
    generator = torch.Generator().manual_seed(seed)
    return [normalize(torch.randn(n, dim, generator=generator), dim=-1) for n in lengths]


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


def many(num_queries=300, num_pages=6):
    draw = torch.Generator().manual_seed(3)
    query_lengths = torch.randint(1, 40, (num_queries,), generator=draw).tolist()
    page_lengths = torch.randint(1, 900, (num_pages,), generator=draw).tolist()
    assert sum(query_lengths) > 3 * rank.CPU_BLOCK
    return embeddings(query_lengths, 4, 128), embeddings(page_lengths, 5, 128)


@pytest.mark.parametrize("dtype", ["float32", "embeddings"])
@pytest.mark.parametrize("columns_are_alike", [True, False])
def test_a_score_depends_on_its_query_and_page_alone_to_the_last_bit(
    monkeypatch, dtype, columns_are_alike
):
    if not columns_are_alike:
        monkeypatch.setattr(rank, "columns_are_alike", lambda *shape: False)
    queries, pages = many()
    if dtype == "embeddings":
        queries, pages = [q.bfloat16() for q in queries], [p.bfloat16() for p in pages]
    scoring = Scoring(dtype=dtype)
    whole = score_all(queries, pages, scoring)
    for place in (0, 17, 151, 299):
        assert torch.equal(score_all(queries[place : place + 1], pages, scoring)[0], whole[place])
        few = score_all(queries[place - 2 : place + 1] if place else queries[:3], pages, scoring)
        assert torch.equal(few[-1 if place else 0], whole[place])
    assert torch.equal(score_all(queries, pages[3:4], scoring)[:, 0], whole[:, 3])
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    shuffled = score_all([queries[i] for i in order], pages[::-1], scoring)
    assert torch.equal(shuffled, whole[order].flip(1))
    expected = torch.tensor(
        [[(q.float() @ p.float().T).amax(1).sum() for p in pages] for q in queries]
    )
    torch.testing.assert_close(
        whole, expected, rtol=1e-5 if dtype == "float32" else 2e-2, atol=1e-5
    )


def test_columns_of_a_block_are_alike_here():
    assert all(
        rank.columns_are_alike(n, 128, (32, 96, 480, rank.CPU_BLOCK), dtype, torch.device("cpu"))
        for n in (1, 7, 80, 701, 768)
        for dtype in (torch.float32, torch.bfloat16)
    )


def test_columns_that_are_not_alike_are_seen(monkeypatch):
    class Uneven(rank._Block):
        def products(self, rows):
            found = super().products(rows).clone()
            found[:, -1] *= 1 + 2**-22  # as if the last column were added up in another order
            return found

    monkeypatch.setattr(rank, "_Block", Uneven)
    assert not rank.columns_are_alike.__wrapped__(
        80, 128, (rank.CPU_BLOCK,), torch.float32, torch.device("cpu")
    )


def test_pages_are_asked_for_one_after_the_other_and_let_go():
    alive = weakref.WeakSet()
    most = []

    def pages():
        for seed in range(20):
            page = embeddings([50], seed)[0]
            alive.add(page)
            most.append(len(alive))
            yield page
            del page

    scores = score_all(embeddings([3, 4], 1), pages())
    assert scores.shape == (2, 20)
    assert max(most) <= 2  # the one that is scored and the one that is made


def padded_together(queries, pages, block):
    """A zero vector among the tokens of each page that is shorter than its block's longest."""
    columns = []
    for start in range(0, len(pages), block):
        group = pages[start : start + block]
        longest = max(map(len, group))
        for page in group:
            with_zero = torch.cat([page, page.new_zeros(longest - len(page), page.shape[1])])
            columns.append(torch.stack([(q @ with_zero.T).amax(1).sum() for q in queries]))
    return torch.stack(columns, 1)


@pytest.mark.parametrize("block", [2, 3, None])
def test_zero_padding_floors_all_but_the_longest_page_of_a_block(block):
    queries, pages = embeddings([3, 6, 9], 1), embeddings([1, 2, 1, 4, 2], 2)
    scores = score_all(queries, pages, Scoring(padding="zero", page_block=block))
    torch.testing.assert_close(scores, padded_together(queries, pages, block or 5))
    assert not torch.allclose(scores, score_all(queries, pages))  # else it would not bite
    others = [score_all(queries, pages, Scoring(padding="zero", page_block=b)) for b in (2, 3)]
    assert not torch.allclose(*others)


def test_the_type_of_the_embeddings_has_its_steps():
    queries = [query.bfloat16() for query in embeddings([30, 30], 1)]
    pages = [page.bfloat16() for page in embeddings([50, 60, 70], 2)]
    scores = score_all(queries, pages, Scoring(dtype="embeddings"))
    expected = torch.stack(
        [torch.stack([(q @ p.T).amax(1).sum() for p in pages]) for q in queries]
    ).float()
    assert scores.dtype == torch.float32
    assert torch.equal(scores, scores.bfloat16().float())
    torch.testing.assert_close(scores, expected, rtol=2**-7, atol=0)  # one step of bfloat16
    assert not torch.equal(scores, score_all(queries, pages))


def test_nothing_to_rank_gives_no_scores():
    assert score_all([], embeddings([3], 1)).shape == (0, 1)
    assert score_all(embeddings([3], 1), []).shape == (1, 0)


def test_a_page_without_tokens_is_refused():
    with pytest.raises(ValueError, match="a page has no tokens"):
        score_all(embeddings([3], 1), [torch.empty(0, 16)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype = 'bfloat16'"),
        ({"padding": "none"}, "padding = 'none'"),
        ({"page_block": 0}, "page_block = 0"),
    ],
)
def test_a_scoring_that_there_is_not_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Scoring(**values)
