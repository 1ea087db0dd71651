"""Going on with a run that was killed, stopped or pre-empted."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from coltrain.errors import RunError
from coltrain.recipe import Recipe, difference, recipe_from_yaml, result_hash
from coltrain.training.checkpoint import Checkpoint, newest_whole
from coltrain.training.lock import refuse_living
from coltrain.training.loop import Training
from coltrain.training.ranks import SINGLE, Ranks
from coltrain.training.ranks.joining import refuse_uneven
from coltrain.training.run_folder import RunFolder, is_run


@dataclass(frozen=True)
class Resumption:
    """How a run goes on.

    Attributes:
        training: Ready to go; None if the run is finished.
        words: What a person should know: from which step, and which checkpoints were broken.
    """

    training: Training | None
    words: list[str]


def resume(
    folder: Path,
    device: torch.device,
    overrides: Sequence[str] = (),
    stop_signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
    ranks: Ranks = SINGLE,
) -> Resumption:
    """Prepare a run to go on from its newest whole checkpoint, or from its start.

    Args:
        folder: The run.
        device: What computes from here on.
        overrides: Changes to what cannot move the result: chunk, workers, checkpoints, logging.
        stop_signals: Signals that end the run so that it can go on later.
        ranks: Who goes on together; as many as may be, whatever trained before.

    Raises:
        RunError: The folder is no run, or a change would move the result.
        RecipeError: An override is not valid.
    """
    # Rank 0 reads, so that all go on from the same; the others need not see the folder.
    with ranks.together():
        found = _read(folder, overrides, ranks) if ranks.is_first else None
    found = ranks.first(found)
    if found is None:
        return Resumption(None, [f"the run is finished: {folder}"])
    training = Training.resume(
        found.recipe, folder, device, found.checkpoint, stop_signals=stop_signals, ranks=ranks
    )
    return Resumption(training, found.words)


@dataclass(frozen=True)
class _Found:
    """What of a run decides how it goes on."""

    recipe: Recipe
    checkpoint: Checkpoint | None
    words: list[str]


def _read(folder: Path, overrides: Sequence[str], ranks: Ranks) -> _Found | None:
    """The run's recipe and newest whole checkpoint; None if it is finished."""
    if not is_run(folder) or not {"state", "recipe_yaml"} <= RunFolder(folder).facts.keys():
        raise RunError(
            "not-a-run",
            "this folder is not a run of coltrain.",
            received=str(folder),
            expected="a folder with a run.json that coltrain wrote",
            suggestion="coltrain train RECIPE --out FOLDER starts one",
        )
    run = RunFolder(folder)
    facts = run.facts
    if facts["state"] == "finished":
        return None
    refuse_living(folder)  # before a model is loaded for nothing
    recorded = recipe_from_yaml(facts["recipe_yaml"], str(folder / "run.json"))
    recipe = recipe_from_yaml(facts["recipe_yaml"], str(folder / "run.json"), overrides)
    _refuse_another_result(recorded, recipe, folder)
    refuse_uneven(recipe.batch.global_size, ranks.size)
    checkpoint, broken = newest_whole(run.checkpoints, run.num_lines())
    words = [f"{error.where} is not whole and is not used ({error.message})" for error in broken]
    if checkpoint is None:
        words.append("no checkpoint: starting from step 0")
    else:
        words.append(f"going on after step {checkpoint.progress.step}")
    return _Found(recipe, checkpoint, words)


def _refuse_another_result(recorded: Recipe, recipe: Recipe, folder: Path) -> None:
    if result_hash(recorded) == result_hash(recipe):
        return
    changes = [one for one in difference(recorded, recipe) if one.affects_result]
    raise RunError(
        "other-result",
        "resuming with these settings would give another run than the one that was started.",
        where=str(folder),
        received="\n".join(f"{one.path} = {one.right}" for one in changes),
        expected="\n".join(f"{one.path} = {one.left}" for one in changes),
        suggestion="coltrain train with these settings and another --out; chunk, workers and "
        "checkpoints may change here",
    )
