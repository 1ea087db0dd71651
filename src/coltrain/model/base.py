"""An adapter's base: where it is, and how it is known to be the one of training."""

from pathlib import Path

import torch

from coltrain.errors import ModelError
from coltrain.model.adapter import Adapter
from coltrain.model.audit import Base
from coltrain.model.locate import TINY, locate_model
from coltrain.model.weights import load_backbone


def locate_base(name: str, revision: str | None, where: str) -> Path:
    """The folder of a base that an adapter or a card names.

    Args:
        name: Folder or hub name.
        revision: Of a hub model.
        where: The file that names it, for the error.

    Raises:
        ModelError: It cannot be had.
    """
    try:
        return locate_model(name, revision)
    except ModelError as error:
        raise ModelError(
            error.code,
            error.message,
            where=f"{where} names it as the base" if error.where is None else error.where,
            received=error.received,
            expected=error.expected,
            suggestion=error.suggestion or "--base with the base's folder or hub name",
        ) from error


def base_of(
    name: str, revision: str | None, folder: Path, check: str, named: str | None = None
) -> Base:
    """How an adapter's base was found."""
    # The hub's cache holds a snapshot under its commit.
    commit = folder.name if folder.parent.name == "snapshots" else None
    return Base(name, revision, commit, check, None if named in (None, name) else named)


def check_base(
    adapter: Adapter, name: str, revision: str | None, folder: Path, weights_hash: str
) -> Base:
    """Whether a base is the one that a published adapter was trained on.

    Published adapters record their base's name, and nothing of its weights. So the same name is
    taken for the same base; under another name the weights are compared where the named base is a
    folder on this machine, and otherwise the report says that it is not known.

    Args:
        adapter: As read.
        name: Of the base that is used.
        revision: That was asked for.
        folder: Where it lies.
        weights_hash: Of its tensors.

    Raises:
        ModelError: The named base is here, and is another one.
    """
    if adapter.base in ("", name):
        check = "name" if adapter.base == name else "not known"
        return base_of(name, revision, folder, check)
    if adapter.base != TINY and not Path(adapter.base).expanduser().is_dir():
        return base_of(name, revision, folder, "not known", adapter.base)
    named = locate_model(adapter.base)
    expected = weights_hash
    if named.resolve() != folder.resolve():
        # float32 holds what a file of any type does, so that nothing is refused for its size.
        expected = load_backbone(
            named, dim=None, dtype=torch.float32, projection_std=1.0, seed=0
        ).weights_hash
    if expected != weights_hash:
        raise ModelError(
            "other-base",
            "the base is not the one that this adapter was trained on.",
            where=f"{adapter.file.parent}, base {name}",
            received=f"weights {weights_hash}",
            expected=f"weights {expected}, of {adapter.base}, which the adapter names",
        )
    return base_of(name, revision, folder, "hash", adapter.base)
