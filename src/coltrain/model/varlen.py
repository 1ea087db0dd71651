"""Attention over samples end to end in one row, by one call of torch's variable-length kernel.

`coltrain.model.attention` takes as many calls as a row has different lengths. Where torch has a
kernel that is told where samples end (flash attention: half precision, compute capability 8.0), one
call does, whatever the lengths. A recipe asks for it by `model.attention: varlen`.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from coltrain.errors import ModelError
from coltrain.model.attention import attention, computed_in, has_flash_attention

VARLEN = "coltrain_varlen"
"""The name under which transformers finds it."""

_HALF = (torch.float16, torch.bfloat16)


def varlen_attention(
    module: nn.Module,
    query: Float[Tensor, "samples heads tokens head_dim"],
    key: Float[Tensor, "samples key_heads tokens head_dim"],
    value: Float[Tensor, "samples key_heads tokens head_dim"],
    attention_mask: Bool[Tensor, "..."] | Float[Tensor, "..."] | None = None,
    *,
    scaling: float | None = None,
    is_causal: bool | None = None,
    lengths: Sequence[int] | None = None,
    **others: object,
) -> tuple[Float[Tensor, "samples tokens heads head_dim"], None]:
    """As `coltrain.model.attention.attention`, whose arguments these are; many samples in one call.

    A single sample, and a layer that is kept in float32, attend as there.
    """
    if lengths is None or len(lengths) == 1 or not _is_taken(query):
        return attention(
            module,
            query,
            key,
            value,
            attention_mask,
            scaling=scaling,
            is_causal=is_causal,
            lengths=lengths,
            **others,
        )
    kernel = varlen_kernel()
    assert kernel is not None  # see `refuse_varlen`
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    # Outside of autocast's list, which knows torch's own attention only.
    rows = [part[0].transpose(0, 1).to(computed_in(query)) for part in (query, key, value)]
    ends, longest = _ends(tuple(lengths), query.device), max(lengths)
    attended = kernel(
        *rows,
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended.unsqueeze(0), None


@lru_cache(maxsize=8)  # all layers of a pass ask for the same
def _ends(lengths: tuple[int, ...], device: torch.device) -> Int[Tensor, " samples_and_one"]:
    with torch.inference_mode(False):  # a training step may keep it
        return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


def _is_taken(query: Tensor) -> bool:
    return query.device.type == "cuda" and computed_in(query) in _HALF


@lru_cache(maxsize=1)
def varlen_kernel() -> Callable[..., Tensor] | None:
    """torch's function, where this torch has one that groups heads; in 2.14 it has."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    wanted = {"scale", "window_size", "enable_gqa"}
    return varlen_attn if wanted <= set(inspect.signature(varlen_attn).parameters) else None


def attend_by_lengths(model: nn.Module) -> None:
    """Let a `ColQwen2`'s language model attend so; its vision tower attends page by page."""
    model.language_model.config._attn_implementation = VARLEN


def refuse_varlen(device: torch.device, compute: str) -> None:
    """Where it is asked for, nothing else takes its place.

    Args:
        device: Where the model computes.
        compute: Precision of the passes.

    Raises:
        ModelError: [no-varlen-attention] The kernel does not run there.
    """
    reason = None
    if device.type != "cuda" or torch.version.hip is not None:
        reason = f"{device.type}{' with ROCm' if torch.version.hip else ''} is no NVIDIA GPU"
    elif not has_flash_attention(device):
        capability = torch.cuda.get_device_capability(device)
        reason = f"compute capability {'.'.join(map(str, capability))}, expected 8.0 at least"
    elif compute not in ("bfloat16", "float16"):
        reason = f"precision.compute = {compute}, expected bfloat16 or float16"
    elif varlen_kernel() is None:
        reason = f"torch {torch.__version__} has no variable-length attention that groups heads"
    if reason is not None:
        raise ModelError(
            "no-varlen-attention",
            "variable-length attention cannot be used here.",
            where="model.attention = varlen",
            received=reason,
            expected="an NVIDIA GPU of compute capability 8.0 or later, half precision, and a torch "
            "with torch.nn.attention.varlen, as 2.14",
            suggestion="model.attention=sdpa, which gives the same by one call for each length",
        )


AttentionInterface.register(VARLEN, varlen_attention)
AttentionMaskInterface.register(VARLEN, sdpa_mask)
