"""`published`: the scores that others have published."""

from typing import TYPE_CHECKING, Annotated

import typer

from coltrain import console
from coltrain.cli.options import JsonOption

if TYPE_CHECKING:
    from coltrain.evaluation.published import PublishedScore

_SHOWN = ("nDCG@1", "nDCG@5", "nDCG@10", "Recall@1", "Recall@5", "MRR@10")


def published(
    model: Annotated[
        str | None, typer.Argument(help="Name on the hub; without it, all models.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="One task, by its name in mteb, short, or of its data.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="vidore-v1, vidore-v2, vidore-v3 or vidore-v3.1.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print published scores with their source, and the means over benchmarks."""
    from coltrain.evaluation.published.scores import model_named, published_scores, select

    scores = select(published_scores(model), task, benchmark)
    if as_json:
        console.print_json(_document(scores, model))
    elif model is None:
        _print_models(scores, task)
    else:
        _print_model(model_named(model), scores)


def _document(scores: "list[PublishedScore]", model: str | None) -> dict:
    from coltrain.evaluation.published.scores import (
        benchmark_means,
        latest,
        model_named,
        published_averages,
        reruns,
    )

    document = {
        "results": [
            {
                "model": score.model,
                "task": score.task,
                "measures": score.measures,
                "main_measure": score.main_measure,
                "benchmark": score.benchmark,
                "revision": score.revision,
                "evaluator": score.evaluator,
                "query_text": score.query_text,
                "date": score.date,
                "source": score.source,
                "subsets": score.subsets,
            }
            for score in scores
        ]
    }
    if model is None:
        return document | {
            "means_by_model": {
                name: _rounded(benchmark_means(_measures(latest(of_model))))
                for name, of_model in _by_model(scores).items()
            }
        }
    name = model_named(model)
    return document | {
        "means": _rounded(benchmark_means(_measures(latest(scores)))),
        "averages_elsewhere": [vars(average) for average in published_averages(name)],
        "reruns": [
            {"task": rerun.task, "nDCG@5": list(rerun.values)}
            for rerun in reruns(name)
            if rerun.task in {score.task for score in scores}
        ],
    }


def _print_model(model: str, scores: "list[PublishedScore]") -> None:
    from coltrain.evaluation.published.scores import (
        benchmark_means,
        latest,
        published_averages,
        reruns,
    )

    by_benchmark: dict[str, list] = {}
    for score in scores:
        by_benchmark.setdefault(score.benchmark, []).append(score)
    for benchmark, rows in by_benchmark.items():
        console.print_table(
            f"{rows[0].model} on {benchmark}, scores x 100",
            ["task", *_SHOWN, "evaluator", "filed"],
            [
                [
                    row.task,
                    *(f"{100 * row.measures[name]:.1f}" for name in _SHOWN),
                    row.evaluator,
                    row.date,
                ]
                for row in rows
            ],
        )
        texts = {row.query_text or "not known" for row in rows}
        console.print_text(f"main measure {rows[0].main_measure}; query sent: {' / '.join(texts)}")
    means = benchmark_means(_measures(latest(scores)))
    if means:
        console.print_table(
            "means x 100",
            ["benchmark", "mean"],
            [[name, f"{100 * mean:.2f}"] for name, mean in means.items()],
        )
    for average in published_averages(model):
        console.print_text(
            f"printed elsewhere: {average.benchmark} {average.measure} {100 * average.value:.1f} "
            f"({average.source})"
        )
    if not scores:
        console.print_text("no scores by task are known")
    moved = [rerun for rerun in reruns(model) if rerun.task in latest(scores)]
    if moved:
        largest = max(moved, key=lambda rerun: abs(rerun.values[1] - rerun.values[0]))
        change = 100 * abs(largest.values[1] - largest.values[0])
        console.print_text(
            f"run twice by others, with other software: largest change of a task {change:.2f} points "
            + (f"({largest.task})" if change else "(none)")
        )


def _print_models(scores: "list[PublishedScore]", task: str | None) -> None:
    from coltrain.evaluation.published.names import MAIN_MEASURES
    from coltrain.evaluation.published.scores import benchmark_means, latest

    if task is not None:
        console.print_table(
            f"{scores[0].task if scores else task}, scores x 100",
            ["model", *_SHOWN, "evaluator", "filed"],
            [
                [
                    score.model,
                    *(f"{100 * score.measures[name]:.1f}" for name in _SHOWN),
                    score.evaluator,
                    score.date,
                ]
                for score in sorted(scores, key=lambda s: -s.measures[s.main_measure])
            ],
        )
        return
    rows = []
    for model, of_model in _by_model(scores).items():
        means = benchmark_means(_measures(latest(of_model)))
        rows.append(
            [model, *(f"{100 * means[b]:.2f}" if b in means else "–" for b in MAIN_MEASURES)]
        )
    headings = [f"{name}, {measure}" for name, measure in MAIN_MEASURES.items()]
    console.print_table("published means over tasks, x 100", ["model", *headings], rows)


def _by_model(scores: "list[PublishedScore]") -> "dict[str, list[PublishedScore]]":
    found: dict[str, list] = {}
    for score in scores:
        found.setdefault(score.model, []).append(score)
    return found


def _measures(scores: "dict[str, PublishedScore]") -> dict[str, dict[str, float]]:
    return {task: score.measures for task, score in scores.items()}


def _rounded(means: dict[str, float]) -> dict[str, float]:
    """As filed: the scores have five digits, so their means have no more than six."""
    return {name: round(mean, 6) for name, mean in means.items()}
