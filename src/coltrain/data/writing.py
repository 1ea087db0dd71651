"""A collection on disk: the corpus layout, with hard negatives where there are any."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coltrain.data.collection import Collection
from coltrain.data.images import encoded
from coltrain.errors import DataError

_PAGES_AT_ONCE = 64


@dataclass(frozen=True)
class MinedNegative:
    """A hard negative of a query.

    Attributes:
        page_id: Of the collection's.
        score: That the mining model gave it.
    """

    page_id: str
    score: float


def write_collection(
    folder: Path,
    collection: Collection,
    negatives: Mapping[str, Sequence[MinedNegative]] | None = None,
    *,
    on_item: Callable[[], None] | None = None,
) -> None:
    """Write corpus.parquet, queries.parquet and qrels.parquet, and negatives.parquet.

    Read again, they are the collection: same ids, texts, judgements and order of rows. Image
    files are copied as they are stored, not decoded; drawn pages become PNG. Each table is
    written aside and renamed.

    Args:
        folder: Made where it is not there; tables of these names are replaced.
        collection: Pages, queries and judgements.
        negatives: Query id to its hard negatives, the hardest first; None writes no table of them.
        on_item: Called after each page.

    Raises:
        DataError: [not-an-image] or [zero-sized] A page has no image file; [unknown-id] negatives
            name a query or page that does not exist.
    """
    import pyarrow
    from datasets import Features, Image, Value

    _refuse_unknown(collection, negatives or {})
    folder.mkdir(parents=True, exist_ok=True)
    source_of_page = {row.page: row.source for row in reversed(collection.rows)}

    def corpus() -> Iterator[dict[str, Any]]:
        for index, page_id in enumerate(collection.page_ids):
            content = encoded(collection.images, index)
            source = source_of_page.get(index)
            yield {"doc_id": page_id, "image": {"bytes": content, "path": None}, "source": source}
            if on_item:
                on_item()

    text, number = Value("string"), Value("int64")
    # As features, so that `datasets` shows the pages of a folder that somebody uploads.
    page = Features({"doc_id": text, "image": Image(), "source": text}).arrow_schema
    _write(folder / "corpus.parquet", page, corpus())
    query = pyarrow.schema({"query_id": "string", "text": "string"})
    queries = ({"query_id": q.id, "text": q.text} for q in collection.queries)
    _write(folder / "queries.parquet", query, queries)
    judgement = Features({"query_id": text, "doc_id": text, "score": number}).arrow_schema
    _write(folder / "qrels.parquet", judgement, _judgements(collection))
    if negatives is not None:
        features = {"query_id": text, "page_id": text, "rank": number, "score": Value("float64")}
        mined = (
            {"query_id": query_id, "page_id": of.page_id, "rank": rank, "score": of.score}
            for query_id, ranked in negatives.items()
            for rank, of in enumerate(ranked, start=1)
        )
        _write(folder / "negatives.parquet", Features(features).arrow_schema, mined)


def _judgements(collection: Collection) -> Iterator[dict[str, Any]]:
    """Those of the rows, in their order, then those without a row."""
    written = set()
    pairs = [(collection.queries[r.query].id, collection.page_ids[r.page]) for r in collection.rows]
    pairs += [(query, page) for query, judged in collection.qrels.items() for page in judged]
    for query_id, page_id in pairs:
        if (query_id, page_id) not in written:
            written.add((query_id, page_id))
            score = collection.qrels.get(query_id, {}).get(page_id, 1)
            yield {"query_id": query_id, "doc_id": page_id, "score": score}


def _write(path: Path, schema: Any, items: Iterable[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    aside = path.with_name(path.name + ".partial")
    try:
        with parquet.ParquetWriter(aside, schema) as writer:
            waiting: list[dict[str, Any]] = []
            for item in items:
                waiting.append(item)
                if len(waiting) == _PAGES_AT_ONCE and "image" in schema.names:
                    writer.write_table(pyarrow.Table.from_pylist(waiting, schema=schema))
                    waiting = []
            if waiting:
                writer.write_table(pyarrow.Table.from_pylist(waiting, schema=schema))
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _refuse_unknown(
    collection: Collection, negatives: Mapping[str, Sequence[MinedNegative]]
) -> None:
    known_pages = set(collection.page_ids)
    known_queries = {query.id for query in collection.queries}
    unknown = [query_id for query_id in negatives if query_id not in known_queries]
    unknown += [
        n.page_id for some in negatives.values() for n in some if n.page_id not in known_pages
    ]
    if unknown:
        raise DataError(
            "unknown-id",
            "hard negatives name what the collection does not have.",
            where=collection.name,
            received=", ".join(repr(some_id) for some_id in unknown[:3]),
            expected="ids of its queries and pages",
        )
