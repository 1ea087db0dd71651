"""The recipe's loss on evaluation data: the same rows and negatives at every evaluation."""

import numpy as np
import torch

from coltrain.data.collection import Collection
from coltrain.data.negatives import negative_mask
from coltrain.evaluation.evaluate import Evaluation
from coltrain.recipe import LossSection
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.training.gradient_cache import Embeddings
from coltrain.training.objective import objective


def evaluation_loss(
    evaluation: Evaluation,
    collection: Collection,
    settings: LossSection,
    global_size: int,
    group_size: int | None,
) -> float | None:
    """Mean loss over the rows in their order, in batches of the training's global size.

    Returns:
        None where there are fewer than two rows, or where the loss wants hard negatives.
    """
    if settings.name in HARD_NEGATIVE_LOSSES:
        return None
    # An evaluation's embeddings are in the host's memory, whatever made them.
    settings = settings.model_copy(update={"maxsim_kernel": "none"})
    num_rows = len(collection.rows)
    total, counted = 0.0, 0
    for start in range(0, num_rows, global_size):
        numbers = np.arange(start, min(start + global_size, num_rows))
        if len(numbers) < 2:
            continue
        rows = [collection.rows[number] for number in numbers]
        mask = negative_mask(collection, numbers, group_size)
        with torch.inference_mode():
            loss = objective(settings, mask.ignore)(
                {
                    "query": _padded([evaluation.queries[row.query] for row in rows]),
                    "page": _padded([evaluation.pages[row.page] for row in rows]),
                }
            )
        total += loss.item() * len(rows)
        counted += len(rows)
    return total / counted if counted else None


def _padded(embeddings: list[torch.Tensor]) -> Embeddings:
    lengths = torch.tensor([len(embedding) for embedding in embeddings])
    vectors = torch.nn.utils.rnn.pad_sequence(embeddings, batch_first=True)
    return Embeddings(vectors, torch.arange(vectors.shape[1])[None, :] < lengths[:, None])
