"""What differences are known to do: `known.yaml`, read once."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from coltrain.recipe.identity import affects_result
from coltrain.reproduction.traps import TRAPS

EVIDENCE = ("measured here by a study", "reported in a public thread", "argued", "unknown")
"""Classes of evidence, the strongest first."""


@dataclass(frozen=True)
class Known:
    """What a difference is known to do.

    Attributes:
        keys: Names of values, with wildcards.
        what: What differs, for people.
        weight: To rank by, in points of nDCG@5 x 100: what the evidence speaks of, our judgement where
            it is argued; 0 where the result cannot move, None where nothing at all is known.
        evidence: One of `EVIDENCE`.
        source: A page, or a file of the repository.
        effect: In a sentence.
        trap: Of the doctor, whose cost and source these are; None where it is no trap.
    """

    keys: tuple[str, ...]
    what: str
    weight: float | None
    evidence: str
    source: str
    effect: str
    trap: str | None = None


_NOTHING = Known((), "", None, "unknown", "", "Nothing is known about what it does.")


@cache
def all_known() -> tuple[Known, ...]:
    """Every entry, in order."""
    text = (files(__package__) / "known.yaml").read_text(encoding="utf-8")
    return tuple(_entry(entry) for entry in yaml.safe_load(text))


def _entry(entry: dict[str, Any]) -> Known:
    keys, trap = tuple(entry["keys"]), entry.get("trap")
    if trap is None:
        return Known(**{**entry, "keys": keys})
    (found,) = (one for one in TRAPS if one.id == trap)
    effect = f"{entry['effect']} Known cost (trap {found.number}): {found.cost}."
    return Known(**{**entry, "keys": keys, "source": found.source, "effect": effect})


def known_of(key: str) -> Known:
    """What is known of a difference in a value: the first entry that names it.

    What of a recipe cannot change what is learnt stands in the recipe room, and nowhere else.
    """
    if not affects_result(key):
        return next(entry for entry in all_known() if entry.weight == 0 and "batch.*" in entry.keys)
    for entry in all_known():
        if any(fnmatchcase(key, pattern) for pattern in entry.keys):
            return entry
    return _NOTHING
