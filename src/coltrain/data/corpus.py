"""The corpus layout: pages, queries and judgements in a table each, as in the BEIR benchmarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coltrain.data.collection import Collection, Query, Row
from coltrain.data.images import StoredImages
from coltrain.data.tables import find_column, refuse_empty, texts, with_encoded_images
from coltrain.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

NO_TEXT = "query without text"
REPEATED = "judgement repeated"

_PAGE_ID = ("doc_id", "corpus-id", "corpus_id", "doc-id", "_id", "id")
_QUERY_ID = ("query_id", "query-id", "_id", "id")


def collection_of_corpus(
    corpus: Dataset,
    queries: Dataset,
    qrels: Dataset,
    *,
    name: str,
    folder: Path,
    revision: str | None = None,
) -> Collection:
    """A collection of three tables.

    Every judgement with a positive score is a training row, in the order of the judgements. Ids
    are kept, as strings.

    Args:
        corpus: Page ids and images; `source` where there is one.
        queries: Query ids and texts.
        qrels: Query id, page id and score; without scores each judgement counts 1.
        name: Of the collection.
        folder: Where image files lie that the table names by relative paths.
        revision: Commit of a hub data set.

    Raises:
        DataError: [empty-split], [missing-column], [duplicate-id], [unknown-id], [bad-score],
            [two-judgements] or [not-an-image].
    """
    corpus_name, queries_name, qrels_name = (f"{name}, {t}" for t in ("corpus", "queries", "qrels"))
    page_column = find_column(corpus, _PAGE_ID, "page ids", corpus_name)
    find_column(corpus, ["image"], "images", corpus_name)
    query_column = find_column(queries, _QUERY_ID, "query ids", queries_name)
    text_column = find_column(queries, ["text", "query"], "the text of queries", queries_name)
    judged_query = find_column(qrels, _QUERY_ID[:2], "query ids", qrels_name)
    judged_page = find_column(qrels, _PAGE_ID[:4], "page ids", qrels_name)
    for table, where in ((corpus, corpus_name), (queries, queries_name), (qrels, qrels_name)):
        refuse_empty(table, where)
    corpus = with_encoded_images(corpus, corpus_name)

    page_ids = _ids(corpus, page_column)
    page_sources = [
        str(source) if source is not None else name
        for source in (
            texts(corpus, "source") if "source" in corpus.column_names else [None] * len(corpus)
        )
    ]
    asked = [
        (query_id, text)
        for query_id, text in zip(
            _ids(queries, query_column), texts(queries, text_column), strict=True
        )
    ]
    kept = [Query(query_id, str(text)) for query_id, text in asked if text and str(text).strip()]
    without_text = {query_id for query_id, _ in asked} - {query.id for query in kept}

    page_index = {page_id: index for index, page_id in enumerate(page_ids)}
    query_index = {query.id: index for index, query in enumerate(kept)}
    judgements = list(
        zip(
            _ids(qrels, judged_query),
            _ids(qrels, judged_page),
            _scores(qrels, qrels_name),
            strict=True,
        )
    )
    _refuse_unknown(
        [query for query, _, _ in judgements], query_index.keys() | without_text, "query", name
    )
    _refuse_unknown([page for _, page, _ in judgements], page_index.keys(), "page", name)

    rows: list[Row] = []
    seen: set[tuple[str, str]] = set()
    left_out = Counter({NO_TEXT: len(without_text)})
    judged: dict[str, dict[str, int]] = {}
    for query_id, page_id, score in judgements:
        if query_id in without_text:
            continue
        earlier = judged.setdefault(query_id, {}).setdefault(page_id, score)
        if earlier != score:
            raise DataError(
                "two-judgements",
                "a page is judged twice for one query, and differently.",
                where=qrels_name,
                received=f"query {query_id!r}, page {page_id!r}: {earlier} and {score}",
                expected="one judgement a pair",
            )
        if (query_id, page_id) in seen:
            left_out[REPEATED] += 1
            continue
        seen.add((query_id, page_id))
        if score > 0:
            page = page_index[page_id]
            rows.append(Row(query_index[query_id], page, page_sources[page]))
    return Collection(
        name=name,
        layout="corpus",
        page_ids=page_ids,
        queries=kept,
        rows=rows,
        qrels=judged,
        images=StoredImages(corpus, range(len(corpus)), folder),
        left_out={reason: count for reason, count in left_out.items() if count},
        revision=revision,
    )


def _ids(table: Dataset, column: str) -> list[str]:
    return [str(value) for value in texts(table, column)]


def _scores(qrels: Dataset, where: str) -> list[int]:
    if "score" not in qrels.column_names:
        return [1] * len(qrels)
    scores = []
    for value in texts(qrels, "score"):
        # Some published sets store whole scores as floats.
        if not isinstance(value, int | float) or not float(value).is_integer():
            raise DataError(
                "bad-score",
                "a judgement's score is not a whole number.",
                where=where,
                received=repr(value),
                expected="0 for not relevant, 1 or more for relevant",
            )
        scores.append(int(value))
    return scores


def _refuse_unknown(ids: Sequence[str], known: set[str], kind: str, name: str) -> None:
    unknown = list(dict.fromkeys(some_id for some_id in ids if some_id not in known))
    if unknown:
        table = "corpus" if kind == "page" else "queries"
        raise DataError(
            "unknown-id",
            f"qrels name {len(unknown)} {kind} {'ids' if len(unknown) > 1 else 'id'} "
            f"that the {table} {'do' if table == 'queries' else 'does'} not have.",
            where=f"{name}, qrels",
            received=", ".join(repr(some_id) for some_id in unknown[:3])
            + (", …" if len(unknown) > 3 else ""),
            expected=f"ids of the {table}, such as {sorted(known)[0]!r}" if known else None,
        )
