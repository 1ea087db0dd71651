"""For colpali-engine: an adapter over a base that has its projection, or one merged network.

An adapter names its base and does not hold the projection's own weights, and the engine draws
them anew where the base has none (a load report is all that it says). So an adapter is written
only over a base that has this projection: the one of training, if its files do, or a copy beside the
adapter.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch

from coltrain.model.build import BuiltModel
from coltrain.model.export.files import (
    name_of,
    write_card,
    write_json,
    write_network,
    write_processor,
)
from coltrain.model.export.merging import merged_tensors
from coltrain.model.folder import save_model
from coltrain.model.locate import TINY, locate_model
from coltrain.model.weights import load_backbone
from coltrain.recipe import template_named

BASE_FOLDER = "base"


def write_merged(built: BuiltModel, folder: Path, dtype: torch.dtype) -> list[str]:
    """A folder for `ColQwen2.from_pretrained`; `coltrain.load` takes the same one.

    Args:
        built: Kept in float32.
        folder: New or empty.
        dtype: Of the weights.

    Returns:
        What a user should know.
    """
    tensors = merged_tensors(built.model, dtype)
    write_network(built, folder, tensors, built.model.config, "ColQwen2")
    write_processor(built, folder, "Qwen2VLProcessor")
    write_card(built, folder, tensors)
    return [_template_note(built)]


def write_adapter(built: BuiltModel, folder: Path) -> list[str]:
    """An adapter in peft's format whose base has its projection; a folder of coltrain's as well.

    Args:
        built: As trained.
        folder: New or empty.

    Returns:
        What a user should know.
    """
    folder = folder.resolve()
    notes = [_template_note(built)]
    if is_on_hub(built.base) and _base_has_the_projection(built):
        name = built.base
        notes.append(f"the base is {name}, whose projection is the adapter's; it was not copied")
    elif built.base != TINY and _base_has_the_projection(built):
        name = str(locate_model(built.base).resolve())
        notes.append(f"the base is the folder {name}; the adapter cannot be used without it")
    else:
        name = str(folder / BASE_FOLDER)
        _write_base(built, folder / BASE_FOLDER)
        notes.append(
            f"the base stands in {BASE_FOLDER}/, since none elsewhere has the adapter's projection; "
            "where the folder is moved, base_model_name_or_path in adapter_config.json has to follow"
        )
    if built.rounded_to != torch.float32:
        notes.append(
            f"in training the base's weights were rounded to {name_of(built.rounded_to)}: load it "
            "in that type"
        )
    save_model(_over(built, name), folder)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    if built.base_revision is not None and name == built.base:
        config["revision"] = built.base_revision  # peft's name for the base's
    write_json(file, config)
    write_processor(built, folder, "Qwen2VLProcessor")
    return notes


def _over(built: BuiltModel, base: str) -> BuiltModel:
    """The same over a base of another name, whose tensors may have other hashes: types count."""
    if base == built.base:
        return built
    loaded = load_backbone(
        Path(base), dim=built.model.dim, dtype=torch.float32, projection_std=None, seed=0
    )
    return replace(
        built,
        base=base,
        base_revision=None,
        weights_hash=loaded.weights_hash,
        report=replace(built.report, hashes=loaded.found.hashes),
    )


def _base_has_the_projection(built: BuiltModel) -> bool:
    """Whether the base's own files hold the projection that the adapter was trained over."""
    if not built.projection_from_file:
        return False
    loaded = load_backbone(
        locate_model(built.base, built.base_revision),
        dim=built.model.dim,
        dtype=built.model.dtype,
        rounded_to=built.rounded_to,
        projection_std=None,
        seed=0,
    )
    projection = built.model.custom_text_proj
    ours = getattr(projection, "base_layer", projection)
    theirs = loaded.model.custom_text_proj
    return torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)


def _write_base(built: BuiltModel, folder: Path) -> None:
    """The base with the projection, in the type to which training rounded it."""
    folder.mkdir(parents=True)
    tensors = {
        name.replace(".base_layer.", "."): parameter.detach().to(built.rounded_to).contiguous()
        for name, parameter in built.model.named_parameters()
        if ".lora_A." not in name and ".lora_B." not in name
    }
    write_network(built, folder, tensors, built.model.config, "ColQwen2")
    write_processor(built, folder, "Qwen2VLProcessor")


def is_on_hub(base: str) -> bool:
    """Whether a base's name means the same on another machine."""
    return base != TINY and not Path(base).expanduser().is_dir()


def _template_note(built: BuiltModel) -> str:
    template = built.preparer.template
    if template == template_named("engine-0.3.13"):
        return "colpali-engine 0.3.13 and later render queries and pages as the model was trained"
    return (
        f"trained with template {template.name}, not the one of colpali-engine 0.3.13 and later: set "
        "processor.query_prefix and processor.visual_prompt_prefix as the model card says"
    )
