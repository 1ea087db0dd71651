"""Score matrices against colpali-engine's own function, as both evaluators call it."""

import pytest
import torch

from coltrain.evaluation.protocols.protocol import protocol_named
from coltrain.evaluation.protocols.scores import scores_of_protocol

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def embeddings():
    generator = torch.Generator().manual_seed(7)
    lengths = torch.randint(1, 40, (150 + 140,), generator=generator).tolist()
    rows = [torch.randn(length, 16, generator=generator) for length in lengths]
    rows = [torch.nn.functional.normalize(row, dim=-1) for row in rows]
    return rows[:150], rows[150:]


@pytest.fixture(scope="module")
def score_multi_vector():
    from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor

    return BaseVisualRetrieverProcessor.score_multi_vector


def test_vidore_benchmark_s_scores_are_the_engine_s_on_lists_in_bfloat16(
    embeddings, score_multi_vector
):
    queries, pages = ([row.bfloat16() for row in rows] for rows in embeddings)
    theirs = score_multi_vector(queries, pages, batch_size=128, device="cpu")
    ours = scores_of_protocol(protocol_named("vidore-benchmark-5.0"), *embeddings)
    theirs[:, 1:].clamp_(min=0)  # its evaluators do so while they collect the scores
    assert torch.equal(ours, theirs)
    in_float32 = scores_of_protocol(protocol_named("coltrain"), *embeddings)
    assert (ours - in_float32).abs().max() > 0.05  # it bites


def test_mteb_s_scores_are_the_engine_s_on_pages_padded_to_the_corpus(
    embeddings, score_multi_vector
):
    queries, pages = (
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) for rows in embeddings
    )
    theirs = score_multi_vector(queries, pages, device="cpu")
    ours = scores_of_protocol(protocol_named("mteb-2.19.2"), *embeddings)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)  # another padding of the queries
    assert torch.equal(ours.argsort(dim=1), theirs.argsort(dim=1))
