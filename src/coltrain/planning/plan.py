"""What fits on a card, how long it takes, and which settings to use: the answer of `coltrain plan`."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import Qwen2VLConfig

from coltrain.errors import UsageError
from coltrain.model.adapter import LoraSettings
from coltrain.model.build import DTYPES
from coltrain.planning import lengths
from coltrain.planning.bases import base_config
from coltrain.planning.counts import counted
from coltrain.planning.cuda_like import Attention
from coltrain.planning.duration import Seconds, seconds
from coltrain.planning.footprint import Cost, Passes, Setting, Sizes, build_on_meta
from coltrain.planning.gpus import Gpu
from coltrain.planning.memory import (
    CONTEXT_GIB,
    FRAGMENTATION,
    GIB,
    Batch,
    Held,
    Memory,
    held,
    samples_at_once,
    step_memory,
)
from coltrain.planning.wheels import Wheel, wheel_for
from coltrain.recipe import Recipe
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES

# Without checkpointing a step computes a sixth less, but a card is not busy with a few pages.
FEWEST_WITHOUT_CHECKPOINTING = 8


@dataclass(frozen=True)
class Fit:
    """A setting with the largest chunk that fits.

    Attributes:
        setting: Precision, attention, checkpointing.
        chunk_size: Samples of a chunk; 0 if not even one fits.
        memory: Of a step with that chunk, or with one.
        fits: Whether a chunk of one fits at all.
    """

    setting: Setting
    chunk_size: int
    memory: Memory
    fits: bool


@dataclass(frozen=True)
class Plan:
    """A recipe on a card.

    Attributes:
        recipe: As asked for.
        gpu: The card.
        num_gpus: How many.
        fit: The recommended setting.
        held: What stays through the run.
        sizes: Of the samples that were planned for.
        num_steps: Of the run.
        step_seconds: Of one step on each card; None where the card's speed is not known.
        hours: Of the whole run, evaluations included; likewise.
        evaluation_hours: Of these, the evaluations.
        changes: Overrides that adapt the recipe to the card, with the reason of each.
        wheel: Of torch; None if no known one has code for the card.
    """

    recipe: Recipe
    gpu: Gpu
    num_gpus: int
    fit: Fit
    held: Held
    sizes: Sizes
    num_steps: int
    step_seconds: Seconds | None
    hours: Seconds | None
    evaluation_hours: Seconds | None
    changes: dict[str, str]
    wheel: Wheel | None

    @property
    def memory_gib(self) -> float:
        """The most that tensors hold at once on a card."""
        return self.fit.memory.peak / GIB

    @property
    def reserved_gib(self) -> float:
        """The same as the driver shows it: with what the allocator loses, and the context."""
        return reserved(self.fit.memory.peak, self.gpu)

    @property
    def kilowatt_hours(self) -> float | None:
        """Energy of all cards at their power limit, for the middle of the hours."""
        if self.hours is None or self.gpu.watts is None:
            return None
        return self.hours.middle * self.gpu.watts * self.num_gpus / 1000


def reserved(num_bytes: float, gpu: Gpu) -> float:
    """GiB of a card that this many bytes of tensors take."""
    if gpu.capability is None:
        return num_bytes / GIB
    return num_bytes / GIB * FRAGMENTATION + CONTEXT_GIB


def make_plan(recipe: Recipe, gpu: Gpu, num_gpus: int = 1, rows: int | None = None) -> Plan:
    """Plan a recipe for a card; neither the card, nor weights, nor data are needed.

    Args:
        recipe: What is to be trained.
        gpu: The card.
        num_gpus: How many of them share the global batch.
        rows: Training rows, where the data set is not known here.

    Raises:
        UsageError: The cards cannot share the global batch evenly; the base or the length of the
            data is not known.
    """
    _refuse_uneven(recipe, num_gpus)
    changes = precision_changes(recipe, gpu)
    adapted = adapt(recipe, changes)
    config, sizes = base_config(recipe.model.base), lengths.sample_sizes(recipe)
    fits = [best_fit(adapted, gpu, num_gpus, config, sizes, checkpointing=False)]
    wanted = min(FEWEST_WITHOUT_CHECKPOINTING, adapted.batch.global_size // num_gpus)
    if adapted.model.activation_checkpointing or fits[0].chunk_size < wanted:
        fits.append(best_fit(adapted, gpu, num_gpus, config, sizes, checkpointing=True))
    fit = fits[-1]
    if fit.setting.checkpointing and not recipe.model.activation_checkpointing:
        changes["model.activation_checkpointing=true"] = (
            f"without it {_pages(fits[0].chunk_size)} at a time; the result stays the same"
        )
    if fit.fits and fit.chunk_size != recipe.batch.chunk_size:
        changes[f"batch.chunk_size={fit.chunk_size}"] = (
            "the largest that fits; the gradient is that of the whole global batch on any chunk"
        )
    steps = lengths.num_steps(recipe, rows)
    step = step_seconds(adapted, gpu, num_gpus, config, sizes, fit)
    evaluation = _evaluation_hours(adapted, gpu, num_gpus, config, sizes, fit, steps)
    return Plan(
        recipe=recipe,
        gpu=gpu,
        num_gpus=num_gpus,
        fit=fit,
        held=held_by(adapted, config, fit.setting),
        sizes=sizes,
        num_steps=steps,
        step_seconds=step,
        hours=None if step is None else step * (steps / 3600) + (evaluation or Seconds(0, 0)),
        evaluation_hours=evaluation,
        changes=changes,
        wheel=wheel_for(gpu),
    )


def _pages(number: int) -> str:
    return {0: "not even one page fits", 1: "one page fits"}.get(number, f"{number} pages fit")


def _refuse_uneven(recipe: Recipe, num_gpus: int) -> None:
    if num_gpus < 1 or recipe.batch.global_size % num_gpus:
        size = recipe.batch.global_size
        divisors = [number for number in range(1, size + 1) if size % number == 0]
        below = [number for number in divisors if number < num_gpus][-1:]
        near = below + [number for number in divisors if number > num_gpus][:1]
        raise UsageError(
            "batch-not-shared",
            "the cards cannot share the global batch evenly.",
            where="--gpus",
            received=f"{num_gpus} cards, batch.global_size = {size}",
            expected="a divisor of the global batch",
            suggestion=" or ".join(f"--gpus {number}" for number in near),
        )


def precision_changes(recipe: Recipe, gpu: Gpu) -> dict[str, str]:
    """What of a recipe's precision the card cannot do, as overrides with their reasons."""
    changes = {}
    if recipe.precision.compute == "auto":
        compute = "bfloat16" if gpu.has_bfloat16 else "float16"
        compute = "float32" if gpu.capability is None else compute
        changes[f"precision.compute={compute}"] = f"what auto takes on {gpu.name}"
    if recipe.precision.compute == "bfloat16" and not gpu.has_bfloat16:
        reason = f"{gpu.name} ({gpu.architecture}) has no bfloat16 units; this can move the result"
        changes["precision.compute=float16"] = reason
        changes["precision.keep_float32=auto"] = (
            "float16 ends at 65,504; what passes it is found and kept in float32"
        )
        if recipe.model.dtype == "bfloat16":
            changes["model.dtype=float16"] = reason
        if recipe.lora.dtype == "bfloat16":
            changes["lora.dtype=float32"] = (
                "gradient scaling needs trained weights in float32; this can move the result"
            )
    return changes


