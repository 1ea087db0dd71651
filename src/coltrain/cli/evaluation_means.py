"""The means of whole benchmarks, and the versions that a result was made by."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from coltrain import __version__, console

if TYPE_CHECKING:
    from coltrain.evaluation.benchmarks.catalogue import Benchmark
    from coltrain.evaluation.results import Result


def means_of(
    benchmarks: "Sequence[Benchmark]", results: "Sequence[Result]"
) -> dict[str, dict[str, Any]]:
    """By benchmark that was asked for as a whole: its means, with an interval of the main one."""
    from dataclasses import asdict

    from coltrain.evaluation.benchmarks.scores import benchmark_means
    from coltrain.evaluation.evaluate import samples_of
    from coltrain.evaluation.statistics import macro_interval

    found = {}
    for benchmark in benchmarks:
        names = {task.name for task in benchmark.tasks}
        samples = [samples_of(r)[benchmark.measure] for r in results if r.dataset in names]
        interval = asdict(macro_interval(samples))
        del interval["mean"]
        found[benchmark.name] = {
            **benchmark_means(benchmark, results),
            "measure": benchmark.measure,
            "interval": interval,
        }
    return found


def print_means(means: dict[str, dict[str, Any]]) -> None:
    """A row for each mean, scores x 100; nothing where no whole benchmark was asked for."""
    rows = []
    for name, mean in means.items():
        ends = mean["interval"]
        shown = f"{100 * ends['low']:.1f} – {100 * ends['high']:.1f}"
        measure = mean["measure"]
        rows.append([f"{name}, {mean['num_tasks']} tasks", measure, _x100(mean[measure]), shown])
        for key, text in (("in_domain", "in-domain"), ("out_of_domain", "out-of-domain")):
            if key in mean:
                rows.append([f"{name}, {text} tasks", measure, _x100(mean[key]), ""])
    if rows:
        console.print_table("means x 100", ["benchmark", "measure", "mean", "95 % interval"], rows)


def _x100(value: float) -> str:
    return f"{100 * value:.1f}"


def versions() -> dict[str, str]:
    """Of what computes scores."""
    from importlib.metadata import version

    libraries = ("torch", "transformers", "peft", "pillow")
    return {"coltrain": __version__, **{name: version(name) for name in libraries}}
