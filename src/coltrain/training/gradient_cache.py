"""The step's gradient: exact for any batch, in the memory of one chunk.

Gradient caching (Gao et al., 2021, arXiv:2101.06983): encode all chunks without a graph, compute the
loss over the whole global batch and its gradient on the embeddings, then encode each chunk again
with a graph and push its part of that gradient through. The last chunk keeps its graph from the
first pass, as nothing comes between, so that plain training, the case of one chunk, encodes once.

Only the embeddings grow with the global batch, and the visual tokens of a frozen vision tower, which
is run once for each page: both passes share its output.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.dropout import stable_key
from coltrain.model.inputs import Inputs

Side = Literal["query", "page", "negative"]


@dataclass(frozen=True)
class Chunk:
    """Neighbouring samples of a global batch that pass through the model together.

    Attributes:
        side: Queries, their pages, or their hard negatives.
        samples: What each sample is, the same whatever the chunk: the row of the training set, and
            for a negative also its number.
        inputs: Model inputs of the samples.
    """

    side: Side
    samples: tuple[str, ...]
    inputs: Inputs


@dataclass(frozen=True)
class Embeddings:
    """Padded embeddings of one side of a global batch."""

    vectors: Float[Tensor, "samples tokens dim"]
    mask: Bool[Tensor, "samples tokens"]


# (embeddings by side) -> scalar loss
BatchLoss = Callable[[dict[Side, Embeddings]], Tensor]


@dataclass(frozen=True)
class CachedStep:
    """What one pass over a global batch gave; gradients stand in the parameters' `.grad`.

    Attributes:
        loss: The loss over the global batch.
        num_chunks: Chunks over all sides.
        embeddings: Detached embeddings by side, to look at.
    """

    loss: float
    num_chunks: int
    embeddings: dict[Side, Embeddings]


@dataclass
class _Cached:
    """A chunk between the passes: no pixels any more if the vision tower is frozen.

    `graph` holds the vectors of a chunk that is not encoded again, with what led to them.
    """

    chunk: Chunk
    visual_tokens: Tensor | None
    keys: list[int]
    num_tokens: int
    vectors: Float[Tensor, "samples tokens dim"] | None = None
    graph: Float[Tensor, "samples tokens dim"] | None = None


def cached_gradients(
    model: ColQwen2,
    chunks: Iterable[Chunk],
    loss: BatchLoss,
    *,
    seed: int,
    step: int,
    compute: AbstractContextManager | None = None,
) -> CachedStep:
    """Add the gradient of a global batch's loss to the parameters' `.grad`.

    Args:
        model: The network; LoRA dropout acts if its layers have any.
        chunks: The global batch, in order within each side; consumed one at a time, so that only
            one chunk's pixels need to exist.
        loss: Function of the embeddings of the whole batch.
        seed: Of the run; with the step and the sample it decides the dropout masks.
        step: Number of the optimiser step.
        compute: Autocast context of the encoder; the loss is outside of it.

    Returns:
        The loss and the embeddings.

    Raises:
        FloatingPointError: The loss is not finite; nothing was added to gradients.

    Source:
        GradCache (Gao et al., 2021, arXiv:2101.06983).
    """
    compute = compute or nullcontext()
    # `map` forgets a chunk at once, so that its pixels do not live beside its graph.
    seen = map(partial(_see, model, seed, step, compute), chunks)
    cached = [_first_pass(model, *part, compute) for part in _with_kept_graphs(seen)]
    embeddings = {
        side: _join([part for part in cached if part.chunk.side == side])
        for side in dict.fromkeys(part.chunk.side for part in cached)
    }
    for part in cached:
        part.vectors = None  # joined by now; a second copy of all embeddings is not needed
    value, gradients = _loss_and_gradients(embeddings, loss)
    own = dict(zip(map(id, cached), _own_gradients(cached, gradients), strict=True))
    # Graphs that were kept first: then they are gone before another chunk makes one.
    for part in sorted(cached, key=lambda part: part.graph is None):
        _second_pass(model, part, own[id(part)], compute)
    return CachedStep(value, len(cached), embeddings)


def _see(
    model: ColQwen2, seed: int, step: int, compute: AbstractContextManager, chunk: Chunk
) -> _Cached:
    """Run a frozen vision tower, after which a chunk's pixels can go."""
    inputs = chunk.inputs.to(model.device)
    visual_tokens = None
    if inputs.pixel_values is not None and model.vision_is_frozen:
        with compute:
            visual_tokens = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
        inputs = inputs.without_pixels()
    keys = [stable_key(seed, step, chunk.side, sample) for sample in chunk.samples]
    width = inputs.mask.shape[1]
    return _Cached(Chunk(chunk.side, chunk.samples, inputs), visual_tokens, keys, width)


