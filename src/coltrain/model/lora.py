"""A linear layer with its LoRA update, in as few passes over its features as there can be.

`base(x) + B(A(dropout(x))) * alpha / r`, as peft computes it, goes over the wide features six times
beside the products: a mask is made, applied and scaled, the update is scaled, and added. Here features
are dropped block by block on their way into the product with A, in memory that a core's cache holds,
the constant factors are in A and B, which are small, and the base's product is added onto the
update's. Of a wide layer only its input lives between the passes, which is shared by all layers that
read it, and on an accelerator its mask, a byte a feature; on a CPU masks are made again.

The frozen product comes last: where a checkpointed layer runs forward again, torch stops at the last
tensor that a gradient needs, and so the layer's last product, a third of its feed-forward part, is
not computed a second time.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from peft.tuners import lora
from torch import Tensor, nn

from coltrain.model.dropout import (
    KeyedDropout,
    are_masks_kept,
    keep_rows,
    kept_blocks,
    row_blocks,
)


class LoraLinear(lora.Linear):
    """peft's layer, which peft puts in place of `nn.Linear`; only the forward pass is ours.

    Attributes:
        adapter_is_wide: Whether the adapter computes in float32 where its input is half precision
            (set by `coltrain.model.half`); else in the type of its weights.
    """

    adapter_is_wide: bool = False

    def forward(
        self, features: Float[Tensor, "... in_dim"], *more: Any, **options: Any
    ) -> Float[Tensor, "... out_dim"]:
        """The base's output plus the adapter's update.

        Source:
            `Linear.forward` of peft 0.21, tuners/lora/layer.py: the same up to rounding.
        """
        active = [name for name in self.active_adapters if name in self.lora_A]
        is_plain = not (more or options or self.lora_variant) and len(active) == 1
        if self.disable_adapters or self.merged or not is_plain:
            return super().forward(features, *more, **options)
        rows = features.flatten(0, -2)
        update = self._update(features, rows, active[0])
        base = self.base_layer
        if _multiplies_in(rows, base) == update.dtype:
            output = update.addmm_(rows, base.weight.T)
            if base.bias is not None:
                output = output.add_(base.bias)
        else:
            output = base(rows)
            output = (output + update).to(output.dtype)
        return output.unflatten(0, features.shape[:-1])

    def _update(
        self, features: Float[Tensor, "... in_dim"], rows: Float[Tensor, "rows in_dim"], name: str
    ) -> Float[Tensor, "rows out"]:
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        if self.adapter_is_wide:
            wide = torch.promote_types(rows.dtype, torch.float32)
        else:
            wide = down.dtype
        dropout = self.lora_dropout[name]
        starts, p, limit = None, 0.0, None
        if isinstance(dropout, KeyedDropout):
            starts, p = dropout.starts(features), dropout.p
            limit = dropout.sample_keys.hashes_per_block
        else:  # peft's own, or nothing
            rows = dropout(rows)
        with torch.autocast(rows.device.type, enabled=False):
            low = _DroppedProduct.apply(rows, down.to(wide), starts, p, limit)
            return F.linear(low, up.to(wide) * self.scaling[name])


def _multiplies_in(rows: Tensor, base: nn.Linear) -> torch.dtype | None:
    """The type of a product with the base's weights; None if inputs are of different types."""
    device = rows.device.type
    if torch.is_autocast_enabled(device) or rows.dtype != base.weight.dtype:
        return None
    return rows.dtype


class _DroppedProduct(torch.autograd.Function):
    """Features, dropped, times A: the dropped features are never whole, and on a CPU no mask is.

    A half-precision input is kept as it came; widening it again for A's gradient loses nothing.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Float[Tensor, "rows dim"],
        down: Float[Tensor, "rank dim"],
        starts: Int[Tensor, " rows"] | None,
        p: float,
        hashes_per_block: int | None,
    ) -> Float[Tensor, "rows rank"]:
        keep = None
        if starts is not None and are_masks_kept(rows.device, hashes_per_block):
            keep = keep_rows(starts, rows.shape[1], p, hashes_per_block)
        ctx.save_for_backward(rows, down, starts, keep)
        ctx.p, ctx.hashes_per_block = p, hashes_per_block
        if starts is None:
            return rows.to(down.dtype) @ down.T
        scaled = (down / (1 - p)).T
        low = down.new_empty(len(rows), len(down))
        for block, kept in _blocks(rows, down, starts, keep, p, hashes_per_block):
            torch.mm(_dropped(rows[block], kept, down.dtype), scaled, out=low[block])
        return low

    @staticmethod
    def backward(
        ctx: Any, gradient: Float[Tensor, "rows rank"]
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        rows, down, starts, keep = ctx.saved_tensors
        wants_rows, wants_down = ctx.needs_input_grad[:2]
        for_rows = torch.empty_like(rows) if wants_rows else None
        for_down = torch.zeros_like(down) if wants_down else None
        with torch.autocast(gradient.device.type, enabled=False):
            scaled = down / (1 - ctx.p)
            for block, kept in _blocks(rows, down, starts, keep, ctx.p, ctx.hashes_per_block):
                own = gradient[block]
                if wants_rows:
                    _put_product(own, scaled, kept, for_rows[block])
                if wants_down:
                    for_down.addmm_(own.T, _dropped(rows[block], kept, down.dtype))
            if wants_down:
                for_down /= 1 - ctx.p
        return for_rows, for_down, None, None, None


def _put_product(left: Tensor, right: Tensor, kept: Tensor | None, place: Tensor) -> None:
    """A product, times ones and zeros, in a place that may be of a narrower type."""
    product = torch.mm(left, right, out=place if place.dtype == left.dtype else None)
    if kept is not None:
        product.mul_(kept)
    if product.dtype != place.dtype:
        place.copy_(product)


def _dropped(rows: Tensor, kept: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Rows of a block in a type, without what is dropped; ones and zeros of that type are scratch."""
    if kept is None:
        return rows.to(dtype)
    if kept.dtype == torch.bool:
        return torch.mul(rows, kept).to(dtype)
    return kept.mul_(rows)


def _blocks(
    rows: Tensor,
    down: Tensor,
    starts: Int[Tensor, " rows"] | None,
    keep: Bool[Tensor, "rows dim"] | None,
    p: float,
    hashes_per_block: int | None,
) -> Iterator[tuple[slice, Tensor | None]]:
    """Blocks of rows with what is kept of each; all rows at once where nothing is dropped."""
    if starts is None:
        yield slice(None), None
    elif keep is not None:
        for block in row_blocks(starts, rows.shape[1], hashes_per_block):
            yield block, keep[block]
    else:
        yield from kept_blocks(starts, rows.shape[1], p, down.dtype, hashes_per_block)
