"""A model's files, read so that a broken one is named."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from coltrain.errors import ModelError


def read_json(file: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        ModelError: It is missing, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise missing_file(file) from error
    except ValueError as error:  # neither JSON nor UTF-8
        raise _broken(file, str(error), "one JSON object") from error
    if not isinstance(content, dict):
        raise _broken(file, f"a JSON {type(content).__name__}", "one JSON object")
    return content


@contextmanager
def open_tensors(file: Path) -> Iterator[Any]:
    """safetensors' `safe_open`, for tensors one at a time.

    Raises:
        ModelError: The file is missing, cut off, or of another kind.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except FileNotFoundError as error:
        raise missing_file(file) from error
    except SafetensorError as error:
        raise _broken(file, str(error), "a whole safetensors file") from error


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a file.

    Raises:
        ModelError: As `open_tensors`.
    """
    with open_tensors(file):
        return load_file(file)


def missing_file(file: Path) -> ModelError:
    """The error for a file that is not there."""
    return ModelError(
        "missing-model-file", f"the model's folder lacks {file.name}.", where=str(file.parent)
    )


def _broken(file: Path, received: str, expected: str) -> ModelError:
    return ModelError(
        "broken-model-file",
        "a file of the model cannot be read.",
        where=str(file),
        received=received,
        expected=expected,
        suggestion="download or copy it again; it may have been cut off",
    )
