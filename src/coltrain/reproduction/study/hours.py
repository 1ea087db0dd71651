"""How long a study takes, before it is begun."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from coltrain.data.sources import load_collection
from coltrain.errors import UsageError
from coltrain.planning.gpus import this_gpu
from coltrain.planning.lengths import num_steps
from coltrain.planning.plan import make_plan
from coltrain.recipe import recipe_from_yaml, to_yaml
from coltrain.reproduction.study.folder import StudyFolder
from coltrain.reproduction.study.plan import Plan, PlannedRun
from coltrain.training.events import StepResult
from coltrain.training.loop import Training

MOST_RUNS = 60
MOST_HOURS = 2.0

_FORWARD_SHARE = 0.25
"""Of a step with gradient caching: one pass without a graph, one with, and a backward of twice that."""


@dataclass(frozen=True)
class Hours:
    """A study's time.

    Attributes:
        hours: Of all runs that are left, by so many workers.
        basis: What it is estimated from.
    """

    hours: float
    basis: str


def hours_left(folder: StudyFolder, plan: Plan, device: torch.device, num_jobs: int) -> Hours:
    """Estimate the time of the runs that have not ended.

    From runs of this study that ended; else on a GPU from the planner's counts; else from two steps
    of the first run, taken here.

    Raises:
        ColtrainError: The first run cannot begin.
    """
    left = [run for run in plan.runs if folder.outcome(run.identity) is None]
    known = [outcome.seconds for run in plan.runs if (outcome := folder.outcome(run.identity))]
    known = [seconds for seconds in known if seconds]
    if not left:
        return Hours(0.0, "nothing is left to run")
    if known:
        seconds = sum(known) / len(known) * len(left)
        return Hours(seconds / 3600 / num_jobs, f"{len(known)} runs that ended")
    if device.type == "cuda":
        return Hours(_planned(left) / num_jobs, "the planner's counts for this card")
    return Hours(_tried(plan, left, device) / 3600 / num_jobs, "two steps taken here")


def refuse_too_large(
    folder: StudyFolder, plan: Plan, device: torch.device, num_jobs: int
) -> Hours | None:
    """Ask before a study that takes long.

    Raises:
        UsageError: `[study-too-large]`, with count and hours.
    """
    left = [run for run in plan.runs if folder.outcome(run.identity) is None]
    if not left:
        return None
    found = hours_left(folder, plan, device, num_jobs)
    if len(left) > MOST_RUNS or found.hours > MOST_HOURS:
        num_cells = len(dict.fromkeys(run.cell for run in left))
        raise UsageError(
            "study-too-large",
            "the study is large; say that it is meant.",
            where=plan.study.name,
            received=f"{len(left)} runs left, of {num_cells} cells: about {spoken(found.hours)} "
            f"with {num_jobs} at a time (from {found.basis})",
            expected=f"at most {MOST_RUNS} runs and {MOST_HOURS:g} hours without being asked",
            suggestion="--yes; or design: one-at-a-time, fewer levels, fewer seeds",
        )
    return found


def spoken(hours: float) -> str:
    """Hours, or minutes where they are few."""
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"


def _planned(runs: Sequence[PlannedRun]) -> float:
    """Hours of some runs on this machine's card, each kind of run planned once."""
    kinds = Counter(run.cell for run in runs)
    recipes = {run.cell: run.recipe for run in runs}
    card, total = this_gpu(), 0.0
    for cell, times in kinds.items():
        hours = make_plan(recipes[cell], card).hours
        if hours is None:
            raise UsageError(
                "study-too-large",
                "the study is large; say that it is meant.",
                received=f"{len(runs)} runs, on a card whose speed is not known",
                suggestion="--yes",
            )
        total += hours.middle * times
    return total


def _tried(plan: Plan, runs: Sequence[PlannedRun], device: torch.device) -> float:
    """Seconds of some runs, from the second of two steps of the first one."""
    recipe = runs[0].recipe
    # Steps are all that is timed; a level's length must not make them more.
    overrides = ["train.steps=2", "checkpoint.every=null", "logging.watchers=[]"]
    short = recipe_from_yaml(to_yaml(recipe), recipe.name, overrides)
    with tempfile.TemporaryDirectory(prefix="coltrain-study-") as aside:
        training = Training(short, Path(aside) / "run", device)
        seconds = [one.seconds for one in training.events() if isinstance(one, StepResult)]
    per_page = seconds[-1] / short.batch.global_size
    evaluated = sum(len(load_collection(source, "test").page_ids) for source in plan.evaluation)
    trained = sum(num_steps(run.recipe, None) * run.recipe.batch.global_size for run in runs)
    return per_page * (trained + _FORWARD_SHARE * evaluated * len(runs))
