"""The language model's gated feed-forward layer, which keeps two wide tensors and not four.

transformers' layer multiplies silu(gate) and up, and what autograd keeps of it is gate, silu(gate), up,
and their product once more for the layer behind. silu(gate) is cheaper made again than kept: block by
block of rows, in a core's cache.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from coltrain.model.feed_forward_in_blocks import Adapted, feed_forward
from coltrain.model.row_linear import row_linear

CPU_NUMBERS = 2**20
ACCELERATOR_NUMBERS = 2**26
"""Of one block: a MiB of float32 in the cache of a core, or enough to fill a GPU."""


class FeedForward(nn.Module):
    """transformers' `Qwen2MLP` with the same children; only the product between them is ours.

    Args:
        original: Whose layers are taken over.

    Attributes:
        numbers_per_block: Scratch of the gate; None for what the device likes.

    Raises:
        ValueError: Its activation is not SiLU.
    """

    numbers_per_block: int | None = None
    is_made_again: bool = False

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        if original.config.hidden_act != "silu":
            raise ValueError(f"activation {original.config.hidden_act}; expected silu, as in Qwen2")
        self.gate_proj = original.gate_proj
        self.up_proj = original.up_proj
        self.down_proj = original.down_proj

    def forward(self, states: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        """Project up twice, gate, project down."""
        in_blocks = self._in_blocks(states)
        if in_blocks is not None:
            rows = max(1, CPU_NUMBERS // self.gate_proj.out_features)
            return feed_forward(states, in_blocks, rows, keeps=not self.is_made_again)
        gated = _Gated.apply(self.gate_proj(states), self.up_proj(states), self.numbers_per_block)
        return self.down_proj(gated)

    def _in_blocks(self, states: Float[Tensor, "... hidden"]) -> list[Adapted] | None:
        """The layers by rows; None on an accelerator, and where one has to be called itself."""
        is_on_cpu = _block_numbers(states, self.numbers_per_block) < ACCELERATOR_NUMBERS
        if not is_on_cpu or torch.is_autocast_enabled(states.device.type):
            return None
        layers = [
            row_linear(layer, states) for layer in (self.gate_proj, self.up_proj, self.down_proj)
        ]
        return None if None in layers else layers


class _Gated(torch.autograd.Function):
    """silu(gate) * up."""

    @staticmethod
    def forward(
        ctx: Any,
        gate: Float[Tensor, "... wide"],
        up: Float[Tensor, "... wide"],
        numbers_per_block: int | None,
    ) -> Float[Tensor, "... wide"]:
        ctx.save_for_backward(gate, up)
        ctx.numbers_per_block = numbers_per_block
        product = up.new_empty(up.shape, dtype=torch.promote_types(gate.dtype, up.dtype))
        for block in _blocks(gate, numbers_per_block):
            torch.mul(F.silu(_rows(gate)[block]), _rows(up)[block], out=_rows(product)[block])
        return product

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "... wide"]) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        for_gate, for_up = torch.empty_like(gate), torch.empty_like(up)
        for block in _blocks(gate, ctx.numbers_per_block):
            own_gate, own = _rows(gate)[block], _rows(gradient)[block]
            torch.mul(F.silu(own_gate), own, out=_rows(for_up)[block])
            through = (own * _rows(up)[block]).to(gate.dtype)
            torch.ops.aten.silu_backward(through, own_gate, grad_input=_rows(for_gate)[block])
        return for_gate, for_up, None


def _rows(tensor: Tensor) -> Float[Tensor, "rows wide"]:
    return tensor.view(-1, tensor.shape[-1])


def _blocks(tensor: Tensor, numbers: int | None) -> Iterator[slice]:
    rows = max(1, _block_numbers(tensor, numbers) // tensor.shape[-1])
    for start in range(0, tensor.numel() // tensor.shape[-1], rows):
        yield slice(start, start + rows)


def _block_numbers(tensor: Tensor, given: int | None) -> int:
    if given is not None:
        return given
    return CPU_NUMBERS if tensor.device.type == "cpu" else ACCELERATOR_NUMBERS
