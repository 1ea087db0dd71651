"""Known ways to miss a published number, a check and a page for each: what `coltrain doctor` looks for."""

from coltrain.reproduction.traps.catalogue import TRAPS
from coltrain.reproduction.traps.document import findings_text
from coltrain.reproduction.traps.examination import (
    examine,
    examine_after,
    examine_before,
    examine_run,
)
from coltrain.reproduction.traps.finding import Evidence, Finding, Outcome, Trap

__all__ = [
    "TRAPS",
    "Evidence",
    "Finding",
    "Outcome",
    "Trap",
    "examine",
    "examine_after",
    "examine_before",
    "examine_run",
    "findings_text",
]
