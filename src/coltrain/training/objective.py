"""The recipe's loss over the embeddings of a global batch."""

import numpy as np
import torch
from torch import Tensor

from coltrain.losses import LOSSES
from coltrain.recipe import LossSection
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.training.gradient_cache import BatchLoss, Embeddings, Side


def objective(
    settings: LossSection,
    ignore: np.ndarray,
    positives: Tensor | None = None,
    num_rows: int | None = None,
) -> BatchLoss:
    """The loss of a recipe for one global batch.

    Args:
        settings: Formula and every term of it.
        ignore: queries x pages, True where a page must not count as a query's negative. Where
            hard negatives serve all queries, their columns follow the batch's pages.
        positives: Each query's own row of the batch, where the queries are a part of them.
        num_rows: Of the whole batch then.
    """
    terms = {
        "temperature": settings.temperature,
        "normalize": settings.normalize,
        "filter_threshold": settings.filter_threshold,
        "filter_factor": settings.filter_factor,
        "symmetric": settings.symmetric,
        "padding": settings.padding,
    }
    has_hard_negatives = settings.name in HARD_NEGATIVE_LOSSES
    if has_hard_negatives:
        terms["in_batch_weight"] = settings.in_batch_weight

    def loss(embeddings: dict[Side, Embeddings]) -> Tensor:
        queries, pages = embeddings["query"], embeddings["page"]
        if ignore.shape[1] > len(pages.vectors):
            pages = _joined(pages, embeddings["negative"])
        arguments = [queries.vectors, pages.vectors, queries.mask, pages.mask]
        if has_hard_negatives:
            negatives = embeddings["negative"]
            shape = (num_rows or len(queries.vectors), -1, *negatives.mask.shape[1:])
            own = slice(None) if positives is None else positives
            arguments += [
                negatives.vectors.view(*shape, negatives.vectors.shape[-1])[own],
                negatives.mask.view(shape)[own],
            ]
        ignored = torch.from_numpy(ignore).to(queries.vectors.device)
        return LOSSES[settings.name](*arguments, positives=positives, ignore=ignored, **terms)

    return loss


def _joined(pages: Embeddings, negatives: Embeddings) -> Embeddings:
    """Both as one list of pages, padded to the longest."""
    num_tokens = max(pages.mask.shape[1], negatives.mask.shape[1])

    def widen(tensor: Tensor) -> Tensor:
        missing = num_tokens - tensor.shape[1]
        return torch.cat(
            [tensor, tensor.new_zeros((len(tensor), missing, *tensor.shape[2:]))], dim=1
        )

    return Embeddings(
        torch.cat([widen(pages.vectors), widen(negatives.vectors)]),
        torch.cat([widen(pages.mask), widen(negatives.mask)]),
    )
