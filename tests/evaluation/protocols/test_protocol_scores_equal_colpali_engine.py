"""Score matrices against colpali-engine's own function, as both evaluators call it."""

import pytest
import torch

from coltrain.evaluation.protocols.protocol import DEFAULT, protocol_named
from coltrain.evaluation.rank import score_all

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def embeddings():
    generator = torch.Generator().manual_seed(7)
    # Short pages in 16 dimensions: many query tokens match nothing, so that the zero vectors bite.
    lengths = torch.randint(1, 40, (150 + 128,), generator=generator).tolist()
    lengths += [1, 2, 3] * 4  # the longest pages of the last block are short ones of the corpus
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
    ours = score_all(queries, pages, protocol_named("vidore-benchmark-5.0").scoring)
    assert torch.equal(ours, theirs)
    whole = score_all(queries, pages, protocol_named("mteb-2.19.2").scoring)
    default = score_all(*embeddings, DEFAULT.scoring)
    assert (ours - whole).abs().max() > 0.05  # both the type and the blocks bite
    assert (whole - default).abs().max() > 0.5


def test_mteb_s_scores_are_the_engine_s_on_pages_padded_to_the_corpus(
    embeddings, score_multi_vector
):
    queries, pages = (
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) for rows in embeddings
    )
    theirs = score_multi_vector(queries, pages, device="cpu")
    ours = score_all(*embeddings, protocol_named("mteb-2.19.2").scoring)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=4e-6)  # two steps of float32 at 20
    by_ours = theirs.gather(1, ours.argsort(dim=1))
    assert by_ours.diff(dim=1).min() > -8e-6  # the same ranking but where steps of float32 decide
    in_blocks = score_multi_vector(*embeddings, device="cpu")
    assert (theirs - in_blocks).abs().max() > 0.05  # the whole corpus is not blocks of 128
