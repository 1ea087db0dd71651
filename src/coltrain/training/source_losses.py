"""How each source of a mixture fares: the loss of its queries among all pages of the batch."""

import numpy as np
import torch

from coltrain.recipe import LossSection
from coltrain.training.batches import Batch
from coltrain.training.gradient_cache import Embeddings, Side
from coltrain.training.objective import objective
from coltrain.training.setup import Setup


def loss_by_source(
    settings: LossSection,
    ignore: np.ndarray,
    embeddings: dict[Side, Embeddings],
    batch: Batch,
    setup: Setup,
) -> dict[str, dict[str, float | int]] | None:
    """Rows and mean loss of each source in a batch; None where there is one source only.

    The batch's loss is the mean of these, weighted by rows. A symmetric loss is not a mean over
    queries, and is not taken apart.
    """
    if len(setup.train_data) == 1 or settings.symmetric:
        return None
    sources = setup.plan.source_of(batch.rows)
    found: dict[str, dict[str, float | int]] = {}
    for place, data in enumerate(setup.train_data):
        chosen = np.flatnonzero(sources == place)
        if len(chosen) == 0:
            continue
        part = dict(embeddings)
        part["query"] = _rows(embeddings["query"], chosen)
        loss = objective(settings, ignore[chosen], torch.from_numpy(chosen), len(batch.rows))
        with torch.no_grad():
            found[data.name] = {"rows": len(chosen), "loss": loss(part).item()}
    return found


def _rows(embeddings: Embeddings, chosen: np.ndarray) -> Embeddings:
    index = torch.from_numpy(chosen).to(embeddings.vectors.device)
    return Embeddings(embeddings.vectors[index], embeddings.mask[index])
