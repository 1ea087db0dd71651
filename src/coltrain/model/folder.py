"""A trained model on disk: the adapter, the whole projection, the processor's files, and a card.

The backbone is not copied: the card names it, with the hash of its weights, and a load that meets
another one fails.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from coltrain.model.adapter import (
    adapter_tensors,
    add_lora,
    audit_adapter,
    load_adapter_weights,
    read_adapter,
    save_adapter,
)
from coltrain.model.base import base_of, locate_base
from coltrain.model.build import DTYPES, BuiltModel, load_preparer, report_of
from coltrain.model.card import (
    CARD,
    FORMAT,
    PROJECTION_FILE,
    load_projection,
    read_card,
    refuse_other_base,
)
from coltrain.model.half import Half, compute_in_half
from coltrain.model.weights import (
    PROJECTION,
    Layout,
    load_backbone,
    refuse_other_tensors,
    tensor_hashes,
    write_hashes,
)
from coltrain.recipe import Template


def save_model(built: BuiltModel, folder: Path) -> None:
    """Write a model so that `load_model_folder` gives it back to the bit."""
    folder.mkdir(parents=True, exist_ok=True)
    if built.lora is not None:
        save_adapter(built.model, built.lora, built.base, folder)
    projection = built.model.custom_text_proj
    projection = getattr(projection, "base_layer", projection)
    save_file(
        {
            f"{PROJECTION}.{name}": parameter.detach().cpu().contiguous()
            for name, parameter in projection.named_parameters()
        },
        folder / PROJECTION_FILE,
        metadata={"format": "pt"},
    )
    write_hashes(
        folder,
        {"adapter": tensor_hashes(adapter_tensors(built.model)), "base": built.report.hashes},
    )
    built.preparer.tokenizer.save_pretrained(folder)
    built.preparer.image_processor.save_pretrained(folder)
    card = {
        "format": FORMAT,
        "base": built.base,
        "base_revision": built.base_revision,
        "base_weights_hash": built.weights_hash,
        "backbone_rounded_to": str(built.rounded_to).removeprefix("torch."),
        "backbone_dtype": str(built.model.dtype).removeprefix("torch."),
        "projection_dim": built.model.dim,
        "projection_hash": built.projection_hash,
        "template": built.preparer.template.model_dump(),
        "max_visual_tokens": built.preparer.max_visual_tokens,
    }
    if built.model.computes_in is not None:
        # A reader of an earlier version would load it whole in float16, which may overflow.
        card["float32_modules"] = list(built.model.kept_in_float32)
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    (folder / CARD).write_text(text, encoding="utf-8")


def load_model_folder(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    base: str | None = None,
    key_mapping: bool = True,
    allow_pickle: bool = False,
) -> BuiltModel:
    """Load what `save_model` wrote.

    Args:
        folder: The model's folder.
        device: Where the model goes.
        dtype: Type in which the weights are kept, the adapter's as well; None keeps those of
            training. The backbone's are first rounded to what training rounded them to. A model
            that was trained in float16 has in float16 the modules in float32 that it had then.
        base: Folder or hub name in place of the base that the card names; its weights have to be
            the same.
        key_mapping: False insists that every tensor has ColQwen2's own name.
        allow_pickle: Read a base's pickled weights where it has no safetensors.

    Raises:
        ModelError: A file is missing or broken, the base cannot be had, or base, projection or
            adapter are not those that were saved.
    """
    card = read_card(folder)
    rounded_to = DTYPES[card["backbone_rounded_to"]]
    kept_in = dtype or DTYPES[card["backbone_dtype"]]
    half = _half_of(card)
    is_half = half is not None and kept_in == half.dtype
    if is_half:
        dtype = None  # the projection and the adapter are as they were trained, in float32
    name, revision = (card["base"], card["base_revision"]) if base is None else (base, None)
    base_folder = locate_base(name, revision, str(folder / CARD))
    loaded = load_backbone(
        base_folder,
        dim=card["projection_dim"],
        dtype=kept_in,
        rounded_to=rounded_to,
        projection_std=1.0,  # replaced below by the saved one
        seed=0,
        half=half,
        key_mapping=key_mapping,
        allow_pickle=allow_pickle,
    )
    refuse_other_base(card, loaded, folder, name)
    model = loaded.model
    load_projection(model, folder, card, dtype)
    lora = adapter = None
    untrained: list[str] = []
    recorded = False
    if (folder / "adapter_config.json").is_file():
        adapter = read_adapter(folder, key_mapping=key_mapping)
        hashes = tensor_hashes(adapter.tensors)
        recorded = refuse_other_tensors(folder, "adapter", hashes, str(adapter.file))
        # Zero to the bit as it was saved is an adapter before its first step, and not damage.
        untrained = audit_adapter(adapter, may_be_fresh=recorded)
        lora = replace(adapter.settings, dtype=dtype or adapter.settings.dtype)
        add_lora(model, lora, seed=0, where=str(folder / "adapter_config.json"))
        load_adapter_weights(model, adapter.tensors, str(adapter.file), adapter.keys)
    if is_half:
        compute_in_half(model, half.dtype, loaded.kept)
    for projected in loaded.found.created:
        loaded.found.created[projected] = f"from {PROJECTION_FILE}"
    return BuiltModel(
        model.to(device),
        load_preparer(folder, Template(**card["template"]), card["max_visual_tokens"]),
        lora,
        name,
        revision,
        loaded.weights_hash,
        loaded.projection_from_file,
        rounded_to,
        report_of(
            Layout.COLTRAIN,
            loaded,
            adapter=adapter,
            base=base_of(name, revision, base_folder, "hash", card["base"]),
            untrained=untrained,
            hashes_recorded=recorded,
        ),
    )


def _half_of(card: dict[str, Any]) -> Half | None:
    """How a model computed in training, if that was in float16."""
    kept = card.get("float32_modules")
    return None if kept is None else Half(torch.float16, tuple(kept))
