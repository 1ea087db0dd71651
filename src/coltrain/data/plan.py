"""Which rows form which global batch: a pure function of the seed and the epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from coltrain.data.counter_hash import order
from coltrain.errors import DataError


@dataclass(frozen=True)
class BatchPlan:
    """The global batches of every epoch.

    Nothing but the arguments decides them: not the number of ranks, the chunk, the workers, a
    library's random generator or what ran before. So a run can be continued, or moved to other
    hardware, and still meets the same negatives.

    Args:
        num_rows: Rows of the training set.
        global_size: Queries of an optimiser step, over all ranks.
        seed: Of the order.
        drop_last: Whether an epoch's last batch is left out when it is not full.

    Raises:
        DataError: [too-few-rows] There is no batch.

    Example:
        >>> plan = BatchPlan(num_rows=5, global_size=2, seed=0, drop_last=False)
        >>> [batch.tolist() for batch in plan.epoch(0)]
        [[2, 4], [1, 0], [3]]
    """

    num_rows: int
    global_size: int
    seed: int
    drop_last: bool

    def __post_init__(self) -> None:
        if self.global_size < 1 or self.seed < 0:
            raise ValueError("A batch plan needs global_size of at least 1 and seed of at least 0.")
        if self.batches_per_epoch == 0:
            raise DataError(
                "too-few-rows",
                "the training data do not fill one global batch.",
                where="batch.global_size, data.train",
                received=f"{self.num_rows} rows for a global batch of {self.global_size}",
                expected=f"at least {self.global_size if self.drop_last else 1} rows",
                suggestion="more data, a smaller batch.global_size, or batch.drop_last=false"
                if self.num_rows
                else None,
            )

    @property
    def batches_per_epoch(self) -> int:
        """Steps that pass over the data once."""
        if self.drop_last:
            return self.num_rows // self.global_size
        return math.ceil(self.num_rows / self.global_size)

    def num_steps(self, epochs: float) -> int:
        """Steps of a number of passes, a whole number of steps and at least one."""
        return max(1, round(epochs * self.batches_per_epoch))

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """The global batches of one pass, in order: arrays of row indices.

        Args:
            epoch: From 0.
        """
        return [self._batch(epoch, place) for place in range(self.batches_per_epoch)]

    def batch_at(self, step: int) -> tuple[int, NDArray[np.int64]]:
        """The epoch and the rows of one step.

        Args:
            step: From 1, as in `metrics.jsonl`.
        """
        if step < 1:
            raise ValueError(f"Steps count from 1; received {step}.")
        epoch, place = divmod(step - 1, self.batches_per_epoch)
        return epoch, self._batch(epoch, place)

    def _batch(self, epoch: int, place: int) -> NDArray[np.int64]:
        order = _order(self.num_rows, self.seed, epoch)
        return order[place * self.global_size : (place + 1) * self.global_size].copy()


@lru_cache(maxsize=4)
def _order(num_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Rows sorted by a hash of (seed, epoch, row)."""
    return order(num_rows, seed, epoch)
