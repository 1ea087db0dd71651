"""Which files of a folder hold its tensors: one, or shards that an index names."""

import re
from pathlib import Path

from coltrain.errors import ModelError
from coltrain.model.files import broken_file, missing_file, read_json

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")
# Pickles that libraries write beside a training run, and that hold no weights.
_NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "scheduler.bin")


def weight_files(
    folder: Path,
    stem: str = "model",
    *,
    pickled_stem: str | None = None,
    allow_pickle: bool = False,
) -> list[Path]:
    """The files that hold a folder's tensors, in the order in which transformers looks for them.

    Args:
        folder: Of the model.
        stem: `model`, or `adapter_model`.
        pickled_stem: The same in pickled form, where it differs (`pytorch_model`).
        allow_pickle: Take pickled files where there are no safetensors.

    Raises:
        ModelError: There is none, one that the index names is missing, shards have no index, or the
            weights are pickled and that was not allowed.
    """
    for start, ending in ((stem, ".safetensors"), (pickled_stem or stem, ".bin")):
        files = _files(folder, start, ending)
        if files and ending == ".bin" and not allow_pickle:
            raise ModelError(
                "pickled-weights",
                "the weights are pickled, and a pickle can run code as it is read.",
                where=str(files[0]),
                expected=f"{stem}.safetensors",
                suggestion="only safetensors are read; convert the file, or insist with "
                "--allow-pickle, which reads it with torch.load(weights_only=True)",
            )
        if files:
            return files
    raise missing_file(folder / f"{stem}.safetensors")


def unread_files(folder: Path, read: list[Path]) -> list[str]:
    """Names of other files with weights beside those that were read."""
    found = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    return sorted(file.name for file in found if file not in read and file.name not in _NO_WEIGHTS)


def _files(folder: Path, stem: str, ending: str) -> list[Path]:
    whole, index = folder / f"{stem}{ending}", folder / f"{stem}{ending}.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        return _of_index(index)
    shards = sorted(folder.glob(f"{stem}-*-of-*{ending}"))
    if not shards:
        return []
    count = _SHARD.search(shards[0].stem)
    numbers = range(1, int(count[2]) + 1) if count else ()
    wanted = [folder / f"{stem}-{number:05d}-of-{count[2]}{ending}" for number in numbers]
    _refuse_missing([*(file for file in wanted if not file.is_file()), index])
    return []


def _of_index(index: Path) -> list[Path]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise broken_file(index, "no weight_map of names and files", "the index of a sharded model")
    files = [index.parent / name for name in sorted(set(places.values()))]
    _refuse_missing([file for file in files if not file.is_file()])
    return files


def _refuse_missing(files: list[Path]) -> None:
    if files:
        raise ModelError(
            "missing-model-file",
            "the model's folder lacks weight files.",
            where=", ".join(map(str, files)),
            suggestion="download or copy the folder again, all shards and their index",
        )
