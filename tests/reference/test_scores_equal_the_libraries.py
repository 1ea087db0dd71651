"""Zero-padded scores equal those of colpali-engine 0.3.18, transformers and mteb to the last bit."""

import pytest
import torch
from reference_loops.ragged import ragged

from coltrain.late_interaction import maxsim, maxsim_zero_padded

pytestmark = pytest.mark.reference

QUERY_LENGTHS = [12, 5, 31, 18, 12, 7, 3]
PAGE_LENGTHS = [20, 71, 40, 90, 5, 33, 64, 8, 77]


def embeddings(lengths, seed, away, dtype):
    """Unit vectors that lean away from those of the opposite sign, so that zero can win."""
    padded, mask = ragged(lengths, 128, seed=seed, rubbish=1.0)
    padded = torch.nn.functional.normalize(padded + away, dim=-1).to(dtype)
    return [tokens[real] for tokens, real in zip(padded, mask, strict=True)]


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def batch(request):
    dtype = request.param
    return embeddings(QUERY_LENGTHS, 1, 0.05, dtype), embeddings(PAGE_LENGTHS, 2, -0.05, dtype)


@pytest.fixture(autouse=True)
def _plain_torch(monkeypatch):
    # Never the fused kernel, should it be installed: it is not what is compared.
    monkeypatch.setenv("COLPALI_SCORES_BACKEND", "torch")


@pytest.mark.parametrize("block_size", [128, 4, 1])
def test_blocks_are_scored_as_colpali_engine_scores_them(batch, block_size):
    from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor

    expected = BaseVisualRetrieverProcessor.score_multi_vector(
        *batch, batch_size=block_size, device="cpu"
    )
    assert torch.equal(maxsim_zero_padded(*batch, block_size=block_size), expected)


@pytest.mark.parametrize("block_size", [128, 4])
def test_blocks_are_scored_as_transformers_scores_them(batch, block_size):
    from transformers import ColQwen2Processor

    expected = ColQwen2Processor.score_retrieval(
        None, *batch, batch_size=block_size, output_dtype=torch.float32
    )
    assert torch.equal(maxsim_zero_padded(*batch, block_size=block_size), expected)


# mteb imports from a place that sentence-transformers has moved.
@pytest.mark.filterwarnings("ignore:Importing from 'sentence_transformers:DeprecationWarning")
def test_the_corpus_is_padded_as_mteb_pads_it(batch):
    from mteb.similarity_functions import max_sim
    from torch.nn.utils.rnn import pad_sequence

    queries, pages = ([tokens.float() for tokens in side] for side in batch)
    padded = [pad_sequence(side, batch_first=True) for side in (queries, pages)]
    found = maxsim_zero_padded(queries, pages, padded_to=max(PAGE_LENGTHS))
    torch.testing.assert_close(found, max_sim(*padded), rtol=0, atol=1e-5)


def test_the_case_bites(batch):
    queries, pages = batch
    columns = [
        torch.stack([maxsim(query[None], page[None])[0, 0] for query in queries]) for page in pages
    ]
    masked = torch.stack(columns, dim=1)
    moved = (maxsim_zero_padded(*batch) - masked).abs().amax(0)
    # All pages but the longest; that one in bfloat16 by its rounding only.
    assert moved[[number for number in range(9) if number != 3]].min() > 0.01
    assert moved[3] < (1e-5 if queries[0].dtype == torch.float32 else 0.07)
    assert not torch.equal(maxsim_zero_padded(*batch), maxsim_zero_padded(*batch, block_size=4))
