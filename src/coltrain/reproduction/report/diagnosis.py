"""The doctor's findings on a run: known ways to miss a published number, looked for in it."""

from dataclasses import dataclass

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


def diagnosis_of(record: RunRecord) -> tuple[Ailment, ...]:
    """Failures of the doctor's checks on a run, the most damaging first."""
    return ()
