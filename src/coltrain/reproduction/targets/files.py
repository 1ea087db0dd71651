"""Which files of a folder belong to a training: configurations, launches, pins, states, printed output."""

import re
from collections.abc import Iterator
from pathlib import Path

from coltrain.errors import UsageError
from coltrain.reproduction.targets.printed_log import is_printed
from coltrain.reproduction.targets.source import PYTHON

_SHELL = (".sh", ".slurm", ".sbatch", ".bash", ".job")
PINS = (
    "requirements",
    "environment",
    "constraints",
    "pip_freeze",
    "freeze",
    "pyproject",
    "Pipfile",
    "poetry.lock",
    "uv.lock",
    "README",
    "versions",
)
CONFIGS = (".yaml", ".yml")
_OTHER_FOLDERS = re.compile(
    r"\.|checkpoint-|wandb$|venv$|node_modules$|site-packages$|__pycache__$"
)
_DEEPEST = 3
_TRAINS = re.compile(r"colpali_engine|sentence_transformers|TrainingArguments|ColQwen2|pylate")


def is_launch(file: Path) -> bool:
    names = ("Makefile", "Dockerfile", "launch", "run", "command.txt")
    return file.suffix in _SHELL or file.name in names


def _deeper(folder: Path, depth: int = 1) -> Iterator[Path]:
    """Files in subfolders, but those of checkpoints, environments and logs."""
    for one in sorted(folder.iterdir()):
        if one.is_dir() and depth < _DEEPEST and not _OTHER_FOLDERS.match(one.name):
            yield from _deeper(one, depth + 1)
        elif one.is_file() and depth > 1:
            yield one


def in_subfolders(path: Path, helpers: list[Path]) -> list[Path]:
    """Configurations below a folder that has none itself: those that its launch names, or all.

    Raises:
        UsageError: There are several, and nothing says which was trained.
    """
    candidates = [file for file in _deeper(path) if file.suffix in (*PYTHON, *CONFIGS)]
    trains = [
        file
        for file in candidates
        if _TRAINS.search(file.read_text(encoding="utf-8", errors="replace"))
    ]
    launches = " ".join(
        file.read_text(encoding="utf-8", errors="replace") for file in helpers if is_launch(file)
    )
    named = [file for file in candidates if str(file.relative_to(path)) in launches]
    if named or len(trains) <= 1:
        return named or trains
    if all(file.suffix in PYTHON for file in trains) and len({one.parent for one in trains}) == 1:
        return trains
    raise UsageError(
        "no-such-target",
        "several trainings lie below this folder.",
        where=str(path),
        received=", ".join(str(one.relative_to(path)) for one in trains[:5]),
        expected="one of them by name, or a launch script beside them that names it",
    )


def states_of(path: Path) -> list[Path]:
    """The last trainer_state.json of a folder, wherever its checkpoints lie; none or one."""
    if (path / "trainer_state.json").is_file():
        return [path / "trainer_state.json"]
    found = [
        *path.glob("*/trainer_state.json"),
        *path.glob("*/*/trainer_state.json"),
        *path.glob("*/*/*/trainer_state.json"),
    ]
    return (
        [max(found, key=_step)] if found and len({_output(path, one) for one in found}) == 1 else []
    )


def _output(path: Path, state: Path) -> Path:
    """The output folder that a state belongs to."""
    parts = [
        one for one in state.parent.relative_to(path).parts if not one.startswith("checkpoint-")
    ]
    return path.joinpath(*parts)


def _step(state: Path) -> int:
    match = re.fullmatch(r"checkpoint-(\d+)", state.parent.name)
    return int(match[1]) if match else 10**12  # the output folder's own is written last


def printed_by(path: Path) -> list[Path]:
    """Files into which a training printed, in a folder and in its folders of logs."""
    folders = [
        path,
        *(one for one in sorted(path.iterdir()) if one.is_dir() and _LOGS.match(one.name)),
    ]
    return [
        file
        for folder in folders
        for file in sorted(folder.iterdir())
        if file.is_file() and is_printed(file)
    ]


_LOGS = re.compile(r"(logs?|slurm\w*|out(put)?s?|wandb)$")


def deepspeed_of(path: Path) -> list[Path]:
    """JSON files beside a training that are deepspeed's settings."""
    found = []
    for file in (*sorted(path.glob("*.json")), *sorted(path.glob("*/*.json"))):
        if file.stat().st_size < 100_000 and _DEEPSPEED.search(
            file.read_text(encoding="utf-8", errors="replace")
        ):
            found.append(file)
    return found


_DEEPSPEED = re.compile(
    r'"(zero_optimization|train_micro_batch_size_per_gpu|zero_allow_untested_optimizer)"'
)
