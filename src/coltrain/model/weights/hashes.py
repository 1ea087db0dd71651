"""Hashes of single tensors: what finds a square matrix transposed, which nothing else can."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from coltrain.errors import ModelError
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.files import read_json

HASHES_FILE = "hashes.json"


def tensor_bytes(tensor: Tensor) -> bytes:
    """The raw bytes of a tensor of any type."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def tensor_hash(tensor: Tensor) -> str:
    """sha256 of a tensor's bytes, first 16 digits."""
    return hashlib.sha256(tensor_bytes(tensor)).hexdigest()[:16]


def tensor_hashes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """`tensor_hash` of each."""
    return {name: tensor_hash(tensor) for name, tensor in sorted(tensors.items())}


def projection_hash(model: ColQwen2) -> str:
    """sha256 of the projection's base weight and bias, first 16 digits."""
    projection = model.custom_text_proj
    layer = getattr(projection, "base_layer", projection)
    digest = hashlib.sha256(tensor_bytes(layer.weight))
    digest.update(tensor_bytes(layer.bias))
    return digest.hexdigest()[:16]


def write_hashes(folder: Path, hashes: Mapping[str, Mapping[str, str]]) -> None:
    """Record the hashes of a model's tensors.

    Args:
        folder: Of the model.
        hashes: By part ("adapter", "base", or "model" for a whole network), then by the tensor's
            name.
    """
    content = {part: dict(sorted(names.items())) for part, names in sorted(hashes.items())}
    (folder / HASHES_FILE).write_text(json.dumps(content, indent=2) + "\n")


def read_hashes(folder: Path, part: str) -> dict[str, str] | None:
    """What a folder recorded of one part; None where it recorded nothing."""
    file = folder / HASHES_FILE
    return read_json(file).get(part) if file.is_file() else None


def refuse_other_tensors(folder: Path, part: str, hashes: Mapping[str, str], where: str) -> bool:
    """Compare tensors with the hashes that their folder recorded.

    Args:
        folder: With or without such a record.
        part: As `write_hashes` has it.
        hashes: Of the tensors as read.
        where: Their file.

    Returns:
        Whether the folder has a record.

    Raises:
        ModelError: A tensor is not the one that was saved, or the record does not know it.
    """
    recorded = read_hashes(folder, part)
    if recorded is None:
        return False
    for name, found in hashes.items():
        if recorded.get(name) != found:
            raise ModelError(
                "weight-changed",
                "a tensor is not the one that was saved.",
                where=f"{where}, {name}",
                received=f"hash {found}",
                expected=f"hash {recorded[name]}" if name in recorded else "no such tensor",
                suggestion=f"copy the folder again from where it was made ({HASHES_FILE} has what "
                "was saved)",
            )
    return True
