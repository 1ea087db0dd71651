"""Populations of nDCG@5 values that look like ViDoRe v1, to draw queries from.

A page is found at rank 1 to 5 or not: six values. Each population has the mean and the standard
deviation that the published `vidore/colqwen2-v1.0` has on a task; the ranks 2 to 5 share their part
in proportions that fall with the rank.
"""

from statistics import NormalDist

import numpy as np

VALUES = np.array([0.0, *(1 / np.log2(np.arange(6, 2, -1))), 1.0])
_RANKS_5_TO_2 = np.array([0.12, 0.18, 0.27, 0.43])

# Queries, mean and sd of nDCG@5: published means, sd from published nDCG and Recall at 1, 3 and 5
# (exact with one relevant page a query).
V1_TASKS = {
    "ArxivQA": (500, 0.87983, 0.2859),
    "DocVQA": (451, 0.61483, 0.4489),
    "InfoVQA": (494, 0.92507, 0.2298),
    "TabFQuAD": (280, 0.89011, 0.2735),
    "TatDQA": (1646, 0.82228, 0.3127),
    "ShiftProject": (100, 0.89906, 0.2140),
    "SyntheticDocQAAI": (100, 0.99018, 0.0709),
    "SyntheticDocQAEnergy": (100, 0.95893, 0.1800),
    "SyntheticDocQAGovernmentReports": (100, 0.95478, 0.1487),
    "SyntheticDocQAHealthcareIndustry": (100, 0.98762, 0.0712),
}


def population(mean: float, sd: float) -> np.ndarray:
    """Probabilities of the six values.

    Two moments fix how much lies at 0, between and at 1. Where no such mixture has both, the mean
    is kept and the sd is the nearest that can be had.
    """
    middle = _RANKS_5_TO_2 @ VALUES[1:5]
    second = _RANKS_5_TO_2 @ VALUES[1:5] ** 2
    share = (mean - sd**2 - mean**2) / (middle - second)
    # Nothing below 0: neither at value 0 nor between.
    share = min(max(share, 0.0), (1 - mean) / (1 - middle))
    one = mean - share * middle
    return np.array([1 - share - one, *(share * _RANKS_5_TO_2), one])


def correlated_pair(
    first: np.ndarray, second: np.ndarray, latent: float, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Values of two systems on the same queries, by a Gaussian copula of a given correlation."""
    normal = generator.standard_normal((2, count))
    other = latent * normal[0] + np.sqrt(1 - latent**2) * normal[1]
    return _quantile(first, normal[0]), _quantile(second, other)


def latent_correlation(
    first: np.ndarray, second: np.ndarray, correlation: float, num_draws: int = 200_000
) -> float:
    """The copula's correlation at which the values themselves correlate as asked."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        pair = correlated_pair(first, second, middle, num_draws, np.random.default_rng(0))
        low, high = (middle, high) if np.corrcoef(*pair)[0, 1] < correlation else (low, middle)
    return (low + high) / 2


def _quantile(probabilities: np.ndarray, normal: np.ndarray) -> np.ndarray:
    steps = np.cumsum(probabilities)[:-1].clip(1e-12, 1 - 1e-12)
    ends = [NormalDist().inv_cdf(float(step)) for step in steps]
    return VALUES[np.searchsorted(ends, normal)]
