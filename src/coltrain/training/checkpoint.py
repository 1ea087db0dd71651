"""Checkpoints that are whole or not there, and from which a run goes on to the bit.

    checkpoints/step-000020/
        trained.safetensors      every parameter that is trained, by name
        optimizer.safetensors    the optimiser's tensors, 8-bit ones as they are
        state.json               everything that is a number, and a hash of the other files

A checkpoint is written aside, flushed to the disk and renamed; its state.json is written last. A
folder without it, or with a file that does not have its hash, is not believed.

What else decides a run's course needs no saving: the batch plan, dropout and the schedule are pure
functions of (seed, step), and no generator is drawn from.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from coltrain.errors import RunError
from coltrain.training.disk import flush, system_errors
from coltrain.training.precision.scaling import Scaling

_PARAMETERS = "trained.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_STATE = "state.json"
FORMAT = 1


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: Optimiser steps taken.
        is_evaluated: Whether the evaluation that is due after this step is done.
        num_lines: Lines of metrics.jsonl up to here.
        best_step: Checkpointed step with the highest nDCG@5 so far; None before the first one.
        best_score: That nDCG@5, the mean over data sets.
        notices: Warnings so far.
        steps_collapsed: Steps in a row at the loss of a model that tells nothing apart.
        scaling: Of gradients; None before the first step.
    """

    step: int
    is_evaluated: bool
    num_lines: int
    best_step: int | None = None
    best_score: float | None = None
    notices: tuple[str, ...] = ()
    steps_collapsed: int = 0
    scaling: Scaling | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint, read and checked.

    Attributes:
        path: Its folder.
        progress: Where the run stood.
        parameters: Trained parameters by name.
        optimizer: State for the optimiser's `load_state_dict`.
    """

    path: Path
    progress: Progress
    parameters: dict[str, Tensor]
    optimizer: dict[str, Any]


def save_checkpoint(
    folder: Path,
    progress: Progress,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> Path:
    """Write one checkpoint, whole or not at all.

    Args:
        folder: The run's `checkpoints` folder.
        progress: Where the run stands.
        parameters: Trained parameters by name.
        optimizer: Whose state is kept.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: The disk is full or cannot be written; earlier checkpoints are untouched and
            nothing half-written is left.
    """
    target = folder / f"step-{progress.step:06d}"
    if target.exists() and _is_same(target, progress):
        return target  # stopped right after a checkpoint: there is nothing to add
    aside = folder / f".{target.name}.part"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        tensors = {name: _plain(parameter) for name, parameter in parameters.items()}
        numbers, optimizer_tensors = _split(optimizer.state_dict())
        with system_errors():
            save_file(tensors, aside / _PARAMETERS)
            save_file(optimizer_tensors, aside / _OPTIMIZER)
        hashes = {name: _hash(aside / name) for name in (_PARAMETERS, _OPTIMIZER)}
        for name in hashes:
            flush(aside / name)
        state = {
            "format": FORMAT,
            "progress": asdict(progress),
            "optimizer": numbers,
            "sha256": hashes,
        }
        (aside / _STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        flush(aside / _STATE)
        flush(aside)
        if target.exists():  # a resumed run comes by the same step again
            shutil.rmtree(target)
        aside.rename(target)
        flush(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return target


def _is_same(path: Path, progress: Progress) -> bool:
    try:
        return read_checkpoint(path).progress == progress
    except RunError:
        return False


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check that it is whole.

    Raises:
        RunError: A file is missing, cut off or changed.
    """
    try:
        state = json.loads((path / _STATE).read_text(encoding="utf-8"))
        for name, expected in state["sha256"].items():
            if _hash(path / name) != expected:
                raise RunError(
                    "broken-checkpoint",
                    "a checkpoint's file is cut off or changed.",
                    where=str(path / name),
                )
        progress = state["progress"]
        progress["notices"] = tuple(progress["notices"])
        if progress.get("scaling") is not None:  # runs of earlier versions have none
            progress["scaling"] = Scaling(**progress["scaling"])
        return Checkpoint(
            path,
            Progress(**progress),
            load_file(path / _PARAMETERS),
            _join(state["optimizer"], load_file(path / _OPTIMIZER)),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RunError(
            "broken-checkpoint",
            "a checkpoint is not whole.",
            where=str(path),
            received=str(error) or type(error).__name__,
        ) from error


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first; those written aside are no checkpoints."""
    found = [path for path in folder.glob("step-*") if path.name[5:].isdecimal()]
    return sorted(found, key=_step)  # folder.glob finds nothing where there is no folder


def newest_whole(
    folder: Path, num_lines: int | None = None
) -> tuple[Checkpoint | None, list[RunError]]:
    """The newest checkpoint that is whole, and what was wrong with newer ones.

    Args:
        folder: The run's `checkpoints` folder.
        num_lines: Lines that metrics.jsonl has. A checkpoint that counts more of them is not
            believed either: going on from it would leave a hole in the metrics.
    """
    broken = []
    for path in reversed(checkpoints(folder)):
        try:
            found = read_checkpoint(path)
        except RunError as error:
            broken.append(error)
            continue
        if num_lines is None or found.progress.num_lines <= num_lines:
            return found, broken
        broken.append(
            RunError(
                "broken-checkpoint",
                f"metrics.jsonl has {num_lines} of the {found.progress.num_lines} lines before it.",
                where=str(path),
            )
        )
    return None, broken


def forget_old(
    folder: Path, keep: int, best_step: int | None, is_kept: Callable[[int], bool]
) -> None:
    """Delete all checkpoints but the newest few, the best, and the newest of all.

    Args:
        folder: The run's `checkpoints` folder.
        keep: How many of the recipe's own stay.
        best_step: Of the best one, which stays.
        is_kept: Whether the recipe asks for a checkpoint after a step. One that a signal asked for
            stays until the next, so that a run that was stopped ends with the same checkpoints as
            one that was not.
    """
    paths = checkpoints(folder)
    kept = {path for path in paths if is_kept(_step(path))}
    newest = set(sorted(kept)[-keep:]) | set(paths[-1:])
    for path in paths:
        if path not in newest and _step(path) != best_step:
            _delete(path)


def clean(folder: Path, step: int) -> None:
    """Remove what a killed process left aside, and what the run does not go on from.

    Args:
        folder: The run's `checkpoints` folder.
        step: After which the run goes on; a later checkpoint is not whole, or it would be used.
    """
    if folder.is_dir():
        for leftover in [*folder.glob(".step-*.part"), *folder.glob(".step-*.old")]:
            shutil.rmtree(leftover)
        for path in checkpoints(folder):
            if _step(path) > step:
                _delete(path)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _delete(path: Path) -> None:
    # Renamed first, so that a deletion cut short leaves no half of a checkpoint.
    shutil.rmtree(path.rename(path.with_name(f".{path.name}.old")))


def _split(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """An optimiser's state as what JSON can hold, and tensors by name."""
    tensors = {}
    numbers: dict[str, Any] = {"param_groups": state["param_groups"], "state": {}}
    for index, entries in state["state"].items():
        numbers["state"][str(index)] = {}
        for key, value in _flat(entries):
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = _plain(value)
            else:
                numbers["state"][str(index)][key] = value
    return numbers, tensors


def _flat(entries: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    # bitsandbytes keeps its 8-bit states in a dictionary within the state.
    for key, value in entries.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def _join(numbers: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(index): {} for index in numbers["state"]}

    def put(index: int, path: str, value: Any) -> None:
        *outer, key = path.split("/")
        entries = state[index]
        for name in outer:
            entries = entries.setdefault(name, {})
        entries[key] = value

    for index, entries in numbers["state"].items():
        for path, value in entries.items():
            put(int(index), path, value)
    for name, tensor in tensors.items():
        index, _, path = name.partition(".")
        put(int(index), path, tensor)
    return {"param_groups": numbers["param_groups"], "state": state}


def _plain(tensor: Tensor) -> Tensor:
    # A copy: safetensors refuses tensors that share memory, as 8-bit states share their code book.
    return tensor.detach().cpu().clone().contiguous()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
