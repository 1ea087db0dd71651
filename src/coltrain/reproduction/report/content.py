"""A run's report as plain values: what the page and its Markdown twin both print."""

from dataclasses import dataclass

from coltrain.reproduction.report import figures
from coltrain.reproduction.report.asked import Asked, asked_of
from coltrain.reproduction.report.beside import Beside, beside_of
from coltrain.reproduction.report.cost import cost_of
from coltrain.reproduction.report.curves import Curves, clipped_steps, curves_of, median_speed
from coltrain.reproduction.report.diagnosis import Diagnosis, diagnosis_of
from coltrain.reproduction.report.findings import Findings, findings_of
from coltrain.reproduction.report.ledger import Ledger, Presented, ledger_of
from coltrain.reproduction.report.missing import missing_of
from coltrain.reproduction.report.pictures import (
    Distributions,
    Gallery,
    distributions_of,
    galleries_of,
)
from coltrain.reproduction.report.provenance import Provenance, provenance_of, readable_recipe
from coltrain.reproduction.report.reading import RunRecord
from coltrain.reproduction.report.scores import HEADLINE, Scores, scores_of
from coltrain.reproduction.report.table import Table

_STATES = {
    "finished": ("✓", "finished"),
    "stopped": ("■", "stopped by an error"),
    "interrupted": ("■", "interrupted; it can go on"),
    "running": ("▶", "still going"),
    "killed": ("✕", "killed: its process is gone"),
    "running or killed": ("▶", "still going, or killed"),
}


@dataclass(frozen=True)
class Report:
    """A run's report.

    Attributes:
        title: The recipe's name.
        asked: What was asked for, what was run, every deviation with its reason.
        beside: Results beside published ones.
        diagnosis: What the doctor finds in it.
        cost: Time, memory, machine, energy.
        missing: What of the folder is not there.
        state_mark: A sign for the state.
        state: The state in words.
        summary: The run in one sentence.
        facts: A few figures of the run: name, figure, remark.
        notices: What a person should know before believing the rest.
        scores: Before and after; None where nothing was evaluated.
        measures: By data set, "before" and "after" the measures as fractions.
    """

    title: str
    asked: Asked
    beside: Beside
    diagnosis: Diagnosis
    cost: Table
    missing: tuple[str, ...]
    state_mark: str
    state: str
    summary: str
    facts: tuple[tuple[str, str, str], ...]
    notices: tuple[str, ...]
    scores: Scores | None
    measures: dict[str, dict[str, dict[str, float]]]
    curves: Curves
    ledger: Ledger
    distributions: tuple[Distributions, ...]
    galleries: tuple[Gallery, ...]
    findings: Findings
    provenance: Provenance


def report_of(record: RunRecord) -> Report:
    """Everything that the report says."""
    presented = Presented.of(record)
    scores = scores_of(record)
    asked = asked_of(record, readable_recipe(record))
    mark, state = _STATES.get(record.state, ("•", record.state))
    return Report(
        title=str(record.fact("recipe.name", record.folder.name)),
        asked=asked,
        beside=beside_of(record, asked.published),
        diagnosis=diagnosis_of(record),
        cost=cost_of(record, presented),
        missing=missing_of(record),
        state_mark=mark,
        state=state,
        summary=_summary(record, presented, scores),
        facts=tuple(_facts(record, presented)),
        notices=tuple(_notices(record)),
        scores=scores,
        measures=_measures(record),
        curves=curves_of(record, presented),
        ledger=ledger_of(record, presented),
        distributions=distributions_of(record),
        galleries=galleries_of(record),
        findings=findings_of(record),
        provenance=provenance_of(record),
    )


def _measures(record: RunRecord) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for when, evaluation in (("before", record.before), ("after", record.after)):
        for result in evaluation.results if evaluation else []:
            found.setdefault(result.dataset, {})[when] = result.measures
    return found


def _summary(record: RunRecord, presented: Presented, scores: Scores | None) -> str:
    steps = figures.number_of(record.step, "step")
    course = f"{steps} over {figures.count(presented.pages(record.step))} pages"
    if scores is None:
        if record.fact("recipe.eval.data"):
            return f"{course} so far; no evaluation is on record yet."
        return f"{course}, without evaluation: the recipe names no data for it."
    if scores.after is None:
        return f"{HEADLINE} was {scores.before} before training ({scores.on}); {course} since."
    if scores.before is None:
        return f"{HEADLINE} is {scores.after} {scores.when_after} ({scores.on}); {course}."
    if scores.when_after != "after training":
        course = f"{course} so far; by {scores.when_after.removeprefix('after ')}, they"
    return f"{course} took {HEADLINE} from {scores.before} to {scores.after} ({scores.on})."


def _facts(record: RunRecord, presented: Presented):
    planned = record.num_steps
    yield (
        "steps",
        figures.count(record.step),
        "" if planned is None else f"of {figures.count(planned)}",
    )
    epochs = ""
    if presented.plan is not None and presented.plan.batches_per_epoch:
        epochs = f"{record.step / presented.plan.batches_per_epoch:.2f} epochs"
    yield "pages trained on", figures.count(presented.pages(record.step)), epochs
    seconds = record.fact("seconds")
    if seconds is None:
        lines = [*record.steps, *record.evaluations]
        yield "time", figures.duration(sum(line.get("seconds") or 0 for line in lines)), "so far"
    else:
        yield "time", figures.duration(seconds), "evaluations included"
    if (speed := median_speed(record)) is not None:
        yield "pages a second", figures.significant(speed, 3), "median of steps"
    best = _best(record)
    if best is not None:
        yield f"best {HEADLINE}", figures.score(best[1]), f"at step {figures.count(best[0])}"
    if (clipped := clipped_steps(record)) is not None:
        steps, of, limit = clipped
        remark = f"of {figures.count(of)}, above norm {figures.significant(limit)}"
        yield "clipped steps", figures.count(steps), remark


def _best(record: RunRecord) -> tuple[int, float] | None:
    """Step and mean score over data sets of the best evaluation; None before the first one."""
    of_step: dict[int, list[float]] = {}
    for line in record.evaluations:
        if isinstance(line.get(HEADLINE), int | float):
            of_step.setdefault(line["step"], []).append(line[HEADLINE])
    if max(of_step, default=0) == 0:  # nothing yet that training could have changed
        return None
    means = {step: sum(values) / len(values) for step, values in of_step.items()}
    step = max(means, key=lambda at: (means[at], -at))
    return step, means[step]


def _notices(record: RunRecord):
    if not record.is_complete:
        if (reason := record.fact("stopped_by")) is not None:
            yield f"The run ended early: {reason}"
        if record.last_sign is not None:
            yield f"The last line of metrics was written at {figures.moment(record.last_sign)}."
    yield from map(str, record.fact("warnings", []))
    yield from record.problems
