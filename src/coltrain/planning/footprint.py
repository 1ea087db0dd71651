"""One step of the real network on tensors without data: what it holds, computes and moves.

The network is coltrain's own, with the base's real configuration and LoRA on the recipe's modules,
and both passes of gradient caching run through it forward and backward. Only the data is missing.
Layers are alike, so a pass is run with few and with one more of them and continued to the real
number, which a test holds against deeper networks. (A peak is the larger of several moments. With
the vision tower in the graph and layers computed again, which no run of coltrain's does, the moment
may change with depth, and the continued figure is then a lower bound.)
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry
from transformers import Qwen2VLConfig

from coltrain.model.adapter import LoraSettings, add_lora
from coltrain.model.colqwen2 import ColQwen2, layers_kept
from coltrain.model.packing import Packing
from coltrain.planning.bases import reduced
from coltrain.planning.cuda_like import Attention, attention, float32_list_of_cuda
from coltrain.training.live_tensors import LiveTensors


@dataclass(frozen=True)
class Setting:
    """What decides the memory and time of a pass, besides network and sizes.

    Attributes:
        weights: Storage type of the frozen weights.
        autocast: Type that autocast computes in; None computes in the weights' type.
        attention: Kernel of the language model, whose key and value heads are fewer.
        vision_attention: Kernel of the vision tower.
        checkpointing: Whether layers are computed again backward.
        lora: The adapter.
        vision_in_graph: Whether the vision tower runs backward as well: no run of coltrain's does
            that with a frozen tower, transformers' own checkpointing does.
    """

    weights: torch.dtype
    autocast: torch.dtype | None
    attention: Attention
    vision_attention: Attention
    checkpointing: bool
    lora: LoraSettings
    vision_in_graph: bool = False


@dataclass(frozen=True)
class Sizes:
    """How long samples are.

    Attributes:
        visual_tokens: Of a page.
        page_tokens: Of a page, with its prompt.
        query_tokens: Of a query, with what the template adds; fewer than a page's.
    """

    visual_tokens: int
    page_tokens: int
    query_tokens: int


@dataclass(frozen=True)
class Cost:
    """Of one pass of one chunk.

    Attributes:
        peak_bytes: The most that its own tensors held at once, inputs included.
        flops: Floating-point operations of its matrix products and attention.
        moved_bytes: Read and written by all other operations, one after another, nothing fused.
        num_operations: Kernels to launch.
    """

    peak_bytes: float = 0
    flops: float = 0
    moved_bytes: float = 0
    num_operations: float = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(mine + its for mine, its in zip(_values(self), _values(other), strict=True)))

    def __sub__(self, other: "Cost") -> "Cost":
        return self + other * -1

    def __mul__(self, times: float) -> "Cost":
        return Cost(*(times * mine for mine in _values(self)))


def _values(cost: Cost) -> tuple[float, ...]:
    return cost.peak_bytes, cost.flops, cost.moved_bytes, cost.num_operations


@dataclass(frozen=True)
class Passes:
    """The passes of one chunk.

    Attributes:
        vision: The vision tower over the chunk's pages.
        first: The language model over them, no graph.
        second: Again with a graph, and backward.
        graph: What is left of the second before it runs backward: bytes alone.
    """

    vision: Cost
    first: Cost
    second: Cost
    graph: Cost


_ONLY_NAMES = {torch.ops.aten._unsafe_view.default, torch.ops.aten.detach.default}


class _WithoutData(ColQwen2):
    """The network on tensors that hold nothing, so that no placeholder or length can be counted."""

    def packing(self, mask: Tensor) -> Packing:
        """All samples are as long as their row."""
        return Packing((mask.shape[1],) * len(mask), mask.shape[1])

    def refuse_other_count(self, is_visual: Tensor, visual_tokens: Tensor) -> None:
        """Nothing to count."""


class _Counter(LiveTensors):
    """Counts storages, and operations besides."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.moved_bytes = 0
        self.num_operations = 0

    def count_flops(self, flops: int) -> None:
        """Of a kernel that the registry does not know."""
        self.flops += flops

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = super().__torch_dispatch__(function, types, args, kwargs)
        if function.namespace == "prim" or function.is_view or function in _ONLY_NAMES:
            return output  # nothing is computed
        self.num_operations += 1
        packet = function._overloadpacket
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=output)
            return output
        for tensor in tree_iter((args, kwargs, output)):
            if isinstance(tensor, Tensor):
                self.moved_bytes += tensor.numel() * tensor.element_size()
        return output

    def cost(self) -> Cost:
        """What was counted."""
        return Cost(self.peak_bytes, self.flops, self.moved_bytes, self.num_operations)


