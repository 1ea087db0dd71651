"""What a data set holds, part by part, so that a change can be said in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from coltrain.data.collection import Collection
from coltrain.data.images import PageImages, content
from coltrain.errors import DataError

Contents = Mapping[str, Mapping[str, Any]]


def contents(collection: Collection) -> dict[str, dict[str, Any]]:
    """Number and hash of the page ids, the queries, the rows and the judgements, in their order.

    Images are not read for it, as with `Collection.fingerprint`.
    """
    pages, queries = collection.page_ids, collection.queries
    parts: dict[str, Iterable[Any]] = {
        "page ids": pages,
        "queries": ([query.id, query.text] for query in queries),
        "rows": (
            [queries[row.query].id, pages[row.page], row.source, [pages[p] for p in row.negatives]]
            for row in collection.rows
        ),
        "judgements": (
            [query_id, page, score]
            for query_id, judged in sorted(collection.qrels.items())
            for page, score in sorted(judged.items())
        ),
    }
    return {name: _counted(items) for name, items in parts.items()}


def changes(before: Contents, now: Contents) -> list[str]:
    """What differs, in words: `rows: 39, and 40 before`; `queries: 12 as before, others`."""
    found = []
    for name, part in now.items():
        earlier = before.get(name, {"number": None, "hash": None})
        if part["number"] != earlier["number"]:
            found.append(f"{name}: {part['number']}, and {earlier['number']} before")
        elif part["hash"] != earlier["hash"]:
            found.append(f"{name}: {part['number']} as before, but other ones")
    return found


def page_digest(images: PageImages, index: int) -> str:
    """Of a page's stored file, or of what it is drawn from: SHA-256, first 16 digits."""
    return hashlib.sha256(content(images, index)).hexdigest()[:16]


PAGES_COMPARED = 1000
"""Page files of a data set that are compared where a run goes on, or ranks begin one: all of a small
set, evenly spread ones of a large one, whose files would take minutes to read."""


def pages_hash(collection: Collection, most: int = PAGES_COMPARED) -> str:
    """Of the stored files of at most so many pages, evenly spread from the first to the last.

    A page without a usable file counts by what is wrong with it.
    """
    number = min(most, len(collection.page_ids))
    last = len(collection.page_ids) - 1
    digest = hashlib.sha256()
    for place in range(number):
        index = place * last // max(1, number - 1)
        try:
            found = page_digest(collection.images, index)
        except DataError as error:
            found = error.code
        digest.update(found.encode() + b"\n")
    return digest.hexdigest()[:16]


def _counted(items: Iterable[Any]) -> dict[str, Any]:
    digest, number = hashlib.sha256(), 0
    for item in items:
        digest.update(json.dumps(item).encode() + b"\n")
        number += 1
    return {"number": number, "hash": digest.hexdigest()[:16]}
