"""One step on the machine at hand, beside what was planned for it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from coltrain.errors import TrainingError
from coltrain.model.build import BuiltModel, build_for_training
from coltrain.model.inputs import PreparedPage, Preparer
from coltrain.planning.advice import advice
from coltrain.planning.memory import GIB
from coltrain.planning.plan import Plan, adapt
from coltrain.training.gradient_cache import Chunk, cached_gradients
from coltrain.training.live_tensors import LiveTensors
from coltrain.training.maxsim_kernel import refuse_kernel
from coltrain.training.objective import objective
from coltrain.training.optimizers import build_optimizer
from coltrain.training.setup import compute_context


@dataclass(frozen=True)
class Measured:
    """A step as it was.

    Attributes:
        memory_gib: The most that tensors held at once.
        seconds: Of the second step; the first one warms up.
    """

    memory_gib: float
    seconds: float


def measure_step(plan: Plan, device: torch.device) -> Measured:
    """Run two steps of the planned recipe on noise, and measure the second.

    Args:
        plan: For one card.
        device: Where it runs; on a CPU memory is counted by storages.

    Raises:
        ModelError: The base's weights cannot be had.
        TrainingError: [out-of-memory] The step does not fit here.
        RunError: [no-maxsim-kernel] The recipe asks for a kernel that the device does not run.
    """
    try:
        return _two_steps(plan, device)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "out-of-memory",
            "a step does not fit on this card, though it was planned to: the plan is wrong here, or "
            "others use the card.",
            where=f"--measure, chunk size {plan.fit.chunk_size}",
            received=str(error).splitlines()[0],
            expected=f"{plan.reserved_gib:.1f} GiB planned, of {plan.gpu.memory_gib:.1f}",
            suggestion="an empty card, or a smaller batch.chunk_size; the plan says: "
            + "; ".join(advice(plan)),
        ) from error


def _two_steps(plan: Plan, device: torch.device) -> Measured:
    recipe = adapt(plan.recipe, plan.changes)
    refuse_kernel(recipe, device)
    keep = recipe.precision.keep_float32
    # On noise nothing is looked for: what would be kept in float32 adds little to a step.
    built = build_for_training(recipe, device, () if keep == "auto" else keep)
    trained = [parameter for parameter in built.model.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(trained, recipe.optimizer)
    size = recipe.batch.global_size
    loss = objective(recipe.loss, np.zeros((size, size), dtype=bool))

    def step(number: int) -> float:
        optimizer.zero_grad(set_to_none=False)
        started = time.perf_counter()
        chunks = noise(built, plan, device)
        cached_gradients(
            built.model,
            chunks,
            loss,
            seed=recipe.train.seed,
            step=number,
            compute=compute_context(recipe, device),
        )
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    step(1)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        seconds = step(2)
        return Measured(torch.cuda.max_memory_allocated(device) / GIB, seconds)
    with LiveTensors() as watch:
        seconds = step(2)
    return Measured((watch.peak_bytes + plan.held.total) / GIB, seconds)


def noise(built: BuiltModel, plan: Plan, device: torch.device) -> Iterator[Chunk]:
    """A global batch of pages at the full budget and queries of the planned length."""
    generator = np.random.default_rng(0)
    size, chunk = plan.recipe.batch.global_size, plan.fit.chunk_size
    merge = built.preparer.merge_size
    tokens = plan.sizes.visual_tokens
    height = max(rows for rows in range(1, int(tokens**0.5) + 1) if tokens % rows == 0)
    vision = built.model.config.vision_config
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    text = query_of(built.preparer, plan.sizes.query_tokens)
    for start in range(0, size, chunk):
        samples = tuple(str(number) for number in range(start, min(start + chunk, size)))
        yield Chunk("query", samples, built.preparer.collate_queries([text] * len(samples)))
    for start in range(0, size, chunk):
        samples = tuple(str(number) for number in range(start, min(start + chunk, size)))
        pages = [
            PreparedPage(
                torch.from_numpy(generator.standard_normal((tokens * merge**2, width), np.float32)),
                height * merge,
                tokens // height * merge,
            )
            for _ in samples
        ]
        yield Chunk("page", samples, built.preparer.collate_pages(pages))


def query_of(preparer: Preparer, num_tokens: int) -> str:
    """A query that is so many tokens long, prompt included, or as near below as letters come."""
    text = ""
    while len(preparer.query_ids(longer := f"{text} a".strip())) <= num_tokens:
        text = longer
    return text
