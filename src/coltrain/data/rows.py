"""The rows layout: one row a pair of query and page, as in `vidore/colpali_train_set`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from coltrain.data.collection import Collection, Query, Row
from coltrain.data.findings import EMPTY_QUERY, Finding
from coltrain.data.images import StoredImages, encoded_bytes
from coltrain.data.tables import find_column, refuse_empty, texts, with_encoded_images
from coltrain.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def collection_of_rows(
    table: Dataset,
    *,
    name: str,
    folder: Path,
    default_source: str | None = None,
    layout: str = "rows",
    revision: str | None = None,
) -> Collection:
    """A collection of a table with a query and a page in each row.

    A page is known by its `source` and `image_filename`; where there is no file name, by the
    SHA-256 of its encoded image, which reads every image once. Where two sources use one file
    name, both pages get their source as a prefix. Rows with the same text ask one query, whose id is
    the index of the first of these rows, and every page of theirs is relevant to it. A row
    without a query leaves its page in the corpus. A page without a name whose image is missing is
    known by its row.

    Args:
        table: Columns `query` and `image`; `image_filename` and `source` where there are any.
        name: Of the collection.
        folder: Where image files lie that the table names by relative paths.
        default_source: Source of rows that name none; None for the collection's name.
        layout: For the fingerprint.
        revision: Commit of a hub data set.

    Raises:
        DataError: [empty-split], [missing-column] or [not-an-image].
    """
    query_column = find_column(table, ["query"], "queries", name)
    find_column(table, ["image"], "images", name)
    refuse_empty(table, name)
    table = with_encoded_images(table, name)
    default_source = default_source or name
    sources = [
        str(source) if source is not None else default_source
        for source in _column_or_none(table, "source")
    ]
    page_keys = list(zip(sources, _page_names(table, folder), strict=True))

    page_of_key: dict[tuple[str, str], int] = {}
    places: list[int] = []
    query_of_text: dict[str, int] = {}
    queries: list[Query] = []
    rows: list[Row] = []
    without_query: list[tuple[int, int]] = []
    for place, (key, text) in enumerate(zip(page_keys, texts(table, query_column), strict=True)):
        page = page_of_key.setdefault(key, len(places))
        if page == len(places):
            places.append(place)
        if text is None or not str(text).strip():
            without_query.append((place, page))
            continue
        text = str(text)
        query = query_of_text.setdefault(text, len(queries))
        if query == len(queries):
            queries.append(Query(str(place), text))
        rows.append(Row(query, page, key[0], place=place))

    page_ids = _page_ids(list(page_of_key))
    qrels: dict[str, dict[str, int]] = {}
    for row in rows:
        qrels.setdefault(queries[row.query].id, {})[page_ids[row.page]] = 1
    return Collection(
        name=name,
        layout=layout,
        page_ids=page_ids,
        queries=queries,
        rows=rows,
        qrels=qrels,
        images=StoredImages(table, places, folder),
        left_out={EMPTY_QUERY: len(without_query)} if without_query else {},
        revision=revision,
        findings=tuple(
            Finding(
                EMPTY_QUERY, place, page_ids[page], None, "the row has no query", sources[place]
            )
            for place, page in without_query
        ),
    )


def _column_or_none(table: Dataset, column: str) -> list:
    return texts(table, column) if column in table.column_names else [None] * len(table)


def _page_names(table: Dataset, folder: Path) -> list[str]:
    names = _column_or_none(table, "image_filename")
    for place, name in enumerate(names):
        if name is None or name == "":
            try:
                content = encoded_bytes(table[place]["image"], folder)
            except DataError:
                names[place] = f"row {place}"  # a page of its own, for the check to leave out
            else:
                names[place] = hashlib.sha256(content).hexdigest()
    return [str(name) for name in names]


def _page_ids(keys: list[tuple[str, str]]) -> list[str]:
    """The file name where it tells a page from all others, with its source in front elsewhere."""
    sources_of_name: dict[str, set[str]] = {}
    for source, name in keys:
        sources_of_name.setdefault(name, set()).add(source)
    return [name if len(sources_of_name[name]) == 1 else f"{src}/{name}" for src, name in keys]
