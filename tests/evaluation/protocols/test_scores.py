import pytest
import torch

from coltrain.evaluation.protocols.protocol import DEFAULT, protocol_named
from coltrain.evaluation.protocols.scores import scores_of_protocol

MTEB = protocol_named("mteb-2.19.2")
VIDORE = protocol_named("vidore-benchmark-5.0")


def unit(*lengths: int, seed: int, dim: int = 16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(length, dim, generator=generator) for length in lengths]
    return [torch.nn.functional.normalize(row, dim=-1) for row in rows]


@pytest.fixture(scope="module")
def queries():
    return unit(3, 5, 4, seed=0)


@pytest.fixture(scope="module")
def pages():
    # One token against 16 dimensions is often further than a right angle away: the floor bites.
    return unit(*[1, 2, 1, 7, 3] * 27, 9, 1, seed=1)


def by_hand(query, page, floor: bool) -> float:
    best = (query.double() @ page.double().T).amax(1)
    return float((best.clamp(min=0) if floor else best).sum())


def test_mteb_floors_token_matches_at_0_for_all_but_the_longest_page(queries, pages):
    scores = scores_of_protocol(MTEB, queries, pages)
    longest = max(len(page) for page in pages)
    assert [len(page) for page in pages].count(longest) == 1
    expected = [[by_hand(q, p, len(p) < longest) for p in pages] for q in queries]
    assert scores.double() == pytest.approx(torch.tensor(expected, dtype=torch.float64), abs=1e-5)
    masked = scores_of_protocol(DEFAULT, queries, pages)
    assert (scores - masked).abs().max() > 0.1  # it bites
    assert torch.equal(scores[:, -2], masked[:, -2]) or torch.allclose(scores[:, -2], masked[:, -2])


def test_the_default_removes_padding_before_the_maximum(queries, pages):
    scores = scores_of_protocol(DEFAULT, queries, pages)
    expected = [[by_hand(q, p, False) for p in pages] for q in queries]
    assert scores.double() == pytest.approx(torch.tensor(expected, dtype=torch.float64), abs=1e-5)


def test_vidore_benchmark_floors_within_128_pages_and_rounds_to_bfloat16(queries, pages):
    scores = scores_of_protocol(VIDORE, queries, pages)
    assert torch.equal(scores, scores.bfloat16().float())
    # The second block is of 9 pages whose longest is page 135; the first block's longest have 7.
    first = scores_of_protocol(VIDORE, queries, pages[:128])
    assert torch.equal(scores[:, :128], first)
    alone = scores_of_protocol(VIDORE, queries, [pages[0]])[:, 0]
    assert not torch.equal(alone, scores[:, 0])


def test_a_score_below_0_becomes_0_for_all_but_the_first_page_of_the_corpus():
    query, pages = torch.tensor([[1.0, 0.0]]), [torch.tensor([[-1.0, 0.0]])] * 2
    assert scores_of_protocol(VIDORE, [query], pages).tolist() == [[-1.0, 0.0]]
    later = scores_of_protocol(VIDORE, [query], pages, has_first_page=False)
    assert later.tolist() == [[0.0, 0.0]]
    assert scores_of_protocol(MTEB, [query], pages).tolist() == [[-1.0, -1.0]]


@pytest.mark.parametrize("protocol", [MTEB, VIDORE, DEFAULT], ids=lambda p: p.name)
def test_pages_in_whole_blocks_give_what_all_at_once_give(protocol, queries, pages):
    longest = max(len(page) for page in pages)
    parts = [
        scores_of_protocol(
            protocol,
            queries,
            pages[start : start + 128],
            longest_page=longest,
            has_first_page=start == 0,
        )
        for start in (0, 128)
    ]
    assert torch.equal(torch.cat(parts, dim=1), scores_of_protocol(protocol, queries, pages))
