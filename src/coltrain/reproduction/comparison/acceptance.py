"""Whether our evaluator gives a published model its published scores."""

from dataclasses import dataclass
from math import fsum
from typing import Any

from coltrain.errors import UsageError
from coltrain.evaluation.published.names import tasks_of
from coltrain.reproduction.comparison.sides import Side

BENCHMARK, MEASURE = "vidore-v1", "nDCG@5"
MEAN_LIMIT, TASK_LIMIT = 0.3, 1.0
"""Points. Evaluations of the same checkpoint by others, with other software, moved a v1 mean by up to
.29 and few tasks by more than 1; without a change of software, by nothing."""


@dataclass(frozen=True)
class Check:
    """One of the eleven: a task, or the mean.

    Attributes:
        name: Which.
        ours: Our score, a fraction; None where there is none.
        published: The published one.
        limit: Points that they may lie apart.
    """

    name: str
    ours: float | None
    published: float
    limit: float

    @property
    def points(self) -> float | None:
        """Ours minus the published one, in points."""
        return None if self.ours is None else 100 * (self.ours - self.published)

    @property
    def is_passed(self) -> bool:
        """Whether they lie close enough."""
        # A difference that is the limit but for rounding passes.
        return self.points is not None and abs(self.points) <= self.limit + 1e-9


def acceptance(ours: Side, published: Side) -> list[Check]:
    """Check an evaluation of a published model, on ViDoRe v1: mean within .3, each task within 1.

    Args:
        ours: Our evaluation of the published weights.
        published: Its published scores.

    Raises:
        UsageError: `[nothing-to-accept]`: the other side is not published, or not on all of v1.
    """
    tasks = [task.name for task in tasks_of(BENCHMARK)]
    if not published.is_published or not all(task in published.tasks for task in tasks):
        raise UsageError(
            "nothing-to-accept",
            "an evaluator is accepted by the published scores of a model on all of ViDoRe v1.",
            where="--accept",
            received=published.label,
            expected="published:MODEL with ten v1 tasks, such as published:vidore/colqwen2-v1.0",
        )
    checks = []
    for task in tasks:
        scores = ours.tasks.get(task)
        score = scores.measures.get(MEASURE) if scores else None
        checks.append(Check(task, score, published.tasks[task].measures[MEASURE], TASK_LIMIT))
    scores = [check.ours for check in checks if check.ours is not None]
    mean = fsum(scores) / len(scores) if len(scores) == len(checks) else None
    target = fsum(check.published for check in checks) / len(checks)
    return [*checks, Check(f"{BENCHMARK} mean", mean, target, MEAN_LIMIT)]


def acceptance_to_json(checks: list[Check]) -> dict[str, Any]:
    """The checks as a document."""
    return {
        "accepted": all(check.is_passed for check in checks),
        "measure": MEASURE,
        "checks": [
            {
                "name": check.name,
                "ours": check.ours,
                "published": check.published,
                "difference_points": check.points,
                "limit_points": check.limit,
                "passed": check.is_passed,
            }
            for check in checks
        ],
    }
