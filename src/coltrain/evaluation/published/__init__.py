"""What others have published: scores with their source, and what they were computed by.

    names     the tasks under all the names that results use
    scores    the scores, means over benchmarks, and how far re-runs moved

`scores.json` is written by `scripts/make_published_scores.py`.
"""

from coltrain.evaluation.published.scores import PublishedScore as PublishedScore
from coltrain.evaluation.published.scores import benchmark_means as benchmark_means
from coltrain.evaluation.published.scores import published_scores as published_scores
