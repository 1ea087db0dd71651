"""Scores as an evaluator computes them from a model's embeddings."""

from collections.abc import Sequence

import torch
from torch import Tensor

from coltrain.evaluation.protocols.protocol import Protocol
from coltrain.evaluation.rank import score_all
from coltrain.late_interaction import maxsim_zero_padded

BLOCK = 128
"""Queries, and pages, that colpali-engine's `score_multi_vector` pads and scores together."""


def scores_of_protocol(
    protocol: Protocol,
    queries: Sequence[Tensor],
    pages: Sequence[Tensor],
    *,
    longest_page: int | None = None,
    has_first_page: bool = True,
) -> Tensor:
    """Scores of every query with every page, by a protocol's precision and padding.

    Pages may be given in several calls, so that a corpus need not be in memory: whole blocks of 128
    in the order of the corpus, with the tokens of its longest page, give what one call gives.

    Args:
        protocol: What to follow.
        queries: One tensor of tokens x dim each, unpadded.
        pages: The same.
        longest_page: Tokens of the corpus's longest page, where these are not all pages.
        has_first_page: Whether the first of these pages is the first of the corpus.

    Returns:
        Queries x pages, in float32.

    Source:
        mteb 2.20.0, `ColPaliEngineWrapper.get_image_embeddings` (every page padded with zeros to
        the longest of the corpus, in float32) and `similarity`; vidore-benchmark v5.0.0,
        `ColQwen2Retriever.get_scores` (lists, so that each block of 128 is padded by itself, in
        the model's bfloat16), and `max(….get(id, 0), score)` in both of its evaluators, which no
        page but the first escapes. Both call colpali-engine's `score_multi_vector`.
    """
    if protocol.padding == "masked":
        return score_all(queries, pages)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[protocol.score_dtype]
    padded_to = None
    if protocol.padding == "corpus":
        padded_to = longest_page or max(len(page) for page in pages)
    with torch.inference_mode():
        scores = maxsim_zero_padded(
            [query.to(dtype) for query in queries],
            [page.to(dtype) for page in pages],
            block_size=BLOCK,
            padded_to=padded_to,
        )
        if protocol.floor:
            scores[:, 1 if has_first_page else 0 :].clamp_(min=0)
    return scores
