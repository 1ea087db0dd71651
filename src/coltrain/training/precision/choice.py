"""What `precision.compute: auto` means on a device, and what float16 asks of a recipe."""

from collections.abc import Mapping

import torch
from torch import nn

from coltrain.errors import RunError
from coltrain.recipe import Recipe
from coltrain.recipe.schema import PrecisionSection


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 on its own units, not by emulation.

    torch.cuda.is_bf16_supported() says yes on a V100, where every product is emulated.
    """
    if device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def compute_on(device: torch.device) -> str:
    """Precision that suits a device: bfloat16 where it has it, else float16; float32 on a CPU."""
    if device.type == "cpu":
        return "float32"
    return "bfloat16" if has_bfloat16(device) else "float16"


def settled(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe with `precision.compute: auto` replaced by what the device has.

    What a run saves and hashes is this: two devices that compute otherwise ran two recipes.
    """
    if recipe.precision.compute != "auto":
        return recipe
    precision = PrecisionSection(
        compute=compute_on(device), keep_float32=recipe.precision.keep_float32
    )
    return recipe.model_copy(update={"precision": precision})


def refuse_half_trainables(recipe: Recipe, trained: Mapping[str, nn.Parameter]) -> None:
    """Gradient scaling needs trained weights in float32: an update is smaller than float16's steps.

    Raises:
        RunError: [trained-in-half] Some are in another type.
    """
    if recipe.precision.compute != "float16":
        return
    others = {
        name: parameter.dtype
        for name, parameter in trained.items()
        if parameter.dtype not in (torch.float32, torch.float64)
    }
    if not others:
        return
    name, dtype = next(iter(others.items()))
    found = str(dtype).removeprefix("torch.")
    raise RunError(
        "trained-in-half",
        "float16 computes with trained weights in float32, and some of these are not.",
        where="lora.dtype, precision.compute",
        received=f"precision.compute = float16, {len(others)} of {len(trained)} trained tensors in "
        f"{found}, first {name}",
        expected="an adapter in float32: its updates are smaller than the steps of a half type",
        suggestion="lora.dtype=float32",
    )
