"""Bootstrap resamples of a task's mean, in memory that does not grow with their number."""

import numpy as np

from coltrain.evaluation.statistics.sample import Sample

_BLOCK = 2_000_000  # draws held at once: 16 MB


def resampled_means(
    sample: Sample, num_resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """The task's mean in each of many resamples of its units with replacement.

    Units that are equal are drawn as one, by how often: nDCG@5 of tasks with one relevant page
    has six distinct values, so a resample costs six binomial draws rather than n. The order of the
    queries does not matter.

    Args:
        sample: The task.
        num_resamples: How many.
        generator: Source of the draws.

    Returns:
        num_resamples means.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 6.
    """
    units, counts = np.unique(np.hstack([sample.sums, sample.sizes]), axis=0, return_counts=True)
    sums, sizes = np.hsplit(units, 2)
    num_units, num_subsets = sample.num_units, sums.shape[1]
    order = np.repeat(np.arange(len(units)), counts)
    # A multinomial costs a binomial for each distinct unit, far more than one look-up.
    are_few = len(units) <= num_units // 8
    means = np.empty(num_resamples)
    block = max(1, _BLOCK // (len(units) if are_few else num_units))
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        if are_few:
            drawn = generator.multinomial(num_units, counts / num_units, size=size)
            tops, bottoms = drawn @ sums, drawn @ sizes
        else:
            picked = order[generator.integers(num_units, size=(size, num_units), dtype=np.int32)]
            tops, bottoms = np.empty((size, num_subsets)), np.empty((size, num_subsets))
            for subset in range(num_subsets):
                tops[:, subset] = sums[:, subset][picked].sum(1)
                is_constant = (sizes[:, subset] == sizes[0, subset]).all()
                bottoms[:, subset] = (
                    num_units * sizes[0, subset] if is_constant else sizes[:, subset][picked].sum(1)
                )
        if not bottoms.all():
            raise ValueError("a resample lost a whole subset: too few units have a query in it")
        means[start : start + size] = (tops / bottoms).mean(1)
    return means
