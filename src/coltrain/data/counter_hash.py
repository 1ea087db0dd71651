"""Random choices without a random state: hashes of what they are for.

A choice depends on the numbers that it is asked for (seed, epoch, row, …) and on nothing else, so
it does not move with ranks, workers, libraries or what ran before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, the step of SplitMix64


def order(num_items: int, seed: int, *of: int) -> NDArray[np.int64]:
    """Item numbers sorted by a hash of (seed, of, item); equal hashes keep their order.

    Args:
        num_items: How many there are.
        seed: Of the run.
        of: What the order is for, such as the epoch.
    """
    stream = mix(np.array([seed], dtype=np.uint64))
    for number in of:
        stream = mix(stream ^ np.uint64(number))
    counters = np.arange(1, num_items + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return np.argsort(mix(stream + counters), kind="stable").astype(np.int64)


def mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014), on each word; overflow wraps."""
    words = words ^ (words >> np.uint64(30))
    words = words * np.uint64(0xBF58476D1CE4E5B9)
    words = words ^ (words >> np.uint64(27))
    words = words * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
