"""The step's gradient: exact for any batch, in the memory of one chunk.

Gradient caching (Gao et al., 2021, arXiv:2101.06983): encode all chunks without a graph, compute the
loss over the whole global batch and its gradient on the embeddings, then encode each chunk again
with a graph and push its part of that gradient through. The last chunk keeps its graph from the
first pass, as nothing comes between, so that plain training, the case of one chunk, encodes once.

Only the embeddings grow with the global batch, and the visual tokens of a frozen vision tower, which
is run once for each page: both passes share its output.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.dropout import stable_key
from coltrain.model.inputs import Inputs
from coltrain.model.packing import cut
from coltrain.model.vision_cache import LookedUp
from coltrain.training.gradient_sums import GradientSums, exact_type
from coltrain.training.out_of_memory import ChunkLimit
from coltrain.training.ranks import SINGLE, Ranks
from coltrain.training.ranks.gather import exchange_layout, gather_masks, gather_vectors

PASS_TOKENS = 3200
"""Enough for full matrix products: four pages of 768 visual tokens with their prompts."""

Side = Literal["query", "page", "negative"]
SIDES: tuple[Side, ...] = ("query", "page", "negative")


@dataclass(frozen=True)
class Chunk:
    """Neighbouring samples of a global batch that pass through the model together.

    Attributes:
        side: Queries, their pages, or their hard negatives.
        samples: What each sample is, the same whatever the chunk: the row of the training set, and
            for a negative also its number.
        inputs: Model inputs of the samples.
        looked_up: What the cache of visual tokens was asked for; None without one.
    """

    side: Side
    samples: tuple[str, ...]
    inputs: Inputs
    looked_up: LookedUp | None = None

    def pin_memory(self) -> "Chunk":
        """For torch's loader: see `Inputs.pin_memory`."""
        return replace(self, inputs=self.inputs.pin_memory())

    def __len__(self) -> int:
        return len(self.samples)

    def part(self, start: int, stop: int) -> "Chunk":
        """The samples from `start` to before `stop`; what the cache gave is in the inputs by then."""
        return Chunk(self.side, self.samples[start:stop], self.inputs.part(start, stop))


@dataclass(frozen=True)
class Embeddings:
    """Padded embeddings of one side of a global batch."""

    vectors: Float[Tensor, "samples tokens dim"]
    mask: Bool[Tensor, "samples tokens"]


# (embeddings of the global batch by side) -> scalar loss, or this rank's part of it
BatchLoss = Callable[[dict[Side, Embeddings]], Tensor]


@dataclass(frozen=True)
class CachedStep:
    """What one pass over a global batch gave; gradients stand in the parameters' `.grad`.

    Attributes:
        loss: The loss over the global batch.
        num_chunks: Chunks over all sides, of this rank.
        embeddings: Detached embeddings of the global batch by side, to look at.
    """

    loss: float
    num_chunks: int
    embeddings: dict[Side, Embeddings]


class NonFiniteLossError(FloatingPointError):
    """The loss over a global batch is no finite number, here or on another rank."""


@dataclass
class _Cached:
    """A chunk between the passes: no pixels any more if the vision tower is frozen.

    `graph` holds the vectors of a chunk that need not be encoded again, with what led to them.
    """

    chunk: Chunk
    visual_tokens: Tensor | None
    keys: list[int]
    num_tokens: int
    visual_counts: list[int]
    keeps_graph: bool = False
    vectors: Float[Tensor, "samples tokens dim"] | None = None
    graph: Float[Tensor, "samples tokens dim"] | None = None
    gradient: Float[Tensor, "samples tokens dim"] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, start: int, stop: int) -> "_Cached":
        """The samples from `start` to before `stop`, where memory is too small for all of them.

        The graph of the whole goes, and only the last part may keep one.
        """
        self.graph = None
        visual_tokens = self.visual_tokens
        if visual_tokens is not None:
            first = sum(self.visual_counts[:start])
            visual_tokens = visual_tokens[first : first + sum(self.visual_counts[start:stop])]
        return _Cached(
            self.chunk.part(start, stop),
            visual_tokens,
            self.keys[start:stop],
            self.num_tokens,
            self.visual_counts[start:stop],
            keeps_graph=self.keeps_graph and stop == len(self),
            gradient=None if self.gradient is None else self.gradient[start:stop],
        )


