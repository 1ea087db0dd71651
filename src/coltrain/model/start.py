"""`model.start_from`: training that goes on from exactly an adapter's function."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from coltrain.errors import ModelError
from coltrain.model.adapter import (
    Adapter,
    LoraSettings,
    adapter_tensors,
    audit_adapter,
    is_fresh,
    load_adapter_weights,
    module_of,
    read_adapter,
)
from coltrain.model.audit import Base
from coltrain.model.base import base_of, check_base
from coltrain.model.card import load_projection, read_card, refuse_other_base
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.locate import locate_model
from coltrain.model.weights import (
    PROJECTION,
    Checkpoint,
    Layout,
    LoadedBackbone,
    recognise,
    refuse_other_tensors,
    take_dense,
    tensor_hashes,
)
from coltrain.recipe import Recipe


@dataclass(frozen=True)
class StartedFrom:
    """What a model's adapter was before training, for a record.

    Attributes:
        name: `model.start_from`.
        revision: Where one was asked for.
        stored_as: Number of the adapter's tensors by the type in which its file holds them.
        trained_as: The type in which they are trained, `lora.dtype`.
    """

    name: str
    revision: str | None
    stored_as: dict[str, int]
    trained_as: str

    def facts(self) -> dict[str, Any]:
        """For run.json."""
        return asdict(self)

    @property
    def sentence(self) -> str | None:
        """For a person, where the types are not the same; None where they are."""
        others = [kind for kind in self.stored_as if kind != self.trained_as]
        if not others:
            return None
        wide = getattr(torch, self.trained_as)
        is_wider = all(torch.promote_types(getattr(torch, kind), wide) == wide for kind in others)
        return (
            f"the adapter of model.start_from = {self.name} is stored in {', '.join(others)} and "
            f"trained in {self.trained_as} (lora.dtype), "
            + ("which holds its values exactly" if is_wider else "to which its values are rounded")
        )


@dataclass(frozen=True)
class Start:
    """What training starts from, read and checked.

    Attributes:
        adapter: As its folder has it.
        base: Of the adapter, and how it is known to be the recipe's.
        checkpoint: The adapter's folder.
    """

    adapter: Adapter
    base: Base
    checkpoint: Checkpoint

    def record(self, recipe: Recipe) -> StartedFrom:
        """What to say of it."""
        kinds = Counter(
            str(one.dtype).removeprefix("torch.") for one in self.adapter.tensors.values()
        )
        model = recipe.model
        return StartedFrom(
            model.start_from, model.start_from_revision, dict(kinds), recipe.lora.dtype
        )

    def fill(self, model: ColQwen2, lora: LoraSettings) -> None:
        """Put the adapter's tensors in place of fresh ones.

        Raises:
            ModelError: It has another rank or scale than the recipe, or other modules.
        """
        settings, folder = self.adapter.settings, self.checkpoint.folder
        if (settings.r, settings.alpha) != (lora.r, lora.alpha):
            raise ModelError(
                "start-from-other-rank",
                "the adapter to start from has another rank or scale than the recipe.",
                where=f"model.start_from = {folder}",
                received=f"r={settings.r}, alpha={settings.alpha}",
                expected=f"r={lora.r}, alpha={lora.alpha}",
                suggestion=f"lora.r={settings.r} lora.alpha={settings.alpha}",
            )
        tensors = self.adapter.tensors
        if self.checkpoint.dense is not None:
            tensors = without_projection(tensors) | only_projection(adapter_tensors(model))
        load_adapter_weights(model, tensors, str(self.adapter.file), self.adapter.keys)


def without_projection(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """An adapter's tensors without those of the projection, which a Dense layer replaces whole."""
    return {key: tensor for key, tensor in tensors.items() if module_of(key) != PROJECTION}


def only_projection(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The others."""
    return {key: tensor for key, tensor in tensors.items() if module_of(key) == PROJECTION}


def open_start(recipe: Recipe, loaded: LoadedBackbone, rounded_to: torch.dtype) -> Start:
    """Read the adapter to start from, and bring the base's projection to the adapter's.

    Args:
        recipe: Names the adapter and the base.
        loaded: The recipe's base, without an adapter.
        rounded_to: Type to which the recipe rounds the base's weights.

    Raises:
        ModelError: It cannot be found or is no adapter; the base is not its own; the base has no
            projection and the adapter brings none.
    """
    folder = locate_model(recipe.model.start_from, recipe.model.start_from_revision)
    checkpoint = recognise(folder / "model" if (folder / "model").is_dir() else folder)
    if checkpoint.adapter is None:
        raise ModelError(
            "start-from-no-adapter",
            "training starts from an adapter, and this is none.",
            where=f"model.start_from = {checkpoint.folder}",
            received=f"layout {checkpoint.layout}",
            expected="an adapter, or a run that trained one",
            suggestion=f"model.base={recipe.model.start_from} for a whole network",
        )
    adapter = read_adapter(checkpoint.adapter)
    name, revision, recorded = recipe.model.base, recipe.model.revision, False
    base_folder = locate_model(name, revision)
    if checkpoint.layout is Layout.COLTRAIN:
        card = read_card(checkpoint.folder)
        refuse_other_base(card, loaded, checkpoint.folder, name)
        load_projection(loaded.model, checkpoint.folder, card, loaded.model.dtype)
        hashes = tensor_hashes(adapter.tensors)
        recorded = refuse_other_tensors(checkpoint.folder, "adapter", hashes, str(adapter.file))
        base = base_of(name, revision, base_folder, "hash", card["base"])
    else:
        base = check_base(adapter, name, revision, base_folder, loaded.weights_hash)
        if checkpoint.dense is not None:
            take_dense(loaded, checkpoint.dense, dtype=loaded.model.dtype, rounded_to=rounded_to)
        elif not loaded.projection_from_file:
            _refuse_without_projection(recipe.model.base, checkpoint.folder)
    # All of B at zero is how training starts; some of it is damage, unless it was saved so.
    audit_adapter(adapter, may_be_fresh=recorded or is_fresh(adapter))
    return Start(adapter, base, checkpoint)


def _refuse_without_projection(base: str, folder: Path) -> None:
    raise ModelError(
        "start-from-without-projection",
        "the adapter to start from belongs to a projection that the base does not have.",
        where=f"model.start_from = {folder}",
        received=f"model.base = {base}, without custom_text_proj",
        expected="the base that the adapter was trained on, with its projection",
        suggestion="model.base=vidore/colqwen2-base, or what adapter_config.json names",
    )
