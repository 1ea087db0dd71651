"""Which page token wins, found by a fused kernel on a GPU; what it scores is still summed exactly.

late-interaction-kernels (Triton) never writes similarities to memory, but multiplies in half precision,
whatever it is given. The loss of a step is summed in float64. So the kernel is asked for the winners
alone: `maxsim` then multiplies each query token with the one page token that won, in its own type, and
the backward pass is its own. A score can differ from that of no kernel only where two page tokens are
nearer to each other than rounding to half can tell, and then it is lower, by at most `SHORTFALL` for
each query token.
"""

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coltrain.errors import RunError

PACKAGE = "late-interaction-kernels"

SHORTFALL = 2e-3
"""Most that the match of a query token can be below its best, of unit vectors: twice the error of a
product of vectors rounded to float16 (2^-11 each, so 9.8e-4, and float32 sums)."""

_SINCE = (7, 5)  # compute capability: Triton's oldest; its tensor cores multiply float16
_MAX_DIM = 256  # the widest whose tiles fit the shared memory of every card
_FEWEST_QUERY_TOKENS = 16  # the kernel's smallest tile


@dataclass(frozen=True)
class MatchKernel:
    """Finds winners; where a card lets it, `match_kernel` gives one.

    Attributes:
        forward: `maxsim_forward` of late-interaction-kernels.
        version: Of the package, for records.
    """

    forward: Callable[..., tuple[Tensor, Tensor | None]]
    version: str

    @property
    def name(self) -> str:
        """For a record."""
        return f"{PACKAGE} {self.version}"

    def winners(
        self,
        queries: Float[Tensor, "queries query_tokens dim"],
        pages: Float[Tensor, "pages page_tokens dim"],
        query_mask: Bool[Tensor, "queries query_tokens"] | None,
        page_mask: Bool[Tensor, "pages page_tokens"] | None,
    ) -> Int[Tensor, "queries pages query_tokens"]:
        """The page token that matches each query token best, to half precision.

        A page with a token that is no finite number gives that token, so that it shows in the score.

        Args:
            queries: One unit vector per token; any value where padded.
            pages: One unit vector per token; any value where padded.
            query_mask: True at real tokens; what is found for the others means nothing.
            page_mask: True at real tokens, at least one per page.

        Source:
            late-interaction-kernels 0.4.5, forward.py: `maxsim_forward` with `save_argmax`.
        """
        num_queries, num_tokens, _ = queries.shape
        # The number of query tokens is compiled into the kernel: powers of two keep its forms few.
        wanted = max(_FEWEST_QUERY_TOKENS, 1 << (num_tokens - 1).bit_length())
        if query_mask is None:
            query_mask = torch.ones(queries.shape[:2], dtype=torch.bool, device=queries.device)
        half = [_half(queries, query_mask), _half(pages, page_mask)]
        half[0] = F.pad(half[0], (0, 0, 0, wanted - num_tokens))
        padded_mask = F.pad(query_mask, (0, wanted - num_tokens))
        with torch.cuda.device_of(pages):  # Triton launches on the current card, not the tensors'
            _, found = self.forward(*half, padded_mask, page_mask, save_argmax=True)
        found = found.view(num_queries, len(pages), wanted)[:, :, :num_tokens]
        broken = ~torch.isfinite(half[1]).all(dim=-1)
        first_broken = broken.to(torch.uint8).argmax(dim=1).to(found.dtype)
        found = torch.where(broken.any(dim=1)[:, None], first_broken[:, None], found)
        return found.clamp(min=0)  # -1 where no product is above minus infinity: a query of NaN


def match_kernel() -> MatchKernel:
    """The kernel, where the package is installed.

    Raises:
        ImportError: It, or Triton, is not.
    """
    forward = importlib.import_module("late_interaction_kernels.forward").maxsim_forward
    return MatchKernel(forward, importlib.metadata.version(PACKAGE))


def why_no_kernel(device: torch.device, dim: int) -> str | None:
    """What keeps the kernel from being used, for a person; None where it can be.

    Args:
        device: Where the embeddings are.
        dim: Of an embedding.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return f"{device.type}{' with ROCm' if torch.version.hip else ''} is no NVIDIA GPU"
    capability = torch.cuda.get_device_capability(device)
    if capability < _SINCE:
        return f"compute capability {'.'.join(map(str, capability))}, expected 7.5 at least"
    if dim > _MAX_DIM:
        return f"projection.dim = {dim}, expected {_MAX_DIM} at most"
    try:
        match_kernel()
    except ImportError as error:
        return f"{PACKAGE} cannot be imported ({error})"
    return None


def refuse_missing_kernel(device: torch.device, dim: int) -> None:
    """Where the kernel is asked for by name, nothing else takes its place.

    Raises:
        RunError: [no-maxsim-kernel] It cannot be used here.
    """
    reason = why_no_kernel(device, dim)
    if reason is not None:
        raise RunError(
            "no-maxsim-kernel",
            "the fused kernel of MaxSim cannot be used here.",
            where="loss.maxsim_kernel = fused",
            received=reason,
            expected=f"an NVIDIA GPU of compute capability 7.5 or later, and {PACKAGE}",
            suggestion="pip install 'coltrain[kernels]', or loss.maxsim_kernel=none; auto takes it "
            "where it can be had",
        )


def _half(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """In float16, zero where padded: what padding holds need not fit."""
    if mask is not None:
        tokens = tokens.masked_fill(~mask.unsqueeze(-1), 0.0)
    return tokens.detach().to(torch.float16)
