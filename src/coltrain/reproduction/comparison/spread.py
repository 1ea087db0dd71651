"""How far one side's mean on a task can be trusted, also where only the mean is known."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from coltrain.evaluation.statistics import Interval, Sample, sample_interval
from coltrain.reproduction.comparison.sides import TaskScores

ASSUMED_SD = 0.35
"""Of nDCG over queries where nothing is known: about what tasks of middle difficulty have."""


@dataclass(frozen=True)
class Spread:
    """A side's interval on a task.

    Attributes:
        mean: The side's score.
        low: Lower end.
        high: Upper end.
        standard_error: Of the mean; half of the interval in normal units where that is more.
        source: What the spread was taken from.
        flag: That of the interval.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    source: str
    flag: str | None


def spread_of(
    scores: TaskScores, measure: str, other: TaskScores, *, level: float, seed: int
) -> Spread:
    """The interval of a side's mean: from its queries, or the nearest thing to them.

    Where only means are known: tasks with one relevant page a query have nDCG@5 values of which
    nDCG@1 and Recall@5 tell how many are 1, between, and 0; other tasks take the values of the
    other side; failing that, a standard deviation of .35 is assumed.

    Args:
        scores: The side.
        measure: Of which the mean is compared.
        other: The other side.
        level: Of the interval.
        seed: Of the resamples.
    """
    options = {"level": level, "seed": seed}
    mean = scores.measures[measure]
    z = NormalDist().inv_cdf((1 + level) / 2)
    if scores.per_query:
        sample, source = sample_of(scores, measure), "its queries"
    else:
        sample, source = _reconstructed(scores, measure), "its nDCG@1, nDCG@5 and Recall@5"
        if measure.startswith("Recall"):
            source = "its mean, each query 0 or 1"
        if sample is None and other.per_query:
            sample, source = sample_of(other, measure), "the queries of the other side"
    if sample is None:
        task = scores.task
        count = (task.base_queries if task else 0) or scores.num_queries or other.num_queries
        error = ASSUMED_SD / max(count, 1) ** 0.5
        source = f"a standard deviation of {ASSUMED_SD}, assumed"
        return Spread(mean, mean - z * error, mean + z * error, error, source, None)
    interval = sample_interval(sample, **options)
    low, high = interval.low - interval.mean, interval.high - interval.mean
    error = standard_error_within(sample, interval, z)
    return Spread(mean, mean + low, mean + high, error, source, interval.flag)


def sample_of(scores: TaskScores, measure: str) -> Sample:
    """A side's values on a task, translations together and languages apart where that is known."""
    queries = list(scores.per_query)
    return Sample.of(
        [scores.per_query[query][measure] for query in queries],
        *labels_of(scores, queries),
    )


def labels_of(scores: TaskScores, queries: list[str]) -> tuple[list[str] | None, list[str] | None]:
    """Base query and language of each query; None where nothing is known."""
    clusters = [scores.base_of.get(query, query) for query in queries] if scores.base_of else None
    languages = None
    if scores.language_of:
        languages = [scores.language_of.get(query, "") for query in queries]
    return clusters, languages


def standard_error_within(sample: Sample, interval: Interval, z: float) -> float:
    """The standard error, or what the interval stands for where that is wider on purpose."""
    if interval.flag is None:
        return sample.standard_error
    return (interval.high - interval.low) / (2 * z)


def _reconstructed(scores: TaskScores, measure: str) -> Sample | None:
    """Values with the published moments, for tasks with one relevant page a query."""
    task = scores.task
    if task is None or not task.has_one_relevant_page:
        return None
    found = scores.measures
    count = task.base_queries
    if measure.startswith("Recall"):
        hits = round(count * found[measure])
        return Sample.of(np.repeat([1.0, 0.0], [hits, count - hits]))
    if measure != "nDCG@5" or not {"nDCG@1", "Recall@5"} <= found.keys():
        return None
    first = min(count, round(count * found["nDCG@1"]))
    below = min(count - first, max(0, round(count * (found["Recall@5"] - found["nDCG@1"]))))
    # All that were found at ranks 2 to 5 get their mean gain: the spread among them is lost, at
    # most a hundredth of the variance for the published colqwen2-v1.0.
    gain = (found["nDCG@5"] - first / count) * count / below if below else 0.0
    values = np.repeat([1.0, min(max(gain, 0.0), 1.0), 0.0], [first, below, count - first - below])
    return Sample.of(values)
