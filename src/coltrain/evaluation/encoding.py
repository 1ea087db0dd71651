"""Pages and queries of a data set through the model: one by one, or in padded batches on a GPU.

On a CPU each item is encoded alone, so that a batch only says how many are taken at a time. On a
GPU a batch is padded on the right, where causal attention cannot look: the embeddings are those of
single items up to rounding (1e-5 in float32 covers it; tests force the same path on a CPU).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from coltrain.data.collection import Collection
from coltrain.errors import ModelError
from coltrain.model.nonfinite import watch_for_non_finite
from coltrain.model.retriever import Retriever


def is_padded(retriever: Retriever, batch_size: int) -> bool:
    """Whether batches of this size are padded ones: on a GPU, from 2 on."""
    return batch_size > 1 and retriever.built.model.device.type != "cpu"


def encode_pages(
    retriever: Retriever, images: Sequence[Image.Image], padded: bool = False
) -> list[Tensor]:
    """One tensor of tokens x dim for each page, unpadded, on the CPU."""
    if not padded:
        return retriever.encode_pages(images)
    preparer, model = retriever.built.preparer, retriever.built.model
    inputs = preparer.collate_pages([preparer.prepare_page(image) for image in images])
    inputs = inputs.to(model.device)
    with torch.inference_mode():
        visual_tokens = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
        embeddings = model(inputs.input_ids, inputs.mask, inputs.position_ids, visual_tokens)
    return _unpadded(embeddings, inputs.mask)


def encode_queries(
    retriever: Retriever, texts: Sequence[str], padded: bool = False
) -> list[Tensor]:
    """One tensor of tokens x dim for each query, unpadded, on the CPU."""
    if not padded:
        return retriever.encode_queries(texts)
    model = retriever.built.model
    inputs = retriever.built.preparer.collate_queries(texts).to(model.device)
    with torch.inference_mode():
        embeddings = model(inputs.input_ids, inputs.mask, inputs.position_ids, None)
    return _unpadded(embeddings, inputs.mask)


def encode_page_again(retriever: Retriever, collection: Collection, place: int) -> None:
    """One page alone, decoded again: for `refuse_not_finite`, which rarely asks for it."""
    retriever.encode_pages([collection.page_image(place)])


def _unpadded(embeddings: Tensor, mask: Tensor) -> list[Tensor]:
    lengths = mask.sum(dim=1).tolist()
    embeddings = embeddings.cpu()
    return [one[:length].clone() for one, length in zip(embeddings, lengths, strict=True)]


def encode_all_queries(
    retriever: Retriever,
    queries: Sequence,
    name: str,
    batch_size: int = 1,
    padded: bool = False,
    on_item: Callable[[], None] | None = None,
) -> list[Tensor]:
    """The embeddings of a data set's queries.

    Args:
        retriever: The model.
        queries: With `id` and `text`.
        name: Of the data set, for an error.
        batch_size: Queries at a time.
        padded: Whether those are one padded batch.
        on_item: Called after each query.

    Raises:
        ModelError: `[not-finite-embedding]`, the query named.
    """
    embeddings: list[Tensor] = []
    for start in range(0, len(queries), batch_size):
        group = queries[start : start + batch_size]
        for query, embedding in zip(
            group, encode_queries(retriever, [query.text for query in group], padded), strict=True
        ):
            refuse_not_finite(
                embedding,
                f"{name}, query {query.id!r}",
                retriever,
                partial(retriever.encode_queries, [query.text]),
            )
            embeddings.append(embedding)
            if on_item is not None:
                on_item()
    return embeddings


def refuse_not_finite(
    embedding: Tensor, where: str, retriever: Retriever, again: Callable[[], object]
) -> None:
    """Name the page or query whose embedding holds what is not a number.

    Args:
        embedding: Of one item.
        where: Which.
        retriever: The model.
        again: Encodes the same item alone, to find the module that comes first.

    Raises:
        ModelError: `[not-finite-embedding]`.
    """
    wrong = ~torch.isfinite(embedding).all(dim=1)
    if not wrong.any():
        return
    model = retriever.built.model
    dtype = str(model.dtype).removeprefix("torch.")
    with watch_for_non_finite(model) as found:
        again()
    first = "" if found.module is None else f"; first in {found.words}"
    way_out = "look for NaN in the model's weights: was it trained to the end?"
    if model.computes_in is not None:
        way_out = "precision.keep_float32=auto, which keeps such modules in float32"
    elif dtype == "float16":
        way_out = "--dtype float32 or bfloat16: float16 overflows where they do not"
    raise ModelError(
        "not-finite-embedding",
        "the model gave an embedding with values that are no numbers.",
        where=where,
        received=f"{int(wrong.sum())} of {len(embedding)} vectors with NaN or infinity, from "
        f"weights in {dtype}{first}",
        expected="finite values",
        suggestion=way_out,
    )
