"""One data set through the model: encode, score, measure."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from coltrain.data.collection import Collection
from coltrain.errors import DataError
from coltrain.evaluation.measures import measure
from coltrain.evaluation.rank import score_all
from coltrain.evaluation.results import Result
from coltrain.evaluation.scoring import Scoring
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


def evaluate(
    retriever: Retriever,
    collection: Collection,
    on_item: Callable[[], None] | None = None,
    *,
    scoring: Scoring | None = None,
) -> Evaluation:
    """Rank every page of a data set for every query and measure.

    Args:
        retriever: The model.
        collection: Pages, queries and judgements; queries without a judgement are not measured.
        on_item: Called after each encoded page or query, to show progress.
        scoring: Arithmetic and padding; the default of `Scoring` otherwise.

    Raises:
        DataError: No query has a judgement.
    """
    refuse_without_judgements(collection)
    pages = retriever.encode_pages(
        (collection.page_image(index) for index in range(len(collection.page_ids))), on_item
    )
    queries = retriever.encode_queries((query.text for query in collection.queries), on_item)
    scoring = scoring or Scoring()
    if scoring.dtype == "embeddings":
        given = retriever.built.model.dtype
        queries = [query.to(given) for query in queries]
        pages = [page.to(given) for page in pages]
    scores = score_all(queries, pages, scoring)
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
