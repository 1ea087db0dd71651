"""What an evaluation looked like: each query's two telling scores, and some queries with pages.

A mean says how good a model is; these say how. The scores show how far relevant pages stand above
the best of the others, and the pictures show which page was mistaken for which.
"""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from coltrain.data.collection import Collection
from coltrain.evaluation.evaluate import Evaluation
from coltrain.evaluation.results import tie_order

NUM_SHOWN = 12
THUMBNAIL_SIZE = (300, 400)  # pixels at most: wide, high
THUMBNAIL_BYTES = 11_000  # of a JPEG at most, which is 15 kB as text
_KEPT_OF_ALL = ("id", "rank", "winner", "relevant_score", "other_score", "num_tokens")


def illustrate(
    evaluation: Evaluation, collection: Collection, num_shown: int = NUM_SHOWN
) -> dict[str, Any]:
    """Describe an evaluation for a person.

    Only queries with a relevant page are described. Ranks follow the measures: scores in float32,
    ties to the larger page id.

    Args:
        evaluation: Of all queries and pages of the collection.
        collection: The data set; only the pages that are shown are decoded.
        num_shown: Queries in the gallery at most. Misses come first, from the worst rank to the
            nearest, and hits fill at least a third where there are as many.

    Returns:
        A document that JSON can hold:

        - `dataset`, `num_pages`;
        - `queries`: `id`, `rank` of the best relevant page (from 1), `winner` (id of the page that
          came first), `relevant_score` and `other_score` of the best relevant page and of the best
          page that is not relevant (None where all are relevant), and `num_tokens`, by which the
          two can be divided to compare long queries with short ones;
        - `gallery`: `id`, `text`, `rank`, `relevant` and `winner` (page ids, the same for a hit),
          `relevant_score`, `winner_score`, `num_tokens`;
        - `pages`: page id to `width`, `height` and `jpeg` (base64) of a thumbnail.
    """
    described = _described(evaluation, collection)
    shown = _chosen(described, num_shown)
    place_of = {page_id: place for place, page_id in enumerate(collection.page_ids)}
    texts = {query.id: query.text for query in collection.queries}
    pages = dict.fromkeys(page for one in shown for page in (one["relevant"], one["winner"]))
    return {
        "dataset": collection.name,
        "num_pages": len(collection.page_ids),
        "queries": [{key: one[key] for key in _KEPT_OF_ALL} for one in described],
        "gallery": [
            {"id": one["id"], "text": texts[one["id"]]}
            | {key: value for key, value in one.items() if key not in ("id", "other_score")}
            for one in shown
        ],
        "pages": {page: thumbnail(collection.page_image(place_of[page])) for page in pages},
    }


def thumbnail(image: Image.Image) -> dict[str, Any]:
    """A page as a small JPEG.

    Args:
        image: In RGB; left as it is.

    Returns:
        `width` and `height` in pixels, and `jpeg`, at most `THUMBNAIL_BYTES` in base64.
    """
    small = image.copy()
    small.thumbnail(THUMBNAIL_SIZE)
    while True:
        for quality in (75, 60, 45, 30):
            file = io.BytesIO()
            small.save(file, "JPEG", quality=quality, optimize=True)
            if file.tell() <= THUMBNAIL_BYTES or small.size == (1, 1):
                content = base64.b64encode(file.getvalue()).decode("ascii")
                return {"width": small.width, "height": small.height, "jpeg": content}
        small.thumbnail((max(1, small.width * 3 // 4), max(1, small.height * 3 // 4)))


def _described(evaluation: Evaluation, collection: Collection) -> list[dict[str, Any]]:
    """Each query that has a relevant page: its rank, and the scores that decide it."""
    scores = evaluation.scores.cpu().numpy().astype(np.float32)
    ids = collection.page_ids
    place_of = {page_id: place for place, page_id in enumerate(ids)}
    by_id = tie_order(ids)
    described = []
    for place, query in enumerate(collection.queries):
        judged = collection.qrels.get(query.id, {})
        relevant = [
            place_of[page] for page, score in judged.items() if score > 0 and page in place_of
        ]
        if not relevant:
            continue
        row = scores[place]
        order = np.lexsort((-by_id, -row))
        is_relevant = np.zeros(len(ids), dtype=bool)
        is_relevant[relevant] = True
        rank = int(np.flatnonzero(is_relevant[order])[0]) + 1
        best = order[rank - 1]
        described.append(
            {
                "id": query.id,
                "rank": rank,
                "relevant": ids[best],
                "relevant_score": float(row[best]),
                "winner": ids[order[0]],
                "winner_score": float(row[order[0]]),
                "other_score": None if is_relevant.all() else float(row[~is_relevant].max()),
                "num_tokens": len(evaluation.queries[place]),
            }
        )
    return described


def _chosen(described: list[dict[str, Any]], num_shown: int) -> list[dict[str, Any]]:
    misses = sorted((one for one in described if one["rank"] > 1), key=lambda one: -one["rank"])
    hits = [one for one in described if one["rank"] == 1]
    num_misses = min(len(misses), max(num_shown - len(hits), 2 * num_shown // 3))
    return _spread(misses, num_misses) + _spread(hits, num_shown - num_misses)


def _spread(items: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Some of the items at even distances, the first and the last among them."""
    if count >= len(items):
        return items
    places = np.linspace(0, len(items) - 1, max(count, 0)).round().astype(int)
    return [items[place] for place in places]
