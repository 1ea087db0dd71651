"""A task through mteb itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coltrain.errors import DataError, UsageError
from coltrain.evaluation.benchmarks.loading import TaskData
from coltrain.evaluation.benchmarks.scores import task_result
from coltrain.evaluation.measures import measure
from coltrain.evaluation.mteb_model import SearchModel, require_mteb
from coltrain.evaluation.results import Result

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

NAMES = {"ndcg_at": "nDCG", "recall_at": "Recall", "mrr_at": "MRR", "map_at": "MAP"}
"""Measures as mteb calls them; its MAP has a cut-off, ours without one is none of them."""


TOP = 100
"""Pages of a ranking that a result keeps."""


@dataclass(frozen=True)
class ThroughMteb:
    """What mteb made of a task.

    Attributes:
        measures: The task's, each a mean over its subsets; in mteb's five decimals.
        per_subset: The same for each subset.
        rankings: By subset, what mteb measured: query id to page id to score.
        version: Of mteb.
    """

    measures: dict[str, float]
    per_subset: dict[str, dict[str, float]]
    rankings: dict[str, dict[str, dict[str, float]]]
    version: str


def evaluate_through_mteb(
    model: SearchModel, data: TaskData, results_dir: Path | None = None
) -> ThroughMteb:
    """Let mteb load, search and measure a task.

    Args:
        model: In mteb's form.
        data: The task, as we loaded it; mteb reads the same, from the hub or from its folder.
        results_dir: Where mteb writes its result files, in the form in which its leaderboard takes
            them: `results/organisation__model/revision/Task.json` and `model_meta.json`.

    Raises:
        UsageError: `[mteb-missing]`, `[mteb-other-data]`.
        DataError: `[mteb-needs-readme]` The local copy does not say its configurations.
    """
    require_mteb()
    import mteb

    task = mteb.get_task(data.task.name)
    _refuse_other_data(task, data)
    cache = mteb.ResultCache(results_dir) if results_dir is not None else None
    model.rankings.clear()
    with _reading_from(task, data.folder):
        found = mteb.evaluate(
            model,
            task,
            cache=cache,
            co2_tracker=False,
            overwrite_strategy="always",
            show_progress_bar=False,
        )
    [result] = found.task_results
    per_subset = {
        scores["hf_subset"]: _our_names(scores) for scores in result.scores[data_split(task)]
    }
    names = next(iter(per_subset.values()))
    return ThroughMteb(
        measures={
            name: sum(scores[name] for scores in per_subset.values()) / len(per_subset)
            for name in names
        },
        per_subset=per_subset,
        rankings=dict(model.rankings),
        version=str(result.mteb_version),
    )


def result_of_mteb(data: TaskData, found: ThroughMteb) -> Result:
    """What mteb made of a task, in the form of our results.

    Its measures are mteb's. mteb keeps none of a single query's: these are ours, on the rankings
    that mteb measured, which end after 1,000 pages.
    """
    rankings = {query: best for of in found.rankings.values() for query, best in of.items()}
    judged = {query: found for query, found in data.collection.qrels.items() if query in rankings}
    per_query = measure(judged, rankings).per_query
    result = Result(
        dataset=data.collection.name,
        num_queries=len(per_query),
        num_pages=len(data.collection.page_ids),
        measures=found.measures,
        per_query=per_query,
        ranking={
            query: {"page_ids": list(best)[:TOP], "scores": list(best.values())[:TOP]}
            for query, best in rankings.items()
        },
    )
    subsets = found.per_subset if data.task.subsets else None
    return replace(task_result(data, result), measures=found.measures, subsets=subsets)


def data_split(task: AbsTask) -> str:
    """The split that a task is evaluated on."""
    [split] = task.metadata.eval_splits
    return split


def _our_names(scores: dict[str, Any]) -> dict[str, float]:
    named = {}
    for name, value in scores.items():
        stem, _, cut = name.rpartition("_")
        if stem in NAMES and cut.isdigit():
            named[f"{NAMES[stem]}@{cut}"] = float(value)
    return named


def _refuse_other_data(task: AbsTask, data: TaskData) -> None:
    """mteb reads one edition, and of a folder only what its README.md declares."""
    theirs, folder = task.metadata.dataset, data.folder
    pinned = f"{theirs['path']}@{theirs['revision']}"
    if data.layout == "question-answer" or (
        folder is None and data.edition is not None and data.edition.source != pinned
    ):
        raise UsageError(
            "mteb-other-data",
            "mteb reads other data for this task.",
            where=data.task.name,
            received=f"{data.edition.source if data.edition else folder} ({data.layout})",
            expected=pinned,
            suggestion="leave out --edition, or evaluate without --mteb",
        )
    if folder is not None and "configs:" not in _readme(folder):
        raise DataError(
            "mteb-needs-readme",
            "mteb reads a folder through `datasets`, which needs README.md to name the tables.",
            where=str(folder),
            received="no README.md with a `configs:` block",
            expected="---\nconfigs:\n- config_name: corpus\n  data_files:\n  - split: test\n"
            "    path: corpus/*.parquet\n… queries, qrels\n---",
            suggestion="`hf download` brings it along",
        )


def _readme(folder: Path) -> str:
    path = folder / "README.md"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


@contextmanager
def _reading_from(task: AbsTask, folder: Path | None) -> Iterator[None]:
    """Let a task read a folder, as long as it is evaluated: its metadata are the class's."""
    if folder is None:
        yield
        return
    there = task.metadata.dataset["path"]
    task.metadata.dataset["path"] = str(folder.absolute())
    try:
        yield
    finally:
        task.metadata.dataset["path"] = there
