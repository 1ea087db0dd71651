"""The gated feed-forward layer with its LoRA updates, a block of rows at a time.

Five tensors as wide as the layer stand between its input and its output, forward and backward; on a
CPU, writing them to memory and reading them again takes a third of the time that the products take. For
a hundred rows they fit in a core's cache. What is trained is small, so the gradients of all blocks are
added up in place, and only the input is kept; gate and up are computed again in the backward pass,
unless they are to be kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from coltrain.model.row_linear import RowLinear, Seen

Adapted = tuple[RowLinear, Tensor | None, Tensor | None]
"""A layer by rows, with its A and B; without an adapter they are None."""


@dataclass
class _Work:
    """What both directions of one call need besides tensors that are trained or depend on them.

    Attributes:
        layers: Gate, up and down.
        rows_per_block: At most.
        keeps: Whether gate and up are kept for the backward pass.
        has_graph: Whether there is one.
        wide: Those two, once they are there.
        lows: Of each layer the adapter's product with A, block by block, once they are there.
    """

    layers: tuple[RowLinear, RowLinear, RowLinear]
    rows_per_block: int
    keeps: bool
    has_graph: bool
    wide: list[Tensor] = field(default_factory=list)
    lows: list[tuple[Tensor | None, ...]] = field(default_factory=list)

    @property
    def out_dim(self) -> int:
        return len(self.layers[2].weight)


def feed_forward(
    states: Float[Tensor, "... hidden"],
    layers: Sequence[Adapted],
    rows_per_block: int,
    *,
    keeps: bool,
) -> Float[Tensor, "... hidden"]:
    """down(silu(gate(states)) * up(states)).

    Args:
        states: Input.
        layers: Gate, up and down, with their adapters.
        rows_per_block: Rows that a core's cache holds three times at the layer's width.
        keeps: Whether gate and up are kept for the backward pass or computed again.
    """
    rows = states.flatten(0, -2)
    gate, up, down = (layer for layer, _, _ in layers)
    trained = [tensor for _, *adapter in layers for tensor in adapter]
    needs = [tensor for tensor in (rows, *trained) if tensor is not None and tensor.requires_grad]
    has_graph = torch.is_grad_enabled() and bool(needs)
    work = _Work((gate, up, down), rows_per_block, keeps and has_graph, has_graph)
    if has_graph:
        token = _Remembered.apply(work, rows, *trained)
        output = _Computed.apply(token, work, rows.detach(), [_detached(one) for one in trained])
    else:
        output = _computed(work, rows, trained)
    return output.unflatten(0, states.shape[:-1])


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


class _Remembered(torch.autograd.Function):
    """Keeps what the backward pass needs, and does it; nothing forward.

    It stands before the products so that a checkpointed layer, which runs forward again up to the
    last tensor that somebody keeps, does not compute them a second time: the backward pass makes
    gate and up again itself, and needs no output. What it returns takes no memory.
    """

    @staticmethod
    def forward(
        ctx: Any, work: _Work, rows: Float[Tensor, "rows hidden"], *trained: Tensor | None
    ) -> Float[Tensor, "rows hidden"]:
        ctx.work = work
        ctx.save_for_backward(rows, *trained)
        return rows.new_zeros(1, 1).expand(len(rows), work.out_dim)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "rows hidden"]) -> tuple[Tensor | None, ...]:
        rows, *trained = ctx.saved_tensors
        work = ctx.work
        wide, work.wide = work.wide, []  # they serve once; made again if asked twice
        lows, work.lows = work.lows, []
        return None, *_gradients(work, wide, lows, rows, trained, gradient)


class _Computed(torch.autograd.Function):
    """The output; its gradient goes to `_Remembered` as it is."""

    @staticmethod
    def forward(
        ctx: Any,
        token: Float[Tensor, "rows hidden"],
        work: _Work,
        rows: Float[Tensor, "rows hidden"],
        trained: list[Tensor | None],
    ) -> Float[Tensor, "rows hidden"]:
        return _computed(work, rows, trained)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "rows hidden"]) -> tuple[Tensor | None, ...]:
        return gradient, None, None, None


def _computed(
    work: _Work, rows: Float[Tensor, "rows hidden"], trained: Sequence[Tensor | None]
) -> Float[Tensor, "rows hidden"]:
    down = work.layers[2]
    output = rows.new_empty(len(rows), work.out_dim)
    wide = len(work.layers[0].weight)
    kept = [rows.new_empty(len(rows), wide) for _ in range(2)] if work.keeps else []
    scratch = _Scratch(rows, wide, 3)
    for block in _blocks(len(rows), work.rows_per_block):
        gate, up, product = scratch.of(block)
        if kept:
            gate, up = (place[block] for place in kept)
        seen = _project_up(work, rows, block, trained, gate, up)
        torch.ops.aten.silu(gate, out=product).mul_(up)
        seen_down = down.see(product, block, trained[4])
        down.product(seen_down, trained[5], output[block])
        if work.has_graph:
            work.lows.append(tuple(one.low for one in (*seen, seen_down)))
    work.wide = kept
    return output


def _project_up(
    work: _Work,
    rows: Float[Tensor, "rows hidden"],
    block: slice,
    trained: Sequence[Tensor | None],
    gate: Float[Tensor, "block wide"] | None,
    up: Float[Tensor, "block wide"] | None,
    lows: Sequence[Tensor | None] = (None, None),
) -> tuple[Seen, Seen]:
    """Put gate and up in their places, where there are any; what the two layers saw."""
    layers = work.layers[:2]
    seen = [
        layer.see(rows[block], block, down, low)
        for layer, down, low in zip(layers, trained[:4:2], lows, strict=True)
    ]
    for number, place in enumerate((gate, up)):
        if place is not None:
            layers[number].product(seen[number], trained[2 * number + 1], place)
    return tuple(seen)


def _gradients(
    work: _Work,
    wide: list[Tensor],
    lows: list[tuple[Tensor | None, ...]],
    rows: Float[Tensor, "rows hidden"],
    trained: Sequence[Tensor | None],
    gradient: Float[Tensor, "rows hidden"],
) -> tuple[Tensor | None, ...]:
    """Of the input and of everything trained; what is not given is made again."""
    layers = work.layers
    sums = [None if tensor is None else torch.zeros_like(tensor) for tensor in trained]
    of = lambda number, tensors: tuple(tensors[2 * number : 2 * number + 2])  # noqa: E731
    for_rows = torch.empty_like(rows)
    scratch = _Scratch(rows, len(layers[0].weight), 5)
    for number, block in enumerate(_blocks(len(rows), work.rows_per_block)):
        gate, up, active, product, back = scratch.of(block)
        low = lows[number] if lows else (None, None, None)
        seen = _project_up(
            work, rows, block, trained, *((None, None) if wide else (gate, up)), low[:2]
        )
        if wide:
            gate, up = (place[block] for place in wide)
        torch.ops.aten.silu(gate, out=active)
        torch.mul(active, up, out=product)
        seen_down = layers[2].see(product, block, trained[4], low[2])
        layers[2].push_back(gradient[block], seen_down, of(2, trained), of(2, sums), back)
        for_up = active.mul_(back)
        for_gate = torch.ops.aten.silu_backward(back.mul_(up), gate, grad_input=product)
        place = for_rows[block]
        layers[0].push_back(for_gate, seen[0], of(0, trained), of(0, sums), place)
        layers[1].push_back(for_up, seen[1], of(1, trained), of(1, sums), place, adds=True)
    return for_rows, *sums


class _Scratch:
    """Places as wide as the layer for one block, the same for each."""

    def __init__(self, like: Tensor, width: int, count: int) -> None:
        self._make = lambda rows: [like.new_empty(rows, width) for _ in range(count)]
        self._places: list[Tensor] = []

    def of(self, block: slice) -> list[Tensor]:
        """For the rows of a block."""
        rows = block.stop - block.start
        if not self._places or len(self._places[0]) < rows:
            self._places = self._make(rows)
        return [place[:rows] for place in self._places]


def _blocks(num_rows: int, limit: int) -> Iterator[slice]:
    """Rows in blocks that differ by one at most: a last block of one row would be summed otherwise."""
    count = -(-num_rows // limit)
    for number in range(count):
        yield slice(number * num_rows // count, (number + 1) * num_rows // count)