def cached_gradients(
    model: ColQwen2,
    chunks: Iterable[Chunk],
    loss: BatchLoss,
    *,
    seed: int,
    step: int,
    compute: AbstractContextManager | None = None,
    scale: float = 1.0,
    ranks: Ranks = SINGLE,
    limit: ChunkLimit | None = None,
) -> CachedStep:
    """Add the gradient of a global batch's loss to the parameters' `.grad`.

    Of many ranks each encodes its part of the batch and computes its part of the loss over all
    embeddings; the gradients are added up, so that every rank ends with the whole batch's. Their
    exchanges are as many for one chunk as for a hundred.

    Args:
        model: The network; LoRA dropout acts if its layers have any.
        chunks: This rank's part of the global batch, in order within each side; consumed one at a
            time, so that only one chunk's pixels need to exist. Ranks have neighbouring samples, in
            their order, and may have different numbers of chunks.
        loss: Function of the embeddings of the whole batch; with many ranks the part of its own
            queries, so that the parts add up to the loss (`part_of_objective`).
        seed: Of the run; with the step and the sample it decides the dropout masks.
        step: Number of the optimiser step.
        compute: Autocast context of the encoder; the loss is outside of it.
        scale: Multiplies the gradient that is pushed back, and with it what is added to `.grad`;
            the loss is not scaled.
        ranks: Who trains together; with many, gradients must be empty before.
        limit: Halves chunks when memory runs out, and remembers it; without one it is an error.

    Returns:
        The loss and the embeddings.

    Raises:
        NonFiniteLossError: The loss is not finite, on all ranks; nothing was added to gradients.
        ColtrainError: [rank-failed] Another rank cannot go on.
        torch.OutOfMemoryError: There is no room for a single sample, or for the loss.

    Source:
        GradCache (Gao et al., 2021, arXiv:2101.06983).
    """
    compute = compute or nullcontext()
    limit = limit or ChunkLimit(is_fixed=True)
    with ranks.together():
        # Nothing here holds a chunk, so that its pixels do not live beside its graph.
        seen = limit.first_passes(chunks, partial(_see, model, seed, step, compute))
        encode = partial(_first_pass, model, compute)
        cached = list(limit.first_passes(_with_kept_graphs(seen, model), encode))
    embeddings = {
        side: _join([part for part in cached if part.chunk.side == side])
        for side in dict.fromkeys(part.chunk.side for part in cached)
    }
    value, gradients, whole = _loss_and_gradients(embeddings, loss, ranks, model)
    done = dict.fromkeys(gradients, 0)
    for part in cached:
        start, stop = done[part.chunk.side], done[part.chunk.side] + len(part)
        part.gradient = scale * gradients[part.chunk.side][start:stop, : part.num_tokens]
        done[part.chunk.side] = stop
    # Graphs that were kept first: then they are gone before another chunk makes one.
    cached.sort(key=lambda part: part.graph is None)
    sums = GradientSums(model.parameters(), ranks)
    with ranks.together():
        limit.second_passes(cached, partial(_second_pass, model, compute, sums), sums.begin)
    sums.finish()
    return CachedStep(value, len(cached), whole)


def _see(
    model: ColQwen2, seed: int, step: int, compute: AbstractContextManager, chunk: Chunk
) -> _Cached:
    """Run a frozen vision tower, after which a chunk's pixels can go."""
    inputs = chunk.inputs.to(model.device)
    visual_tokens = None
    if inputs.visual_tokens is not None:  # the cache gave them, whole
        visual_tokens = torch.cat(inputs.visual_tokens)
    elif inputs.pixel_values is not None and model.vision_is_frozen:
        with compute:
            visual_tokens = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
    if visual_tokens is not None:
        inputs = inputs.without_pixels()
    return _Cached(
        Chunk(chunk.side, chunk.samples, inputs),
        visual_tokens,
        [stable_key(seed, step, chunk.side, sample) for sample in chunk.samples],
        num_tokens=inputs.mask.shape[1],
        visual_counts=(chunk.inputs.input_ids == model.config.image_token_id).sum(1).tolist(),
    )


def _with_kept_graphs(parts: Iterable[_Cached], model: ColQwen2) -> Iterator[_Cached]:
    """Chunks, each told whether its graph lives until the gradient comes.

    The last one's does: it would be made again at once. So does that of all queries where they are
    one chunk, which is small beside a chunk of as many pages.
    """
    parts = iter(parts)
    part, before = next(parts, None), None
    while part is not None:
        following = next(parts, None)
        side, after = part.chunk.side, following and following.chunk.side
        part.keeps_graph = following is None or (side == "query" and side not in (before, after))
        if part.keeps_graph and model.is_checkpointed:
            yield from _in_passes(part)
        else:
            yield part
        part, before = following, side


def _in_passes(part: _Cached) -> Iterator[_Cached]:
    """A chunk that keeps its graph, cut into parts of at most `PASS_TOKENS` tokens that keep theirs.

    Of checkpointed layers a graph holds the inputs alone. What is large is one layer computed again
    backward, and then it is one of a part.
    """
    lengths = part.chunk.inputs.mask.sum(dim=1).tolist()
    for samples in cut(lengths, PASS_TOKENS):
        one = part.part(samples.start, samples.stop)
        one.keeps_graph = True
        yield one


