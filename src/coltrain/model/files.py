"""A model's files, read so that a broken one is named."""

import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from coltrain.errors import ModelError
from coltrain.model.kinds import wrong_kind
from coltrain.recipe.wording import shown

PROCESSOR_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "preprocessor_config.json",
    "processor_config.json",
)
"""What a tokenizer and an image processor are read from; each is one JSON object where it is there."""


def read_json(file: Path, kind: type = dict) -> Any:
    """A file that holds one JSON object (or a list, if that is the kind).

    Raises:
        ModelError: It is missing, or holds something else, or a setting of another kind.
    """
    expected = "one JSON object" if kind is dict else "one JSON list"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise missing_file(file) from error
    except ValueError as error:  # neither JSON nor UTF-8
        raise broken_file(file, str(error), expected) from error
    if not isinstance(content, kind):
        raise broken_file(file, f"a JSON {type(content).__name__}", expected)
    wrong = wrong_kind(file.name, content) if kind is dict else None
    if wrong is not None:
        key, value, fitting = wrong
        raise broken_file(file, f"{key} {shown(value)}", fitting)
    return content


@contextmanager
def open_tensors(file: Path) -> Iterator[Any]:
    """Tensors one at a time: an object with `keys()` and `get_tensor(key)`.

    A `.bin` file is unpickled, all at once and as tensors alone; who calls has asked the user.

    Raises:
        ModelError: The file is missing, cut off, or of another kind.
    """
    if file.suffix == ".bin":
        yield _Pickled(file)
        return
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except FileNotFoundError as error:
        raise missing_file(file) from error
    except SafetensorError as error:
        raise broken_file(file, str(error), "a whole safetensors file") from error


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a file.

    Raises:
        ModelError: As `open_tensors`.
    """
    with open_tensors(file) as tensors:
        return {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118 - no mapping


class _Pickled:
    """A pickle of tensors, by the names that safetensors' reader has."""

    def __init__(self, file: Path) -> None:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            raise missing_file(file) from error
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise broken_file(
                file, str(error).splitlines()[0], "a pickle of tensors and nothing else"
            ) from error
        if not isinstance(content, dict) or not all(
            isinstance(value, Tensor) for value in content.values()
        ):
            raise broken_file(file, type(content).__name__, "a pickle of tensors by name")
        self._tensors = content

    def keys(self) -> list[str]:
        return list(self._tensors)

    def get_tensor(self, key: str) -> Tensor:
        return self._tensors[key]


def missing_file(file: Path) -> ModelError:
    """The error for a file that is not there."""
    return ModelError(
        "missing-model-file", f"the model's folder lacks {file.name}.", where=str(file.parent)
    )


def broken_file(file: Path, received: str, expected: str) -> ModelError:
    """The error for a file that cannot be read."""
    return ModelError(
        "broken-model-file",
        "a file of the model cannot be read.",
        where=str(file),
        received=received,
        expected=expected,
        suggestion="download or copy it again; it may have been cut off",
    )


def cache_folder(name: str) -> Path:
    """Where something is kept that can be made again: below XDG_CACHE_HOME, or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "coltrain" / name


def write_whole(file: BinaryIO, content: bytes) -> None:
    """Write all of it: an unbuffered file may take less than it is given."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]
