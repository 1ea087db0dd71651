"""Batches of several sources, in the shares that their weights ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coltrain.data.counter_hash import order
from coltrain.data.plan import BatchPlan
from coltrain.errors import DataError

_PASSES = 0x6D69787475726573  # keeps the passes over a source apart from the order of an epoch


@dataclass(frozen=True)
class MixturePlan:
    """The global batches of every epoch, of one source or of several.

    An epoch has as many rows as all sources together. Without weights it has every row once, in
    the order of `BatchPlan` over the sources as one. With weights, source i gives the epoch
    `weight_i / sum of weights` of its rows, rounded so that they add up. A source gives its rows
    in passes, each in an order of its own, and goes on in the next epoch where it stopped: no row
    comes again before all others of its source have come. So a source that gives more rows than
    it has repeats within an epoch, and one that gives fewer takes several epochs to be seen.

    Nothing but the arguments decides: see `BatchPlan`, whose interface this is.

    Args:
        sizes: Rows of each source; row indices run through the sources in this order.
        global_size: Queries of an optimiser step, over all ranks.
        seed: Of the order.
        drop_last: Whether batches that are not full are left out.
        weights: One a source, above 0; None for the sizes.
        batches: `mixed`, or `one_source` for batches of one source each. These are dealt: the
            epoch's rows in mixed order go each to the open batch of its source, and a batch is
            trained on when it is full. What is left open at the end is a short batch.
        names: Of the sources, for messages.

    Raises:
        DataError: [too-few-rows] There is no batch, or a source would never be in one.

    Example:
        >>> plan = MixturePlan((6, 2), 4, seed=0, drop_last=True, weights=(1, 1))
        >>> plan.rows_per_epoch
        (4, 4)
        >>> [batch.tolist() for batch in plan.epoch(0)]
        [[2, 6, 7, 6], [1, 7, 0, 3]]
    """

    sizes: tuple[int, ...]
    global_size: int
    seed: int
    drop_last: bool
    weights: tuple[float, ...] | None = None
    batches: Literal["mixed", "one_source"] = "mixed"
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.weights is not None and len(self.weights) != len(self.sizes):
            raise ValueError(f"{len(self.weights)} weights for {len(self.sizes)} sources.")
        if self.weights is not None and min(self.weights) <= 0:
            raise ValueError("The weight of a source is above 0.")
        BatchPlan(self.num_rows, self.global_size, self.seed, self.drop_last)  # refuses as it does
        least = self.global_size if self.drop_last and self.batches == "one_source" else 1
        for place, num_rows in enumerate(self.rows_per_epoch):
            if num_rows < least or not self.sizes[place]:
                raise DataError(
                    "too-few-rows",
                    "a source of the mixture would never be trained on."
                    if num_rows == 0
                    else "a source of the mixture does not fill one global batch in an epoch.",
                    where=f"data.train[{place}]" + (f", {self.names[place]}" if self.names else ""),
                    received=f"{num_rows} rows an epoch, of the {self.sizes[place]} it has",
                    expected=f"at least {least}",
                    suggestion="a larger weight"
                    if num_rows == 0 and self.sizes[place]
                    else "data.batches=mixed, batch.drop_last=false, or a smaller batch.global_size"
                    if least > 1
                    else None,
                )

    @property
    def num_rows(self) -> int:
        """Rows of an epoch, and of all sources together."""
        return sum(self.sizes)

    @cached_property
    def rows_per_epoch(self) -> tuple[int, ...]:
        """How many rows each source gives an epoch."""
        if self.weights is None:
            return self.sizes
        # Fractions: a share that is a whole number of rows stays one. Largest remainders first,
        # the first source where they are equal.
        weights = [Fraction(weight) for weight in self.weights]
        exact = [self.num_rows * weight / sum(weights) for weight in weights]
        rows = [int(share) for share in exact]
        by_remainder = sorted(range(len(rows)), key=lambda place: rows[place] - exact[place])
        for place in by_remainder[: self.num_rows - sum(rows)]:
            rows[place] += 1
        return tuple(rows)

    @cached_property
    def batches_per_epoch(self) -> int:
        """Steps of an epoch."""
        groups = [self.num_rows] if self.batches == "mixed" else self.rows_per_epoch
        if self.drop_last:
            return sum(num_rows // self.global_size for num_rows in groups)
        return sum(-(-num_rows // self.global_size) for num_rows in groups)

    def num_steps(self, epochs: float) -> int:
        """Steps of a number of epochs, a whole number of steps and at least one."""
        return max(1, round(epochs * self.batches_per_epoch))

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """The global batches of one epoch, in order: arrays of row indices.

        Args:
            epoch: From 0.
        """
        return [batch.copy() for batch in _batches(self, epoch)]

    def batch_at(self, step: int) -> tuple[int, NDArray[np.int64]]:
        """The epoch and the rows of one step.

        Args:
            step: From 1, as in `metrics.jsonl`.
        """
        if step < 1:
            raise ValueError(f"Steps count from 1; received {step}.")
        epoch, place = divmod(step - 1, self.batches_per_epoch)
        return epoch, _batches(self, epoch)[place].copy()

    def source_of(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """The source of each row, as its place in `sizes`."""
        ends = np.cumsum(self.sizes)
        return np.searchsorted(ends, np.asarray(rows, dtype=np.int64), side="right")

    def _rows(self, epoch: int) -> NDArray[np.int64]:
        """The rows of one epoch in mixed order."""
        parts = []
        start = 0
        for place, (size, num_rows) in enumerate(zip(self.sizes, self.rows_per_epoch, strict=True)):
            # Sorted, so that an epoch that has every row once is that of a single source.
            parts.append(start + np.sort(self._next_of(place, size, num_rows, epoch)))
            start += size
        return np.concatenate(parts)[order(self.num_rows, self.seed, epoch)]

    def _next_of(self, place: int, size: int, num_rows: int, epoch: int) -> NDArray[np.int64]:
        """The rows that a source gives an epoch, by their numbers within the source."""
        first, end = epoch * num_rows, (epoch + 1) * num_rows
        passes = [
            order(size, self.seed, _PASSES, place, number)
            for number in range(first // size, -(-end // size))
        ]
        skipped = first // size * size
        return np.concatenate(passes)[first - skipped : end - skipped]


@lru_cache(maxsize=4)
def _batches(plan: MixturePlan, epoch: int) -> list[NDArray[np.int64]]:
    rows, size = plan._rows(epoch), plan.global_size
    if plan.batches == "mixed":
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        return batches[: plan.batches_per_epoch]
    sources = plan.source_of(rows)
    dealt = []
    for source in range(len(plan.sizes)):
        places = np.flatnonzero(sources == source)
        dealt += [places[start : start + size] for start in range(0, len(places), size)]
    if plan.drop_last:
        dealt = [places for places in dealt if len(places) == size]
    dealt.sort(key=lambda places: int(places[-1]))
    return [rows[places] for places in dealt]
