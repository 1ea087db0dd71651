"""Work of an evaluation shared by ranks: every W-th item each, put in order again."""

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

from coltrain.evaluation.together import connected


def own_share(num_items: int, over_ranks: bool) -> range:
    """Places of the items that this process works on: i, i + W, … of rank i of W.

    Args:
        num_items: In all.
        over_ranks: Whether ranks share the work; then the default process group must be there.
    """
    if not over_ranks:
        return range(num_items)
    return range(dist.get_rank(), num_items, dist.get_world_size())


def gathered(own: Sequence[Any], num_items: int, over_ranks: bool) -> list[Any]:
    """All ranks' items in the order of the whole, on every rank.

    Args:
        own: What this process made of its share, in order; anything that pickles.
        num_items: In all.
        over_ranks: As for `own_share`.
    """
    if not over_ranks:
        return list(own)
    shares: list[Any] = [None] * dist.get_world_size()
    with connected():
        dist.all_gather_object(shares, list(own))
    items: list[Any] = [None] * num_items
    for rank, share in enumerate(shares):
        items[rank :: len(shares)] = share
    return items
