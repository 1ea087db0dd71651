"""A linear layer and its LoRA update on a few rows at a time, forward and backward by hand.

`coltrain.model.lora` takes all rows of a layer at once, which leaves a tensor of every product in
memory. What follows here takes a block of rows that a core's cache holds: there, the update and the
dropped features cost nothing beside the frozen product.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coltrain.model.dropout import KeyedDropout, keep_rows
from coltrain.model.lora import LoraLinear


@dataclass(frozen=True)
class Seen:
    """What a layer sees of some rows.

    Attributes:
        rows: Its input.
        dropped: What its adapter sees, not scaled; the input itself where nothing drops.
        kept: Ones and zeros; None where nothing drops.
        low: The adapter's product with A, scaled; None without an adapter.
    """

    rows: Float[Tensor, "rows in_dim"]
    dropped: Float[Tensor, "rows in_dim"]
    kept: Float[Tensor, "rows in_dim"] | None
    low: Float[Tensor, "rows rank"] | None


@dataclass(frozen=True)
class RowLinear:
    """What a layer computes with, but for what is trained, which is given to each call.

    Attributes:
        weight: Frozen.
        scaling: alpha / r of the adapter.
        starts: What the hash of each row's mask starts from; None while nothing drops.
        p: Share of the features that the adapter does not see.
    """

    weight: Float[Tensor, "out_dim in_dim"]
    scaling: float = 1.0
    starts: Int[Tensor, " all_rows"] | None = None
    p: float = 0.0

    def see(
        self,
        rows: Float[Tensor, "rows in_dim"],
        block: slice,
        down: Float[Tensor, "rank in_dim"] | None,
        low: Float[Tensor, "rows rank"] | None = None,
    ) -> Seen:
        """What comes before the products that are wide.

        Args:
            rows: Input.
            block: Which they are of all rows.
            down: The adapter's A; None without an adapter.
            low: What this gave before, if it was kept.
        """
        if down is None:
            return Seen(rows, rows, None, None)
        dropped, kept = rows, None
        if self.starts is not None:
            kept = keep_rows(self.starts[block], rows.shape[1], self.p, dtype=rows.dtype)
            dropped = rows * kept
        return Seen(rows, dropped, kept, self._scaled(dropped @ down.T) if low is None else low)

    def product(
        self,
        seen: Seen,
        up: Float[Tensor, "out_dim rank"] | None,
        place: Float[Tensor, "rows out_dim"],
    ) -> None:
        """Put the layer's output in a place.

        Args:
            seen: What `see` returned.
            up: The adapter's B.
            place: Where the output goes.
        """
        if seen.low is None:
            torch.mm(seen.rows, self.weight.T, out=place)
        else:
            torch.mm(seen.low, up.T, out=place)
            place.addmm_(seen.rows, self.weight.T)

    def push_back(
        self,
        gradient: Float[Tensor, "rows out_dim"],
        seen: Seen,
        adapter: tuple[Tensor | None, Tensor | None],
        sums: tuple[Tensor | None, Tensor | None],
        place: Float[Tensor, "rows in_dim"],
        *,
        adds: bool = False,
    ) -> None:
        """Put the gradient of the input in a place, and add those of A and B to their sums.

        Args:
            gradient: Of the output.
            seen: What `see` returned; its ones and zeros are overwritten.
            adapter: A and B.
            sums: Of their gradients.
            place: Where the gradient of the input goes.
            adds: Whether it is added to what is there.
        """
        if adds:
            place.addmm_(gradient, self.weight)
        else:
            torch.mm(gradient, self.weight, out=place)
        if seen.low is None:
            return
        (down, up), (for_down, for_up) = adapter, sums
        for_up.addmm_(gradient.T, seen.low)
        through = self._scaled(gradient @ up)
        for_down.addmm_(through.T, seen.dropped)
        if seen.kept is None:
            place.addmm_(through, down)
        else:
            place.add_(seen.kept.mul_(through @ down))

    def _scaled(self, low: Float[Tensor, "rows rank"]) -> Float[Tensor, "rows rank"]:
        return low.mul_(self.scaling if self.starts is None else self.scaling / (1 - self.p))


def row_linear(
    layer: nn.Module, features: Float[Tensor, "... in_dim"]
) -> tuple[RowLinear, Tensor | None, Tensor | None] | None:
    """The layer by rows, with its A and B; None where it has to be called itself.

    That is where somebody looks at it (hooks), where its forward pass was replaced or its type is
    another (a layer in float32 amid a half-precision network, quantized weights), where types are
    mixed, where its own weights are trained or have a bias, and with no or several adapters.

    Args:
        layer: An adapted or plain linear layer.
        features: What it is to be given.
    """
    if type(layer) is nn.Linear:
        return (RowLinear(layer.weight), None, None) if _is_plain(layer, features) else None
    if type(layer) is not LoraLinear or layer.disable_adapters or layer.merged:
        return None
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(active) != 1 or layer.lora_variant or _is_watched(layer):
        return None
    if not _is_plain(layer.base_layer, features):
        return None
    name = active[0]
    down, up, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    if any(map(_is_watched, (down, up, dropout))):
        return None
    if not down.weight.dtype == up.weight.dtype == features.dtype:
        return None
    starts, p = None, 0.0
    if isinstance(dropout, KeyedDropout):
        starts, p = dropout.starts(features), dropout.p
    elif type(dropout) is not nn.Identity:  # of peft: without a probability
        return None
    return (
        RowLinear(layer.base_layer.weight, layer.scaling[name], starts, p),
        down.weight,
        up.weight,
    )


def _is_plain(layer: nn.Module, features: Tensor) -> bool:
    return (
        type(layer) is nn.Linear
        and not _is_watched(layer)
        and layer.bias is None
        and not layer.weight.requires_grad
        and layer.weight.dtype == features.dtype
    )


def _is_watched(module: nn.Module) -> bool:
    """Whether hooks hang on a module, or its forward pass was replaced."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(hooks) or "forward" in module.__dict__
