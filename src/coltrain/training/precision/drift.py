"""How far a half precision moves embeddings and a ranking, away from float32."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coltrain.data.collection import Collection
from coltrain.data.images import SelectedImages
from coltrain.errors import ModelError
from coltrain.evaluation.encoding import encode_all_queries, encode_page_again, refuse_not_finite
from coltrain.evaluation.evaluate import result_of
from coltrain.evaluation.rank import score_all
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.half import Half, narrowed
from coltrain.model.retriever import Retriever
from coltrain.training.precision.ranges import spread


@dataclass(frozen=True)
class Drift:
    """One precision against float32.

    Attributes:
        precision: In what was computed.
        mean_cosine: Between a token's vector and the same in float32, over all pages and queries.
        least_cosine: Of the token that moved most.
        ndcg: nDCG@5.
        ndcg_change: From that of float32.
        error: Where an embedding was not finite; the figures are None then.
    """

    precision: str
    mean_cosine: float | None = None
    least_cosine: float | None = None
    ndcg: float | None = None
    ndcg_change: float | None = None
    error: str | None = None


def part_of(collection: Collection, num_pages: int) -> Collection:
    """So many pages of a data set, evenly spread, and the queries that one of them answers."""
    places = spread(len(collection.page_ids), num_pages)
    kept = {collection.page_ids[place] for place in places}
    qrels = {
        query: {page: score for page, score in judged.items() if page in kept}
        for query, judged in collection.qrels.items()
    }
    qrels = {query: judged for query, judged in qrels.items() if any(judged.values())}
    return replace(
        collection,
        page_ids=[collection.page_ids[place] for place in places],
        images=SelectedImages(collection.images, list(places)),
        queries=[query for query in collection.queries if query.id in qrels],
        qrels=qrels,
        rows=[],
    )


def drifts(
    retriever: Retriever,
    collection: Collection,
    keep_float32: Sequence[str],
    on_item: Callable[[], None] | None = None,
) -> list[Drift]:
    """Encode and rank a data set in float32, bfloat16, and float16 without and with a policy.

    Args:
        retriever: In float32, to which the others are compared; it stays so. In bfloat16 where
            float32 does not fit, and then that is what they are compared to.
        collection: With judgements.
        keep_float32: What the policy keeps in float32; float16 is computed once if it is empty.
        on_item: Called after each page and query of each precision.
    """
    exact = _encoded(retriever, collection, on_item)
    first = _ndcg(collection, *exact)
    own = str(retriever.built.model.dtype).removeprefix("torch.")
    found = [Drift(own, 1.0, 1.0, first, 0.0)]
    for name, model in _variants(retriever.built.model, keep_float32):
        other = copy.copy(retriever)
        other.built = replace(retriever.built, model=model)
        try:
            queries, pages = _encoded(other, collection, on_item)
        except ModelError as error:
            found.append(Drift(name, error=f"{error.where}: {error.received}"))
            continue
        cosines = torch.cat(
            [
                (ours * theirs).sum(-1)
                for ours, theirs in zip([*queries, *pages], [*exact[0], *exact[1]], strict=True)
            ]
        )
        ndcg = _ndcg(collection, queries, pages)
        found.append(Drift(name, cosines.mean().item(), cosines.min().item(), ndcg, ndcg - first))
    return found


def num_encoded(collection: Collection, keep_float32: Sequence[str]) -> int:
    """How often `drifts` calls `on_item` at most."""
    return (4 if keep_float32 else 3) * (len(collection.page_ids) + len(collection.queries))


def _variants(model: ColQwen2, keep_float32: Sequence[str]) -> Iterator[tuple[str, ColQwen2]]:
    if model.dtype != torch.bfloat16:
        rounded = copy.deepcopy(model)
        for name, parameter in rounded.named_parameters():
            if "lora_" not in name:  # an adapter stays as it is
                parameter.data = parameter.data.to(torch.bfloat16)
        yield "bfloat16", rounded
        del rounded
    yield "float16", narrowed(model, Half(torch.float16))
    if keep_float32:
        yield "float16 with the policy", narrowed(model, Half(torch.float16, tuple(keep_float32)))


def _encoded(
    retriever: Retriever, collection: Collection, on_item: Callable[[], None] | None
) -> tuple[list[Tensor], list[Tensor]]:
    queries = encode_all_queries(retriever, collection.queries, collection.name, on_item=on_item)
    pages = []
    for place, page_id in enumerate(collection.page_ids):
        [page] = retriever.encode_pages([collection.page_image(place)], on_item)
        where = f"{collection.name}, page {page_id!r}"
        refuse_not_finite(
            page,
            where,
            retriever,
            lambda place=place: encode_page_again(retriever, collection, place),
        )
        pages.append(page)
    return queries, pages


def _ndcg(collection: Collection, queries: list[Tensor], pages: list[Tensor]) -> float:
    return result_of(collection, score_all(queries, pages)).measures["nDCG@5"]
