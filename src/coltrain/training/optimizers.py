"""Optimisers and learning-rate schedules by the names that recipes use."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from coltrain.errors import RunError
from coltrain.recipe import OptimizerSection


def build_optimizer(
    parameters: Iterable[nn.Parameter], settings: OptimizerSection
) -> torch.optim.Optimizer:
    """AdamW, fused as CPUs and CUDA have it, or bitsandbytes' 8-bit AdamW.

    Raises:
        RunError: [missing-extra] bitsandbytes is asked for and not installed.

    Source:
        Decoupled weight decay (Loshchilov and Hutter, 2019, arXiv:1711.05101); 8-bit states
        (Dettmers et al., 2022, arXiv:2110.02861), which bitsandbytes keeps in 32 bits for tensors
        of fewer than 4,096 elements.
    """
    parameters = list(parameters)
    arguments = {
        "lr": settings.learning_rate,
        "betas": tuple(settings.betas),
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }
    if settings.name == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **arguments)
    return _eight_bit(settings)(parameters, **arguments)


def refuse_missing_optimizer(settings: OptimizerSection) -> None:
    """Raise [missing-extra] if the optimiser is not installed, before anything is loaded.

    Raises:
        RunError: bitsandbytes is asked for and not installed.
    """
    if settings.name != "adamw":
        _eight_bit(settings)


def _eight_bit(settings: OptimizerSection) -> type[torch.optim.Optimizer]:
    try:
        import bitsandbytes
    except ImportError as error:
        raise RunError(
            "missing-extra",
            "the 8-bit optimisers need bitsandbytes, which is not installed.",
            where="optimizer.name",
            received=settings.name,
            suggestion="pip install 'coltrain[optim8bit]', or optimizer.name=adamw",
        ) from error
    kinds = {
        "adamw_8bit": bitsandbytes.optim.AdamW8bit,
        "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit,
    }
    return kinds[settings.name]


def learning_rate(step: int, num_steps: int, settings: OptimizerSection) -> float:
    """Learning rate of an optimiser step.

    Args:
        step: From 0.
        num_steps: Steps of the whole run.
        settings: Peak, warm-up and shape.

    Returns:
        A linear rise over the warm-up, then linear or cosine decay to 0, or the peak.

    Source:
        transformers' `get_linear_schedule_with_warmup` and its siblings, which the reference's
        trainer uses.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return settings.learning_rate * step / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - warmup) / max(1, num_steps - warmup)
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return settings.learning_rate * max(0.0, 1 - progress)
