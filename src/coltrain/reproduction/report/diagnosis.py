"""The doctor's findings on a run: known ways to miss a published number, looked for in it."""

from dataclasses import dataclass

from coltrain.errors import ColtrainError
from coltrain.reproduction.report import figures
from coltrain.reproduction.report.reading import RunRecord


@dataclass(frozen=True)
class Ailment:
    """A trap that a run is in.

    Attributes:
        id: Of its page in docs/reference/traps/.
        title: The finding in one line.
        severity: error or warning.
        found: Value that was found.
        expected: What is right.
        where: File and key.
        cost: What it is known to cost.
        way_out: What to do.
        source: Thread or code that shows it.
    """

    id: str
    title: str
    severity: str
    found: str
    expected: str
    where: str
    cost: str
    way_out: str
    source: str


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor says.

    Attributes:
        ailments: Traps that the run is in, the most damaging first.
        summary: How many checks failed, passed, and could not be made.
    """

    ailments: tuple[Ailment, ...]
    summary: str


def diagnosis_of(record: RunRecord) -> Diagnosis:
    """Look for every trap in a run's folder; of one that cannot be examined, say why."""
    # Not at the top: the traps read this report's own reading of a run.
    from coltrain.reproduction.traps import examine_run

    try:
        findings = examine_run(record.folder)
    except ColtrainError as error:
        return Diagnosis((), f"The run could not be examined: {error.message}")
    ailments = tuple(
        Ailment(
            id=one.trap.id,
            title=one.trap.title,
            severity=one.trap.severity,
            found=one.outcome.evidence.found,
            expected=one.outcome.evidence.expected,
            where=one.outcome.evidence.where,
            cost=one.trap.cost,
            way_out=one.trap.way_out,
            source=one.trap.source,
        )
        for one in findings
        if one.status == "fail"
    )
    unknown = sum(one.status == "unknown" for one in findings)
    found = (
        figures.number_of(len(ailments), "known trap") if ailments else "None of the known traps"
    )
    summary = f"{found} found in this run by {len(findings)} checks"
    if unknown:
        summary += f"; {unknown} of them could not be made from what is here"
    return Diagnosis(ailments, f"{summary} (coltrain doctor has them all).")
