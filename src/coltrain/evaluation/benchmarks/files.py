"""Which files of a folder, or of a hub repository, hold a task."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from coltrain.errors import DataError
from coltrain.evaluation.benchmarks.catalogue import Layout, Task

SPLIT = "test"
_TABLES = ("corpus", "queries", "qrels")


@dataclass(frozen=True)
class TaskFiles:
    """The files of a task.

    Attributes:
        layout: How they lie.
        tables: Table to files: `corpus`, `queries` and `qrels`; with the language in front where
            each language has its own (`french-queries`); or `rows`.
    """

    layout: Layout
    tables: dict[str, list[str]]

    @property
    def files(self) -> list[str]:
        """All of them."""
        return [name for names in self.tables.values() for name in names]


def find_task_files(names: Iterable[str], task: Task, where: str) -> TaskFiles:
    """The files of a task's test split among those of its data set.

    A table is a folder (as `push_to_hub` writes them) or a file of its name: `corpus`, `queries`
    and `qrels`; in mteb's own layout these with a language in front. Every language has a copy
    of the corpus there, of which one is enough. Without such tables the files are rows of
    question and page.

    Args:
        names: Relative paths with `/` between folders.
        task: Which languages there must be.
        where: The data set, for messages.

    Raises:
        DataError: `[missing-file]`, with the tables that are not there.
    """
    parquet = sorted(
        name
        for name in names
        if name.endswith(".parquet") and not any(p.startswith(".") for p in name.split("/"))
    )
    found: dict[str, list[str]] = {}
    for name in parquet:
        found.setdefault(_table(name), []).append(name)
    if task.subsets and any(f"{task.subsets[0]}-{t}" in found for t in _TABLES):
        corpus = next(
            (f"{s}-corpus" for s in ("english", *task.subsets) if f"{s}-corpus" in found),
            f"{task.subsets[0]}-corpus",
        )
        wanted = [corpus, *(f"{s}-{t}" for s in task.subsets for t in _TABLES[1:])]
        return TaskFiles("mteb", _all_of(wanted, found, where))
    if any(table in found for table in _TABLES):
        return TaskFiles("beir", _all_of(_TABLES, found, where))
    if not parquet:
        raise DataError(
            "missing-file",
            "the data set holds no parquet file.",
            where=where,
            received=", ".join(sorted(names)[:3]) or "an empty folder",
            expected=" and ".join(f"{table}/*.parquet" for table in needed_tables(task)),
        )
    return TaskFiles("question-answer", {"rows": _of_split(parquet)})


def needed_tables(task: Task, layout: Layout | None = None) -> list[str]:
    """The tables that a task needs, by name, in the layout of its newest edition."""
    layout = layout or next(iter(task.editions.values())).layout
    if layout == "question-answer":
        return ["data"]
    if layout == "beir":
        return list(_TABLES)
    return ["english-corpus", *(f"{s}-{t}" for s in task.subsets for t in _TABLES[1:])]


def _table(name: str) -> str:
    path = PurePosixPath(name)
    return path.parts[0] if len(path.parts) > 1 else path.stem


def _all_of(wanted: Iterable[str], found: dict[str, list[str]], where: str) -> dict:
    missing = [table for table in wanted if table not in found]
    if missing:
        raise DataError(
            "missing-file",
            "the data set is not complete.",
            where=where,
            received=f"{' and '.join(sorted(found))} only",
            expected=" and ".join(f"{table}/*.parquet" for table in missing),
        )
    return {table: _of_split(found[table]) for table in wanted}


def _of_split(names: list[str]) -> list[str]:
    """Files that say the split; all of them where none says any."""
    return [name for name in names if PurePosixPath(name).stem.startswith(SPLIT)] or names
