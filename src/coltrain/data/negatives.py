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
            each query's own page, is False. Shared hard negatives stand behind the batch's pages.
        candidates_per_query: For each query, its own page and the negatives left to it.
        masked_duplicates: Pairs left out because the page answers the query, or because it is
            already a candidate of the query, within groups.
    """

    ignore: NDArray[np.bool_]
    candidates_per_query: list[int]
    masked_duplicates: int


def negative_mask(
    collection: Collection,
    rows: Sequence[int] | NDArray[np.int64],
    group_size: int | None = None,
    shared_negatives: Sequence[Sequence[int]] | None = None,
) -> NegativeMask:
    """Tell true negatives from answers that happen to be in the same batch.

    A query's negatives are the other rows' pages, except its own page once more, and every page
    that any judgement or training pair of the collection calls relevant to a query of the same
    text (compared without case and white space). So two queries of one page, and one query asked
    twice, never push each other apart.

    Hard negatives that serve all queries follow the same rule, and a further one: a page counts
    once for a query. Miners like some pages, which come with several rows of a batch; a hard
    negative is masked where its page is a candidate of the query already, as another row's page
    or as an earlier hard negative.

    Args:
        collection: The training set.
        rows: Indices into `collection.rows`: the global batch, in order.
        group_size: Queries that share pages; None for the whole batch. Consecutive rows form
            groups, as a run without shared negatives has them on its ranks or in its
            accumulation steps.
        shared_negatives: For each row its chosen hard negatives, as pages, where they serve all
            queries of its group; their columns follow the batch's pages, row after row.
    """
    batch = [collection.rows[int(row)] for row in rows]
    shared = shared_negatives or [()] * len(batch)
    if len(shared) != len(batch):
        raise ValueError(f"Hard negatives of {len(shared)} rows for a batch of {len(batch)}.")
    texts = [collection.text_of_query[row.query] for row in batch]
    own_pages = np.array([row.page for row in batch], dtype=np.int64)
    pages = np.array([row.page for row in batch] + [p for some in shared for p in some], np.int64)
    owners = np.repeat(np.arange(len(batch)), [len(some) for some in shared])
    group = np.arange(len(batch)) // (group_size or max(1, len(batch)))
    outside = group[:, None] != np.concatenate([group, group[owners]])[None, :]
    answers = own_pages[:, None] == pages[None, :]
    for text in set(texts):
        relevant = collection.relevant_pages[text]
        asked = [place for place, other in enumerate(texts) if other == text]
        answers[asked] |= np.fromiter((page in relevant for page in pages.tolist()), bool)
    np.fill_diagonal(answers, False)
    for column in range(len(batch), len(pages)):
        same = np.flatnonzero(pages[:column] == pages[column])
        is_candidate = ~(outside[:, same] | answers[:, same])
        answers[:, column] |= is_candidate.any(axis=1)
    ignore = outside | answers
    return NegativeMask(
        ignore=ignore,
        candidates_per_query=(~ignore).sum(axis=1).tolist(),
        masked_duplicates=int((answers & ~outside).sum()),
    )
