"""The recipe's loss over the embeddings of a global batch."""

import numpy as np
import torch
from torch import Tensor

from coltrain.losses import LOSSES
from coltrain.match_kernel import match_kernel
from coltrain.recipe import LossSection
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.training.gradient_cache import BatchLoss, Embeddings, Side
from coltrain.training.ranks import Ranks


def objective(settings: LossSection, ignore: np.ndarray, asking: Tensor | None = None) -> BatchLoss:
    """The loss of a recipe for one global batch.

    Args:
        settings: Formula and every term of it.
        ignore: queries x pages, True where a page must not count as a query's negative. Where
            hard negatives serve all queries, their columns follow the batch's pages.
        asking: Rows of the batch over whose queries the mean is taken, each among all pages; None
            for all rows. A symmetric loss takes the mean over the pages of these rows as well.
    """
    terms = {
        "temperature": settings.temperature,
        "normalize": settings.normalize,
        "filter_threshold": settings.filter_threshold,
        "filter_factor": settings.filter_factor,
        "padding": settings.padding,
        "positives": asking,
        "kernel": match_kernel() if settings.maxsim_kernel == "fused" else None,
    }
    has_hard_negatives = settings.name in HARD_NEGATIVE_LOSSES
    if has_hard_negatives:
        terms["in_batch_weight"] = settings.in_batch_weight
    formula = LOSSES[settings.name]
    chosen = slice(None) if asking is None else asking

    def loss(embeddings: dict[Side, Embeddings]) -> Tensor:
        queries, pages = embeddings["query"], embeddings["page"]
        if ignore.shape[1] > len(pages.vectors):
            pages = _joined(pages, embeddings["negative"])
        arguments = [queries.vectors[chosen], pages.vectors, queries.mask[chosen], pages.mask]
        if has_hard_negatives:
            negatives = embeddings["negative"]
            shape = (len(queries.vectors), -1, *negatives.mask.shape[1:])
            arguments += [
                negatives.vectors.view(*shape, negatives.vectors.shape[-1])[chosen],
                negatives.mask.view(shape)[chosen],
            ]
        ignored = torch.from_numpy(ignore).to(queries.vectors.device)
        if asking is None:
            return formula(*arguments, ignore=ignored, symmetric=settings.symmetric, **terms)
        value = formula(*arguments, ignore=ignored[chosen], **terms)
        if not settings.symmetric:
            return value
        back = [pages.vectors[chosen], queries.vectors, pages.mask[chosen], queries.mask]
        return (value + formula(*back, ignore=ignored.T[chosen], **terms)) / 2

    return loss


def part_of_objective(settings: LossSection, ignore: np.ndarray, ranks: Ranks) -> BatchLoss:
    """What this rank's queries have in the batch's loss: the parts of all ranks add up to it.

    It is their mean, weighted by their share of the batch, so that gradients of the parts add up to
    the gradient of the whole and nothing has to be scaled after.

    Args:
        settings: As for `objective`.
        ignore: Likewise, of the whole batch.
        ranks: Whose part.
    """
    if not ranks.are_many:
        return objective(settings, ignore)
    part = ranks.part(len(ignore))
    if not part:  # still within the graph, through which the others' gradients come
        return lambda embeddings: sum(0 * one.vectors.sum() for one in embeddings.values())
    mean = objective(settings, ignore, torch.arange(part.start, part.stop))
    return lambda embeddings: mean(embeddings) * (len(part) / len(ignore))


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
