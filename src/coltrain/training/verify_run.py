"""`coltrain verify RUN`: do the first steps of a run come out again, and if not, from where on?"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from coltrain.errors import RunError
from coltrain.recipe import recipe_from_mapping
from coltrain.training.events import StepResult
from coltrain.training.fingerprints import RECORDED_STEPS, TensorFingerprint
from coltrain.training.loop import Training
from coltrain.training.record import kept_in_float32
from coltrain.training.run_folder import RunFolder, is_run

# float32: a few hundred roundings in a row, far below what another mask, batch or weight gives.
ROUNDING = 1e-4

Verdict = Literal["equal to the last bit", "equal to rounding", "different"]


@dataclass(frozen=True)
class Verification:
    """What became of the first steps.

    Attributes:
        verdict: Over all steps.
        steps: Compared.
        first_difference: Step and figure or tensor that differs beyond rounding first, or that
            differs at all if nothing does beyond; None if all is equal to the last bit.
        largest_difference: Relative, of losses, gradient norms and norms of tensors.
    """

    verdict: Verdict
    steps: int
    first_difference: str | None
    largest_difference: float

    def as_document(self) -> dict:
        """For JSON."""
        return asdict(self)


def verify_run(
    folder: Path,
    device: torch.device,
    num_steps: int = RECORDED_STEPS,
    on_step: Callable[[StepResult], None] | None = None,
) -> Verification:
    """Train the first steps of a run again, aside, and compare.

    Args:
        folder: The run.
        device: What computes.
        num_steps: How many steps; tensors are compared after the first three.
        on_step: Called after each.

    Raises:
        RunError: The folder is no run, or it took no step yet.
    """
    if not is_run(folder):
        raise RunError(
            "not-a-run",
            "this folder is not a run of coltrain.",
            received=str(folder),
            expected="a folder with a run.json that coltrain wrote",
        )
    recorded = _read(RunFolder(folder))
    if not recorded:
        raise RunError("no-steps", "the run took no step yet.", where=str(folder))
    facts = RunFolder(folder).facts
    # Evaluations and checkpoints do not touch the course of training, and nobody needs them here.
    values = facts["recipe"] | {
        "eval": {"data": [], "every": None},
        "checkpoint": {**facts["recipe"]["checkpoint"], "every": None},
        "logging": {**facts["recipe"]["logging"], "watchers": []},
    }
    num_steps = min(num_steps, len(recorded))
    with tempfile.TemporaryDirectory() as aside:
        training = Training(
            recipe_from_mapping(values),
            Path(aside) / "run",
            device,
            keep_float32=kept_in_float32(facts),
        )
        taken = 0
        for event in training.events():
            if isinstance(event, StepResult):
                taken += 1
                if on_step is not None:
                    on_step(event)
                if taken == num_steps:
                    break
        again = _read(training.run)
    return _compare(recorded[:num_steps], again[:num_steps])


@dataclass(frozen=True)
class _Step:
    step: int
    figures: dict[str, float]
    tensors: dict[str, TensorFingerprint]


def _read(run: RunFolder) -> list[_Step]:
    file = run.path / "fingerprints.json"
    tensors = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return [
        _Step(
            line["step"],
            {name: line[name] for name in ("loss", "grad_norm", "lr", "candidates_per_query")},
            {
                name: TensorFingerprint(**entry)
                for name, entry in tensors.get(str(line["step"]), {}).items()
            },
        )
        for line in run.lines()
        if line["kind"] == "step"
    ]


def _compare(recorded: list[_Step], again: list[_Step]) -> Verification:
    largest, rounded, different = 0.0, None, None
    for before, now in zip(recorded, again, strict=True):
        pairs = [(name, before.figures[name], now.figures[name], None) for name in before.figures]
        for name, tensor in before.tensors.items():
            same_bits = tensor.sha256 == now.tensors[name].sha256
            pairs.append((name, tensor.norm, now.tensors[name].norm, same_bits))
        for name, old, new, same_bits in pairs:
            difference = abs(old - new) / max(abs(old), abs(new), 1e-30)
            largest = max(largest, difference)
            place = f"step {before.step}, {name}: {old!r} then, {new!r} now"
            if difference > ROUNDING:
                different = different or place
            elif difference > 0 or same_bits is False:
                rounded = rounded or place
    verdict: Verdict = "equal to the last bit"
    if different is not None:
        verdict = "different"
    elif rounded is not None:
        verdict = "equal to rounding"
    return Verification(verdict, len(recorded), different or rounded, largest)
