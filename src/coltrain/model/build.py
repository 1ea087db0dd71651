"""The model that a recipe trains: base, projection, adapter, template."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2VLImageProcessorPil

from coltrain.errors import ModelError
from coltrain.model.adapter import Adapter, LoraSettings, add_lora, lora_layers
from coltrain.model.audit import Base, LoadReport, coverage, file_types
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.files import PROCESSOR_FILES, broken_file, read_json
from coltrain.model.half import Half, compute_in_half
from coltrain.model.inputs import IMAGE_TOKEN, Preparer
from coltrain.model.locate import locate_model
from coltrain.model.start import StartedFrom, open_start
from coltrain.model.varlen import attend_by_lengths
from coltrain.model.weights import (
    Layout,
    LoadedBackbone,
    load_backbone,
    projection_hash,
    recognise,
)
from coltrain.model.weights.files import unread_files
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
        report: What loading found.
        started_from: What training goes on from; None where its adapter is fresh, or none.

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
    report: LoadReport
    started_from: StartedFrom | None = None

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


def build_for_training(
    recipe: Recipe, device: torch.device, keep_float32: Sequence[str] | None = None
) -> BuiltModel:
    """Base, fresh adapter (or the one to start from), and what of it is trained.

    Args:
        recipe: What to build; its precision is settled, not `auto`.
        device: Where it goes.
        keep_float32: Modules that a float16 model keeps in float32, where the recipe leaves it to
            be found out; None takes the recipe's list.

    Raises:
        ModelError: Files are missing or do not fit; the projection is to come from a base that has
            none; the adapter to start from has another rank than the recipe, or another base.
    """
    projection = recipe.projection
    folder = locate_model(recipe.model.base, recipe.model.revision)
    half = half_of(recipe, keep_float32)
    rounded_to = DTYPES[recipe.model.dtype]
    loaded = load_backbone(
        folder,
        dim=projection.dim,
        dtype=_kept_in(recipe),
        rounded_to=rounded_to,
        projection_std=projection.std if projection.start == "normal" else None,
        seed=recipe.train.seed,
        half=half,
    )
    model = loaded.model
    start = None if recipe.model.start_from is None else open_start(recipe, loaded, rounded_to)
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
        start.fill(model, lora)
    if projection.train == "full":
        for parameter in model.custom_text_proj.parameters():
            parameter.requires_grad_(True)
    if half is not None:
        compute_in_half(model, half.dtype, loaded.kept)
    if recipe.model.attention == "varlen":
        attend_by_lengths(model)
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
        report_of(
            recognise(folder).layout,
            loaded,
            adapter=None if start is None else start.adapter,
            base=None if start is None else start.base,
        ),
        None if start is None else start.record(recipe),
    )


def half_of(recipe: Recipe, keep_float32: Sequence[str] | None = None) -> Half | None:
    """How a recipe's network computes in float16; None in any other precision.

    bfloat16 has the range of float32, and needs no exceptions.
    """
    if recipe.precision.compute != "float16":
        return None
    asked = recipe.precision.keep_float32
    if keep_float32 is None:
        assert asked != "auto", "to be found out before"
        keep_float32 = asked
    return Half(torch.float16, tuple(keep_float32))


def _kept_in(recipe: Recipe) -> torch.dtype:
    """The type of the weights in memory, rounded to `model.dtype` all the same.

    It is the one that the step computes in: float32 for float32, and bfloat16 for bfloat16, which
    no operation mixes with float16. Wider weights stay, and autocast computes on them.
    """
    assert recipe.precision.compute != "auto", "to be settled before"
    compute = DTYPES[recipe.precision.compute]
    if compute == torch.bfloat16 and recipe.model.dtype == "float32":
        return torch.float32
    return compute


def _target_modules(recipe: Recipe) -> str:
    """The recipe's expression; without the projection where LoRA does not train it."""
    if recipe.projection.train == "lora":
        return recipe.lora.target_modules
    return f"(?!.*custom_text_proj)(?:{recipe.lora.target_modules})"


def report_of(
    layout: Layout,
    loaded: LoadedBackbone,
    *,
    adapter: Adapter | None = None,
    base: Base | None = None,
    untrained: list[str] | None = None,
    hashes_recorded: bool = False,
    notes: list[str] | None = None,
) -> LoadReport:
    """What was found while a network and its adapter were read, put together."""
    if layout is Layout.QWEN2_VL and loaded.projection_from_file:
        layout = Layout.COLQWEN2
    found = loaded.found
    files, unread = list(found.files), list(found.unread)
    if adapter is not None:
        files.append(adapter.file)
        unread += unread_files(adapter.file.parent, files)
    return LoadReport(
        layout=layout.value,
        names=found.names,
        adapter_names=None if adapter is None else adapter.names.name,
        files=[file.name for file in files],
        unread=unread,
        num_tensors=sum(found.types.values()),
        file_types=file_types(found.types, {} if adapter is None else adapter.tensors),
        created=dict(found.created),
        left_out=list(found.left_out),
        constant=list(found.constant),
        untrained=untrained or [],
        coverage=coverage(loaded.model),
        base=base,
        hashes_recorded=hashes_recorded,
        hashes=dict(found.hashes),
        notes=notes or [],
    )


def load_preparer(folder: Path, template: Template, max_visual_tokens: int) -> Preparer:
    """The tokenizer and image processor of a model's folder, with a template and a budget.

    Raises:
        ModelError: The folder has none, or none that can be read.
    """
    for name in PROCESSOR_FILES:
        if (folder / name).is_file():
            read_json(folder / name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises nothing narrower
        raise _no_processor(folder, error, "tokenizer.json, tokenizer_config.json") from error
    try:
        image_processor = Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise _no_processor(folder, error, "preprocessor_config.json") from error
    _refuse_other_patches(folder, image_processor)
    return Preparer(tokenizer, image_processor, template, max_visual_tokens)


def _refuse_other_patches(folder: Path, processor: Qwen2VLImageProcessorPil) -> None:
    """A visual token is 28 × 28 pixels of Qwen2-VL: another patch fits neither weights nor budget."""
    for key, wanted in (("patch_size", 14), ("merge_size", 2), ("temporal_patch_size", 2)):
        if (found := getattr(processor, key)) != wanted:
            file = folder / "preprocessor_config.json"
            raise broken_file(file, f"{key} {found}", f"{wanted}, as Qwen2-VL has it")


def _no_processor(folder: Path, error: Exception, expected: str) -> ModelError:
    known = isinstance(error, OSError | ValueError)  # these say what is wrong, others only where
    text = (str(error).splitlines() or [""])[0]
    return ModelError(
        "no-processor",
        "the model's folder has no tokenizer or image processor that can be read.",
        where=str(folder),
        received=text if known and text else f"{type(error).__name__}: {text}",
        expected=f"{expected}, as transformers writes them",
        suggestion="copy them from the base, or download them again",
    )


def adapted_modules(built: BuiltModel) -> list[str]:
    """Names of the modules that LoRA adapts."""
    return list(lora_layers(built.model))
