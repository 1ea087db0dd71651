"""Student's t for a few seeds, whose degrees of freedom need not be whole."""

from math import exp, lgamma, log


def t_quantile(share: float, degrees: float) -> float:
    """The value below which Student's t falls with a given probability.

    Args:
        share: Probability, between 0 and 1.
        degrees: Degrees of freedom, above 0.

    Source:
        P(|T| > t) = I_x(ν/2, 1/2) with x = ν / (ν + t²) (Abramowitz and Stegun, 26.7.1), inverted
        by bisection; the incomplete beta function by its continued fraction (26.5.8). Equal to
        scipy.stats.t.ppf to 1e-9 (`tests/reference/`).

    Example:
        >>> round(t_quantile(0.975, 2), 4)
        4.3027
    """
    if not 0 < share < 1 or not degrees > 0:
        raise ValueError(f"expected a probability and degrees of freedom, got {share}, {degrees}")
    if share < 0.5:
        return -t_quantile(1 - share, degrees)
    outside = 2 * (1 - share)
    # x falls from 1 to 0 while t grows from 0 without end.
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _beta_share(degrees / 2, 0.5, middle) < outside else (low, middle)
        )
    x = (low + high) / 2
    return (degrees * (1 - x) / x) ** 0.5


def _beta_share(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    # The fraction converges fast on this side only.
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_share(b, a, 1 - x)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(1 - x)) / a
    # Lentz's method: the fraction 1 / (1 + d1 / (1 + d2 / …)) as a product that converges.
    tiny = 1e-300
    value, up, down = 1.0, 1.0, 0.0
    for step in range(1, 500):
        half = step // 2
        if step == 1:
            term = 1.0
        elif step % 2:
            term = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        else:
            place = half - 1
            term = -(a + place) * (a + b + place) * x / ((a + 2 * place) * (a + 2 * place + 1))
        down = 1 / ((1 + term * down) or tiny)
        up = (1 + term / up) or tiny
        value *= up * down
        if step > 1 and abs(up * down - 1) < 1e-15:
            break
    return front * (value - 1)