def adapt(recipe: Recipe, changes: dict[str, str]) -> Recipe:
    """The recipe with overrides of the form key=value applied."""
    from coltrain.recipe import recipe_from_yaml, to_yaml

    return recipe_from_yaml(to_yaml(recipe), recipe.name, list(changes)) if changes else recipe


def attention_on(gpu: Gpu, computes_in: torch.dtype) -> Attention:
    """The kernel that a run of coltrain's uses there.

    Below sm_80, and in float32, the memory-efficient one, with keys and values repeated for it
    (`coltrain.model.attention`).
    """
    if gpu.capability is None:
        return "cpu"
    is_half = computes_in in (torch.float16, torch.bfloat16)
    return "flash" if gpu.has_flash_attention and is_half else "efficient"


def setting_of(recipe: Recipe, gpu: Gpu, *, checkpointing: bool) -> Setting:
    """How a run of the recipe computes on the card."""
    compute = DTYPES[recipe.precision.compute]
    weights, autocast = compute, None
    if compute == torch.bfloat16 and recipe.model.dtype == "float32":
        weights, autocast = torch.float32, torch.bfloat16
    elif compute == torch.float16:
        autocast = torch.float16
    kernel = attention_on(gpu, autocast or weights)
    return Setting(
        weights=weights,
        autocast=autocast,
        attention=kernel,
        vision_attention=kernel,
        checkpointing=checkpointing,
        lora=LoraSettings(
            r=recipe.lora.r,
            alpha=recipe.lora.alpha,
            dropout=recipe.lora.dropout,
            target_modules=recipe.lora.target_modules,
            init=recipe.lora.init,
            dtype=DTYPES[recipe.lora.dtype],
        ),
    )


