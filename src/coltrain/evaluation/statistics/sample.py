"""What was measured on the queries of one task, as the units that are drawn together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sample:
    """The values of one task, added up over what belongs together.

    A unit is what a resample draws or leaves as a whole: one query, all translations of a base
    query, or all queries of a page. The mean of a task is the mean over its subsets (languages) of
    the mean over the queries in each, as ViDoRe v2 and v3 have it; v1 has one subset.

    Attributes:
        sums: Sum of the values of each unit in each subset, units x subsets.
        sizes: How many queries these are, units x subsets.
    """

    sums: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(
        cls,
        values: Sequence[float] | np.ndarray,
        clusters: Sequence | None = None,
        subsets: Sequence | None = None,
    ) -> "Sample":
        """Group the values of one task.

        Args:
            values: One for each query, such as its nDCG@5, or a difference of two of them.
            clusters: Unit of each query: its base query, or its page. None: each its own.
            subsets: Subset of each query, such as its language. None: all in one.

        Raises:
            ValueError: No value, a value that is not finite, or lengths that differ.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 1 or not len(values):
            raise ValueError(f"expected one value for each query, received shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"{(~np.isfinite(values)).sum()} values are not finite")
        if clusters is None and subsets is None:
            return cls(values[:, None], np.ones((len(values), 1)))
        units = _numbered(clusters, len(values), "clusters", np.arange(len(values)))
        columns = _numbered(subsets, len(values), "subsets", np.zeros(len(values), dtype=np.int64))
        shape = (units.max() + 1, columns.max() + 1)
        sums, sizes = np.zeros(shape), np.zeros(shape)
        np.add.at(sums, (units, columns), values)
        np.add.at(sizes, (units, columns), 1)
        return cls(sums, sizes)

    @property
    def num_units(self) -> int:
        """Units that are drawn: the n of the interval."""
        return len(self.sums)

    @property
    def num_queries(self) -> int:
        """Values in all."""
        return int(self.sizes.sum())

    @property
    def mean(self) -> float:
        """The task's score: mean over subsets of the mean over queries."""
        return float((self.sums.sum(0) / self.sizes.sum(0)).mean())

    @property
    def unit_means(self) -> np.ndarray:
        """The mean value of each unit."""
        return self.sums.sum(1) / self.sizes.sum(1)

    @property
    def contributions(self) -> np.ndarray:
        """What each unit adds to the task's score, which is their sum."""
        return (self.sums / self.sizes.sum(0)).mean(1)

    @property
    def influences(self) -> np.ndarray:
        """How far each unit pulls the task's score from itself; their sum is 0."""
        totals = self.sizes.sum(0)
        return ((self.sums - self.sums.sum(0) / totals * self.sizes) / totals).mean(1)

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over units; NaN for a single unit.

        For units of one query it is sd / sqrt(n); for others that of a ratio of sums, linearised
        (Cochran, Sampling Techniques, 1977, section 6.3).
        """
        if self.num_units < 2:
            return float("nan")
        scale = self.num_units / (self.num_units - 1)
        return float(np.sqrt(scale * (self.influences**2).sum()))


def _numbered(labels: Sequence | None, count: int, name: str, default: np.ndarray) -> np.ndarray:
    """Labels as whole numbers from 0."""
    if labels is None:
        return default
    if len(labels) != count:
        raise ValueError(f"{count} values but {len(labels)} {name}")
    numbers: dict = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels])
