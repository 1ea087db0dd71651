"""Scores with zero padding in blocks are those of colpali-engine's scorer, in both types."""

import pytest
import torch
from torch.nn.functional import normalize

from coltrain.evaluation.rank import score_all
from coltrain.evaluation.scoring import Scoring

processing = pytest.importorskip("colpali_engine.utils.processing_utils")
pytestmark = pytest.mark.reference


def embeddings(lengths, seed, dim):
    generator = torch.Generator().manual_seed(seed)
    return [normalize(torch.randn(n, dim, generator=generator), dim=-1) for n in lengths]


@pytest.mark.parametrize("block", [3, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_padding_in_blocks_equals_score_multi_vector(block, dtype):
    # Pages of few tokens in few dimensions, so that many a best match is negative.
    queries = [q.to(dtype) for q in embeddings([4, 9, 2], 1, 4)]
    pages = [p.to(dtype) for p in embeddings([1, 3, 2, 1, 5, 2, 1], 2, 4)]
    theirs = processing.BaseVisualRetrieverProcessor.score_multi_vector(
        queries, pages, batch_size=block, device="cpu"
    )
    kind = "float32" if dtype == torch.float32 else "embeddings"
    ours = score_all(queries, pages, Scoring(dtype=kind, padding="zero", page_block=block))
    if dtype == torch.float32:
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    else:
        torch.testing.assert_close(ours, theirs, rtol=2**-7, atol=2**-8)  # a step of bfloat16
    masked = score_all(queries, pages, Scoring(dtype=kind))
    assert (ours - masked).max() > 0.1
