"""What a model has to be measured beside: chance, and word matching on the true text."""

import math
from collections.abc import Sequence

import bm25s
import numpy as np


def chance_ndcg_at_5(num_pages: int) -> float:
    """Expected nDCG@5 of a random ranking with one relevant page among `num_pages`."""
    return sum(1 / math.log2(rank + 1) for rank in range(1, 6)) / num_pages


def bm25_scores(queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """BM25 scores of texts for queries, queries x texts, words split at white space.

    Source:
        bm25s (Lù, 2024, arXiv:2407.03618), its default method (Lucene's) and parameters.
    """
    retriever = bm25s.BM25()
    retriever.index([text.split() for text in texts], show_progress=False)
    return np.stack([retriever.get_scores(query.split()) for query in queries])
