"""Ranks that go on together or not at all: what one of them meets, all hear of.

A rank that leaves alone, by an error or because it was asked to stop, would let the others wait for
it in the next exchange. So work that only concerns a rank itself ends with a word to the others.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


class RankFailed(Exception):  # noqa: N818 - the error is the other rank's
    """Another rank cannot go on.

    Args:
        rank: Which one.
        error: What it met.
    """

    def __init__(self, rank: int, error: Exception) -> None:
        super().__init__(rank, error)
        self.rank = rank
        self.error = error

    def __str__(self) -> str:
        return f"rank {self.rank} cannot go on: {str(self.error) or type(self.error).__name__}"


class RanksApart(Exception):  # noqa: N818 - no more than a broken connection is known here
    """The connection to another rank broke: its process is gone, or its machine."""


@contextmanager
def connected() -> Iterator[None]:
    """Around every exchange between ranks.

    Raises:
        RanksApart: It did not come about.
    """
    try:
        yield
    except RuntimeError as error:  # what torch raises for gloo and NCCL, with subclasses for some
        raise RanksApart(str(error)) from error


@contextmanager
def together(over_ranks: bool) -> Iterator[None]:
    """Around work of this process without exchanges in it: all ranks leave it well, or none.

    Costs one exchange of a byte.

    Args:
        over_ranks: Whether there are others; then all of them must come by here.

    Raises:
        RankFailed: It went well here, and not on another rank; of several the first is named.
        RanksApart: A rank is gone.
    """
    if not over_ranks:
        yield
        return
    own = None
    try:
        yield
    except Exception as error:
        own = error
    failed = [torch.zeros(1, dtype=torch.uint8) for _ in range(dist.get_world_size())]
    with connected():
        dist.all_gather(failed, torch.tensor([own is not None], dtype=torch.uint8))
    if not any(failed):
        return
    errors: list[Exception | None] = [None] * len(failed)
    with connected():
        dist.all_gather_object(errors, None if own is None else _portable(own))
    if own is not None:
        raise own
    rank, error = next((rank, error) for rank, error in enumerate(errors) if error is not None)
    raise RankFailed(rank, error)


def _portable(error: Exception) -> Exception:
    """The error if it survives being sent, else its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
