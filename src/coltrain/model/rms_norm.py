"""The language model's norm in blocks of rows, which a core's cache holds in both directions.

transformers' layer goes over all rows with five operations, and autograd with nine. The operations
here are the same, one by one, so that not a bit differs.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

CPU_NUMBERS = 2**18
ACCELERATOR_NUMBERS = 2**26
"""Of one block: a MiB of float32 in the cache of a core, or enough to fill a GPU."""


class RmsNorm(nn.Module):
    """transformers' `Qwen2VLRMSNorm` with the same weight, computing the same.

    Args:
        original: Whose weight is taken over.

    Attributes:
        numbers_per_block: Scratch; None for what the device likes.
    """

    numbers_per_block: int | None = None

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.weight = original.weight
        self.variance_epsilon = original.variance_epsilon

    def forward(self, states: Float[Tensor, "... hidden"]) -> Float[Tensor, "... hidden"]:
        """Divide by the root of the mean square, in float32, and scale."""
        if self.weight.requires_grad:
            wide = states.to(torch.float32)
            normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
            return self.weight * normed.to(states.dtype)
        return _Normed.apply(states, self.weight, self.variance_epsilon, self.numbers_per_block)


class _Normed(torch.autograd.Function):
    """The norm under a frozen weight."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Float[Tensor, "... hidden"],
        weight: Float[Tensor, " hidden"],
        eps: float,
        numbers_per_block: int | None,
    ) -> Float[Tensor, "... hidden"]:
        rows = states.reshape(-1, states.shape[-1])
        output = torch.empty_like(rows, dtype=torch.promote_types(rows.dtype, weight.dtype))
        inverse = rows.new_empty(len(rows), 1, dtype=torch.float32)
        for block in _blocks(rows, numbers_per_block):
            wide = rows[block].to(torch.float32)
            torch.add(wide.pow(2).mean(-1, keepdim=True), eps, out=inverse[block]).rsqrt_()
            torch.mul(weight, (wide * inverse[block]).to(rows.dtype), out=output[block])
        ctx.save_for_backward(rows, weight, inverse)
        ctx.numbers_per_block = numbers_per_block
        return output.view(states.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, "... hidden"]
    ) -> tuple[Float[Tensor, "... hidden"], None, None, None]:
        rows, weight, inverse = ctx.saved_tensors
        gradients = gradient.reshape(rows.shape)
        for_rows = torch.empty_like(rows)
        for block in _blocks(rows, ctx.numbers_per_block):
            wide, scale = rows[block].to(torch.float32), inverse[block]
            own = (gradients[block] * weight).to(rows.dtype).to(torch.float32)
            for_variance = (own * wide).sum(-1, keepdim=True) * (-0.5 * scale.pow(3))
            through = for_variance / wide.shape[1] * (2 * wide)
            for_rows[block] = through.add_(own.mul_(scale))
        return for_rows.view(gradient.shape), None, None, None


def _blocks(rows: Float[Tensor, "rows hidden"], numbers: int | None) -> Iterator[slice]:
    if numbers is None:
        numbers = CPU_NUMBERS if rows.device.type == "cpu" else ACCELERATOR_NUMBERS
    size = max(1, numbers // rows.shape[1])
    for start in range(0, len(rows), size):
        yield slice(start, start + size)