def held_by(recipe: Recipe, config: Qwen2VLConfig, setting: Setting) -> Held:
    """Weights, adapter and optimiser of a recipe."""
    model = build_on_meta(config, recipe.projection.dim, setting)
    return held(model, recipe.optimizer.name)


def best_fit(
    recipe: Recipe,
    gpu: Gpu,
    num_gpus: int,
    config: Qwen2VLConfig,
    sizes: Sizes,
    *,
    checkpointing: bool,
) -> Fit:
    """The largest chunk of a recipe that fits on a card."""
    setting = setting_of(recipe, gpu, checkpointing=checkpointing)
    return largest_chunk(recipe, gpu, num_gpus, config, sizes, setting)


def largest_chunk(
    recipe: Recipe,
    gpu: Gpu,
    num_gpus: int,
    config: Qwen2VLConfig,
    sizes: Sizes,
    setting: Setting,
) -> Fit:
    """The same for any setting: powers of two, and all that a card has of the batch."""
    kept = held_by(recipe, config, setting)
    own = recipe.batch.global_size // num_gpus
    candidates = sorted({own, *(2**power for power in range(own.bit_length()) if 2**power <= own)})

    def memory(chunk: int) -> Memory:
        batch = batch_of(recipe, num_gpus, chunk)
        at_once = samples_at_once(batch, sizes, checkpointing=setting.checkpointing)
        passes = [passes_of(recipe, config, setting, sizes, number) for number in (chunk, at_once)]
        return step_memory(
            kept,
            passes[0],
            batch,
            sizes,
            part=passes[1] if at_once < chunk else None,
            dim=recipe.projection.dim,
            hidden=config.text_config.hidden_size,
            visual_bytes=setting.weights.itemsize,
            on_cpu=gpu.capability is None,
        )

    found = [(chunk, memory(chunk)) for chunk in candidates]
    fitting = [
        (chunk, needed) for chunk, needed in found if reserved(needed.peak, gpu) <= gpu.memory_gib
    ]
    if not fitting:
        return Fit(setting, 0, found[0][1], fits=False)
    chunk, needed = fitting[-1]
    return Fit(setting, chunk, needed, fits=True)


