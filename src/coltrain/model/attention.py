"""Scaled dot-product attention on a kernel that neither overflows nor falls into float32.

Two traps of the library's choice. Eager attention multiplies queries and keys before it scales: in
float16 the product overflows where the scaled one is far from it. And torch's grouped-query attention
(28 layers of Qwen2-VL-2B: 12 query heads, 2 key heads) has one fused kernel on CUDA, flash attention,
which wants sm_80, half precision and no mask; anywhere else it falls, without a word, into the math
kernel: float32, and tokens x tokens of memory for every head. There, keys and values are repeated for
their query heads, and the memory-efficient kernel takes them. torch 2.7.1 has no fused kernel for grouped
heads on a CPU either.
"""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from coltrain.model.packing import Segment, segments

ATTENTION = "coltrain_sdpa"
"""The name under which transformers finds it."""

_FLASH_SINCE = (8, 0)  # compute capability


def attention(
    module: nn.Module,
    query: Float[Tensor, "samples heads tokens head_dim"],
    key: Float[Tensor, "samples key_heads tokens head_dim"],
    value: Float[Tensor, "samples key_heads tokens head_dim"],
    attention_mask: Bool[Tensor, "..."] | Float[Tensor, "..."] | None = None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    lengths: Sequence[int] | None = None,
    **unread: object,
) -> tuple[Float[Tensor, "samples tokens heads head_dim"], None]:
    """Attend by torch's fused kernels, without a state.

    Args:
        module: The attention layer; says whether it is causal where `is_causal` does not.
        query: Queries of each head.
        key: Keys; as many heads as queries have, or a divisor of that number.
        value: Values, likewise.
        attention_mask: Added to the scores, or True where one may look; None looks at everything,
            or at what came before if causal.
        scaling: Multiplies the scores; None is 1 / sqrt(head_dim).
        dropout: Of attention weights; Qwen2-VL has none.
        is_causal: Whether a token sees only those before it; read without a mask.
        lengths: Of the samples that stand end to end in the one row that came; each attends to
            itself alone. None where a row is a sample.
        unread: What transformers passes for other kernels (positions, sliding window).

    Returns:
        Attended values, and None in place of weights, which fused kernels do not have.

    Source:
        `sdpa_attention_forward` of transformers 5.23, the same but for when heads are repeated.
    """
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    is_grouped = query.shape[1] != key.shape[1]
    is_masked = attention_mask is not None
    if lengths is not None and len(lengths) > 1:
        return _each_alone(module, query, key, value, lengths, scaling, causal), None
    if is_grouped and not has_grouped_kernel(query.device, computed_in(query), is_masked):
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
        is_grouped = False
    attended = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        scale=scaling,
        is_causal=causal and not is_masked and query.shape[2] > 1,
        enable_gqa=is_grouped,
    )
    return attended.transpose(1, 2).contiguous(), None


def _each_alone(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Sequence[int],
    scaling: float | None,
    causal: bool,
) -> Float[Tensor, "1 total heads head_dim"]:
    """Samples of one row attend to themselves, in as few calls as their lengths allow."""
    cut = segments(lengths)
    # Cut all at once: backward that is one row again, where slices are as many rows of zeros to add up.
    sizes = [segment.stop - segment.start for segment in cut]
    pieces = zip(*(part.split(sizes, dim=2) for part in (query, key, value)), strict=True)
    parts = []
    for segment, piece in zip(cut, pieces, strict=True):
        own = (_apart(part, segment, causal) for part in piece)
        attended, _ = attention(module, *own, scaling=scaling, is_causal=causal)
        parts.append(_end_to_end(attended, segment))
    return torch.cat(parts).unsqueeze(0)


def _apart(
    row: Float[Tensor, "1 heads total head_dim"], segment: Segment, causal: bool
) -> Float[Tensor, "samples heads tokens head_dim"]:
    """A segment's samples, one below another, padded on the right if they are uneven."""
    lengths = segment.lengths
    if len(lengths) == 1:
        return row
    own = row.squeeze(0).transpose(0, 1)
    if len(set(lengths)) == 1:
        return own.unflatten(0, (len(lengths), lengths[0])).transpose(1, 2)
    if not causal:
        raise ValueError("uneven samples in one call would see their padding; expected causal")
    return pad_sequence(own.split(lengths), batch_first=True).transpose(1, 2)


def _end_to_end(
    attended: Float[Tensor, "samples tokens heads head_dim"], segment: Segment
) -> Float[Tensor, "total heads head_dim"]:
    lengths = segment.lengths
    if len(set(lengths)) == 1:
        return attended.flatten(0, 1)
    return torch.cat([one[:length] for one, length in zip(attended.unbind(), lengths, strict=True)])


def knows_lengths(implementation: str) -> bool:
    """Whether an attention function of this name reads `lengths`: ours, and the planner's."""
    return implementation.startswith("coltrain_")


def has_flash_attention(device: torch.device) -> bool:
    """Whether a CUDA device runs flash attention."""
    return torch.cuda.get_device_capability(device) >= _FLASH_SINCE


def has_grouped_kernel(device: torch.device, dtype: torch.dtype, is_masked: bool) -> bool:
    """Whether a fused kernel takes fewer key heads than query heads.

    Args:
        device: Where the tensors are.
        dtype: Type in which the product is computed, after autocast.
        is_masked: Whether an explicit mask is given.
    """
    if is_masked:
        return False
    if device.type == "cuda":
        return dtype in (torch.float16, torch.bfloat16) and has_flash_attention(device)
    return device.type == "cpu" and _cpu_groups_heads()


@cache
def _cpu_groups_heads() -> bool:
    """Whether this torch has a fused kernel for it on a CPU: 2.7.1 has none, and 2.14 has one."""
    query, key = torch.empty(1, 2, 2, 8), torch.empty(1, 1, 2, 8)
    chosen = torch._fused_sdp_choice(query, key, key, is_causal=True, enable_gqa=True)
    return chosen != SDPBackend.MATH.value


def computed_in(query: Tensor) -> torch.dtype:
    """Type in which its products are computed, after autocast."""
    device = query.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype


AttentionInterface.register(ATTENTION, attention)
# Without its mask function transformers would drop a mask that somebody passes, without a word.
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
