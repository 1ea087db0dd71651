"""The noise floor: how far a score moves when nothing that matters changes.

The same model and data are encoded again in ways that a reader would call the same: in padded
batches, in another precision, by another attention kernel. A difference between two models that is
smaller than what these do says nothing.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from coltrain.data.collection import Collection
from coltrain.errors import ModelError
from coltrain.evaluation.encoding import (
    encode_all_queries,
    encode_page_again,
    encode_pages,
    refuse_not_finite,
)
from coltrain.evaluation.evaluate import Evaluation, as_scored, result_of
from coltrain.evaluation.rank import PageScorer
from coltrain.evaluation.results import tie_order
from coltrain.evaluation.scoring import Scoring
from coltrain.model.half import compute_in_weights
from coltrain.model.retriever import Retriever

TOP = 10
"""Places of a ranking in which a changed order is counted."""


@dataclass(frozen=True)
class Variation:
    """One way to encode the same.

    Attributes:
        name: What is changed, alone.
        batch_size: Items in one padded batch.
        dtype: Type of the base's weights; None as they are.
        attention: "math" (torch's plain kernel) or "eager" (transformers' own); None as it is.
    """

    name: str
    batch_size: int = 1
    dtype: torch.dtype | None = None
    attention: str | None = None


@dataclass(frozen=True)
class Floor:
    """What one variation moved.

    Attributes:
        name: Of the variation.
        max_score_change: The largest difference of a score.
        num_reordered: Queries whose ten best pages came out in another order, judged queries only.
        num_queries: Judged queries.
        measure_changes: Name to the mean under the variation minus the mean of the evaluation.
        max_query_change: The largest change of a query's nDCG@5.
        error: Why there is no number, such as a precision that overflows; None where there is.
    """

    name: str
    max_score_change: float | None
    num_reordered: int | None
    num_queries: int
    measure_changes: dict[str, float]
    max_query_change: float | None
    error: str | None = None


def variations(retriever: Retriever) -> list[Variation]:
    """What is tried: batches of 4 and 32, the other precisions of this device, attention kernels.

    bfloat16 is tried everywhere, float16 on a GPU only: a CPU has no fast path for it.
    """
    own = retriever.built.model.dtype
    on_gpu = retriever.built.model.device.type != "cpu"
    types = [torch.float32, torch.bfloat16, *([torch.float16] if on_gpu else [])]
    return [
        Variation("batches of 4, padded", batch_size=4),
        Variation("batches of 32, padded", batch_size=32),
        *(
            Variation(f"weights in {str(dtype).removeprefix('torch.')}", dtype=dtype)
            for dtype in types
            if dtype != own
        ),
        Variation("attention: sdpa's math kernel", attention="math"),
        Variation("attention: eager", attention="eager"),
    ]


def noise_floor(
    retriever: Retriever,
    collection: Collection,
    evaluation: Evaluation,
    scoring: Scoring | None = None,
    on_item: Callable[[], None] | None = None,
) -> list[Floor]:
    """Encode everything again under each variation and compare.

    Costs an encoding of the whole data set for each variation; nothing is read from a store.

    Args:
        retriever: The model; it is as before afterwards.
        collection: The data set.
        evaluation: Of the same, one by one.
        scoring: As of the evaluation.
        on_item: Called after each page and query of each variation.
    """
    scoring = scoring or Scoring()
    return [
        _floor(variation, retriever, collection, evaluation, scoring, on_item)
        for variation in variations(retriever)
    ]


def _floor(
    variation: Variation,
    retriever: Retriever,
    collection: Collection,
    evaluation: Evaluation,
    scoring: Scoring,
    on_item: Callable[[], None] | None,
) -> Floor:
    try:
        with _varied(retriever, variation) as other:
            scores = _scores(other, collection, scoring, variation.batch_size, on_item)
    except ModelError as error:  # an embedding that is not finite is itself a finding
        num_judged = len(evaluation.result.per_query)
        return Floor(
            variation.name, None, None, num_judged, {}, None, f"{error.code}: {error.where}"
        )
    result = result_of(collection, scores)
    before = evaluation.result
    judged = [place for place, q in enumerate(collection.queries) if collection.qrels.get(q.id)]
    by_id = tie_order(collection.page_ids)
    reordered = sum(
        not np.array_equal(_best(scores[place], by_id), _best(evaluation.scores[place], by_id))
        for place in judged
    )
    return Floor(
        variation.name,
        float((scores - evaluation.scores).abs().max()),
        reordered,
        len(judged),
        {name: value - before.measures[name] for name, value in result.measures.items()},
        max(
            abs(values["nDCG@5"] - before.per_query[query]["nDCG@5"])
            for query, values in result.per_query.items()
        ),
    )


def _best(row: Tensor, by_id: np.ndarray) -> np.ndarray:
    return np.lexsort((-by_id, -row.numpy().astype(np.float32)))[:TOP]


def _scores(
    retriever: Retriever,
    collection: Collection,
    scoring: Scoring,
    batch_size: int,
    on_item: Callable[[], None] | None,
) -> Tensor:
    padded = batch_size > 1
    queries = encode_all_queries(
        retriever, collection.queries, collection.name, batch_size, padded, on_item
    )
    scorer = PageScorer(as_scored(queries, scoring, retriever), scoring)
    columns = []
    for start in range(0, len(collection.page_ids), batch_size):
        places = range(start, min(start + batch_size, len(collection.page_ids)))
        pages = encode_pages(retriever, [collection.page_image(p) for p in places], padded)
        for place, page in zip(places, pages, strict=True):
            where = f"{collection.name}, page {collection.page_ids[place]!r}"
            again = partial(encode_page_again, retriever, collection, place)
            refuse_not_finite(page, where, retriever, again)
            columns.append(scorer.score(as_scored([page], scoring, retriever)[0]))
            if on_item is not None:
                on_item()
    return scorer.scores(columns)


@contextmanager
def _varied(retriever: Retriever, variation: Variation) -> Iterator[Retriever]:
    """The retriever with one thing changed; the original's weights and settings stay."""
    if variation.dtype is not None:
        model = copy.deepcopy(retriever.built.model)
        compute_in_weights(model)
        for name, parameter in model.named_parameters():
            if "lora_" not in name:  # an adapter has a type of its own
                parameter.data = parameter.data.to(variation.dtype)
        other = copy.copy(retriever)
        other.built = replace(retriever.built, model=model)
        yield other
    elif variation.attention == "math":
        with sdpa_kernel(SDPBackend.MATH):
            yield retriever
    elif variation.attention == "eager":
        config = retriever.built.model.config
        parts = (config, config.text_config, config.vision_config)
        before = [part._attn_implementation for part in parts]
        try:
            for part in parts:
                part._attn_implementation = "eager"
            yield retriever
        finally:
            for part, implementation in zip(parts, before, strict=True):
                part._attn_implementation = implementation
    else:
        yield retriever
