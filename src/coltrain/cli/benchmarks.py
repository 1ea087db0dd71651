"""`benchmarks list`: what can be evaluated on by name."""

from dataclasses import asdict

from coltrain import console
from coltrain.cli.options import JsonOption


def benchmarks_list(as_json: JsonOption = False) -> None:
    """List the benchmarks and their tasks; `--json` has the pinned repositories too."""
    from coltrain.evaluation.benchmarks.catalogue import benchmarks

    if as_json:
        console.print_json({"benchmarks": [asdict(benchmark) for benchmark in benchmarks()]})
        return
    for benchmark in benchmarks():
        console.print_table(
            f"{benchmark.name}: {benchmark.title}, mean {benchmark.measure} of "
            f"{len(benchmark.tasks)} tasks ({benchmark.paper})",
            [
                "task",
                "short",
                "queries",
                "languages",
                "pages",
                "judgements",
                "licence",
                "in-domain",
            ],
            [
                [
                    task.name,
                    task.short,
                    str(task.base_queries),
                    str(len(task.subsets)) if task.subsets else task.languages[0],
                    str(task.pages),
                    str(task.judgements),
                    task.licence,
                    {True: "yes", False: "no", None: "-"}[task.in_domain],
                ]
                for task in benchmark.tasks
            ],
        )
