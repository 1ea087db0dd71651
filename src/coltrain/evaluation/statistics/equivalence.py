"""Whether two systems are the same for a purpose, with a margin stated beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass

from coltrain.evaluation.statistics.intervals import Interval, macro_interval, sample_interval
from coltrain.evaluation.statistics.sample import Sample


@dataclass(frozen=True)
class Equivalence:
    """The outcome of two one-sided tests.

    Attributes:
        is_shown: The interval lies within the margin.
        margin: Largest difference, either way, that does not matter.
        interval: Of the difference, at level 1 - 2 · size.
    """

    is_shown: bool
    margin: float
    interval: Interval


def equivalence(
    differences: Sample | Sequence[Sample],
    margin: float,
    *,
    size: float = 0.05,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Equivalence:
    """Test that a difference is smaller than a margin: two one-sided tests.

    Not finding a difference shows nothing; this shows that it is small. Both one-sided tests at
    `size` reject exactly when the interval at level 1 - 2 · size lies within ±margin.

    Args:
        differences: One system minus the other on a task, or on each task of a benchmark.
        margin: In the unit of the values, chosen before looking.
        size: How often equivalence may be claimed of a difference as large as the margin.
        num_resamples: Of the interval.
        seed: Of the resamples.

    Raises:
        ValueError: The margin is not positive.

    Source:
        Schuirmann, 1987; Lakens, "Equivalence tests", 2017.
    """
    if not margin > 0:
        raise ValueError(f"expected a positive margin, received {margin}")
    options = {"level": 1 - 2 * size, "num_resamples": num_resamples, "seed": seed}
    options["bounds"] = (-1.0, 1.0)
    if isinstance(differences, Sample):
        interval = sample_interval(differences, **options)
    else:
        interval = macro_interval(differences, **options)
    return Equivalence(within(interval, margin), margin, interval)


def within(interval: Interval, margin: float) -> bool:
    """Whether a whole interval lies within ±margin."""
    return -margin < interval.low and interval.high < margin
