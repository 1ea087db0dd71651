"""A trained model on disk: the adapter, the whole projection, the processor's files, and a card.

The backbone is not copied: the card names it, with the hash of its weights, and a load that meets
another one fails.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from coltrain.model.adapter import add_lora, load_adapter_weights, read_adapter, save_adapter
from coltrain.model.build import DTYPES, BuiltModel, load_preparer
from coltrain.model.card import (
    CARD,
    FORMAT,
    PROJECTION_FILE,
    load_projection,
    read_card,
    refuse_other_base,
)
from coltrain.model.locate import locate_model
from coltrain.model.weights import PROJECTION, load_backbone
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
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    (folder / CARD).write_text(text, encoding="utf-8")


def load_model_folder(
    folder: Path, device: torch.device, dtype: torch.dtype | None = None
) -> BuiltModel:
    """Load what `save_model` wrote.

    Args:
        folder: The model's folder.
        device: Where the model goes.
        dtype: Type in which the weights are kept; None keeps the one of training. The backbone's
            are first rounded to what training rounded them to.

    Raises:
        ModelError: A file is missing or broken, the base cannot be had, or base or projection are
            not those that the adapter was trained with.
    """
    card = read_card(folder)
    rounded_to = DTYPES[card["backbone_rounded_to"]]
    loaded = load_backbone(
        locate_model(card["base"], card["base_revision"]),
        dim=card["projection_dim"],
        dtype=dtype or DTYPES[card["backbone_dtype"]],
        rounded_to=rounded_to,
        projection_std=1.0,  # replaced below by the saved one
        seed=0,
    )
    refuse_other_base(card, loaded.weights_hash, f"{folder}, base {card['base']}")
    model = loaded.model
    load_projection(model, folder, card, dtype)
    lora = None
    if (folder / "adapter_config.json").is_file():
        lora, tensors, _ = read_adapter(folder)
        add_lora(model, lora, seed=0)
        load_adapter_weights(model, tensors, str(folder))
    return BuiltModel(
        model.to(device),
        load_preparer(folder, Template(**card["template"]), card["max_visual_tokens"]),
        lora,
        card["base"],
        card["base_revision"],
        loaded.weights_hash,
        loaded.projection_from_file,
        rounded_to,
    )
