"""The model that a recipe trains: base, projection, adapter, template."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2VLImageProcessorPil

from coltrain.errors import ModelError
from coltrain.model.adapter import (
    LoraSettings,
    add_lora,
    load_adapter_weights,
    lora_layers,
    read_adapter,
)
from coltrain.model.card import is_model_folder, load_projection, read_card, refuse_other_base
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.inputs import IMAGE_TOKEN, Preparer
from coltrain.model.locate import locate_model
from coltrain.model.weights import load_backbone, projection_hash
from coltrain.recipe import Recipe, Template

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class BuiltModel:
    """A model ready to train or to encode, and where it comes from.

    Attributes:
        model: The network.
        preparer: Template, tokenizer and image processor.
        lora: The adapter's settings; None without an adapter.
        base: Name of the base, as given.
        base_revision: Its revision, if it was pinned.
        weights_hash: Of the base's files.
        projection_from_file: Whether the base brought its projection; otherwise it was drawn.
        rounded_to: Type to which the base's weights were rounded; they may be kept in a wider one.

    Raises:
        ModelError: Tokenizer and network do not agree on what stands for a visual token.
    """

    model: ColQwen2
    preparer: Preparer
    lora: LoraSettings | None
    base: str
    base_revision: str | None
    weights_hash: str
    projection_from_file: bool
    rounded_to: torch.dtype

    def __post_init__(self) -> None:
        received, expected = self.preparer.image_token_id, self.model.config.image_token_id
        if received != expected:
            raise ModelError(
                "tokenizer-does-not-fit",
                "the tokenizer is not that of this model.",
                where=self.base,
                received=f"{IMAGE_TOKEN} is token {received}",
                expected=f"token {expected}, as the model's config.json says",
            )

    @property
    def projection_hash(self) -> str:
        """Of the projection's own weights, without its adapter."""
        return projection_hash(self.model)


def build_for_training(recipe: Recipe, device: torch.device) -> BuiltModel:
    """Base, fresh adapter (or the one to start from), and what of it is trained.

    Raises:
        ModelError: Files are missing or do not fit; the projection is to come from a base that has
            none; the adapter to start from has another rank than the recipe, or another base.
    """
    projection = recipe.projection
    folder = locate_model(recipe.model.base, recipe.model.revision)
    rounded_to = DTYPES[recipe.model.dtype]
    loaded = load_backbone(
        folder,
        dim=projection.dim,
        dtype=_kept_in(recipe),
        rounded_to=rounded_to,
        projection_std=projection.std if projection.start == "normal" else None,
        seed=recipe.train.seed,
    )
    model = loaded.model
    start = None if recipe.model.start_from is None else _locate_start(recipe)
    if start is not None and is_model_folder(start):
        card = read_card(start)
        refuse_other_base(card, loaded.weights_hash, f"{start}, base {recipe.model.base}")
        load_projection(model, start, card, model.dtype)
    lora = LoraSettings(
        r=recipe.lora.r,
        alpha=recipe.lora.alpha,
        dropout=recipe.lora.dropout,
        target_modules=_target_modules(recipe),
        init=recipe.lora.init,
        dtype=DTYPES[recipe.lora.dtype],
    )
    add_lora(model, lora, recipe.train.seed)
    if start is not None:
        _start_from(model, start, lora)
    if projection.train == "full":
        for parameter in model.custom_text_proj.parameters():
            parameter.requires_grad_(True)
    if recipe.model.activation_checkpointing:
        model.checkpoint_activations()
    return BuiltModel(
        model.to(device),
        load_preparer(folder, recipe.model.template, recipe.model.max_visual_tokens),
        lora,
        recipe.model.base,
        recipe.model.revision,
        loaded.weights_hash,
        loaded.projection_from_file,
        rounded_to,
    )


def _kept_in(recipe: Recipe) -> torch.dtype:
    """The type of the weights in memory, rounded to `model.dtype` all the same.

    It is the one that the step computes in: float32 for float32, and bfloat16 for bfloat16, which
    no operation mixes with float16. Wider weights stay, and autocast computes on them.
    """
    compute = DTYPES[recipe.precision.compute]
    if compute == torch.bfloat16 and recipe.model.dtype == "float32":
        return torch.float32
    return compute


def _target_modules(recipe: Recipe) -> str:
    """The recipe's expression; without the projection where LoRA does not train it."""
    if recipe.projection.train == "lora":
        return recipe.lora.target_modules
    return f"(?!.*custom_text_proj)(?:{recipe.lora.target_modules})"


def _locate_start(recipe: Recipe) -> Path:
    folder = locate_model(recipe.model.start_from, recipe.model.start_from_revision)
    return folder / "model" if (folder / "model").is_dir() else folder


def _start_from(model: ColQwen2, folder: Path, lora: LoraSettings) -> None:
    settings, tensors, _ = read_adapter(folder)
    if (settings.r, settings.alpha) != (lora.r, lora.alpha):
        raise ModelError(
            "start-from-other-rank",
            "the adapter to start from has another rank or scale than the recipe.",
            where=f"model.start_from = {folder}",
            received=f"r={settings.r}, alpha={settings.alpha}",
            expected=f"r={lora.r}, alpha={lora.alpha}",
            suggestion=f"lora.r={settings.r} lora.alpha={settings.alpha}",
        )
    load_adapter_weights(model, tensors, str(folder))


def load_preparer(folder: Path, template: Template, max_visual_tokens: int) -> Preparer:
    """The tokenizer and image processor of a model's folder, with a template and a budget.

    Raises:
        ModelError: The folder has none, or none that can be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        image_processor = Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            "no-processor",
            "the model's folder has no tokenizer or image processor that can be read.",
            where=str(folder),
            received=str(error).splitlines()[0],
            expected="tokenizer.json, tokenizer_config.json, preprocessor_config.json",
        ) from error
    return Preparer(tokenizer, image_processor, template, max_visual_tokens)


def adapted_modules(built: BuiltModel) -> list[str]:
    """Names of the modules that LoRA adapts."""
    return list(lora_layers(built.model))