def _first_pass(model: ColQwen2, compute: AbstractContextManager, part: _Cached) -> _Cached:
    with torch.set_grad_enabled(part.keeps_graph), model.sample_keys.use(part.keys, model.device):
        vectors = _encode(model, part, compute)
    part.vectors = vectors.detach()
    part.graph = vectors if part.keeps_graph else None
    return part


def _encode(model: ColQwen2, part: _Cached, compute: AbstractContextManager) -> Tensor:
    inputs, visual_tokens = part.chunk.inputs, part.visual_tokens
    with compute:
        if inputs.pixel_values is not None:  # a vision tower that learns
            visual_tokens = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
        return model(inputs.input_ids, inputs.mask, inputs.position_ids, visual_tokens)


def _second_pass(
    model: ColQwen2, compute: AbstractContextManager, sums: GradientSums, part: _Cached
) -> None:
    vectors, part.graph = part.graph, None  # it serves once: after a failure, encode again
    with model.sample_keys.use(part.keys, model.device):
        if vectors is None:
            vectors = _encode(model, part, compute)
        else:  # layers that are checkpointed need the layout of the first pass
            model.sample_keys.lay_out(model.packing(part.chunk.inputs.mask).lengths)
        # Inside the dropout's scope: checkpointed layers run forward again during this.
        if vectors.requires_grad:  # not where only the vision tower learns, and this is text
            vectors.backward(part.gradient.to(vectors.dtype))
    sums.add()


def _join(parts: list[_Cached]) -> Embeddings:
    """All chunks of a side in float64, padded to the longest sample; takes them from the chunks."""
    num_samples, num_tokens = sum(map(len, parts)), max(part.num_tokens for part in parts)
    first = parts[0].vectors
    vectors = first.new_zeros((num_samples, num_tokens, first.shape[-1]), dtype=exact_type(first))
    mask = first.new_zeros((num_samples, num_tokens), dtype=torch.bool)
    del first
    start = 0
    for part in parts:
        rows = slice(start, start + len(part))
        vectors[rows, : part.num_tokens] = part.vectors
        mask[rows, : part.num_tokens] = part.chunk.inputs.mask
        part.vectors = None
        start += len(part)
    return Embeddings(vectors, mask)


def _loss_and_gradients(
    embeddings: dict[Side, Embeddings], loss: BatchLoss, ranks: Ranks, model: ColQwen2
) -> tuple[float, dict[Side, Tensor], dict[Side, Embeddings]]:
    """The loss over the global batch, its gradient on every embedding of this rank, and the batch.

    The seam between ranks: they gather embeddings here, and nowhere else. In float64, so that
    neither the loss nor a gradient shows by how many ranks it was added up; what is handed back is
    rounded to the embeddings' own type.

    Args:
        embeddings: Of this rank; emptied, since twice their memory is needed meanwhile.
        loss: Of the batch, or this rank's part of it.
        ranks: Who trains together.
        model: Tells the embeddings' type and size.
    """
    kept = torch.promote_types(model.dtype, torch.float32)
    leaves = {
        side: Embeddings(part.vectors.requires_grad_(), part.mask)
        for side, part in embeddings.items()
    }
    embeddings.clear()
    whole = leaves
    if ranks.are_many:
        # A rank without a sample takes part all the same: others wait for it in the backward pass.
        none = torch.zeros((0, 0, model.dim), device=model.device)
        none = none.to(exact_type(none))
        leaves = {
            side: leaves.get(side)
            or Embeddings(none.clone().requires_grad_(), none.new_zeros((0, 0), dtype=torch.bool))
            for side in SIDES
        }
        whole = _gathered(leaves)
    value = loss(whole)
    total = sum(ranks.exchange(value.item()))
    if not math.isfinite(total):
        raise NonFiniteLossError(f"loss = {total}")
    exact = list(torch.autograd.grad(value, [part.vectors for part in leaves.values()]))
    gradients = {side: exact.pop(0).to(kept) for side in leaves}
    rounded = {
        side: Embeddings(part.vectors.detach().to(kept), part.mask) for side, part in whole.items()
    }
    return total, gradients, rounded


def _gathered(own: dict[Side, Embeddings]) -> dict[Side, Embeddings]:
    """The global batch by side, of all ranks' embeddings; differentiable."""
    sizes = {side: tuple(part.mask.shape) for side, part in own.items()}
    layout = exchange_layout(sizes, SIDES)
    masks = gather_masks(layout, [own[side].mask for side in SIDES])
    vectors = gather_vectors(layout, [own[side].vectors for side in SIDES])
    return {
        side: Embeddings(*found)
        for side, *found in zip(SIDES, vectors, masks, strict=True)
        if len(found[0])
    }
