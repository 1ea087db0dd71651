"""M-RoPE position ids: where each token of a page stands in text, height and width.

transformers 5.23's `ColQwen2ForRetrieval` drops them (its pages get plain 0..L-1 positions), so
coltrain computes them itself, from the grid, and hands them to the language model explicitly. What
that library does is there by name, to compare with.
"""

from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

PositionScheme = Literal["mrope", "sequential"]
"""`mrope`: visual tokens by their place in the grid. `sequential`: 0, 1, 2, … whatever the token."""


def text_positions(num_tokens: int) -> Int[Tensor, "3 {num_tokens}"]:
    """Positions of plain text: 0, 1, 2, … on all three axes."""
    return torch.arange(num_tokens).expand(3, num_tokens)


def page_positions(
    num_before: int, grid_height: int, grid_width: int, num_after: int
) -> Int[Tensor, "3 tokens"]:
    """Positions of one page: text before, its grid of visual tokens, text after.

    The grid's tokens share one temporal position and count rows and columns from there; the text
    that follows goes on after the larger side of the grid.

    Args:
        num_before: Tokens before the first visual token.
        grid_height: Rows of visual tokens (patches along the height, divided by the merge size).
        grid_width: Columns of visual tokens.
        num_after: Tokens after the last visual token.

    Returns:
        One row each for time, height and width.

    Source:
        Qwen2-VL (Wang et al., 2024, arXiv:2409.12191), section 2.1; equal to transformers'
        `Qwen2VLModel.get_rope_index`.
    """
    before = torch.arange(num_before).expand(3, num_before)
    rows = torch.arange(grid_height).repeat_interleave(grid_width)
    columns = torch.arange(grid_width).repeat(grid_height)
    grid = torch.stack([torch.zeros_like(rows), rows, columns]) + num_before
    first_after = num_before + max(grid_height, grid_width)
    after = torch.arange(first_after, first_after + num_after).expand(3, num_after)
    return torch.cat([before, grid, after], dim=1)
