"""From the passes of one chunk to what a card holds at each moment of a step."""

from dataclasses import dataclass

import torch

from coltrain.late_interaction import ACCELERATOR_TILE, CPU_TILE
from coltrain.model.colqwen2 import ColQwen2
from coltrain.planning.footprint import Passes, Sizes
from coltrain.training.gradient_cache import PASS_TOKENS

# What a process takes before it holds a tensor, and what the allocator loses between blocks: both
# assumed (0.5 to 0.7 GiB and 3 to 8 % are usual), until `coltrain plan --measure` says otherwise.
CONTEXT_GIB = 0.6
FRAGMENTATION = 1.05
GIB = 2**30
# bitsandbytes keeps two one-byte states, with a float32 scale for each block of 256, and those of
# tensors below 4,096 elements in float32.
_EIGHT_BIT_STATE = 2 + 2 * 4 / 256
_FEWEST_IN_EIGHT_BITS = 4096


@dataclass(frozen=True)
class Batch:
    """What one card sees of a step.

    Attributes:
        queries: Its own queries of the global batch, and as many pages.
        all_pages: Pages of the whole global batch, its hard negatives included.
        own_pages: Pages that this card encodes, its hard negatives included.
        chunk: Samples that pass through the network together.
    """

    queries: int
    all_pages: int
    own_pages: int
    chunk: int


@dataclass(frozen=True)
class Held:
    """Bytes that stay through the whole run.

    Attributes:
        weights: Frozen weights and buffers.
        adapter: Trained parameters.
        optimizer: Its states.
        num_trained: Trained numbers.
    """

    weights: int
    adapter: int
    optimizer: int
    num_trained: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.adapter + self.optimizer


def samples_at_once(batch: Batch, sizes: Sizes, *, checkpointing: bool) -> int:
    """How many of a chunk's pages are in one pass where memory is largest.

    All of them, but for a step of one chunk of pages: it keeps its graph, and where layers are
    checkpointed it is cut into passes of `PASS_TOKENS` (`coltrain.training.gradient_cache`). Of
    several chunks the first ones are not cut.
    """
    is_one_chunk = batch.own_pages == batch.queries <= batch.chunk
    if not (checkpointing and is_one_chunk):
        return batch.chunk
    return min(batch.chunk, max(1, PASS_TOKENS // sizes.page_tokens))


def held(model: ColQwen2, optimizer: str) -> Held:
    """What the weights and an optimiser's states take.

    Args:
        model: The whole network on the meta device, with its adapter.
        optimizer: Name of the recipe's optimiser.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    return Held(
        weights=sum(map(_bytes, [*frozen, *model.buffers()])),
        adapter=sum(map(_bytes, trained)),
        optimizer=sum(_state_bytes(parameter, optimizer) for parameter in trained),
        num_trained=sum(parameter.numel() for parameter in trained),
    )


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _state_bytes(parameter: torch.Tensor, optimizer: str) -> int:
    if optimizer == "adamw":
        return 2 * _bytes(parameter)
    if parameter.numel() < _FEWEST_IN_EIGHT_BITS:
        return 8 * parameter.numel()
    return round(_EIGHT_BIT_STATE * parameter.numel())


@dataclass(frozen=True)
class Memory:
    """A step's memory in bytes.

    Attributes:
        stages: What each stage adds, in the words of the plan.
        moments: What is held at each moment of the step, everything together.
    """

    stages: dict[str, int]
    moments: dict[str, int]

    @property
    def peak(self) -> int:
        """The most that tensors hold at once."""
        return max(self.moments.values())

    @property
    def peak_moment(self) -> str:
        """When that is."""
        return max(self.moments, key=self.moments.__getitem__)


def step_memory(
    kept: Held,
    passes: Passes,
    batch: Batch,
    sizes: Sizes,
    *,
    dim: int,
    hidden: int,
    visual_bytes: int,
    on_cpu: bool,
    part: Passes | None = None,
) -> Memory:
    """What a step in chunks holds.

    Args:
        kept: What stays through the run.
        passes: Of one chunk of `batch.chunk` pages.
        batch: What the card sees.
        sizes: Of a sample.
        dim: Of an embedding.
        hidden: Width of the language model.
        visual_bytes: Of one number of a visual token.
        on_cpu: Whether MaxSim takes a CPU's tiles.
        part: Of what passes at once of a chunk that is cut (`samples_at_once`); None where none is.
    """
    first, second = passes.first.peak_bytes, passes.second.peak_bytes
    if part is not None:  # the graphs of the other parts wait meanwhile
        second = part.second.peak_bytes + passes.graph.peak_bytes - part.graph.peak_bytes
        first = min(first, second)  # no pass is without a graph then
    # Ids and three axes of positions in 8 bytes, the mask in one.
    inputs = 33 * (batch.own_pages * sizes.page_tokens + batch.queries * sizes.query_tokens)
    visual = batch.own_pages * sizes.visual_tokens * hidden * visual_bytes
    own = 4 * dim * (batch.own_pages * sizes.page_tokens + batch.queries * sizes.query_tokens)
    # Over several cards every card holds the pages of all of them to score its queries.
    gathered = 0
    if batch.all_pages > batch.own_pages:
        gathered = 4 * dim * batch.all_pages * sizes.page_tokens
    gradients = 4 * dim * (batch.all_pages * sizes.page_tokens + batch.queries * sizes.query_tokens)
    query_tokens = batch.queries * sizes.query_tokens
    winners = 4 * batch.all_pages * query_tokens
    per_page = sizes.page_tokens * query_tokens
    limit = CPU_TILE if on_cpu else ACCELERATOR_TILE
    tile = 4 * min(max(limit, per_page), per_page * -(-batch.all_pages // (1 if on_cpu else 4)))
    if on_cpu:
        tile = 4 * min(limit, per_page)
    # The loss is taken in float64, on copies that are gone after it; and gradients of chunks are added
    # up in float64.
    # MaxSim works on its own row of query tokens, adds their gradient up beside it, and holds a
    # page's worth of products with each.
    work = 4 * 8 * dim * query_tokens
    scores = 2 * (own + gathered + gradients + tile) + winners + work
    sums = (4 + 8) * kept.num_trained
    between = inputs + visual
    # The last chunk's graph waits for the gradient, and with it that of queries that are one chunk.
    graph = round(passes.graph.peak_bytes)
    graph_of_queries = 0
    if batch.queries <= batch.chunk:
        graph_of_queries = round(graph * sizes.query_tokens / sizes.page_tokens)
    moments = {
        "vision": kept.total + between + own + round(passes.vision.peak_bytes),
        "language model, no graph": kept.total + between + own + round(first),
        "scores": kept.total + between + scores + graph + graph_of_queries,
        "language model, forward and backward": kept.total
        + between
        + own
        + gradients
        + sums
        + round(second),
    }
    if graph_of_queries:
        share = sizes.query_tokens / sizes.page_tokens
        moments["queries, forward and backward"] = (
            kept.total
            + between
            + own
            + gradients
            + 4 * kept.num_trained
            + graph
            + round(share * passes.second.peak_bytes)
        )
    stages = {
        "weights": kept.weights,
        "adapter": kept.adapter + sums,
        "optimizer": kept.optimizer,
        "vision": round(passes.vision.peak_bytes),
        "language_model": round(max(first, second)),
        "scores": scores - own,
        "gradient_caching": between + own,
    }
    return Memory(stages, moments)
