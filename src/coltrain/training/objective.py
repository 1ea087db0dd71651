"""The recipe's loss over the embeddings of a global batch."""

import numpy as np
import torch
from torch import Tensor

from coltrain.losses import LOSSES
from coltrain.recipe import LossSection
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.training.gradient_cache import BatchLoss, Embeddings, Side


def objective(settings: LossSection, ignore: np.ndarray) -> BatchLoss:
    """The loss of a recipe for one global batch.

    Args:
        settings: Formula and every term of it.
        ignore: queries x pages, True where a page must not count as a query's negative.
    """
    terms = {
        "temperature": settings.temperature,
        "normalize": settings.normalize,
        "filter_threshold": settings.filter_threshold,
        "filter_factor": settings.filter_factor,
        "symmetric": settings.symmetric,
    }
    has_hard_negatives = settings.name in HARD_NEGATIVE_LOSSES
    if has_hard_negatives:
        terms["in_batch_weight"] = settings.in_batch_weight

    def loss(embeddings: dict[Side, Embeddings]) -> Tensor:
        queries, pages = embeddings["query"], embeddings["page"]
        arguments = [queries.vectors, pages.vectors, queries.mask, pages.mask]
        if has_hard_negatives:
            negatives = embeddings["negative"]
            shape = (len(queries.vectors), -1, *negatives.mask.shape[1:])
            arguments += [
                negatives.vectors.view(*shape, negatives.vectors.shape[-1]),
                negatives.mask.view(shape),
            ]
        ignored = torch.from_numpy(ignore).to(queries.vectors.device)
        return LOSSES[settings.name](*arguments, ignore=ignored, **terms)

    return loss
