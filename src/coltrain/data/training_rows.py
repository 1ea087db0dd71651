"""Training rows with hard negatives: a query, its pages and its negatives, as ids into a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coltrain.data.collection import Collection, Query, Row
from coltrain.data.corpus import (
    PAGE_ID,
    QUERY_ID,
    duplicates,
    first_of_each,
    ids_of,
    refuse_unknown,
    sources_of_pages,
)
from coltrain.data.findings import EMPTY_QUERY, FILTERED, NO_POSITIVE, Finding
from coltrain.data.hard_negatives import without_false_negatives
from coltrain.data.images import StoredImages
from coltrain.data.tables import find_column, refuse_empty, texts, with_encoded_images
from coltrain.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

POSITIVES = ("positive_passages", "pos_target", "gold_index", "positive_ids", "positive_id")
NEGATIVES = ("negative_passages", "neg_target", "negs", "negative_ids", "negative_id")


@dataclass(frozen=True)
class PublishedSet:
    """What colpali-engine's loader knows about a public set and its files do not say.

    Attributes:
        corpus: Data set of the pages.
        num_test: Rows that are held out, from the first on; the others are for training.
    """

    corpus: str
    num_test: int


PUBLISHED = {
    # load_train_set_ir_negs: at v0.3.1, and from v0.3.5 on with the filter gold_in_top_100.
    "manu/colpali-data-ir": PublishedSet("manu/colpali-data", 500),
    "manu/colpali-queries": PublishedSet("manu/colpali-corpus", 500),
}


def collection_of_training_rows(
    table: Dataset,
    corpus: Dataset,
    *,
    name: str,
    folder: Path,
    corpus_folder: Path | None = None,
    filter_column: str | None = None,
    held_out: tuple[int, bool] | None = None,
    revision: str | None = None,
) -> Collection:
    """A collection of a table of training rows and the pages that they name.

    Every positive of a row is a training pair with the row's negatives. Ids name pages by the
    corpus's id column; where it has none, they are row numbers, as in the public sets. The corpus
    is kept whole.

    Args:
        table: A query, its positives and its negatives (an id, or a list of ids; the hardest
            negative first), under the names that colpali-engine's sets have.
        corpus: Images, with ids or without.
        name: Of the collection.
        folder: Where the table lies.
        corpus_folder: Where image files lie that the corpus names by relative paths.
        filter_column: Keep rows where this column is true, as `gold_in_top_100`: the miner found
            the right page among its first hundred, so what it ranks above can be believed.
        held_out: How many rows are the test split, the first after filtering, and whether it is
            wanted; None where all rows are.
        revision: Commit of a hub data set.

    Raises:
        DataError: [empty-split], [missing-column], [unknown-id] or [not-an-image].

    Source:
        colpali-engine, `load_train_set_ir_negs` (v0.3.1 to v0.3.10) and `load_train_set_ir`.
    """
    where, corpus_where = f"{name}, rows", f"{name}, corpus"
    text_column = find_column(table, ["query", "text"], "queries", where)
    positive_column = find_column(table, POSITIVES, "the ids of positive pages", where)
    negative_column = find_column(table, NEGATIVES, "the ids of hard negatives", where)
    id_column = find_column(table, QUERY_ID, "query ids", where, optional=True)
    find_column(corpus, ["image"], "images", corpus_where)
    for part, place in ((table, where), (corpus, corpus_where)):
        refuse_empty(part, place)

    places, num_filtered = _kept(table, filter_column, held_out, where)
    corpus = with_encoded_images(corpus, corpus_where)
    page_column = find_column(corpus, PAGE_ID, "page ids", corpus_where, optional=True)
    page_ids = ids_of(corpus, page_column) if page_column else [str(i) for i in range(len(corpus))]
    page_places, same_page = first_of_each(page_ids)
    page_index = {page_id: index for index, page_id in enumerate(page_places)}
    page_sources = sources_of_pages(corpus, list(page_places.values()), name)

    asked, positives, negatives = (
        [column[place] for place in places]
        for column in (
            texts(table, text_column),
            texts(table, positive_column),
            texts(table, negative_column),
        )
    )
    positives, negatives = ([_ids(value) for value in values] for values in (positives, negatives))
    query_ids = ids_of(table, id_column) if id_column else [str(i) for i in range(len(table))]
    query_places, same_query = first_of_each([query_ids[place] for place in places])
    for ids in (positives, negatives):
        refuse_unknown([i for some in ids for i in some], page_index.keys(), "page", name, "rows")

    findings = duplicates("page", same_page) + duplicates("query", same_query)
    queries: list[Query] = []
    rows: list[Row] = []
    qrels: dict[str, dict[str, int]] = {}
    for query_id, number in query_places.items():
        text = asked[number]
        if text is None or not str(text).strip():
            page = positives[number][0] if positives[number] else None
            message = "the row has no query"
            findings.append(Finding(EMPTY_QUERY, places[number], page, query_id, message))
            continue
        if not positives[number]:
            message = "the row names no positive page"
            findings.append(Finding(NO_POSITIVE, places[number], None, query_id, message))
            continue
        mined = tuple(page_index[page_id] for page_id in negatives[number])
        for page_id in dict.fromkeys(positives[number]):
            page = page_index[page_id]
            rows.append(Row(len(queries), page, page_sources[page], mined, place=places[number]))
            qrels.setdefault(query_id, {})[page_id] = 1
        queries.append(Query(query_id, str(text)))
    left_out = Counter(finding.kind for finding in findings)
    if num_filtered:
        left_out[FILTERED] = num_filtered
    return without_false_negatives(
        Collection(
            name=name,
            layout="negatives",
            page_ids=list(page_places),
            queries=queries,
            rows=rows,
            qrels=qrels,
            images=StoredImages(corpus, list(page_places.values()), corpus_folder or folder),
            left_out=dict(left_out),
            revision=revision,
            findings=tuple(findings),
        )
    )


def _kept(
    table: Dataset, filter_column: str | None, held_out: tuple[int, bool] | None, where: str
) -> tuple[Sequence[int], int]:
    """Rows of the table that are used, and how many the filter left out."""
    places: Sequence[int] = range(len(table))
    if filter_column is not None:
        find_column(table, [filter_column], "the filter", where)
        values = texts(table, filter_column)
        if not all(value is None or isinstance(value, bool) for value in values):
            raise DataError(
                "bad-filter",
                "the column to filter by is not of true and false.",
                where=f"{where}, column {filter_column}",
                received=repr(next(v for v in values if v is not None and v not in (True, False))),
                expected="true for the rows that are kept",
            )
        places = [place for place in places if values[place]]
    num_filtered = len(table) - len(places)
    if held_out is not None:
        num_test, is_test = held_out
        places = places[:num_test] if is_test else places[num_test:]
    if not len(places):
        raise DataError(
            "empty-split",
            "there are no rows.",
            where=where,
            received=f"{len(table)} rows, of which the filter leaves out {num_filtered}",
            expected="at least one",
        )
    return places, num_filtered


def _ids(value: Any) -> list[str]:
    """Ids of a row: one, a list, or a list of mappings with a `docid` as in Tevatron's sets."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [str(v["docid"] if isinstance(v, dict) and "docid" in v else v) for v in values]