def batch_of(recipe: Recipe, num_gpus: int, chunk: int) -> Batch:
    """What one card sees of a step."""
    pages = recipe.batch.global_size
    if recipe.loss.name in HARD_NEGATIVE_LOSSES or recipe.hard_negatives.shared:
        pages *= 1 + recipe.hard_negatives.per_query
    return Batch(recipe.batch.global_size // num_gpus, pages, pages // num_gpus, chunk)


def passes_of(
    recipe: Recipe, config: Qwen2VLConfig, setting: Setting, sizes: Sizes, chunk: int
) -> Passes:
    """The passes of a chunk: counted with one page and with two, and continued from there."""
    one = counted(config, recipe.projection.dim, setting, sizes, 1)
    if chunk == 1:
        return one
    two = counted(config, recipe.projection.dim, setting, sizes, 2)
    return Passes(
        *(
            first + (second - first) * (chunk - 1)
            for first, second in (
                (one.vision, two.vision),
                (one.first, two.first),
                (one.second, two.second),
                (one.graph, two.graph),
            )
        )
    )


def step_seconds(
    recipe: Recipe,
    gpu: Gpu,
    num_gpus: int,
    config: Qwen2VLConfig,
    sizes: Sizes,
    fit: Fit,
) -> Seconds | None:
    """How long one step takes on each of the cards."""
    batch = batch_of(recipe, num_gpus, max(1, fit.chunk_size))
    passes = passes_of(recipe, config, fit.setting, sizes, batch.chunk)
    is_half = torch.float32 not in (fit.setting.autocast or fit.setting.weights,)
    # A query is a short page without pixels: its cost is the page's by its tokens, but for the
    # number of kernels.
    share = sizes.query_tokens / sizes.page_tokens
    query = (passes.first + passes.second) * share
    query = replace(query, num_operations=(passes.first + passes.second).num_operations)
    page = passes.vision + passes.first + passes.second
    page_chunks = -(-batch.own_pages // batch.chunk)
    query_chunks = -(-batch.queries // batch.chunk)
    products = 2 * batch.queries * sizes.query_tokens * batch.all_pages * sizes.page_tokens
    scores = Cost(flops=products * recipe.projection.dim)
    parts = [
        seconds(page * page_chunks, gpu, is_half=is_half),
        seconds(query * query_chunks, gpu, is_half=is_half),
        seconds(scores, gpu, is_half=False),
    ]
    if None in parts:
        return None
    return parts[0] + parts[1] + parts[2]


def _evaluation_hours(
    recipe: Recipe,
    gpu: Gpu,
    num_gpus: int,
    config: Qwen2VLConfig,
    sizes: Sizes,
    fit: Fit,
    num_steps: int,
) -> Seconds | None:
    """All evaluations of the run: a forward pass of every page, one at a time."""
    if not recipe.eval.data:
        return Seconds(0, 0)
    pages = sum(lengths.num_rows(source, "test") for source in recipe.eval.data)
    times = 2 + ((num_steps - 1) // recipe.eval.every if recipe.eval.every else 0)
    passes = passes_of(recipe, config, fit.setting, sizes, 1)
    is_half = (fit.setting.autocast or fit.setting.weights) != torch.float32
    once = seconds(passes.vision + passes.first, gpu, is_half=is_half)
    return None if once is None else once * (pages * times / num_gpus / 3600)


def as_document(plan: Plan, advice: list[str]) -> dict[str, Any]:
    """The plan for JSON; memory in GiB, time in hours."""
    setting = plan.fit.setting
    return {
        "recipe": plan.recipe.name,
        "gpu": plan.gpu.name,
        "gpus": plan.num_gpus,
        "fits": plan.fit.fits,
        "chunk_size": plan.fit.chunk_size,
        "activation_checkpointing": setting.checkpointing,
        "compute": str(setting.autocast or setting.weights).removeprefix("torch."),
        "attention": setting.attention,
        "memory_gib": round(plan.memory_gib, 4),
        "reserved_gib": round(plan.reserved_gib, 4),
        "usable_gib": plan.gpu.memory_gib,
        "stages": {name: round(size / GIB, 5) for name, size in plan.fit.memory.stages.items()},
        "moments": {name: round(size / GIB, 5) for name, size in plan.fit.memory.moments.items()},
        "visual_tokens": plan.sizes.visual_tokens,
        "page_tokens": plan.sizes.page_tokens,
        "query_tokens": plan.sizes.query_tokens,
        "steps": plan.num_steps,
        "hours": _rounded(plan.hours and plan.hours.middle),
        "hours_range": plan.hours and [_rounded(plan.hours.fast), _rounded(plan.hours.slow)],
        "evaluation_hours": _rounded(plan.evaluation_hours and plan.evaluation_hours.middle),
        "seconds_per_step": _rounded(plan.step_seconds and plan.step_seconds.middle),
        "kilowatt_hours": _rounded(plan.kilowatt_hours),
        "torch_wheel": plan.wheel.requirement if plan.wheel else None,
        "changes": plan.changes,
        "advice": advice,
        "estimated": True,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
