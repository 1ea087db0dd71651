"""A check's answer, and what a check is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from coltrain.reproduction.targets import Fact, Target

Status = Literal["pass", "fail", "unknown"]
Severity = Literal["error", "warning"]
TrapNumber = int | str


@dataclass(frozen=True)
class Evidence:
    """Why a check answers as it does.

    Attributes:
        found: Value that was found, in words.
        expected: What is right.
        where: File and key, line or tensor.
    """

    found: str
    expected: str = ""
    where: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a check's function returns.

    Attributes:
        status: Whether the trap is there.
        evidence: Why.
        blocks: Whether a training should not start with it; not where it is a plain choice, or where
            the set-up refuses it with a better word.
    """

    status: Status
    evidence: Evidence
    blocks: bool = True


def passed(found: object = "nothing of the kind", where: str = "") -> Outcome:
    """The trap is not there."""
    return Outcome("pass", Evidence(str(found), "", where))


def failed(found: object, expected: object, where: str | Fact) -> Outcome:
    """The trap is there."""
    place = where.where if isinstance(where, Fact) else where
    return Outcome("fail", Evidence(str(found), str(expected), place))


def unknown(missing: str) -> Outcome:
    """It cannot be known from what is here; the text says what is missing."""
    return Outcome("unknown", Evidence(missing))


@dataclass(frozen=True)
class Trap:
    """A known way to miss a published number, and its check.

    Attributes:
        id: Slug; the page in docs/reference/traps/ has this name.
        number: 1 to 28 as in the list of reproduction traps, or F1 to F5 of other libraries.
        title: The finding in one line.
        severity: "error" where what is trained or measured is another thing than was meant.
        damage: 0 to 100, only to put the worst first: 90 and above ruin a model, 60 lose tens of
            points or the whole run, 30 lose points, 10 shift digits.
        cost: What it is known or measured to cost.
        source: Thread or code that shows it.
        way_out: What to do.
        check: Looks for it.
    """

    id: str
    number: TrapNumber
    title: str
    severity: Severity
    damage: int
    cost: str
    source: str
    way_out: str
    check: Callable[[Target], Outcome]


@dataclass(frozen=True)
class Finding:
    """A trap's outcome for one target."""

    trap: Trap
    outcome: Outcome

    @property
    def status(self) -> Status:
        """pass, fail or unknown."""
        return self.outcome.status

    @property
    def is_error(self) -> bool:
        """Whether a training should not start with it."""
        return self.status == "fail" and self.trap.severity == "error" and self.outcome.blocks

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        evidence = self.outcome.evidence
        return {
            "id": self.trap.id,
            "trap": self.trap.number,
            "status": self.status,
            "severity": self.trap.severity,
            "title": self.trap.title,
            "evidence": {
                "found": evidence.found,
                "expected": evidence.expected,
                "where": evidence.where,
            },
            "cost": self.trap.cost,
            "source": self.trap.source,
            "way_out": self.trap.way_out,
        }
