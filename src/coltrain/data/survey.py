"""What a data set holds: counts, duplicates, sizes, and hashes to know it by."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from coltrain.data.collection import Collection, comparable
from coltrain.data.findings import EMPTY_QUERY
from coltrain.data.known import KNOWN, counts_of
from coltrain.data.likeness import Alike, Looks, alike_pages, groups

_SHARES = (0, 5, 25, 50, 75, 95, 100)  # percentiles


def survey(
    collection: Collection,
    looks: Looks,
    tokens_of: Callable[[int, int], int],
    on_rows: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Describe a data set as it was loaded.

    Args:
        collection: The data set.
        looks: Its pages, by `look_at`.
        tokens_of: From width and height in pixels to visual tokens.
        on_rows: Called with the number of pages that were compared.

    Returns:
        A document that JSON can hold:

        - the collection's fingerprint, and `hashes` of the ids of pages, the ids of queries, the
          texts and the order of rows, so that two sets that differ say in what;
        - `queries`, `empty_queries`, `rows_per_source` (rows without a query included);
        - `duplicate_pages`: `same_pixels` and `same_picture` (groups of page ids; the latter holds
          the former), `blank` (number of pages that show nothing, which are not compared) and
          `broken` (page id to reason);
        - `duplicate_queries`: `same_text` and `same_words`, groups of query ids; the rows layout
          makes one query of rows with the same text, so `rows_with_earlier_query` says how many;
        - `sizes`: `width`, `height` and `visual_tokens`, each percentile to value, the sum of
          tokens, and the ten most frequent sizes with their tokens;
        - `expected`: what is known of a data set of this name, or None.
    """
    whole = np.array([place not in looks.broken for place in range(len(looks.pixels))], bool)
    sizes = looks.sizes[whole]
    counted = Counter(map(tuple, sizes.tolist()))
    tokens = {size: tokens_of(*size) for size in counted}
    cost = np.array([tokens[size] for size in map(tuple, sizes.tolist())], np.int64)
    pairs = alike_pages(looks, on_rows=on_rows)
    counts = counts_of(collection)
    return {
        **collection.fingerprint(),
        "rows": counts.rows,
        "rows_per_source": dict(counts.per_source),
        "queries": len(collection.queries),
        "empty_queries": collection.left_out.get(EMPTY_QUERY, 0),
        "hashes": _hashes(collection),
        "duplicate_pages": _duplicate_pages(collection, looks, pairs),
        "duplicate_queries": {
            "same_text": _same(collection, [query.text for query in collection.queries]),
            "same_words": _same(
                collection, [comparable(query.text) for query in collection.queries]
            ),
            "rows_with_earlier_query": len(collection.rows)
            - len({row.query for row in collection.rows}),
        },
        "sizes": {
            "width": _percentiles(sizes[:, 0]),
            "height": _percentiles(sizes[:, 1]),
            "visual_tokens": _percentiles(cost),
            "sum_of_visual_tokens": int(cost.sum()),
            "most_frequent": [
                {
                    "width": size[0],
                    "height": size[1],
                    "pages": number,
                    "visual_tokens": tokens[size],
                }
                for size, number in sorted(counted.items(), key=lambda item: (-item[1], item[0]))[
                    :10
                ]
            ],
        },
        "expected": _expected(collection),
    }


def _duplicate_pages(collection: Collection, looks: Looks, pairs: list[Alike]) -> dict[str, Any]:
    ids = collection.page_ids
    exact = [pair for pair in pairs if pair.is_exact]
    return {
        "same_pixels": [[ids[page] for page in group] for group in groups(exact)],
        "same_picture": [[ids[page] for page in group] for group in groups(pairs)],
        "blank": int(looks.blank.sum()) - len(looks.broken),
        "broken": {ids[page]: reason for page, reason in looks.broken.items()},
    }


def _same(collection: Collection, texts: Sequence[str]) -> list[list[str]]:
    """Groups of queries with the same text, in order."""
    together: dict[str, list[str]] = {}
    for query, text in zip(collection.queries, texts, strict=True):
        together.setdefault(text, []).append(query.id)
    return [ids for ids in together.values() if len(ids) > 1]


def _percentiles(values: np.ndarray) -> dict[str, int]:
    if not len(values):
        return {}
    found = np.percentile(values, _SHARES, method="lower")
    return {str(share): int(value) for share, value in zip(_SHARES, found, strict=True)}


def _hashes(collection: Collection) -> dict[str, str]:
    queries, pages = collection.queries, collection.page_ids
    return {
        "page_ids": _hash(sorted(pages)),
        "page_ids_in_order": _hash(pages),
        "query_ids": _hash(sorted(query.id for query in queries)),
        "query_texts": _hash(sorted(query.text for query in queries)),
        "rows_in_order": _hash(
            [f"{queries[row.query].id}\0{pages[row.page]}\0{row.source}" for row in collection.rows]
        ),
    }


def _hash(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _expected(collection: Collection) -> dict[str, Any] | None:
    name, _, split = collection.name.rpartition(":")
    known = KNOWN.get((name, split))
    if known is None:
        return None
    return {"rows": known.rows, "per_source": dict(known.per_source), "source": known.source}
