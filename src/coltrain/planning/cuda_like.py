"""What differs between a CPU and a CUDA card, put on for tensors without data.

A fake tensor on "cuda" runs forward without a card, but its backward pass does not; a fake tensor
on the CPU does both, on the CPU's kernels. So the tensors stay on the CPU and the three things that
a card does otherwise are put in their place: the attention kernel, what autocast keeps in float32,
and what each of them keeps for the backward pass.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

Attention = Literal["flash", "efficient", "math", "eager", "cpu"]

# transformers asks the name whether cu_seqlens are wanted, which spares it the data's own lengths.
_NAME = "coltrain_planned_flash"
# Of the functions that torch.autocast("cuda") computes in float32, those that the network or its
# loss calls; on a CPU autocast leaves them alone.
_FLOAT32_UNDER_AUTOCAST = ("layer_norm", "softmax", "log_softmax", "softplus", "cosine_similarity")


class PlannedAttention:
    """An attention function with the memory and the products of one kernel.

    Args:
        kernel: Of the language model. "flash" and "efficient" are torch's fused kernels; "math" is what torch falls back
            to, in float32; "eager" is transformers' own; "cpu" is the CPU's fused kernel.
        vision_kernel: Of the vision tower.
        count: Called with the floating-point operations of a kernel that torch cannot count here.
    """

    def __init__(
        self, kernel: Attention, vision_kernel: Attention, count: Callable[[int], None]
    ) -> None:
        self.kernel = kernel
        self.vision_kernel = vision_kernel
        self.count = count

    def __call__(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        max_length_q: int | None = None,
        lengths: tuple[int, ...] = (),
        **kwargs,
    ) -> tuple[Tensor, None]:
        """Attend as the kernel does; equal samples come end to end in one row."""
        is_vision = max_length_q is not None
        length = max_length_q if is_vision else lengths[0]
        query, key, value = (_samples_apart(part, length) for part in (query, key, value))
        repeats = query.shape[1] // key.shape[1]
        kernel = self.vision_kernel if is_vision else self.kernel
        output = self._attend(kernel, query, key, value, repeats, scaling, causal=not is_vision)
        return output.reshape(1, -1, *output.shape[2:]), None

    def _attend(self, kernel, query, key, value, repeats, scaling, causal) -> Tensor:
        if kernel == "flash" and repeats > 1:
            self.count(_attention_flops(query, causal))
            return _GroupedFlash.apply(query, key, value, self.count, causal).transpose(1, 2)
        key, value = _repeated(key, repeats), _repeated(value, repeats)
        if kernel == "flash":
            attend = torch.ops.aten._scaled_dot_product_flash_attention
            return attend(query, key, value, 0.0, causal)[0].transpose(1, 2)
        if kernel == "efficient":
            attend = torch.ops.aten._scaled_dot_product_efficient_attention
            return attend(query, key, value, None, True, 0.0, causal)[0].transpose(1, 2)
        if kernel == "cpu":
            self.count(_attention_flops(query, causal))
            output = F.scaled_dot_product_attention(
                query, key, value, is_causal=causal, scale=scaling
            )
            return output.transpose(1, 2)
        if kernel == "math":
            return _math(query, key, value, scaling, causal).transpose(1, 2)
        weights = torch.matmul(query, key.transpose(2, 3)) * scaling
        if causal:
            weights = weights + torch.zeros(weights.shape[-2:], dtype=weights.dtype)
        weights = F.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
        return torch.matmul(weights, value).transpose(1, 2).contiguous()


def _samples_apart(part: Tensor, length: int) -> Tensor:
    _, heads, total, dim = part.shape
    return part.view(heads, total // length, length, dim).transpose(0, 1)


def _repeated(part: Tensor, repeats: int) -> Tensor:
    if repeats == 1:
        return part
    batch, heads, tokens, dim = part.shape
    spread = part[:, :, None].expand(batch, heads, repeats, tokens, dim)
    return spread.reshape(batch, heads * repeats, tokens, dim)


def _attention_flops(query: Tensor, causal: bool) -> int:
    """Both products of an attention; a causal one needs half of them."""
    batch, heads, tokens, dim = query.shape
    return 4 * batch * heads * tokens * tokens * dim // (2 if causal else 1)


def _math(query: Tensor, key: Tensor, value: Tensor, scaling: float, causal: bool) -> Tensor:
    """torch's fall-back: half-precision inputs are computed in float32, scores and all."""
    dtype = query.dtype
    with torch.autocast("cpu", enabled=False):
        query, key, value = query.float(), key.float(), value.float()
        root = scaling**0.5
        scores = (query * root) @ (key.transpose(-2, -1) * root)
        if causal:
            scores = scores + torch.zeros(scores.shape[-2:], dtype=scores.dtype)
        return (torch.softmax(scores, -1) @ value).to(dtype)


class _GroupedFlash(torch.autograd.Function):
    """Flash attention with fewer key and value heads, of which torch has no fake version.

    Keeps what the kernel keeps: its inputs, its output, and one float32 for each row.
    """

    @staticmethod
    def forward(ctx, query, key, value, count, causal):
        output = torch.empty_like(query)
        rows = torch.empty(query.shape[:3], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, rows)
        ctx.count, ctx.causal = count, causal
        return output

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, _, _ = ctx.saved_tensors
        ctx.count(5 * _attention_flops(query, ctx.causal) // 2)
        # Its scratch: the query's gradient in float32, and each query head's share of the others.
        scratch = [torch.empty(query.shape, dtype=torch.float32)]
        scratch += [torch.empty_like(query), torch.empty_like(query)]
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None, None


@contextmanager
def attention(
    model: torch.nn.Module,
    kernel: Attention,
    vision_kernel: Attention,
    count: Callable[[int], None],
) -> Iterator[None]:
    """Let the towers of a model attend as kernels do."""
    ALL_ATTENTION_FUNCTIONS.register(_NAME, PlannedAttention(kernel, vision_kernel, count))
    configs = [model.config, model.config.text_config, model.config.vision_config]
    configs += [model.language_model.config, model.visual.config]
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = _NAME
    try:
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name


@contextmanager
def float32_list_of_cuda() -> Iterator[None]:
    """Where autocast is on, CUDA's list of what stays in float32, which a CPU's autocast lacks.

    Plain replacements and no function mode, which would not be active where checkpointed layers
    run again in the backward pass.
    """
    before = {name: getattr(F, name) for name in _FLOAT32_UNDER_AUTOCAST}
    for name, function in before.items():
        setattr(F, name, _in_float32(function))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(F, name, function)


def _in_float32(function: Callable) -> Callable:
    def widened(value):
        is_half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        return value.float() if is_half else value

    def call(*args, **kwargs):
        if not torch.is_autocast_enabled("cpu"):
            return function(*args, **kwargs)
        return function(*map(widened, args), **{key: widened(v) for key, v in kwargs.items()})

    return call
