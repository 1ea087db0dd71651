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
    part = setup.ranks.part(len(batch.rows))
    own = []  # of each source this rank's rows and their loss
    for place in range(len(setup.train_data)):
        rows = np.flatnonzero(sources[part.start : part.stop] == place) + part.start
        loss = 0.0
        if len(rows):
            with torch.no_grad():
                loss = objective(settings, ignore, torch.from_numpy(rows))(embeddings).item()
        own.append((len(rows), loss))
    found: dict[str, dict[str, float | int]] = {}
    for data, *of_ranks in zip(setup.train_data, *setup.ranks.exchange_objects(own), strict=True):
        num_rows = sum(rows for rows, _ in of_ranks)
        if num_rows:
            # Exact for one rank: a float32 times a number of rows has room in float64.
            mean = sum(rows * loss for rows, loss in of_ranks) / num_rows
            found[data.name] = {"rows": num_rows, "loss": mean}
    return found
