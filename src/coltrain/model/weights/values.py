"""A tensor that no training gives: NaN, infinite, or one value throughout."""

import torch
from torch import Tensor

from coltrain.errors import ModelError


def is_constant(key: str, tensor: Tensor, where: str, kept_in: torch.dtype | None = None) -> bool:
    """Whether all values of a tensor are the same; refuses what cannot have been trained.

    A matrix of one value, zero among them, is a layer that was never loaded. Biases and norms may
    be constant (a fresh bias is zero, a fresh norm is one), and the caller lists them.

    Args:
        key: The tensor's name in its file.
        tensor: As the file holds it.
        where: The file.
        kept_in: Type to which it will be cast; float16 holds nothing above 65,504.

    Raises:
        ModelError: It holds no floating-point numbers, NaN or infinite values (also once cast), or
            it is a matrix of one value.
    """
    if not tensor.is_floating_point():
        raise ModelError(
            "weight-type",
            "a tensor holds no floating-point numbers.",
            where=f"{where}, {key}",
            received=str(tensor.dtype).removeprefix("torch."),
            expected="float32, float16 or bfloat16; quantised weights are not read",
        )
    if tensor.numel() == 0:
        return False
    low, high = (value.item() for value in torch.aminmax(tensor))  # NaN comes through
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        num_nan = int(tensor.isnan().sum())
        num_infinite = int(tensor.isinf().sum())
        raise ModelError(
            "weight-not-finite",
            "a tensor holds values that are not finite.",
            where=f"{where}, {key}",
            received=f"{num_nan} NaN and {num_infinite} infinite of {tensor.numel():,} values",
            expected="finite values",
            suggestion="download or save it again; a run that diverged leaves such weights",
        )
    if kept_in is not None and kept_in.is_floating_point:
        limit = torch.finfo(kept_in).max
        if max(abs(low), abs(high)) > limit:
            raise ModelError(
                "weight-not-finite",
                "a tensor's values do not fit the type that was asked for.",
                where=f"{where}, {key}",
                received=f"values up to {max(abs(low), abs(high)):g}",
                expected=f"at most {limit:g} in {str(kept_in).removeprefix('torch.')}",
                suggestion="bfloat16 or float32",
            )
    if low == high and tensor.ndim > 1 and tensor.numel() > 1:
        raise ModelError(
            "weight-constant",
            "all values of a weight matrix are the same, as of one that was never loaded.",
            where=f"{where}, {key}",
            received=f"{low:g} throughout, shape {tuple(tensor.shape)}",
            expected="trained values; only biases, norms and a fresh lora_B may be constant",
        )
    return low == high
