"""Which pages of a global batch may be whose negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coltrain.data.collection import Collection


@dataclass(frozen=True)
class NegativeMask:
    """Who must not be whose negative in a global batch.

    Attributes:
        ignore: queries x pages, True where a page must not count as a negative. The diagonal,
            each query's own page, is False.
        candidates_per_query: For each query, its own page and the negatives left to it.
        masked_duplicates: Pairs left out because the page answers the query, within groups.
    """

    ignore: NDArray[np.bool_]
    candidates_per_query: list[int]
    masked_duplicates: int


def negative_mask(
    collection: Collection, rows: Sequence[int] | NDArray[np.int64], group_size: int | None = None
) -> NegativeMask:
    """Tell true negatives from answers that happen to be in the same batch.

    A query's negatives are the other rows' pages, except its own page once more, and every page
    that any judgement or training pair of the collection calls relevant to a query of the same
    text (compared without case and white space). So two queries of one page, and one query asked
    twice, never push each other apart.

    Args:
        collection: The training set.
        rows: Indices into `collection.rows`: the global batch, in order.
        group_size: Queries that share pages; None for the whole batch. Consecutive rows form
            groups, as a run without shared negatives has them on its ranks or in its
            accumulation steps.
    """
    batch = [collection.rows[int(row)] for row in rows]
    pages = np.array([row.page for row in batch], dtype=np.int64)
    texts = [collection.text_of_query[row.query] for row in batch]
    group = np.arange(len(batch)) // (group_size or max(1, len(batch)))
    outside = group[:, None] != group[None, :]
    answers = pages[:, None] == pages[None, :]
    for text in set(texts):
        relevant = collection.relevant_pages[text]
        asked = [place for place, other in enumerate(texts) if other == text]
        answers[asked] |= np.fromiter((page in relevant for page in pages.tolist()), bool)
    np.fill_diagonal(answers, False)
    ignore = outside | answers
    return NegativeMask(
        ignore=ignore,
        candidates_per_query=(~ignore).sum(axis=1).tolist(),
        masked_duplicates=int((answers & ~outside).sum()),
    )
