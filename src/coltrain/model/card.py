"""What stands beside a saved adapter: the projection, whole, and the base that both belong to.

An adapter alone is not a model. Its projection may have been drawn, and an adapter over another
projection or another base than its own gives embeddings that look right and retrieve nothing.
"""

from pathlib import Path
from typing import Any

import torch

from coltrain.errors import ModelError
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.files import read_json, read_tensors
from coltrain.model.weights import (
    PROJECTION,
    LoadedBackbone,
    projection_hash,
    read_hashes,
    set_parameter,
)
from coltrain.model.weights.layouts import CARD
from coltrain.model.weights.values import is_constant
from coltrain.recipe import Template

PROJECTION_FILE = "projection.safetensors"
FORMAT = 1
_KEYS = {
    "format",
    "base",
    "base_revision",
    "base_weights_hash",
    "backbone_rounded_to",
    "backbone_dtype",
    "projection_dim",
    "projection_hash",
    "template",
    "max_visual_tokens",
}


def is_model_folder(folder: Path) -> bool:
    """Whether coltrain wrote this folder."""
    return (folder / CARD).is_file()


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a folder that coltrain wrote.

    Raises:
        ModelError: It is missing, cannot be read, or was written by another version.
    """
    return _checked(folder, _KEYS)


def read_merged_card(folder: Path) -> dict[str, Any]:
    """The card of a folder that has the whole network: template, budget and format count.

    Raises:
        ModelError: It is missing, cannot be read, or was written by another version.
    """
    return _checked(folder, {"format", "template", "max_visual_tokens"})


def _checked(folder: Path, keys: set[str]) -> dict[str, Any]:
    card = read_json(folder / CARD)
    missing = sorted(one for one in keys if card.get(one) is None and one != "base_revision")
    if "template" not in missing:
        strings = Template.model_fields
        missing += [f"template.{one}" for one in strings if one not in card["template"]]
    if missing or card["format"] != FORMAT:
        raise ModelError(
            "unknown-card",
            "the model's card is not of this version of coltrain.",
            where=str(folder / CARD),
            received=f"no {', '.join(missing)}" if missing else f"format {card['format']}",
            expected=f"format {FORMAT}",
        )
    return card


def refuse_other_base(
    card: dict[str, Any], loaded: LoadedBackbone, folder: Path, base: str
) -> None:
    """Check that a base is the one that the card's adapter was trained on.

    Args:
        card: Of the adapter's folder.
        loaded: The base as read.
        folder: The adapter's.
        base: The base's name or folder, for the error.

    Raises:
        ModelError: It is another one; the tensors that differ are named where the folder recorded
            their hashes.
    """
    if loaded.weights_hash != card["base_weights_hash"]:
        recorded = read_hashes(folder, "base") or {}
        found = loaded.found.hashes
        others = sorted(name for name in recorded if recorded[name] != found.get(name))
        named = f"; {len(others)} of its tensors differ, first {others[0]}" if others else ""
        raise ModelError(
            "other-base",
            "the base is not the one that this adapter was trained on.",
            where=f"{folder}, base {base}",
            received=f"weights {loaded.weights_hash}{named}",
            expected=f"weights {card['base_weights_hash']}",
        )


def load_projection(
    model: ColQwen2, folder: Path, card: dict[str, Any], dtype: torch.dtype | None
) -> None:
    """Put the saved projection in place; before LoRA layers are.

    Args:
        model: Without an adapter.
        folder: A folder that coltrain wrote.
        card: Its card.
        dtype: To keep the projection in; None keeps the saved one.

    Raises:
        ModelError: The file is missing or broken, or is not the one that was saved.
    """
    file = folder / PROJECTION_FILE
    tensors = read_tensors(file)
    expected = {
        f"{PROJECTION}.{name}": parameter.shape
        for name, parameter in model.custom_text_proj.named_parameters()
    }
    fits = {name: tensor.shape for name, tensor in tensors.items()} == expected
    if fits:
        for name, tensor in tensors.items():
            set_parameter(model, name, tensor)
    if not fits or projection_hash(model) != card["projection_hash"]:
        raise ModelError(
            "other-projection",
            "the projection is not the one that was saved.",
            where=str(file),
            received=projection_hash(model) if fits else ", ".join(sorted(tensors)),
            expected=card["projection_hash"],
        )
    for name, tensor in tensors.items():
        is_constant(name, tensor, str(file), dtype)
    if dtype is not None:
        for name, tensor in tensors.items():
            set_parameter(model, name, tensor.to(dtype))
