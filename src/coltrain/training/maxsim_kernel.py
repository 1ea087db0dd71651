"""What `loss.maxsim_kernel: auto` means on a device."""

import torch

from coltrain.match_kernel import match_kernel, refuse_missing_kernel, why_no_kernel
from coltrain.recipe import LossSection, Recipe


def with_kernel_settled(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe with `loss.maxsim_kernel: auto` replaced by what the device has.

    What a run saves and hashes is this, as with `precision.compute`.
    """
    if recipe.loss.maxsim_kernel != "auto":
        return recipe
    found = "none" if why_no_kernel(device, recipe.projection.dim) else "fused"
    loss = recipe.loss.model_copy(update={"maxsim_kernel": found})
    return recipe.model_copy(update={"loss": loss})


def refuse_kernel(recipe: Recipe, device: torch.device) -> None:
    """See `refuse_missing_kernel`; for a recipe that asks for the kernel."""
    if recipe.loss.maxsim_kernel == "fused":
        refuse_missing_kernel(device, recipe.projection.dim)


def maxsim_facts(settings: LossSection) -> str:
    """What finds the best matches of a step, for a record."""
    return match_kernel().name if settings.maxsim_kernel == "fused" else "torch"