def passes(config: Qwen2VLConfig, dim: int, setting: Setting, sizes: Sizes, chunk: int) -> Passes:
    """Count every pass of one chunk.

    Args:
        config: The base's.
        dim: Of an embedding.
        setting: Precision, attention, adapter.
        sizes: Of the samples.
        chunk: Samples in it.
    """
    num_layers, depth = config.text_config.num_hidden_layers, config.vision_config.depth
    kept = layers_kept(num_layers)
    # The first layer is unlike the others, and so are those that are kept where others are not.
    few = max(2, kept + 1)
    if max(num_layers, depth) <= few + 1:
        return _passes(config, dim, setting, sizes, chunk, kept)
    less, more = (
        _passes(reduced(config, number, number), dim, setting, sizes, chunk, kept)
        for number in (few, few + 1)
    )
    layer = more.second - less.second
    block = Cost()
    if setting.vision_in_graph:  # one pass through both towers: a third count takes them apart
        deeper = _passes(reduced(config, few, few + 1), dim, setting, sizes, chunk, kept).second
        layer, block = more.second - deeper, deeper - less.second
    return Passes(
        vision=less.vision + (more.vision - less.vision) * (depth - few),
        first=less.first + (more.first - less.first) * (num_layers - few),
        second=less.second + layer * (num_layers - few) + block * (depth - few),
        graph=less.graph + (more.graph - less.graph) * (num_layers - few),
    )


def _passes(
    config: Qwen2VLConfig,
    dim: int,
    setting: Setting,
    sizes: Sizes,
    chunk: int,
    kept_layers: int | None = None,
) -> Passes:
    """The same for exactly this network."""
    with _network(config, dim, setting, kept_layers) as model:
        visual = torch.empty(
            chunk * sizes.visual_tokens, config.text_config.hidden_size, dtype=model.visual.dtype
        )

        def see():
            return _see(model, sizes, chunk)

        def read():
            return _read(model, sizes, chunk, see() if setting.vision_in_graph else visual)

        return Passes(
            _count(model, setting, see, chunk)[0],
            _count(model, setting, lambda: _read(model, sizes, chunk, visual), chunk)[0],
            *_count(model, setting, read, chunk, backward=True),
        )


def build_on_meta(
    config: Qwen2VLConfig, dim: int, setting: Setting, kept_layers: int | None = None
) -> ColQwen2:
    """The network with its adapter, without memory; types as a run has them."""
    with torch.device("meta"):
        model = _WithoutData(config, dim).to(setting.weights)
    add_lora(model, setting.lora, seed=0)
    if setting.checkpointing:
        model.checkpoint_activations(kept_layers)
        if setting.vision_in_graph:
            model.visual.activation_checkpointing_enable({"use_reentrant": False})
            model.visual.train()
    return model


@contextmanager
def _network(
    config: Qwen2VLConfig, dim: int, setting: Setting, kept_layers: int | None
) -> Iterator[ColQwen2]:
    """The network with fake tensors in the place of its weights, and the mode that they need."""
    model = build_on_meta(config, dim, setting, kept_layers)
    if setting.attention != "cpu":
        model.cut_for_accelerator()
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            for name, weight in list(module._parameters.items()):
                if weight is not None:
                    module._parameters[name] = nn.Parameter(
                        torch.empty(weight.shape, dtype=weight.dtype), weight.requires_grad
                    )
            for name, buffer in list(module._buffers.items()):
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        for parameter in model.parameters():
            if parameter.requires_grad:  # as in every step but the first chunk's
                parameter.grad = torch.empty_like(parameter)
        if setting.vision_in_graph:
            model.visual.patch_embed.register_forward_hook(
                lambda module, inputs, output: output.requires_grad_()
            )
        yield model


def _count(model, setting: Setting, run, chunk: int, *, backward: bool = False):
    """Run a pass under the counter; returns its cost and what stood between its two directions."""
    counter = _Counter()
    autocast = nullcontext()
    if setting.autocast is not None:
        autocast = torch.autocast("cpu", setting.autocast)
    # The gradient that the loss left for these samples is not the pass's own.
    gradient = torch.empty(chunk, 1, 1)
    with (
        attention(model, setting.attention, setting.vision_attention, counter.count_flops),
        float32_list_of_cuda(),
        model.sample_keys.use([0] * chunk, model.device),
        counter,
    ):
        with torch.set_grad_enabled(backward), autocast:
            output = run()
        graph = Cost(counter.alive_bytes)
        if backward:
            output.backward(gradient.expand(output.shape))
    return counter.cost(), graph


def _see(model: ColQwen2, sizes: Sizes, chunk: int) -> Tensor:
    """The vision tower; lengths and positions are handed over, which fake data cannot tell."""
    merge = model.visual.spatial_merge_size
    patches = sizes.visual_tokens * merge**2
    vision = model.config.vision_config
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.empty(chunk * patches, width)
    output = model.visual(
        pixels.to(model.visual.dtype),
        grid_thw=torch.empty(chunk, 3, dtype=torch.int64),
        position_ids=torch.empty(chunk * patches, 2, dtype=torch.int64),
        cu_seqlens=torch.empty(chunk + 1, dtype=torch.int32),
        max_seqlen=patches,
    )
    return output.pooler_output


def _read(model: ColQwen2, sizes: Sizes, chunk: int, visual: Tensor) -> Tensor:
    """The language model and the projection, by the network's own forward pass."""
    length = sizes.page_tokens
    return model(
        torch.empty(chunk, length, dtype=torch.int64),
        torch.empty(chunk, length, dtype=torch.bool),
        torch.empty(3, chunk, length, dtype=torch.int64),
        visual,
    )
