"""Every setting that people train in, on one card: what a sample costs and how many fit.

A sample is a query with its page, and "fit" means plain training: the whole batch in one pass. That
is the question of who asks why two samples fill a card; coltrain's own runs take a chunk at a time.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import Qwen2VLConfig

from coltrain.planning.bases import base_config
from coltrain.planning.footprint import Setting, Sizes
from coltrain.planning.gpus import Gpu
from coltrain.planning.lengths import sample_sizes
from coltrain.planning.memory import GIB, Batch, step_memory
from coltrain.planning.plan import (
    adapt,
    held_by,
    passes_of,
    precision_changes,
    reserved,
    setting_of,
)
from coltrain.recipe import Recipe

_MOST = 4096


@dataclass(frozen=True)
class Row:
    """One way of training on the card.

    Attributes:
        what: In words.
        is_ours: Whether a run of coltrain's computes so.
        gib_per_sample: What one more sample in a pass adds.
        fixed_gib: Weights, adapter, gradients and optimiser.
        samples: That fit in one pass.
    """

    what: str
    is_ours: bool
    gib_per_sample: float
    fixed_gib: float
    samples: int

    def as_document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "setting": self.what,
            "coltrain": self.is_ours,
            "gib_per_sample": round(self.gib_per_sample, 4),
            "fixed_gib": round(self.fixed_gib, 4),
            "samples": self.samples,
        }


def settings_on(recipe: Recipe, gpu: Gpu) -> dict[str, tuple[Setting, bool]]:
    """The settings to compare, in words, and whether they are coltrain's own."""
    ours = setting_of(recipe, gpu, checkpointing=False)
    checkpointed = replace(ours, checkpointing=True)
    hooked = "vision tower hooked as transformers does"
    eager = {"attention": "eager", "vision_attention": "eager"}
    rows = {
        "coltrain": (ours, True),
        "coltrain, checkpointing": (checkpointed, True),
        f"{hooked}": (replace(ours, vision_in_graph=True), False),
        f"{hooked}, checkpointing": (replace(checkpointed, vision_in_graph=True), False),
        "eager attention": (replace(ours, **eager), False),
        "eager attention, checkpointing": (replace(checkpointed, **eager), False),
    }
    if ours.attention == "efficient":
        fallback = {"attention": "math"}
        rows |= {
            "sdpa with its float32 fall-back": (replace(ours, **fallback), False),
            f"float32 fall-back, {hooked}": (
                replace(ours, vision_in_graph=True, **fallback),
                False,
            ),
        }
    half = ours.autocast or ours.weights
    if half != torch.float32:
        loaded = replace(ours, weights=torch.float32, autocast=half)
        name = str(half).removeprefix("torch.")
        rows |= {
            f"base loaded in float32, {name} autocast": (loaded, False),
            f"base loaded in float32, {name} autocast, {hooked}": (
                replace(loaded, vision_in_graph=True),
                False,
            ),
            f"base loaded in float32, {name} autocast, eager attention": (
                replace(loaded, **eager),
                False,
            ),
        }
    return rows


def all_settings(recipe: Recipe, gpu: Gpu) -> list[Row]:
    """A row for each setting; counted once for a network and card, then read from the cache."""
    adapted = adapt(recipe, precision_changes(recipe, gpu))
    config, sizes = base_config(recipe.model.base), sample_sizes(recipe)
    return [
        _row(adapted, gpu, config, sizes, what, setting, is_ours)
        for what, (setting, is_ours) in settings_on(adapted, gpu).items()
    ]


def _row(
    recipe: Recipe,
    gpu: Gpu,
    config: Qwen2VLConfig,
    sizes: Sizes,
    what: str,
    setting: Setting,
    is_ours: bool,
) -> Row:
    kept = held_by(recipe, config, setting)

    def peak(samples: int) -> int:
        return step_memory(
            kept,
            passes_of(recipe, config, setting, sizes, samples),
            Batch(samples, samples, samples, samples),
            sizes,
            dim=recipe.projection.dim,
            hidden=config.text_config.hidden_size,
            visual_bytes=setting.weights.itemsize,
            on_cpu=gpu.capability is None,
        ).peak

    samples = 0
    while samples < _MOST and reserved(peak(samples + 1), gpu) <= gpu.memory_gib:
        samples += 1
    return Row(what, is_ours, (peak(3) - peak(2)) / GIB, kept.total / GIB, samples)
