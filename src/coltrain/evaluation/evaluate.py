"""One data set through the model: encode, score, measure."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from coltrain.data.collection import Collection
from coltrain.data.findings import DUPLICATE_ID
from coltrain.errors import DataError
from coltrain.evaluation.measures import measure
from coltrain.evaluation.rank import score_all
from coltrain.evaluation.results import Result
from coltrain.model.retriever import Retriever


@dataclass(frozen=True)
class Evaluation:
    """A result and the embeddings that gave it.

    Attributes:
        result: Measures, overall and per query.
        queries: Embeddings of all queries, in the collection's order.
        pages: Embeddings of all pages, in the collection's order.
        scores: queries x pages.
    """

    result: Result
    queries: list[Tensor]
    pages: list[Tensor]
    scores: Tensor


def refuse_without_judgements(collection: Collection) -> None:
    """Say that a data set cannot be measured on, before an hour of encoding.

    Raises:
        DataError: No query has a judgement.
    """
    if not any(collection.qrels.get(query.id) for query in collection.queries):
        raise DataError(
            "nothing-judged",
            "no query of the data set has a judgement, so there is nothing to measure.",
            where=collection.name,
            received=f"{len(collection.page_ids)} pages, {len(collection.queries)} queries",
            expected="at least one query with a judged page",
        )


def refuse_clashing_ids(collection: Collection) -> None:
    """Say that ids are ambiguous: a judgement of one could mean either page, or either query.

    Training leaves the later one out and counts it; a measure must not depend on which one it was.

    Raises:
        DataError: Two pages or two queries have one id.
    """
    clashes = [one for one in collection.findings if one.kind == DUPLICATE_ID]
    if clashes:
        named = dict.fromkeys(str(one.page or one.query) for one in clashes)
        raise DataError(
            "duplicate-id",
            "ids of the data set clash, so its judgements could mean either.",
            where=collection.name,
            received=", ".join(list(named)[:5]) + (", …" if len(named) > 5 else ""),
            expected="every page, and every query, with an id of its own",
        )


def evaluate(
    retriever: Retriever,
    collection: Collection,
    on_item: Callable[[], None] | None = None,
) -> Evaluation:
    """Rank every page of a data set for every query and measure.

    Args:
        retriever: The model.
        collection: Pages, queries and judgements; queries without a judgement are not measured.
        on_item: Called after each encoded page or query, to show progress.

    Raises:
        DataError: No query has a judgement, or ids clash.
    """
    refuse_without_judgements(collection)
    refuse_clashing_ids(collection)
    pages = retriever.encode_pages(
        (collection.page_image(index) for index in range(len(collection.page_ids))), on_item
    )
    queries = retriever.encode_queries((query.text for query in collection.queries), on_item)
    scores = score_all(queries, pages)
    ranking = {
        query.id: dict(zip(collection.page_ids, row, strict=True))
        for query, row in zip(collection.queries, scores.tolist(), strict=True)
        if query.id in collection.qrels
    }
    measured = measure(collection.qrels, ranking)
    result = Result(
        dataset=collection.name,
        num_queries=len(measured.per_query),
        num_pages=len(collection.page_ids),
        measures=measured.measures,
        per_query=measured.per_query,
    )
    return Evaluation(result, queries, pages, scores)
