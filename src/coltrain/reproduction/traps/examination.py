"""Every trap looked for in a target, the most damaging findings first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coltrain.errors import RunError, UsageError
from coltrain.recipe import Recipe
from coltrain.reproduction.targets import Target, read_recipe, read_target
from coltrain.reproduction.traps.catalogue import TRAPS
from coltrain.reproduction.traps.finding import Finding

_ORDER = {"fail": 0, "unknown": 1, "pass": 2}


def examine(target: Target) -> list[Finding]:
    """Look for every trap.

    Costs reading headers of weights; a model of less than 200 MiB whose base is here is loaded once.

    Returns:
        One finding for each trap: failures before what cannot be known before passes, each with the
        most damaging first.
    """
    findings = [Finding(trap, trap.check(target)) for trap in TRAPS]
    return sorted(findings, key=lambda one: (_ORDER[one.status], -one.trap.damage))


def examine_run(folder: Path) -> list[Finding]:
    """Findings about a run's folder, for its report.

    Raises:
        UsageError: There is no run.
    """
    return examine(read_target(str(folder)))


def examine_after(folder: Path) -> list[dict[str, Any]]:
    """What is wrong with a run that has just ended, as run.json records it.

    The model is not loaded again: it was in memory when it was saved.
    """
    target = read_target(str(folder))
    target.loaded["error"] = None
    return [one.to_json() for one in examine(target) if one.status == "fail"]


def examine_before(recipe: Recipe, accepted: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Findings before a training, as run.json records them.

    Args:
        recipe: What is about to be trained.
        accepted: Ids of traps that the user takes on knowingly.

    Raises:
        UsageError: [unknown-trap] No trap is called so.
        RunError: [trap-found] A trap of severity error is there, and not accepted.
    """
    known = {trap.id for trap in TRAPS}
    for name in accepted:
        if name not in known:
            raise UsageError(
                "unknown-trap",
                "--accept names no trap.",
                received=name,
                expected=", ".join(sorted(known)),
            )
    findings = [one for one in examine(read_recipe(recipe, recipe.name)) if one.status == "fail"]
    refused = [one for one in findings if one.is_error and one.trap.id not in accepted]
    if refused:
        worst = refused[0]
        evidence = worst.outcome.evidence
        raise RunError(
            "trap-found",
            f"{worst.trap.title} ({worst.trap.id})",
            where=evidence.where,
            received="\n".join(f"{one.trap.id}: {one.outcome.evidence.found}" for one in refused),
            expected=evidence.expected,
            suggestion=f"{worst.trap.way_out}; or "
            + " ".join(f"--accept {one.trap.id}" for one in refused)
            + " if it is meant",
        )
    return [one.to_json() | {"accepted": one.trap.id in accepted} for one in findings]
