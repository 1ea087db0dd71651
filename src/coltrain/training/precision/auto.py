"""`precision.keep_float32: auto`: look for what overflows before the first step of a float16 run."""

import torch

from coltrain.data.collection import Collection
from coltrain.model.build import build_for_training
from coltrain.recipe import Recipe
from coltrain.recipe.schema import PrecisionSection
from coltrain.training.precision.overflow import Overflow, find_overflow
from coltrain.training.precision.ranges import samples_of


def overflow_of(recipe: Recipe, collection: Collection, device: torch.device) -> Overflow:
    """What of a recipe's model overflows float16 on its training data.

    Costs the model a second time, in float32, before the run's own is built; nothing of it stays.

    Args:
        recipe: A float16 run.
        collection: Its training data.
        device: What computes.

    Raises:
        RunError: [float16-overflows] No choice of modules helps.
        ModelError: As `build_for_training`.
    """
    built = build_for_training(_in_float32(recipe), device)
    try:
        return find_overflow(built.model, list(samples_of(collection, built.preparer)))
    finally:
        del built
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _in_float32(recipe: Recipe) -> Recipe:
    """The same model with the values of its files, also those that float16 has no room for."""
    dtype = "float32" if recipe.model.dtype == "float16" else recipe.model.dtype
    return recipe.model_copy(
        update={
            "precision": PrecisionSection(compute="float32"),
            "model": recipe.model.model_copy(update={"dtype": dtype}),
        }
    )
