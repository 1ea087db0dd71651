"""Where a step stopped being finite: which sample, which module came first."""

from contextlib import AbstractContextManager, nullcontext

import torch

from coltrain.data.collection import Collection
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.dropout import KeyedDropout, stable_key
from coltrain.model.nonfinite import watch_for_non_finite
from coltrain.training.batches import Batch, ChunkPlan, ChunkReader, chunk_plans


def explain_non_finite(
    model: ColQwen2,
    reader: ChunkReader,
    batch: Batch,
    collection: Collection,
    compute: AbstractContextManager | None = None,
    dropout: tuple[int, int] | None = None,
) -> str:
    """Encode the batch again, sample by sample, and name the first module that is not finite.

    First without dropout, then with the step's own masks: what overflows does so mostly without,
    and the answer says if it did not. In the step's precision: the network's own scope, and modules
    kept in float32, are part of it.

    Args:
        model: As the step left it.
        reader: Makes the chunks, of pixels: the vision tower is asked again, too.
        batch: The step's.
        collection: The training set.
        compute: Autocast context of the step: what overflows in bfloat16 need not in float32.
        dropout: Seed and step number of the masks; None does not try with dropout.
    """
    drops = any(isinstance(part, KeyedDropout) and part.p > 0 for part in model.modules())
    tries = [None] if dropout is None or not drops else [None, dropout]
    for masks in tries:
        for plan in chunk_plans(batch, collection, 1):
            words = _first_non_finite(model, reader, plan, compute or nullcontext(), masks)
            if words is not None:
                with_dropout = "" if masks is None else ", with dropout only"
                return f"{_sample(plan, collection)}: first not finite in {words}{with_dropout}"
    with_bad_gradient = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
    ]
    samples = ", ".join(collection.queries[collection.rows[row].query].id for row in batch.rows[:8])
    if with_bad_gradient:
        # Gradients are made from the last module back to the first.
        return (
            f"every module's output is finite; the gradient of {with_bad_gradient[-1]} was the "
            f"first that is not; queries {samples}"
        )
    without = "without dropout" if len(tries) == 1 else "with dropout and without"
    return f"every module's output is finite {without}; queries {samples}"


def _sample(plan: ChunkPlan, collection: Collection) -> str:
    [(row, page)] = plan.samples
    if plan.side == "query":
        return f"query {collection.queries[collection.rows[row].query].id}"
    return f"page {collection.page_ids[page]}"


def _first_non_finite(
    model: ColQwen2,
    reader: ChunkReader,
    plan: ChunkPlan,
    compute: AbstractContextManager,
    dropout: tuple[int, int] | None,
) -> str | None:
    """What came first in the order of computing, in words."""
    chunk = reader.read(plan)
    inputs = chunk.inputs.to(model.device)
    keys = [stable_key(*(dropout or ()), chunk.side, sample) for sample in chunk.samples]
    masks = nullcontext() if dropout is None else model.sample_keys.use(keys, model.device)
    with torch.no_grad(), compute, masks, watch_for_non_finite(model) as found:
        visual = None
        if inputs.pixel_values is not None:
            visual = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
        model(inputs.input_ids, inputs.mask, inputs.position_ids, visual)
    return None if found.module is None else found.words
