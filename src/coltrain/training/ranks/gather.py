"""Every rank's embeddings on all ranks, with the gradient's way back.

Ranks may hold different numbers of samples, also none, of different lengths. All sides of a batch
go in one exchange, and their gradients return in one.

torch.distributed.nn's gather is not used: on gloo it gives wrong gradients where the incoming one
is not contiguous, as einsum's is (torch 2.14; tests/reference/test_ranks_gather.py shows it).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from coltrain.evaluation.together import connected


@dataclass(frozen=True)
class Layout:
    """How many samples each rank holds of each side, and how they travel.

    A rank sends one row: its samples of each side after the other, widened to the longest sample of
    that side anywhere, then padding up to the longest row.

    Attributes:
        rank: This one.
        sizes: For each rank, for each side: samples and tokens.
    """

    rank: int
    sizes: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def num_ranks(self) -> int:
        return len(self.sizes)

    @property
    def tokens(self) -> list[int]:
        """For each side the tokens of its longest sample."""
        return [max(tokens for _, tokens in side) for side in zip(*self.sizes, strict=True)]

    def places(self, rank: int) -> list[int]:
        """For each side where its samples begin in a rank's row, and the row's end; in tokens."""
        lengths = [
            samples * tokens
            for (samples, _), tokens in zip(self.sizes[rank], self.tokens, strict=True)
        ]
        return [0, *accumulate(lengths)]

    @property
    def row(self) -> int:
        """Length of a row in tokens."""
        return max(self.places(rank)[-1] for rank in range(self.num_ranks))

    def packed(self, sides: list[Tensor], rank: int) -> Tensor:
        """A rank's samples of each side, [samples, at most the side's tokens, …], as one row."""
        beyond = sides[0].shape[2:]
        row = sides[0].new_zeros((self.row, *beyond))
        for side, start, tokens in zip(sides, self.places(rank), self.tokens, strict=False):
            place = row[start : start + len(side) * tokens]
            place.view(len(side), tokens, *beyond)[:, : side.shape[1]] = side
        return row

    def unpacked(self, row: Tensor, rank: int) -> list[Tensor]:
        """What `packed` packed, each side at its full width."""
        return [
            row[start : start + samples * tokens].view(samples, tokens, *row.shape[1:])
            for (samples, _), start, tokens in zip(
                self.sizes[rank], self.places(rank), self.tokens, strict=False
            )
        ]

    def joined(self, rows: list[Tensor]) -> list[Tensor]:
        """For each side all samples, in the order of ranks."""
        parts = [self.unpacked(row, rank) for rank, row in enumerate(rows)]
        return [torch.cat(side) for side in zip(*parts, strict=True)]

    def divided(self, sides: tuple[Tensor, ...]) -> list[Tensor]:
        """The reverse of `joined`: a row for each rank."""
        numbers = [[samples for samples, _ in side] for side in zip(*self.sizes, strict=True)]
        parts = [side.split(number) for side, number in zip(sides, numbers, strict=True)]
        return [
            self.packed(list(of_rank), rank)
            for rank, of_rank in enumerate(zip(*parts, strict=True))
        ]


def exchange_layout(sizes: Mapping[str, tuple[int, int]], sides: tuple[str, ...]) -> Layout:
    """Learn how many samples of how many tokens every rank holds.

    Args:
        sizes: Of this rank, by side; a side may be missing.
        sides: All that there can be, the same on every rank.
    """
    own = torch.tensor([sizes.get(side, (0, 0)) for side in sides], dtype=torch.int64)
    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    with connected():
        dist.all_gather(found, own)
    return Layout(dist.get_rank(), tuple(tuple((n, t) for n, t in one.tolist()) for one in found))


def gather_masks(layout: Layout, masks: list[Tensor]) -> list[Tensor]:
    """Every rank's masks by side, True at real tokens; padding that widens a sample is False."""
    row = layout.packed([mask.to(torch.uint8) for mask in masks], layout.rank)
    return [side.bool() for side in layout.joined(_all_rows(row, layout))]


def gather_vectors(layout: Layout, vectors: list[Tensor]) -> list[Tensor]:
    """Every rank's embeddings by side, in the order of ranks; differentiable once.

    All ranks must come by, forward and backward. The gradient that comes back to a rank's own
    embeddings is the sum of what all ranks' losses say about them.
    """
    return list(_Gather.apply(layout, *vectors))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, layout: Layout, *vectors: Tensor) -> tuple[Tensor, ...]:
        ctx.layout = layout
        row = layout.packed(list(vectors), layout.rank)
        return tuple(layout.joined(_all_rows(row, layout)))

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        layout: Layout = ctx.layout
        # Packing copies: what is sent is contiguous, however the gradient lies in memory.
        rows = torch.stack(layout.divided(gradients))
        found = torch.empty_like(rows)
        with connected():
            # Not reduce_scatter, which gloo lacks in torch 2.7.1; and the order of the sum is ours.
            dist.all_to_all_single(found, rows)
        parts = layout.unpacked(found.sum(0), layout.rank)
        sizes = layout.sizes[layout.rank]
        return None, *(part[:, :tokens] for part, (_, tokens) in zip(parts, sizes, strict=True))


def _all_rows(row: Tensor, layout: Layout) -> list[Tensor]:
    rows = [torch.empty_like(row) for _ in range(layout.num_ranks)]
    with connected():
        dist.all_gather(rows, row)
    return rows
