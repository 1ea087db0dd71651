"""One data set through the model: encode, score, measure."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor

from coltrain.data.collection import Collection
from coltrain.data.findings import DUPLICATE_ID
from coltrain.data.images import encoded
from coltrain.errors import DataError
from coltrain.evaluation.encoding import (
    encode_all_queries,
    encode_page_again,
    encode_pages,
    is_padded,
    refuse_not_finite,
)
from coltrain.evaluation.measures import measure
from coltrain.evaluation.rank import PageScorer
from coltrain.evaluation.results import Result, ranked
from coltrain.evaluation.scoring import Scoring
from coltrain.evaluation.sharding import gathered, own_share
from coltrain.evaluation.statistics import Sample, sample_interval
from coltrain.evaluation.store import EmbeddingStore
from coltrain.evaluation.together import together
from coltrain.model.retriever import Retriever
from coltrain.model.vision_cache import PageLookup, VisionFeatures


@dataclass(frozen=True)
class Rounding:
    """What keeping embeddings in a narrower type did to this evaluation.

    Attributes:
        num_pages: Pages that were encoded now, so that both forms were at hand. The others had
            been stored before, and their rounding is in both columns.
        max_score_change: The largest difference of a score.
        measure_changes: Name to mean with rounded minus mean with unrounded embeddings.
    """

    num_pages: int
    max_score_change: float
    measure_changes: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """A result and the embeddings that gave it.

    Attributes:
        result: Measures, overall and per query.
        queries: Embeddings of all queries, in the collection's order.
        pages: Embeddings of all pages, in the collection's order: in memory, or read from the
            store when asked for; empty where they were not to be kept.
        scores: queries x pages.
        num_encoded: Pages that went through the model now; the others came from the store.
        rounding: What the store's type did; None where it keeps float32, or there is none.
    """

    result: Result
    queries: list[Tensor]
    pages: Sequence[Tensor]
    scores: Tensor
    num_encoded: int = 0
    rounding: Rounding | None = None


class StoredPages(Sequence):
    """Embeddings of pages that are read from the store when asked for.

    Args:
        store: Holds all of them.
        hashes: One a page, in order.
    """

    def __init__(self, store: EmbeddingStore, hashes: Sequence[str]) -> None:
        self._store = store
        self._hashes = hashes

    def __len__(self) -> int:
        return len(self._hashes)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        embedding = self._store.read(self._hashes[index])
        if embedding is None:
            raise LookupError(f"the embedding of page {index} is no longer in the store")
        return embedding.float()


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
    *,
    scoring: Scoring | None = None,
    batch_size: int = 1,
    store: EmbeddingStore | None = None,
    keep_pages: bool = True,
    top_k: int | None = None,
    over_ranks: bool = False,
    vision: VisionFeatures | None = None,
) -> Evaluation:
    """Rank every page of a data set for every query and measure.

    Pages are encoded and scored as they come: without `keep_pages`, or with a store, no more than a
    batch of them is in memory, beside the queries and a float32 score for each query and page (4
    bytes a pair: 40 MB for 2,000 queries and 5,000 pages). Measures are those of whole rankings,
    so every score is kept. On a CPU results do not depend on the batch size, to the last bit.

    A judged page that the data do not hold counts as trec_eval counts it: relevant and not found.

    Args:
        retriever: The model.
        collection: Pages, queries and judgements; queries without a judgement are not measured.
        on_item: Called after each encoded page or query, to show progress.
        scoring: Arithmetic and padding; the default of `Scoring` otherwise.
        batch_size: Items at a time; on a GPU a padded batch.
        store: Where page embeddings are kept and looked for. In float16 they are what is scored,
            so that an evaluation that was interrupted equals one that was not.
        keep_pages: Whether `Evaluation.pages` has the embeddings.
        top_k: So many pages of each query's ranking go into the result; None for none.
        over_ranks: Whether the ranks of the default process group share the pages; each of them
            must call this, and gets the whole evaluation.
        vision: A cache of visual tokens, exact to the bit, for pages that are encoded one by one.

    Raises:
        DataError: No query has a judgement; ids clash; a page cannot be decoded (it is named).
        ModelError: `[not-finite-embedding]`: an embedding holds NaN (its page or query is named).
        RunError: `[cannot-write-cache]`.
        RankFailed: Another rank met one of these; RanksApart: it is gone.
    """
    refuse_without_judgements(collection)
    refuse_clashing_ids(collection)
    collection = collection.with_alpha(retriever.built.preparer.alpha)
    scoring = scoring or Scoring()
    num_pages = len(collection.page_ids)
    padded = is_padded(retriever, batch_size)
    share = own_share(len(collection.queries), over_ranks)
    with together(over_ranks):
        own_queries = encode_all_queries(
            retriever,
            [collection.queries[place] for place in share],
            collection.name,
            batch_size,
            padded,
            on_item,
        )
    queries = gathered(own_queries, len(collection.queries), over_ranks)
    scorer = PageScorer(as_scored(queries, scoring, retriever), scoring)
    columns, exact_columns, kept, hashes, num_encoded = [], [], [], [], 0
    with together(over_ranks):
        for page in _pages(retriever, collection, batch_size, padded, store, over_ranks, vision):
            columns.append(scorer.score(as_scored([page.embedding], scoring, retriever)[0]))
            if store is not None and store.dtype != torch.float32:
                if page.exact is None:
                    exact_columns.append(columns[-1])
                else:
                    exact_columns.append(
                        scorer.score(as_scored([page.exact], scoring, retriever)[0])
                    )
            num_encoded += page.is_new
            if store is not None:
                hashes.append(page.hash)
            elif keep_pages:
                kept.append(page.embedding)
            if on_item is not None:
                on_item()
    columns = gathered(_alone(columns, over_ranks), num_pages, over_ranks)
    scores = scorer.scores(columns)
    rounding = None
    if store is not None and store.dtype != torch.float32:
        exact_scores = scorer.scores(
            gathered(_alone(exact_columns, over_ranks), num_pages, over_ranks)
        )
        rounding = _rounding(collection, scores, exact_scores, num_encoded)
    if store is not None:
        pages = StoredPages(store, hashes) if not over_ranks else ()
    else:
        pages = gathered(kept, num_pages, over_ranks) if keep_pages else ()
    result = result_of(collection, scores, top_k)
    return Evaluation(result, queries, pages, scores, num_encoded, rounding)


def result_of(collection: Collection, scores: Tensor, top_k: int | None = None) -> Result:
    """Measure the scores of every query and page of a data set.

    Args:
        collection: Pages, queries and judgements.
        scores: queries x pages, in the collection's order.
        top_k: So many pages of each query's ranking go into the result; None for none.
    """
    ranking = {
        query.id: dict(zip(collection.page_ids, row, strict=True))
        for query, row in zip(collection.queries, scores.tolist(), strict=True)
        if query.id in collection.qrels
    }
    measured = measure(collection.qrels, ranking)
    known = set(collection.page_ids)
    missing = {page for judged in collection.qrels.values() for page in judged if page not in known}
    return Result(
        dataset=collection.name,
        num_queries=len(measured.per_query),
        num_pages=len(collection.page_ids),
        measures=measured.measures,
        per_query=measured.per_query,
        ranking=None if top_k is None else ranked(collection, scores, top_k),
        judged_but_missing=sorted(missing) or None,
    )


def samples_of(result: Result) -> dict[str, Sample]:
    """Each measure of a result's queries, for statistics: translations are one unit."""
    judged = list(result.per_query)
    bases = result.base_queries and [result.base_queries[query] for query in judged]
    languages = result.subsets and [result.languages[query] for query in judged]
    return {
        name: Sample.of([result.per_query[q][name] for q in judged], bases, languages)
        for name in result.measures
        if name in result.per_query[judged[0]]
    }


