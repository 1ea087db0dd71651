"""Hard negatives of a training row: which there are, and which a step uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coltrain.data.collection import Collection
from coltrain.data.counter_hash import order
from coltrain.data.findings import FALSE_NEGATIVE, NO_NEGATIVES, Finding
from coltrain.errors import DataError

_CHOICE = 0x6E65676174697665  # keeps the choice of negatives apart from the order of rows


@dataclass(frozen=True)
class NegativeCounts:
    """How many rows have the hard negatives that were asked for.

    Attributes:
        rows: Rows that can be trained on.
        fewer: Of these, rows that have fewer than asked; theirs are used more than once.
        none: Rows without any, which are left out.
    """

    rows: int
    fewer: int
    none: int


def without_false_negatives(collection: Collection) -> Collection:
    """Drop the hard negatives that answer their query, and those named twice.

    A page is no negative of a query where any judgement or training pair of the collection calls
    it relevant to a query of the same text: the rule of `negative_mask`. They are counted in
    `left_out` as `false-negative`, one for each row and page.
    """
    if not any(row.negatives for row in collection.rows):
        return collection
    num_dropped = 0
    rows = []
    for row in collection.rows:
        relevant = collection.relevant_pages[collection.text_of_query[row.query]]
        named = dict.fromkeys(row.negatives)
        true = tuple(page for page in named if page not in relevant)
        num_dropped += len(named) - len(true)
        rows.append(row if true == row.negatives else replace(row, negatives=true))
    if rows == collection.rows:
        return collection
    left_out = Counter(collection.left_out)
    left_out[FALSE_NEGATIVE] += num_dropped
    return replace(collection, rows=rows, left_out=dict(+left_out))


def require_negatives(
    collection: Collection, per_query: int, among_first: int | None = None
) -> tuple[Collection, NegativeCounts]:
    """Leave out the rows that a hard-negative loss cannot use, and count those with too few.

    Args:
        collection: The training set, or a source of it.
        per_query: `hard_negatives.per_query`.
        among_first: `hard_negatives.among_first`.

    Raises:
        DataError: [no-hard-negatives] No row has any.
    """
    numbers = [len(row.negatives[:among_first]) for row in collection.rows]
    num_none = numbers.count(0)
    counts = NegativeCounts(
        rows=len(numbers) - num_none,
        fewer=sum(0 < number < per_query for number in numbers),
        none=num_none,
    )
    if not counts.rows:
        raise DataError(
            "no-hard-negatives",
            "the loss wants hard negatives, and the training data has none.",
            where=collection.name,
            received=f"{len(numbers)} rows without negatives",
            expected="rows with the ids of hard negatives, such as `coltrain mine` writes",
            suggestion="coltrain mine DATA --with MODEL --out DATA2, or a loss without them",
        )
    if not num_none:
        return collection, counts
    without = [
        Finding(
            NO_NEGATIVES,
            row.place,
            collection.page_ids[row.page],
            collection.queries[row.query].id,
            "the row has no hard negative",
        )
        for row in collection.rows
        if not row.negatives
    ]
    kept = [row for row in collection.rows if row.negatives]
    left_out = {**collection.left_out, NO_NEGATIVES: num_none}
    findings = (*collection.findings, *without)
    return replace(collection, rows=kept, left_out=left_out, findings=findings), counts


def choose_negatives(
    collection: Collection,
    rows: Sequence[int] | NDArray[np.int64],
    *,
    per_query: int,
    seed: int,
    epoch: int,
    among_first: int | None = None,
    fill: bool = True,
) -> list[tuple[int, ...]]:
    """The hard negatives of each row of a batch, as pages, the hardest first.

    A pure function of (seed, epoch, row): a row's choice does not depend on its batch, and the
    next epoch chooses anew. `per_query` different ones are drawn from the row's.

    Args:
        collection: The training set.
        rows: Indices into `collection.rows`.
        per_query: How many for each row.
        seed: `train.seed`.
        epoch: From 0.
        among_first: Draw from the hardest so many only; None for all.
        fill: Use a row's negatives again, in their order, where it has fewer than asked, so that
            each row gets the same number. Without it such a row gets those it has.
    """
    chosen = []
    for number in rows:
        pool = collection.rows[int(number)].negatives[:among_first]
        if len(pool) > per_query:
            drawn = order(len(pool), seed, _CHOICE, epoch, int(number))[:per_query]
            pool = tuple(pool[place] for place in sorted(drawn.tolist()))
        elif fill and pool:
            pool = tuple(pool[place % len(pool)] for place in range(per_query))
        chosen.append(pool)
    return chosen