def _with_kept_graphs(parts: Iterable[_Cached]) -> Iterator[tuple[_Cached, bool]]:
    """Chunks, each with whether its graph lives until the gradient comes.

    The last one's does: it would be made again at once. So does that of all queries where they are
    one chunk, which is small beside a chunk of as many pages.
    """
    parts = iter(parts)
    part, before = next(parts, None), None
    while part is not None:
        following = next(parts, None)
        side, after = part.chunk.side, following and following.chunk.side
        yield part, following is None or (side == "query" and side not in (before, after))
        part, before = following, side


def _own_gradients(cached: list[_Cached], gradients: dict[Side, Tensor]) -> Iterator[Tensor]:
    """The part of the gradient that belongs to each chunk."""
    done = dict.fromkeys(gradients, 0)
    for part in cached:
        start, num_samples = done[part.chunk.side], len(part.chunk.samples)
        done[part.chunk.side] = start + num_samples
        yield gradients[part.chunk.side][start : start + num_samples, : part.num_tokens]


def _first_pass(
    model: ColQwen2, part: _Cached, keeps_graph: bool, compute: AbstractContextManager
) -> _Cached:
    with torch.set_grad_enabled(keeps_graph), model.sample_keys.use(part.keys, model.device):
        vectors = _encode(model, part, compute)
    part.vectors = vectors.detach()
    if keeps_graph:
        part.graph, part.visual_tokens = vectors, None
        part.chunk = Chunk(part.chunk.side, part.chunk.samples, part.chunk.inputs.without_pixels())
    return part


def _encode(model: ColQwen2, part: _Cached, compute: AbstractContextManager) -> Tensor:
    inputs, visual_tokens = part.chunk.inputs, part.visual_tokens
    with compute:
        if inputs.pixel_values is not None:  # a vision tower that learns
            visual_tokens = model.encode_vision(inputs.pixel_values, inputs.grid_thw)
        return model(inputs.input_ids, inputs.mask, inputs.position_ids, visual_tokens)


def _second_pass(
    model: ColQwen2, part: _Cached, gradient: Tensor, compute: AbstractContextManager
) -> None:
    vectors, part.graph = part.graph, None
    with model.sample_keys.use(part.keys, model.device):
        if vectors is None:
            vectors = _encode(model, part, compute)
        else:  # layers that are checkpointed need the layout of the first pass
            model.sample_keys.lay_out(model.packing(part.chunk.inputs.mask).lengths)
        # Inside the dropout's scope: checkpointed layers run forward again during this.
        if vectors.requires_grad:  # not where only the vision tower learns, and this is text
            vectors.backward(gradient.to(vectors.dtype))


def _join(parts: list[_Cached]) -> Embeddings:
    """All chunks of a side, padded to the longest sample."""
    num_tokens = max(part.num_tokens for part in parts)

    def widen(tensor: Tensor) -> Tensor:
        missing = num_tokens - tensor.shape[1]
        padding = tensor.new_zeros((tensor.shape[0], missing, *tensor.shape[2:]))
        return torch.cat([tensor, padding], dim=1)

    return Embeddings(
        torch.cat([widen(part.vectors) for part in parts]),
        torch.cat([widen(part.chunk.inputs.mask) for part in parts]),
    )


def _loss_and_gradients(
    embeddings: dict[Side, Embeddings], loss: BatchLoss
) -> tuple[float, dict[Side, Tensor]]:
    """The loss over the global batch and its gradient on every embedding.

    The seam for several ranks: they will gather the pages' embeddings here, and nowhere else.
    """
    leaves = {
        side: Embeddings(part.vectors.detach().requires_grad_(), part.mask)
        for side, part in embeddings.items()
    }
    value = loss(leaves)
    if not torch.isfinite(value):
        raise FloatingPointError(f"loss = {value.item()}")
    gradients = torch.autograd.grad(value, [part.vectors for part in leaves.values()])
    return value.item(), dict(zip(leaves, gradients, strict=True))
