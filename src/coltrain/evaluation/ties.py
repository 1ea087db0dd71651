"""Where equal scores decided: pages that no score tells apart."""

from typing import Any

import numpy as np
from torch import Tensor

from coltrain.data.collection import Collection


def ties(collection: Collection, scores: Tensor, num_shown: int = 10) -> dict[str, Any]:
    """Queries whose best relevant page ties with another page, in float32.

    There the order is that of the page ids, which no model chose.

    Args:
        collection: Pages, queries and judgements.
        scores: queries x pages.
        num_shown: Queries that are listed.

    Returns:
        `num_queries` with such a tie, `num_judged` in all, and `examples`: `id`, `text`, `score`
        and `page_ids` that have it, the larger id first, as they are ranked.
    """
    rows = scores.cpu().numpy().astype(np.float32)
    place_of = {page: place for place, page in enumerate(collection.page_ids)}
    examples, num_tied, num_judged = [], 0, 0
    for query, row in zip(collection.queries, rows, strict=True):
        judged = collection.qrels.get(query.id)
        if not judged:
            continue
        num_judged += 1
        relevant = [place_of[p] for p, score in judged.items() if score > 0 and p in place_of]
        if not relevant:
            continue
        best = row[relevant].max()
        tied = np.flatnonzero(row == best)
        # Several relevant pages that tie among themselves change nothing.
        if len(set(tied.tolist()) - set(relevant)):
            num_tied += 1
            if len(examples) < num_shown:
                pages = sorted((collection.page_ids[place] for place in tied), reverse=True)
                examples.append(
                    {"id": query.id, "text": query.text, "score": float(best), "page_ids": pages}
                )
    return {"num_queries": num_tied, "num_judged": num_judged, "examples": examples}
