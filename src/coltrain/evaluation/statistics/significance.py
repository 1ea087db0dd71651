"""Whether a difference of two systems on the same queries could be chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

_MOST_STATES = 20_000  # of an exact distribution: 14 different differences, or many equal ones
_BLOCK = 4_000_000  # signs held at once


@dataclass(frozen=True)
class SignFlip:
    """The outcome of a paired sign-flip test.

    Attributes:
        p: Two-sided: how often chance alone gives a difference at least as large.
        method: Whether all assignments of signs were counted, or some drawn.
        num_differing: Units on which the two systems differ; the others say nothing here.
    """

    p: float
    method: str
    num_differing: int


def sign_flip_test(
    contributions: Sequence[float] | np.ndarray, *, num_flips: int = 10_000, seed: int = 0
) -> SignFlip:
    """Test that two systems are exchangeable on each unit (query, or base query).

    If they are, each difference could as well have had the other sign. The statistic is the sum, so
    for a benchmark the contributions of all its tasks are given together, each divided by what
    its task and the number of tasks divide by (`Sample.contributions`).

    Args:
        contributions: Difference of the two systems on each unit, in what it adds to the mean.
        num_flips: Draws where the exact distribution is too large.
        seed: Of the draws. The order of the units does not matter.

    Returns:
        Exact where few differences are distinct or few units differ; otherwise from draws, with the
        observed one counted among them, (1 + hits) / (1 + draws), so that p is never 0.

    Raises:
        ValueError: A contribution is not finite, or there is none.

    Source:
        Fisher, The Design of Experiments, 1935, section 21; for retrieval Smucker, Allan and
        Carterette, CIKM 2007. The +1: Phipson and Smyth, 2010. Equal to
        scipy.stats.permutation_test with permutation_type="samples" (`tests/reference/`).

    Example:
        >>> sign_flip_test([0.5, 0.5, 0.5, 0.5]).p  # 2 of 16 assignments
        0.125
    """
    contributions = np.asarray(contributions, dtype=np.float64)
    if not len(contributions) or not np.isfinite(contributions).all():
        raise ValueError("expected at least one contribution, all finite")
    scale = np.abs(contributions).max()
    if scale == 0:
        return SignFlip(1.0, "exact: the systems do not differ", 0)
    # Rounded, so that equal differences that were computed on other ways are one.
    sizes = np.abs(contributions / scale).round(12)
    sizes, counts = np.unique(sizes[sizes > 0], return_counts=True)
    observed = abs((contributions / scale).sum())
    slack = 1e-9 * counts.sum()
    exact = _exact(sizes, counts)
    num_differing = int(counts.sum())
    if exact is not None:
        sums, shares = exact
        p = float(shares[np.abs(sums) >= observed - slack].sum())
        return SignFlip(min(p, 1.0), "exact", num_differing)
    drawn = _drawn(sizes, counts, num_flips, np.random.default_rng(seed))
    hits = int((np.abs(drawn) >= observed - slack).sum())
    return SignFlip((1 + hits) / (1 + num_flips), f"{num_flips:,} sign flips", num_differing)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of several tests so that any false claim among them is as rare as one.

    Args:
        p_values: One for each test.

    Returns:
        Adjusted p-values in the same order, at most 1.

    Source:
        Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, (len(p_values) - rank) * p_values[place])
        adjusted[place] = min(largest, 1.0)
    return adjusted


def _exact(sizes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The sums over all assignments of signs, and how likely each is; None if too many."""
    sums, shares = np.zeros(1), np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        if len(sums) * (count + 1) > _MOST_STATES:
            return None
        steps = size * (2 * np.arange(count + 1) - count)
        # Of Python's whole numbers: binomials of more than a thousand are beyond floats.
        chances = np.array([comb(count, plus) / 2**count for plus in range(count + 1)])
        sums = (sums[:, None] + steps).round(10).ravel()
        shares = (shares[:, None] * chances).ravel()
        sums, place = np.unique(sums, return_inverse=True)
        shares = np.bincount(place.ravel(), weights=shares)
    return sums, shares


def _drawn(
    sizes: np.ndarray, counts: np.ndarray, num_flips: int, generator: np.random.Generator
) -> np.ndarray:
    """Sums of randomly signed differences: a binomial for each distinct size."""
    sums = np.empty(num_flips)
    is_single = counts == 1
    block = max(1, _BLOCK // len(sizes))
    for start in range(0, num_flips, block):
        rows = min(block, num_flips - start)
        total = np.zeros(rows)
        if is_single.any():
            signs = generator.integers(2, size=(rows, is_single.sum()), dtype=np.int8)
            total += (2 * (signs @ sizes[is_single])) - sizes[is_single].sum()
        if not is_single.all():
            many, often = sizes[~is_single], counts[~is_single]
            plus = generator.binomial(often, 0.5, size=(rows, len(often)))
            total += 2 * (plus @ many) - often @ many
        sums[start : start + rows] = total
    return sums
