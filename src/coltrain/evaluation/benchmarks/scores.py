"""What a task's and a benchmark's score are: means of means."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from coltrain.evaluation.benchmarks.catalogue import Benchmark
from coltrain.evaluation.benchmarks.loading import TaskData
from coltrain.evaluation.results import Result


def task_result(data: TaskData, result: Result) -> Result:
    """A result of all of a task's queries as the result of the task.

    A task whose queries are translated scores the mean over its languages of the mean over each
    one's queries, as mteb has it.

    Args:
        data: The task.
        result: Of its collection, all languages together.

    Returns:
        The result with the task's measures, those of each language, each query's language and
        base query, and where the data come from.
    """
    subsets = None
    measures = result.measures
    if data.task.subsets:
        subsets = {
            language: _means(
                values
                for query, values in result.per_query.items()
                if data.language_of[query] == language
            )
            for language in data.task.subsets
        }
        measures = _means(subsets.values())
    judged = list(result.per_query)
    return replace(
        result,
        measures=measures,
        subsets=subsets,
        languages={query: data.language_of[query] for query in judged},
        base_queries={query: data.base_of[query] for query in judged},
        data=data.provenance(),
    )


def benchmark_means(
    benchmark: Benchmark, results: Sequence[Result]
) -> dict[str, float | int | None]:
    """The plain means over a benchmark's tasks.

    Args:
        benchmark: Which one.
        results: One for each of its tasks, named like them.

    Returns:
        Each measure's mean over the tasks, and `num_tasks`; where the benchmark tells tasks apart
        whose training data the published set holds, the means of its main measure over these and
        over the others, `in_domain` and `out_of_domain`.

    Raises:
        ValueError: A task has no result: the mean of some tasks is not the benchmark's.
    """
    by_task = {result.dataset: result for result in results}
    missing = [task.name for task in benchmark.tasks if task.name not in by_task]
    if missing:
        raise ValueError(f"no result of {', '.join(missing)}")
    means: dict[str, float | int | None] = {
        **_means(by_task[task.name].measures for task in benchmark.tasks),
        "num_tasks": len(benchmark.tasks),
    }
    if any(task.in_domain is not None for task in benchmark.tasks):
        for key, is_in in (("in_domain", True), ("out_of_domain", False)):
            means[key] = _mean(
                by_task[task.name].measures[benchmark.measure]
                for task in benchmark.tasks
                if task.in_domain is is_in
            )
    return means


def _means(tables: Iterable[Mapping[str, float]]) -> dict[str, float]:
    tables = list(tables)
    return {name: _mean(table[name] for table in tables) for name in tables[0]}


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)