def with_intervals(result: Result) -> Result:
    """The result with a 95 % interval of each mean, over queries like these.

    See `coltrain.evaluation.statistics.mean_interval`. Each query is drawn alone; in a task of a
    benchmark with its translations, and the mean is that over languages.
    """
    intervals = {}
    for name, sample in samples_of(result).items():
        found = asdict(sample_interval(sample))
        intervals[name] = {key: value for key, value in found.items() if key != "mean"}
    return replace(result, intervals=intervals)


def as_scored(embeddings: Sequence[Tensor], scoring: Scoring, retriever: Retriever) -> list[Tensor]:
    """Embeddings in the type that they are scored in: rounded to the model's for "embeddings"."""
    if scoring.dtype == "float32":
        return list(embeddings)
    return [embedding.to(retriever.built.model.dtype) for embedding in embeddings]


def _alone(columns: list[tuple], over_ranks: bool) -> list[tuple]:
    """Scores to be sent, each in memory of its own: a row of a table pickles with all the table."""
    if not over_ranks:
        return columns
    return [
        tuple(value.clone() if isinstance(value, Tensor) else value for value in column)
        for column in columns
    ]


@dataclass(frozen=True)
class _Page:
    embedding: Tensor
    exact: Tensor | None  # before the store rounded it; None where only the store had it
    hash: str | None
    is_new: bool


def _pages(
    retriever: Retriever,
    collection: Collection,
    batch_size: int,
    padded: bool,
    store: EmbeddingStore | None,
    over_ranks: bool,
    vision: VisionFeatures | None,
) -> Iterator[_Page]:
    """The embeddings of the pages of this process, in order; from the store where it has them."""
    assert vision is None or not padded
    lookup = None
    if vision is not None:
        lookup = PageLookup(vision.store, collection, retriever.built.preparer)
    share = own_share(len(collection.page_ids), over_ranks)
    for start in range(0, len(share), batch_size):
        group = share[start : start + batch_size]
        hashes: dict[int, str | None] = dict.fromkeys(group)
        found: dict[int, Tensor | None] = dict.fromkeys(group)
        if store is not None:
            for place in group:
                content = encoded(collection.images, place)
                hashes[place] = hashlib.sha256(content).hexdigest()
                found[place] = store.read(hashes[place])
        wanted = [place for place in group if found[place] is None]
        if lookup is None:
            images = [collection.page_pixels(place) for place in wanted]
            embeddings = encode_pages(retriever, images, padded)
        else:
            embeddings = [
                retriever.encode_prepared(vision.page(lookup, place)).embedding for place in wanted
            ]
        new = dict(zip(wanted, embeddings, strict=True))
        for place in group:
            exact = new.get(place)
            embedding = found[place]
            if exact is not None:
                where = f"{collection.name}, page {collection.page_ids[place]!r}"
                again = partial(encode_page_again, retriever, collection, place)
                refuse_not_finite(exact, where, retriever, again)
                embedding = exact if store is None else store.write(hashes[place], exact)
            yield _Page(embedding, exact, hashes[place], exact is not None)


def _rounding(
    collection: Collection, scores: Tensor, exact_scores: Tensor, num_pages: int
) -> Rounding:
    rounded = result_of(collection, scores).measures
    exact = result_of(collection, exact_scores).measures
    return Rounding(
        num_pages,
        float((scores - exact_scores).abs().max()),
        {name: rounded[name] - exact[name] for name in rounded},
    )
