"""Where a step stopped being finite: which sample, which module came first."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import nn

from coltrain.data.collection import Collection
from coltrain.model.colqwen2 import ColQwen2
from coltrain.training.batches import Batch, ChunkPlan, ChunkReader, chunk_plans


def explain_non_finite(
    model: ColQwen2,
    reader: ChunkReader,
    batch: Batch,
    collection: Collection,
    compute: AbstractContextManager | None = None,
) -> str:
    """Encode the batch again, sample by sample, and name the first module that is not finite.

    Dropout is off here: what overflows does so without it, or the answer says that it did not.

    Args:
        model: As the step left it.
        reader: Makes the chunks, of pixels: the vision tower is asked again, too.
        batch: The step's.
        collection: The training set.
        compute: Autocast context of the step: what overflows in bfloat16 need not in float32.
    """
    for plan in chunk_plans(batch, collection, 1):
        with compute or nullcontext():
            name = first_non_finite_module(model, reader, plan)
        if name is not None:
            [(row, page)] = plan.samples
            sample = (
                f"query {collection.queries[collection.rows[row].query].id}"
                if plan.side == "query"
                else f"page {collection.page_ids[page]}"
            )
            return f"{sample}: first not finite in module {name}"
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
    return f"every module's output is finite without dropout; queries {samples}"


def first_non_finite_module(model: ColQwen2, reader: ChunkReader, plan: ChunkPlan) -> str | None:
    """The first leaf module in the order of computing whose output is not finite."""
    found: list[str] = []
    handles = [
        module.register_forward_hook(partial(_note, found, name))
        for name, module in model.named_modules()
        if not any(module.children())
    ]
    try:
        inputs = reader.read(plan).inputs.to(model.device)
        with torch.no_grad():
            visual = None
            if inputs.pixel_values is not None:
                visual = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
            model(inputs.input_ids, inputs.mask, inputs.position_ids, visual)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _note(found: list[str], name: str, module: nn.Module, inputs: tuple, output: object) -> None:
    """A forward hook that takes down a module whose output is not finite."""
    if isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
        found.append(name)
