"""One worker: it takes a run that nobody has, trains it to its end, and takes the next."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from coltrain.errors import ColtrainError
from coltrain.reproduction.study.claims import claimed
from coltrain.reproduction.study.features import with_shared_features
from coltrain.reproduction.study.folder import Outcome, StudyFolder
from coltrain.reproduction.study.measuring import Measurer
from coltrain.reproduction.study.plan import Plan, PlannedRun
from coltrain.training.events import Event, Stopped
from coltrain.training.interruption import Interrupted
from coltrain.training.loop import Training
from coltrain.training.resume import resume
from coltrain.training.run_folder import is_run

MOST_DEATHS = 2
"""A run at which so many workers of one command died without a word is given up: a third would too."""

_WAIT_SECONDS = 5.0


@dataclass(frozen=True)
class Ended:
    """A run of the study that ended just now.

    Attributes:
        run: Which.
        outcome: How.
    """

    run: PlannedRun
    outcome: Outcome


def work(
    folder: StudyFolder,
    plan: Plan,
    device: torch.device,
    *,
    again: Mapping[str, str],
    command: str = "",
    go_on: Callable[[], bool] = lambda: True,
    on_event: Callable[[PlannedRun, Event], None] = lambda run, event: None,
) -> Iterator[Ended]:
    """Train every run that has not ended, except those that somebody else works on.

    Ends when every run has ended, whoever trained it; waits for runs of others.

    Args:
        folder: The study's.
        plan: Its runs, in their order.
        device: What computes.
        again: Failed runs that are tried once more: identity to the failed outcome's token.
        command: Tells the workers of one command from others.
        go_on: Asked before each run.
        on_event: Told what happens in a run.

    Yields:
        Each run that ended here.

    Raises:
        Interrupted: A signal asked for it; a run that was under way can go on.
    """

    def is_open(run: PlannedRun) -> bool:
        outcome = folder.outcome(run.identity)
        return outcome is None or again.get(run.identity) == outcome.token

    features = folder.path if plan.study.share_features else None
    measurer = Measurer(plan.evaluation, device, features)
    while go_on():
        left = [run for run in plan.runs if is_open(run)]
        if not left:
            return
        has_worked = False
        for run in left:
            if not go_on():
                return
            with claimed(folder.claim(run), command) as claim:
                # Another worker may have ended it between the two looks.
                if claim is None or not is_open(run):
                    continue
                has_worked = True
                if claim.deaths >= MOST_DEATHS and not folder.outcome(run.identity):
                    error = (
                        f"{claim.deaths} processes died at this run without a word: out of memory?"
                    )
                    outcome = folder.record(run.identity, error=error, seconds=0.0)
                else:
                    outcome = _train(folder, run, device, measurer, on_event)
            yield Ended(run, outcome)
        if not has_worked:
            time.sleep(_WAIT_SECONDS)


def _train(
    folder: StudyFolder,
    run: PlannedRun,
    device: torch.device,
    measurer: Measurer,
    on_event: Callable[[PlannedRun, Event], None],
) -> Outcome:
    """Train one run to its end, from wherever it stands, and measure it; a failure is an outcome."""
    path = folder.run(run)
    started = time.perf_counter()
    try:
        training = _prepared(run, path, device, measurer.features)
        if training is not None:
            stopped = None
            for event in training.events():  # to its end, so that the run records why it stopped
                on_event(run, event)
                if isinstance(event, Stopped):
                    stopped = event.signal_name
            if stopped is not None:
                raise Interrupted(stopped)
        measurer.measure(path / "model", folder.evaluation(run))
        return folder.record(run.identity, seconds=time.perf_counter() - started)
    except Interrupted:
        raise
    except Exception as error:
        # Whatever a run fails at must not take the others with it; it is recorded, and told at the end.
        text = (
            str(error) if isinstance(error, ColtrainError) else f"{type(error).__name__}: {error}"
        )
        return folder.record(run.identity, error=text, seconds=time.perf_counter() - started)


def _prepared(
    run: PlannedRun, path: Path, device: torch.device, features: Path | None
) -> Training | None:
    """The run's training; None where it is finished already."""
    if not is_run(path):
        recipe = run.recipe if features is None else with_shared_features(run.recipe, features)
        return Training(recipe, path, device, stop_signals=_SIGNALS)
    return resume(path, device, stop_signals=_SIGNALS).training


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
