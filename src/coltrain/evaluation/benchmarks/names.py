"""From what somebody types to tasks."""

from dataclasses import dataclass

from coltrain.errors import UsageError
from coltrain.evaluation.benchmarks.catalogue import Benchmark, Task, benchmarks, tasks
from coltrain.recipe.wording import nearest


@dataclass(frozen=True)
class Asked:
    """What a name stands for.

    Attributes:
        name: The benchmark's or the task's own.
        tasks: One, or all of a benchmark.
        benchmark: None where a single task was asked for.
        edition: The edition whose repository was named; None where the name says none.
    """

    name: str
    tasks: tuple[Task, ...]
    benchmark: Benchmark | None = None
    edition: str | None = None


def asked_for(name: str) -> Asked | None:
    """The benchmark or task of a name; None where no name of either looks like it.

    A task is known by its name in mteb, its short name, and the repositories of its editions; a
    repository with another revision than the pinned one is not the task. Case makes no difference.

    Args:
        name: As typed; what looks like a folder names none.

    Raises:
        UsageError: `[unknown-benchmark]` for a name without a slash that is nearly one.

    Example:
        >>> asked_for("TabFQuAD").tasks[0].name
        'VidoreTabfquadRetrieval'
        >>> len(asked_for("vidore-v1").tasks)
        10
    """
    if name.startswith((".", "/", "~")):
        return None
    known: dict[str, Asked] = {}
    for benchmark in benchmarks():
        known[benchmark.name] = Asked(benchmark.name, benchmark.tasks, benchmark)
    for task in tasks():
        for plain in (task.name, task.short):
            known[plain.casefold()] = Asked(task.name, (task,))
        for edition in task.editions.values():
            asked = Asked(task.name, (task,), edition=edition.name)
            known[edition.repository.casefold()] = known[edition.source.casefold()] = asked
    found = known.get(name.casefold())
    if found is None and "/" not in name and "@" not in name:
        _refuse_nearly(name)
    return found


def _refuse_nearly(name: str) -> None:
    plain = [*(b.name for b in benchmarks()), *(n for task in tasks() for n in task.names[:2])]
    near = nearest(name, plain, cutoff=0.75)
    if near is not None:
        raise UsageError(
            "unknown-benchmark",
            "there is no benchmark or task of this name.",
            where="--on",
            received=name,
            expected=f"{', '.join(b.name for b in benchmarks())}, or a task's name "
            "(`coltrain benchmarks list`)",
            suggestion=f"{near}; for a folder of this name, ./{name}",
        )
