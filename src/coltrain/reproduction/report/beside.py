"""Results beside published ones: how far, with an interval, and the verdict."""

from dataclasses import dataclass

from coltrain.errors import ColtrainError
from coltrain.evaluation.published.scores import model_named, published_averages
from coltrain.reproduction.comparison.comparison import Comparison, Row, compare
from coltrain.reproduction.comparison.sides import PUBLISHED, read_side
from coltrain.reproduction.report import figures
from coltrain.reproduction.report.reading import RunRecord
from coltrain.reproduction.report.table import Table

_RESAMPLES = 2000


@dataclass(frozen=True)
class Beside:
    """A run's final scores beside a published model's.

    Attributes:
        model: The published model; None where there is none to compare with.
        table: A row for each task and mean; None where nothing can be compared.
        verdict: In a sentence; why there is none, where nothing can be compared.
        remarks: What a reader has to know.
        comparison: With all figures behind it.
    """

    model: str | None
    table: Table | None
    verdict: str
    remarks: tuple[str, ...] = ()
    comparison: Comparison | None = None


def beside_of(record: RunRecord, recipe_name: str | None, margin: float = 1.0) -> Beside:
    """Compare a run's last evaluation with a published model's scores.

    Args:
        record: The run.
        recipe_name: Shipped recipe of the published model; None where the run is of no such base.
        margin: Points within which a difference does not matter.
    """
    if recipe_name is None:
        return Beside(
            None, None, "There is no published model to compare with: none has this base."
        )
    model = model_named(recipe_name)
    if record.after is None or not record.is_complete:
        return Beside(model, None, "There is no final evaluation, so nothing is compared.")
    try:
        comparison = compare(
            read_side(str(record.folder)),
            read_side(f"{PUBLISHED}{model}"),
            margin=margin,
            num_resamples=_RESAMPLES,
        )
    except ColtrainError as error:
        stated = "; ".join(
            f"{one.benchmark} {one.measure} {100 * one.value:.1f} ({one.source})"
            for one in published_averages(model)
        )
        names = ", ".join(result.dataset for result in record.after.results)
        return Beside(
            model,
            None,
            f"Nothing is compared with {model}: {error.message} Measured here: {names}."
            + (f" Published averages: {stated}." if stated else ""),
        )
    return Beside(model, _table(comparison), _verdict(comparison), comparison.remarks, comparison)


def _table(comparison: Comparison) -> Table:
    rows = [*comparison.means, *comparison.tasks]
    return Table(
        ("", "queries", "here", "published", "difference", "95% interval", "verdict"),
        tuple(_row(row) for row in rows),
        f"{comparison.measure} × 100, here and published",
        text_columns=(0, 6),
    )


def _row(row: Row) -> tuple[str, ...]:
    interval = row.difference.interval
    return (
        row.name,
        figures.count(row.difference.num_queries),
        figures.score(row.left),
        figures.score(row.right),
        figures.change(row.difference.value),
        f"{figures.change(interval.low)} to {figures.change(interval.high)}"
        + ("*" if interval.flag else ""),
        row.verdict,
    )


def _verdict(comparison: Comparison) -> str:
    first = (comparison.means or comparison.tasks)[0]
    return (
        f"{first.name}: {figures.score(first.left)} here, {figures.score(first.right)} published. "
        f"{first.words[0].upper()}{first.words[1:]}."
    )
