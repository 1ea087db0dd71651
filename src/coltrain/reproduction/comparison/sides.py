"""The two sides of a comparison: an evaluation of ours, or what somebody published."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from coltrain.errors import RunError, UsageError
from coltrain.evaluation.published.names import TaskName, task_key, task_named
from coltrain.evaluation.published.scores import latest, model_named, published_scores
from coltrain.evaluation.results import read_results

PUBLISHED = "published:"
_IN_A_FOLDER = ("evaluation/final.json", "evaluation.json", "results.json")


@dataclass(frozen=True)
class TaskScores:
    """What one side reached on one task.

    Attributes:
        name: As this side calls it.
        measures: Fractions.
        num_queries: Judged queries.
        per_query: Measures of each query; empty where only means are known.
        base_of: Query to the query that it is a translation of; empty where nothing is known.
        language_of: Query to language, where the task's score is a mean over languages.
        provenance: How the score came about, as far as it is published.
    """

    name: str
    measures: dict[str, float]
    num_queries: int
    per_query: dict[str, dict[str, float]] = field(default_factory=dict)
    base_of: dict[str, str] = field(default_factory=dict)
    language_of: dict[str, str] = field(default_factory=dict)
    provenance: str = ""

    @property
    def task(self) -> TaskName | None:
        """The task of ViDoRe that this is."""
        return task_named(self.name)


@dataclass(frozen=True)
class Side:
    """One side, its tasks by what they are matched by.

    Attributes:
        label: What it is called.
        is_published: Whether only means are known, as others filed them.
        tasks: By the name in mteb, or the data set's own.
    """

    label: str
    is_published: bool
    tasks: dict[str, TaskScores]


def read_side(name: str) -> Side:
    """Read one side.

    Args:
        name: `published:MODEL`; a run; a folder of `coltrain eval --out`; or a document of results, as
            `coltrain eval --json` prints it.

    Raises:
        UsageError: `[no-published-scores]`
        RunError: `[no-evaluation]` for a folder without one, `[not-results]` for another file.
    """
    if name.startswith(PUBLISHED):
        return _published(name.removeprefix(PUBLISHED))
    path = Path(name)
    if path.is_dir():
        found = [path / part for part in _IN_A_FOLDER if (path / part).is_file()]
        if not found and path.resolve().parent.name == "runs":  # a study's, which measures beside
            study = path.resolve().parents[1]
            found = sorted((study / "evaluations").glob(f"{path.resolve().name}-*.json"))
        if not found:
            raise RunError(
                "no-evaluation",
                "the folder holds no finished evaluation.",
                where=name,
                received=", ".join(sorted(file.name for file in path.iterdir())[:8]) or "nothing",
                expected=" or ".join(_IN_A_FOLDER),
                suggestion="`coltrain eval` on it, or `coltrain resume` if it is a run that stopped",
            )
        path = found[0]
    results = read_results(path)
    raw = json.loads(path.read_text(encoding="utf-8"))["results"]
    tasks: dict[str, TaskScores] = {}
    for result, entry in zip(results, raw, strict=True):
        key = task_key(result.dataset)
        if key in tasks:
            raise UsageError(
                "task-twice",
                "an evaluation has two results that are the same task.",
                where=name,
                received=f"{tasks[key].name}, {result.dataset}",
                expected="each task once",
            )
        tasks[key] = TaskScores(
            result.dataset,
            result.measures,
            result.num_queries,
            result.per_query,
            _labels(entry, "base_queries"),
            _labels(entry, "languages"),
        )
    return Side(name, False, tasks)


def _labels(entry: dict, key: str) -> dict[str, str]:
    """Labels of queries, which an evaluation of several languages has beside its measures."""
    labels = entry.get(key)
    return {str(query): str(label) for query, label in labels.items()} if labels else {}


def _published(name: str) -> Side:
    model = model_named(name)
    scores = latest(published_scores(model))
    tasks = {}
    for score in scores.values():
        known = task_named(score.task)
        queries = known.base_queries * max(1, len(score.subsets)) if known else 0
        text = score.query_text or "not known"
        tasks[score.task] = TaskScores(
            score.task,
            score.measures,
            queries,
            provenance=f"published by {score.evaluator}, {score.date}; query sent: {text}",
        )
    return Side(f"{PUBLISHED}{model}", True, tasks)
