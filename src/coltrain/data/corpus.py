"""The corpus layout: pages, queries and judgements in a table each, as in the BEIR benchmarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from coltrain.data.collection import Collection, Query, Row
from coltrain.data.findings import (
    DUPLICATE_ID,
    EMPTY_QUERY,
    FILTERED,
    REPEATED_JUDGEMENT,
    Finding,
)
from coltrain.data.hard_negatives import without_false_negatives
from coltrain.data.images import StoredImages
from coltrain.data.tables import find_column, refuse_empty, texts, with_encoded_images
from coltrain.errors import DataError
from coltrain.recipe.wording import listed

if TYPE_CHECKING:
    from datasets import Dataset

PAGE_ID = ("doc_id", "corpus-id", "corpus_id", "doc-id", "page_id", "_id", "id")
QUERY_ID = ("query_id", "query-id", "_id", "id")


def collection_of_corpus(
    corpus: Dataset,
    queries: Dataset,
    qrels: Dataset,
    negatives: Dataset | None = None,
    *,
    name: str,
    folder: Path,
    revision: str | None = None,
    language: str | None = None,
) -> Collection:
    """A collection of three tables, and a fourth where there are hard negatives.

    Every judgement with a positive score is a training row, in the order of the judgements. Ids
    are kept, as strings; where a page or a query has the id of an earlier one, it is left out. A
    corpus with several columns that could be ids has them in the one that the judgements name.

    Args:
        corpus: Page ids and images; `source` where there is one.
        queries: Query ids and texts.
        qrels: Query id, page id and score; without scores each judgement counts 1.
        negatives: Query id, page id, and `rank` where the order of the table is not that of
            hardness. Every row of a query gets the query's negatives.
        name: Of the collection.
        folder: Where image files lie that the table names by relative paths.
        revision: Commit of a hub data set.
        language: Keep the queries whose column `language` says so; the others are counted in
            `left_out` as `filtered`, and their judgements go with them.

    Raises:
        DataError: [empty-split], [missing-column], [unknown-id], [bad-score], [two-judgements],
            [unknown-language] or [not-an-image].
    """
    corpus_name, queries_name, qrels_name = (f"{name}, {t}" for t in ("corpus", "queries", "qrels"))
    judged_page = find_column(qrels, PAGE_ID[:5], "page ids", qrels_name)
    # A page of the third ViDoRe has its document's name in `doc_id`, and its own id in `corpus_id`.
    named = [
        column
        for column in PAGE_ID
        if _spelt(column) == _spelt(judged_page) and column in corpus.column_names
    ]
    page_column = find_column(corpus, named or PAGE_ID, "page ids", corpus_name)
    find_column(corpus, ["image"], "images", corpus_name)
    query_column = find_column(queries, QUERY_ID, "query ids", queries_name)
    text_column = find_column(queries, ["text", "query"], "the text of queries", queries_name)
    judged_query = find_column(qrels, QUERY_ID[:2], "query ids", qrels_name)
    for table, where in ((corpus, corpus_name), (queries, queries_name), (qrels, qrels_name)):
        refuse_empty(table, where)
    corpus = with_encoded_images(corpus, corpus_name)
    other = _of_other_languages(queries, query_column, language, queries_name)

    page_places, same_page = first_of_each(ids_of(corpus, page_column))
    query_places, same_query = first_of_each(ids_of(queries, query_column))
    findings = duplicates("page", same_page) + duplicates("query", same_query)
    page_ids, page_index = list(page_places), {p: index for index, p in enumerate(page_places)}
    page_sources = sources_of_pages(corpus, list(page_places.values()), name)
    asked = texts(queries, text_column)
    kept = [
        Query(query_id, str(asked[place]))
        for query_id, place in query_places.items()
        if query_id not in other and asked[place] is not None and str(asked[place]).strip()
    ]
    query_index = {query.id: index for index, query in enumerate(kept)}
    judgements = list(
        zip(
            ids_of(qrels, judged_query),
            ids_of(qrels, judged_page),
            _scores(qrels, qrels_name),
            strict=True,
        )
    )
    refuse_unknown([q for q, _, _ in judgements], query_places.keys(), "query", name, "qrels")
    refuse_unknown([page for _, page, _ in judgements], page_index.keys(), "page", name, "qrels")

    mined = _mined(negatives, query_places, page_index, name) if negatives is not None else {}
    rows: list[Row] = []
    seen: set[tuple[str, str]] = set()
    silent = query_places.keys() - query_index.keys() - other
    num_repeated = 0
    judged: dict[str, dict[str, int]] = {}
    for place, (query_id, page_id, score) in enumerate(judgements):
        if query_id in other:
            continue
        if query_id in query_index:
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
            num_repeated += query_id in query_index
            continue
        seen.add((query_id, page_id))
        if score <= 0:
            continue
        if query_id not in query_index:
            silent.discard(query_id)
            findings.append(_silent(query_id, query_places[query_id], place, page_id))
            continue
        page = page_index[page_id]
        negative_pages = mined.get(query_id, ())
        rows.append(
            Row(query_index[query_id], page, page_sources[page], negative_pages, place=place)
        )
    findings += [_silent(query_id, query_places[query_id]) for query_id in sorted(silent)]
    left_out = Counter(finding.kind for finding in findings)
    if num_repeated:
        left_out[REPEATED_JUDGEMENT] = num_repeated
    if other:
        left_out[FILTERED] = len(other)
    return without_false_negatives(
        Collection(
            name=name,
            layout="corpus" if negatives is None else "negatives",
            page_ids=page_ids,
            queries=kept,
            rows=rows,
            qrels=judged,
            images=StoredImages(corpus, list(page_places.values()), folder),
            left_out=dict(left_out),
            revision=revision,
            findings=tuple(findings),
        )
    )


def _spelt(column: str) -> str:
    return column.replace("-", "_")


def _of_other_languages(
    queries: Dataset, query_column: str, language: str | None, where: str
) -> set[str]:
    """Ids of the queries that are not in a language."""
    if language is None:
        return set()
    find_column(queries, ["language"], "the language of queries", where)
    languages = [str(one) for one in texts(queries, "language")]
    if language not in languages:
        raise DataError(
            "unknown-language",
            f"there is no language {language!r}.",
            where=where,
            received=language,
            expected=listed(sorted(set(languages))),
        )
    ids = ids_of(queries, query_column)
    return {some_id for some_id, one in zip(ids, languages, strict=True) if one != language}


def _silent(query_id: str, place: int, row: int | None = None, page: str | None = None) -> Finding:
    message = f"the query, row {place} of queries, has no text"
    return Finding(EMPTY_QUERY, row, page, query_id, message)


def _mined(
    negatives: Dataset, query_places: dict[str, int], page_index: dict[str, int], name: str
) -> dict[str, tuple[int, ...]]:
    """Query id to the pages of its hard negatives, by rank."""
    where = f"{name}, negatives"
    query_ids = ids_of(negatives, find_column(negatives, QUERY_ID[:2], "query ids", where))
    found = ids_of(negatives, find_column(negatives, PAGE_ID[:5], "page ids", where))
    refuse_unknown(query_ids, query_places.keys(), "query", name, "negatives")
    refuse_unknown(found, page_index.keys(), "page", name, "negatives")
    ranks = texts(negatives, "rank") if "rank" in negatives.column_names else range(len(found))
    of_query: dict[str, list[tuple[int, int]]] = {}
    for query_id, page_id, rank in zip(query_ids, found, ranks, strict=True):
        of_query.setdefault(query_id, []).append((rank, page_index[page_id]))
    return {
        query_id: tuple(dict.fromkeys(page for _, page in sorted(ranked, key=lambda r: r[0])))
        for query_id, ranked in of_query.items()
    }


def ids_of(table: Dataset, column: str) -> list[str]:
    """A column of ids, as strings."""
    return [str(value) for value in texts(table, column)]


def first_of_each(ids: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, int, int]]]:
    """Each id with its first place; and each later place with the first."""
    places: dict[str, int] = {}
    later = [
        (some_id, place, first)
        for place, some_id in enumerate(ids)
        if (first := places.setdefault(some_id, place)) != place
    ]
    return places, later


def duplicates(kind: str, later: Sequence[tuple[str, int, int]]) -> list[Finding]:
    """What `first_of_each` found beside the first ones, of kind page or query."""
    table = "corpus" if kind == "page" else "queries"
    return [
        Finding(
            DUPLICATE_ID,
            None,
            some_id if kind == "page" else None,
            some_id if kind == "query" else None,
            f"row {place} of {table} has the id of row {first}",
        )
        for some_id, place, first in later
    ]


def sources_of_pages(corpus: Dataset, places: Sequence[int], name: str) -> list[str]:
    """The column `source`, and the collection's name where it says nothing."""
    if "source" not in corpus.column_names:
        return [name] * len(places)
    sources = texts(corpus, "source")
    return [name if sources[place] is None else str(sources[place]) for place in places]


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


def refuse_unknown(ids: Sequence[str], known: Set[str], kind: str, name: str, table: str) -> None:
    """Raise [unknown-id] if a table names pages or queries that do not exist."""
    unknown = list(dict.fromkeys(some_id for some_id in ids if some_id not in known))
    if unknown:
        home = "corpus" if kind == "page" else "queries"
        raise DataError(
            "unknown-id",
            f"{table} name {len(unknown)} {kind} {'ids' if len(unknown) > 1 else 'id'} "
            f"that the {home} {'do' if home == 'queries' else 'does'} not have.",
            where=f"{name}, {table}",
            received=", ".join(repr(some_id) for some_id in unknown[:3])
            + (", …" if len(unknown) > 3 else ""),
            expected=f"ids of the {home}, such as {sorted(known)[0]!r}" if known else None,
        )
