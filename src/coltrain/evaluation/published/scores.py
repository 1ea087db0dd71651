"""The published scores, and what is known of how they came about."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import fsum

from coltrain.errors import UsageError
from coltrain.evaluation.published.names import MAIN_MEASURES, task_named, tasks_of
from coltrain.recipe.wording import nearest_ones


@dataclass(frozen=True)
class PublishedScore:
    """What somebody filed for one model on one task.

    Attributes:
        model: Name on the hub.
        revision: Of the model, as filed.
        benchmark: The benchmark of the task.
        task: Name in mteb.
        measures: Fractions; where there are several languages, the mean over them.
        subsets: The same for each language.
        evaluator: mteb and its version.
        query_text: What was sent as a query; None where the versions do not tell.
        date: Of the commit that filed it.
        source: Where it is filed.
    """

    model: str
    revision: str
    benchmark: str
    task: str
    measures: dict[str, float]
    subsets: dict[str, dict[str, float]]
    evaluator: str
    query_text: str | None
    date: str
    source: str

    @property
    def main_measure(self) -> str:
        """The measure that the benchmark is ranked by."""
        return MAIN_MEASURES[self.benchmark]


@dataclass(frozen=True)
class PublishedAverage:
    """An average that somebody printed elsewhere, without its parts."""

    model: str
    benchmark: str
    measure: str
    value: float
    source: str
    evaluator: str


@dataclass(frozen=True)
class Rerun:
    """The same checkpoint evaluated twice, with other versions of the software."""

    model: str
    task: str
    values: tuple[float, float]
    """nDCG@5, 2025-05-28 and 2025-07-16."""


def published_models() -> list[str]:
    """The models of which scores, or at least an average, are known, by name."""
    document = _document()
    return sorted({entry["model"] for entry in (*document["runs"], *document["averages"])})


def model_named(name: str) -> str:
    """A model's full name, from its name in any case and with or without its owner.

    Args:
        name: As typed.

    Raises:
        UsageError: `[no-published-scores]` with the nearest names.
    """
    models = published_models()
    wanted = name.casefold()
    found = [m for m in models if wanted in (m.casefold(), m.rpartition("/")[2].casefold())]
    if len(found) == 1:
        return found[0]
    near = found or nearest_ones(name, models, cutoff=0.5)
    if not near:
        near = nearest_ones(f"vidore/{name}", models, cutoff=0.4)
    raise UsageError(
        "no-published-scores",
        "there are no published scores of this model here.",
        received=name,
        expected=f"one of {len(models)} models (`coltrain published` lists them)",
        suggestion=" or ".join(near[:3]) if near else None,
    )


def published_scores(model: str | None = None) -> list[PublishedScore]:
    """Published scores, in the order of the file: by model, then by benchmark and task.

    Args:
        model: Only of this model. None: of all.

    Raises:
        UsageError: `[no-published-scores]`
    """
    wanted = model_named(model) if model is not None else None
    document = _document()
    names = document["measures"]
    found = []
    for run in document["runs"]:
        if wanted is not None and run["model"] != wanted:
            continue
        for task, tables in run["tasks"].items():
            subsets = {
                language: dict(zip(names, values, strict=True))
                for language, values in tables.items()
            }
            folder = f"{run['model'].replace('/', '__')}/{run['revision']}"
            found.append(
                PublishedScore(
                    model=run["model"],
                    revision=run["revision"],
                    benchmark=run["benchmark"],
                    task=task,
                    measures={
                        name: fsum(table[name] for table in subsets.values()) / len(subsets)
                        for name in names
                    },
                    subsets=subsets,
                    evaluator=run["evaluator"],
                    query_text=run["query_text"],
                    date=run["date"],
                    source=(
                        f"embeddings-benchmark/results@{run['commit'][:12]}: "
                        f"results/{folder}/{task}.json"
                    ),
                )
            )
    return found


def latest(scores: Iterable[PublishedScore]) -> dict[str, PublishedScore]:
    """The score that was filed last, by task: some models were filed in several revisions."""
    found: dict[str, PublishedScore] = {}
    for score in scores:
        if score.task not in found or score.date >= found[score.task].date:
            found[score.task] = score
    return found


def benchmark_means(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The means that benchmarks are ranked by, of those that are complete.

    Args:
        values: For each task, by its name in mteb, its measures.

    Returns:
        By benchmark, with ViDoRe v1's 4 in-domain and 6 out-of-domain tasks apart as well. The means
        of v3 are over the eight tasks whose data are public.
    """
    means = {}
    for benchmark, measure in MAIN_MEASURES.items():
        tasks = tasks_of(benchmark)
        if not all(measure in values.get(task.name, {}) for task in tasks):
            continue
        means[benchmark] = _mean(values[task.name][measure] for task in tasks)
        for part, is_in_domain in (("in-domain", True), ("out-of-domain", False)):
            inside = [task.name for task in tasks if task.is_in_domain == is_in_domain]
            if len(inside) < len(tasks) and inside:
                means[f"{benchmark} {part}"] = _mean(values[name][measure] for name in inside)
    return means


def published_averages(model: str) -> list[PublishedAverage]:
    """Averages of a model that were printed elsewhere; they need not agree with the scores."""
    return [PublishedAverage(**a) for a in _document()["averages"] if a["model"] == model]


def reruns(model: str | None = None) -> list[Rerun]:
    """How far the same checkpoint moved when the software changed: a bound on that noise."""
    return [
        Rerun(rerun["model"], rerun["task"], tuple(rerun["nDCG@5"]))
        for rerun in _document()["reruns"]
        if model is None or rerun["model"] == model
    ]


def largest_rerun_change(task: str) -> float | None:
    """The largest change of nDCG@5 on a task among all checkpoints that were run twice."""
    changes = [abs(r.values[1] - r.values[0]) for r in reruns() if r.task == task]
    return max(changes, default=None)


def select(
    scores: Sequence[PublishedScore], task: str | None, benchmark: str | None
) -> list[PublishedScore]:
    """The scores on one task or benchmark.

    Args:
        scores: All of them.
        task: Any name of a task. None: all.
        benchmark: Name of a benchmark. None: all.

    Raises:
        UsageError: `[no-such-task]` or `[no-such-benchmark]`, with those that there are.
    """
    if benchmark is not None and benchmark not in MAIN_MEASURES:
        raise UsageError(
            "no-such-benchmark",
            "there are no published scores of such a benchmark.",
            where="--benchmark",
            received=benchmark,
            expected=", ".join(MAIN_MEASURES),
        )
    wanted = None
    if task is not None:
        wanted = task_named(task)
        if wanted is None:
            known = sorted({known for score in scores for known in _names(score.task)})
            near = nearest_ones(task, known, cutoff=0.4)
            raise UsageError(
                "no-such-task",
                "there are no published scores of such a task.",
                where="--task",
                received=task,
                expected="a task of ViDoRe, such as VidoreTatdqaRetrieval or tatdqa",
                suggestion=near[0] if near else None,
            )
    return [
        score
        for score in scores
        if (wanted is None or score.task == wanted.name)
        and (benchmark is None or score.benchmark == benchmark)
    ]


def _names(task: str) -> tuple[str, ...]:
    known = task_named(task)
    return (known.name, known.short) if known else (task,)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return fsum(values) / len(values)


@cache
def _document() -> dict:
    file = resources.files(__package__) / "scores.json"
    return json.loads(file.read_text(encoding="utf-8"))
