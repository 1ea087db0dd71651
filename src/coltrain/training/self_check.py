"""`coltrain verify --self`: is the step exact, on this machine, with these library versions?

The tiny model in float64, pages of uneven size, LoRA on with weights that are not zero. Gradient
caching in several chunk sizes is held against one plain autograd graph over the whole batch, for
each loss, without and with dropout. Then the memory of a step is counted.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from coltrain.data.drawn.page import draw
from coltrain.data.drawn.windows import drawn_pages
from coltrain.late_interaction import maxsim
from coltrain.losses import LOSSES
from coltrain.model.adapter import ADAPTER_NAME, lora_layers
from coltrain.model.build import BuiltModel, build_for_training
from coltrain.model.dropout import stable_key
from coltrain.recipe import LossSection, load_recipe
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.training.gradient_cache import (
    BatchLoss,
    Chunk,
    Embeddings,
    Side,
    cached_gradients,
)
from coltrain.training.live_tensors import LiveTensors
from coltrain.training.objective import objective

TOLERANCE = 1e-10
GLOBAL_BATCH = 12
CHUNK_SIZES = (1, 2, 5, 12)
MEMORY_BATCHES = (8, 32)
SEED = 7


@dataclass(frozen=True)
class Comparison:
    """One way of cutting the batch against plain autograd.

    Attributes:
        loss: Name of the loss.
        dropout: Of the LoRA layers.
        chunk_size: Samples that pass through the model together.
        num_chunks: Over all sides.
        loss_difference: Relative.
        gradient_difference: Relative: norm of the difference over norm, all parameters together.
        gradient_norm: Of the plain gradient, to see that the case bites.
        vision_forwards_per_page: In the whole step.
    """

    loss: str
    dropout: float
    chunk_size: int
    num_chunks: int
    loss_difference: float
    gradient_difference: float
    gradient_norm: float
    vision_forwards_per_page: float


@dataclass(frozen=True)
class MemoryCheck:
    """What was alive during a step in chunks of one.

    Attributes:
        global_batch: Queries.
        page_tokens: Of the longest page.
        peak_bytes: The most that tensors made in the step held at once.
        kept_bytes: Embeddings with their gradients, arg-max indices and visual tokens, which may
            grow with the batch.
        largest_elements: Elements of the largest tensor.
        largest_shape: Its shape.
        all_pairs_elements: Elements of the queries x pages x tokens x tokens tensor.
    """

    global_batch: int
    page_tokens: int
    peak_bytes: int
    kept_bytes: int
    largest_elements: int
    largest_shape: tuple[int, ...]
    all_pairs_elements: int


@dataclass(frozen=True)
class SelfCheck:
    """All findings.

    Attributes:
        maxsim_difference: Of maxsim's scores and gradients against one einsum, relative.
        comparisons: Step by step.
        memory: By global batch.
    """

    maxsim_difference: float
    comparisons: list[Comparison]
    memory: list[MemoryCheck]

    @property
    def largest_difference(self) -> float:
        """Over all comparisons, loss and gradients."""
        found = [self.maxsim_difference]
        for comparison in self.comparisons:
            found += [comparison.loss_difference, comparison.gradient_difference]
        return math.nan if any(map(math.isnan, found)) else max(found)

    @property
    def growth_beyond_kept(self) -> float:
        """Growth of the peak from the smallest to the largest batch, over that of what is kept.

        At most 1 where nothing but embeddings, indices and visual tokens grows.
        """
        first, last = self.memory[0], self.memory[-1]
        return (last.peak_bytes - first.peak_bytes) / (last.kept_bytes - first.kept_bytes)

    @property
    def passed(self) -> bool:
        """Whether every difference, count and size is as it must be."""
        return (
            self.largest_difference <= TOLERANCE
            and all(one.vision_forwards_per_page == 1 for one in self.comparisons)
            and all(one.gradient_norm > 0 for one in self.comparisons)
            and all(
                one.largest_elements < one.all_pairs_elements
                for one in self.memory
                if one.global_batch >= 32
            )
            and self.growth_beyond_kept <= 1
        )

    def as_document(self) -> dict:
        """For JSON."""
        return {
            "passed": self.passed,
            "tolerance": TOLERANCE,
            "largest_difference": self.largest_difference,
            "maxsim_difference": self.maxsim_difference,
            "growth_beyond_kept": self.growth_beyond_kept,
            "comparisons": [asdict(one) for one in self.comparisons],
            "memory": [asdict(one) for one in self.memory],
        }


def self_check(on_progress: Callable[[int, int], None] | None = None) -> SelfCheck:
    """Run everything; about a minute on two cores.

    Args:
        on_progress: Called with (cases done, cases in all).
    """
    total = 2 * len(LOSSES) * len(CHUNK_SIZES) + len(MEMORY_BATCHES) + 1
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    maxsim_difference = _maxsim_difference()
    advance()
    comparisons = []
    for dropout in (0.0, 0.1):
        built = model_as_if_trained(dropout, torch.float64)
        for name in LOSSES:
            for comparison in _compare(built, name, dropout):
                comparisons.append(comparison)
                advance()
    memory = []
    for size in MEMORY_BATCHES:
        memory.append(_memory(size))
        advance()
    return SelfCheck(maxsim_difference, comparisons, memory)


def model_as_if_trained(dropout: float, dtype: torch.dtype) -> BuiltModel:
    """The tiny model with LoRA weights that are not zero."""
    recipe = load_recipe("tiny", [f"lora.dropout={dropout}"])
    built = build_for_training(recipe, torch.device("cpu"))
    generator = torch.Generator().manual_seed(SEED)
    for layer in lora_layers(built.model).values():
        up = layer.lora_B[ADAPTER_NAME].weight
        # As if trained: with B at zero the gradient of A would be zero, and half would go untested.
        up.data.copy_(torch.empty(up.shape).normal_(std=0.02, generator=generator))
    built.model.to(dtype)
    return built


def loss_settings(name: str) -> LossSection:
    """A loss as it is compared here."""
    return LossSection(name=name, temperature=0.1, normalize=name != "pairwise")


def uneven_chunks(
    built: BuiltModel,
    num_queries: int,
    chunk_size: int,
    negatives: Sequence[int] = (),
    part: range | None = None,
) -> Iterator[Chunk]:
    """A global batch of drawn pages cut to different heights, or a rank's part of it, as chunks.

    Args:
        built: Its preparer makes the inputs.
        num_queries: Global batch.
        chunk_size: Samples of a chunk.
        negatives: How many hard negatives each query has; empty for none.
        part: Rows of the batch; None for all.
    """
    pages = drawn_pages("train")
    part = range(num_queries) if part is None else part
    first = [num_queries + sum(negatives[:row]) for row in range(num_queries)]
    of_sides: dict[Side, list[int]] = {
        "query": list(part),
        "page": list(part),
        "negative": [first[row] + n for row in part if negatives for n in range(negatives[row])],
    }
    for side, samples in of_sides.items():
        for start in range(0, len(samples), chunk_size):
            numbers = samples[start : start + chunk_size]
            chosen = [pages[number] for number in numbers]
            if side == "query":
                inputs = built.preparer.collate_queries([page.query for page in chosen])
            else:
                heights = [224 - 28 * (number % 5) for number in numbers]
                images = [
                    draw(list(page.words)).crop((0, 0, 224, height))
                    for page, height in zip(chosen, heights, strict=True)
                ]
                inputs = built.preparer.collate_pages(
                    [built.preparer.prepare_page(image) for image in images]
                )
            yield Chunk(side, tuple(map(str, numbers)), inputs)


def _compare(built: BuiltModel, name: str, dropout: float) -> Iterator[Comparison]:
    negatives = [1] * GLOBAL_BATCH if name in HARD_NEGATIVE_LOSSES else []
    loss = objective(loss_settings(name), np.zeros((GLOBAL_BATCH, GLOBAL_BATCH), dtype=bool))
    whole = list(uneven_chunks(built, GLOBAL_BATCH, GLOBAL_BATCH, negatives))
    plain_loss, plain = plain_gradients(built, whole, loss)
    num_pages = GLOBAL_BATCH + sum(negatives)
    for chunk_size in CHUNK_SIZES:
        pages_seen = 0

        def count(module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
            nonlocal pages_seen
            pages_seen += len(kwargs["grid_thw"])

        handle = built.model.visual.register_forward_pre_hook(count, with_kwargs=True)
        built.model.zero_grad()
        step = cached_gradients(
            built.model,
            uneven_chunks(built, GLOBAL_BATCH, chunk_size, negatives),
            loss,
            seed=SEED,
            step=0,
        )
        handle.remove()
        cached = flat_gradients(built)
        yield Comparison(
            loss=name,
            dropout=dropout,
            chunk_size=chunk_size,
            num_chunks=step.num_chunks,
            loss_difference=abs(step.loss - plain_loss) / abs(plain_loss),
            gradient_difference=relative_difference(cached, plain),
            gradient_norm=plain.norm().item(),
            vision_forwards_per_page=pages_seen / num_pages,
        )


def plain_gradients(
    built: BuiltModel, chunks: list[Chunk], loss: BatchLoss
) -> tuple[float, Tensor]:
    """Loss and gradient by one autograd graph over the whole batch: no caching, no second pass.

    Args:
        built: The model.
        chunks: One chunk for each side.
        loss: Of the whole batch.
    """
    model = built.model
    model.zero_grad()
    embeddings: dict[Side, Embeddings] = {}
    for chunk in chunks:
        inputs = chunk.inputs
        keys = [stable_key(SEED, 0, chunk.side, sample) for sample in chunk.samples]
        with model.sample_keys.use(keys, model.device):
            visual = None
            if inputs.pixel_values is not None:
                visual = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
            vectors = model(inputs.input_ids, inputs.mask, inputs.position_ids, visual)
        embeddings[chunk.side] = Embeddings(vectors, inputs.mask)
    value = loss(embeddings)
    value.backward()
    return value.item(), flat_gradients(built)


def flat_gradients(built: BuiltModel) -> Tensor:
    """Gradients of all trained parameters, one after the other."""
    return torch.cat(
        [p.grad.flatten().clone() for p in built.model.parameters() if p.requires_grad]
    )


def relative_difference(ours: Tensor, reference: Tensor) -> float:
    """Norm of the difference over norm of the reference."""
    return ((ours - reference).norm() / reference.norm()).item()


def _maxsim_difference() -> float:
    """Scores and gradients against the all-pairs tensor that maxsim never makes."""
    generator = torch.Generator().manual_seed(SEED)

    def vectors(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, 16, generator=generator, dtype=torch.float64)
        return torch.nn.functional.normalize(drawn, dim=-1)

    queries, pages = vectors(7, 9), vectors(5, 40)
    query_mask = torch.arange(9)[None, :] < torch.tensor([9, 3, 5, 1, 8, 9, 2])[:, None]
    page_mask = torch.arange(40)[None, :] < torch.tensor([40, 7, 22, 1, 33])[:, None]
    weights = torch.randn(7, 5, generator=generator, dtype=torch.float64)

    def plain(queries: Tensor, pages: Tensor) -> Tensor:
        similarities = torch.einsum("qid,kjd->qkij", queries, pages)
        similarities = similarities.masked_fill(~page_mask[None, :, None, :], -torch.inf)
        return (similarities.amax(3) * query_mask[:, None, :]).sum(2)

    def ours(queries: Tensor, pages: Tensor) -> Tensor:
        return maxsim(queries, pages, query_mask, page_mask)

    found = []
    for score in (ours, plain):
        leaves = [queries.clone().requires_grad_(), pages.clone().requires_grad_()]
        scores = score(*leaves)
        gradients = torch.autograd.grad((scores * weights).sum(), leaves)
        found.append(torch.cat([part.flatten() for part in (scores.detach(), *gradients)]))
    return relative_difference(*found)


def _memory(global_batch: int) -> MemoryCheck:
    """A step in chunks of one in float32, its tensors counted."""
    built = model_as_if_trained(0.1, torch.float32)
    loss = objective(loss_settings("softmax"), np.zeros((global_batch, global_batch), dtype=bool))

    def step() -> dict[Side, Embeddings]:
        built.model.zero_grad(set_to_none=False)
        chunks = uneven_chunks(built, global_batch, 1)
        return cached_gradients(built.model, chunks, loss, seed=SEED, step=0).embeddings

    step()  # so that gradient buffers exist and do not count
    with LiveTensors() as watch:
        embeddings = step()
    queries, pages = embeddings["query"].mask, embeddings["page"].mask
    num_vectors = queries.numel() + pages.numel()
    bytes_per_vector = 4 * built.model.dim
    visual_tokens = global_batch * 64 * 4 * built.model.config.text_config.hidden_size
    indices = 4 * queries.numel() * global_batch
    return MemoryCheck(
        global_batch=global_batch,
        page_tokens=pages.shape[1],
        peak_bytes=watch.peak_bytes,
        # Embeddings and their gradients, both in float64 while the loss is taken; MaxSim's row of
        # query tokens, its gradient, and its products with a page's gradient and best matches.
        kept_bytes=4 * num_vectors * bytes_per_vector
        + 8 * int(queries.sum()) * bytes_per_vector
        + visual_tokens
        + indices,
        largest_elements=watch.largest_elements,
        largest_shape=watch.largest_shape,
        all_pairs_elements=queries.numel() * pages.numel(),
    )
