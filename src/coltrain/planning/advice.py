"""What a plan means for the person who has the card, in sentences."""

import torch

from coltrain.planning.bases import base_config
from coltrain.planning.memory import GIB
from coltrain.planning.plan import Plan, adapt, held_by
from coltrain.planning.wheels import WHEELS


def advice(plan: Plan) -> list[str]:
    """Sentences, the most urgent first."""
    said = []
    if not plan.fit.fits:
        said.append(
            f"not even one page fits: {plan.reserved_gib:.1f} GiB are needed and "
            f"{plan.gpu.memory_gib:.1f} are there; a card with more memory, or (this moves the "
            f"number) model.max_visual_tokens below {plan.recipe.model.max_visual_tokens}"
        )
    said += [f"{change}: {reason}" for change, reason in plan.changes.items()]
    if plan.fit.setting.autocast == torch.float16:
        said.append(
            "float16 scales gradients, and keeps what overflows in float32 with "
            "precision.keep_float32=auto; the float32 weights of such modules are not counted above"
        )
    if plan.fit.fits:
        said.append(_why_one_card_is_enough(plan))
    said.append(_optimizer(plan))
    said.append(_wheel(plan))
    if plan.hours is not None:
        said.append(
            "memory is counted on tensors without data; time is estimated from counted operations "
            "and has not been measured: coltrain plan --measure on the card compares both"
        )
    return said


def _why_one_card_is_enough(plan: Plan) -> str:
    size = plan.recipe.batch.global_size
    if plan.num_gpus == 1:
        return (
            f"one card reaches the gradient of the global batch of {size}: gradient caching takes "
            f"it {plan.fit.chunk_size} at a time, and every query meets all {size} pages"
        )
    return (
        f"{plan.num_gpus} cards share the global batch of {size}, {size // plan.num_gpus} each; "
        f"every query meets the pages of all of them"
    )


def _optimizer(plan: Plan) -> str:
    recipe, config = plan.recipe, base_config(plan.recipe.model.base)
    adapted = adapt(recipe, plan.changes)
    sizes = {}
    for name in ("adamw", "paged_adamw_8bit"):
        chosen = adapted.model_copy(
            update={"optimizer": adapted.optimizer.model_copy(update={"name": name})}
        )
        sizes[name] = held_by(chosen, config, plan.fit.setting).optimizer / GIB
    saved = sizes["adamw"] - sizes["paged_adamw_8bit"]
    if recipe.optimizer.name != "adamw":
        return (
            f"the 8-bit optimiser states take {sizes['paged_adamw_8bit']:.3f} GiB in place of "
            f"{sizes['adamw']:.3f}: {saved:.2f} GiB of {plan.memory_gib:.1f} is no reason to choose "
            "them; optimizer.name=adamw rounds nothing (and is another run: this moves the number)"
        )
    return (
        f"8-bit optimiser states would take {sizes['paged_adamw_8bit']:.3f} GiB in place of "
        f"{sizes['adamw']:.3f}: {saved:.2f} GiB of {plan.memory_gib:.1f} is no reason to choose "
        "them; activations decide what fits"
    )


def _wheel(plan: Plan) -> str:
    if plan.wheel is None:
        return (
            f"no release of torch that coltrain knows has code for {plan.gpu.architecture}: build "
            "it from source, or ask its makers"
        )
    if plan.gpu.capability is None:
        return f"{plan.wheel.requirement} or any other release from 2.7.1 on computes on a CPU"
    newest = WHEELS[0]
    if plan.wheel == newest:
        return f"install {plan.wheel.requirement} or another wheel with {plan.gpu.architecture}"
    return (
        f"install {plan.wheel.requirement} (CUDA {plan.wheel.cuda}): {newest.requirement} has no "
        f"code for {plan.gpu.architecture}, and its first operation would fail"
    )
