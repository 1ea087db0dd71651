"""How large a difference is, and how small a one could have been seen."""

from math import sqrt
from statistics import NormalDist

import numpy as np

from coltrain.evaluation.statistics.sample import Sample


def effect_size(differences: Sample) -> float | None:
    """Mean over standard deviation of the paired differences (dz), in no unit.

    Depends on how alike the two systems are, so report it beside the mean difference in points.

    Args:
        differences: One system minus the other, by unit.

    Returns:
        None where the differences do not vary: there is nothing to measure by.

    Source:
        Lakens, "Calculating and reporting effect sizes", 2013, equation 6.
    """
    if differences.num_units < 2:
        return None
    spread = float(np.std(differences.unit_means, ddof=1))
    return differences.mean / spread if spread > 1e-12 else None


def smallest_difference(standard_error: float, *, level: float = 0.95, power: float = 0.8) -> float:
    """The least true difference that a two-sided test would have found as often as `power` says.

    Args:
        standard_error: Of the difference: `Sample.standard_error` of paired differences.
        level: 1 minus the size of the test.
        power: How often it is to be found.

    Source:
        (z_{1 - α/2} + z_power) · SE = 2.802 · SE at the defaults: Cohen, Statistical Power Analysis,
        1988, chapter 2.

    Example:
        >>> round(smallest_difference(0.01), 4)
        0.028
    """
    normal = NormalDist()
    return (normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)) * standard_error


def planned_smallest_difference(
    sd: float,
    num_queries: int,
    correlation: float,
    *,
    level: float = 0.95,
    power: float = 0.8,
) -> float:
    """`smallest_difference` before anything was measured on pairs.

    Args:
        sd: Standard deviation of one system's values over queries.
        num_queries: Queries, base queries where translations are asked.
        correlation: Of the two systems' values over queries; .8 is common for two runs of a recipe.
        level: As there.
        power: As there.

    Example:
        >>> round(planned_smallest_difference(0.2859, 500, 0.8), 4)  # ArxivQA
        0.0227
    """
    standard_error = sd * sqrt(2 * (1 - correlation) / num_queries)
    return smallest_difference(standard_error, level=level, power=power)
