"""What `eval --on` names: benchmarks, tasks, folders and hub names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coltrain.errors import UsageError

if TYPE_CHECKING:
    from coltrain.data.collection import Collection
    from coltrain.evaluation.benchmarks.catalogue import Benchmark
    from coltrain.evaluation.benchmarks.loading import TaskData


@dataclass(frozen=True)
class Wanted:
    """One data set to evaluate on.

    Attributes:
        collection: Pages, queries, judgements.
        task: Of the benchmarks, where it is one.
    """

    collection: "Collection"
    task: "TaskData | None" = None


@dataclass(frozen=True)
class Choice:
    """How the data of tasks are chosen.

    Attributes:
        edition: As in `load_tasks`; None for the protocol's, or the newest.
        data_dir: Folder with a folder for each task.
        duplicates: Rule for a query in several rows; None for the protocol's.
        allow_other_counts: Whether data with other counts than published are taken.
    """

    edition: str | None = None
    data_dir: Path | None = None
    duplicates: str | None = None
    allow_other_counts: bool = False


def named_data(
    on: Sequence[str], choice: Choice, protocol_edition: str | None, protocol_rule: str
) -> tuple[list[Wanted], list["Benchmark"]]:
    """The data sets of `--on`, and the benchmarks that were asked for as a whole.

    Args:
        on: Names, as typed.
        choice: Asked for beside them.
        protocol_edition: Edition that the protocol's evaluator read; None for the newest.
        protocol_rule: Its rule for a query in several rows.

    Raises:
        UsageError: `[not-a-source]`, `[unknown-benchmark]`, `[same-data-twice]`,
            `[no-benchmark-named]`, or as `load_tasks`.
        DataError: As `load_tasks` and `load_collection`.
    """
    from coltrain.evaluation.benchmarks.names import asked_for

    asked = [asked_for(name) for name in on]
    _refuse_useless(choice, any(one is not None for one in asked))
    wanted: list[Wanted] = []
    for name, one in zip(on, asked, strict=True):
        if one is None:
            wanted.append(Wanted(_of_source(name, choice.duplicates or protocol_rule)))
        else:
            wanted += _tasks_of(one, choice, protocol_edition, protocol_rule)
    _refuse_twice([one.collection.name for one in wanted])
    return wanted, [one.benchmark for one in asked if one is not None and one.benchmark]


def _tasks_of(asked, choice: Choice, protocol_edition: str | None, rule: str) -> list[Wanted]:
    from coltrain.evaluation.benchmarks.loading import load_tasks

    # What a protocol read is a wish: v2 and v3 have one edition.
    wished = protocol_edition if all(protocol_edition in t.editions for t in asked.tasks) else None
    loaded = load_tasks(
        asked.tasks,
        edition=choice.edition or asked.edition or wished,
        data_dir=choice.data_dir,
        duplicates=choice.duplicates,
        default_rule=rule,
        allow_other_counts=choice.allow_other_counts,
    )
    return [Wanted(data.collection, data) for data in loaded]


def _of_source(name: str, rule: str) -> "Collection":
    from coltrain.data.sources import load_collection
    from coltrain.evaluation.benchmarks.duplicates import apply_rule
    from coltrain.recipe import Source

    try:
        source = Source.model_validate("tiny:test" if name == "tiny" else name)
    except ValueError as error:
        raise UsageError(
            "not-a-source",
            "this cannot name a data set.",
            where="--on",
            received=repr(name),
            expected="a benchmark, a task, `tiny`, a folder, a hub name, or name@revision",
        ) from error
    collection = load_collection(source, "test")
    layout = "question-answer" if collection.layout == "rows" else collection.layout
    return apply_rule(collection, layout, rule, None)[0]


def _refuse_useless(choice: Choice, has_task: bool) -> None:
    given = {
        "--edition": choice.edition is not None,
        "--data-dir": choice.data_dir is not None,
        "--allow-other-counts": choice.allow_other_counts,
    }
    useless = [name for name, is_given in given.items() if is_given]
    if useless and not has_task:
        raise UsageError(
            "no-benchmark-named",
            "options for the data of a benchmark, and none is named.",
            where="--on",
            received=", ".join(useless),
            expected="a benchmark or a task (`coltrain benchmarks list`)",
            suggestion="for a folder of your own, --on ./folder alone",
        )


def _refuse_twice(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            "same-data-twice",
            "a data set is named twice.",
            where="--on",
            received=", ".join(twice),
            expected="each once",
        )
