"""A model that other libraries wrote, or a merged one of ours, ready to encode with."""

from dataclasses import replace
from pathlib import Path

import torch

from coltrain.model.adapter import (
    Adapter,
    LoraSettings,
    add_lora,
    audit_adapter,
    fit_targets,
    load_adapter_weights,
    reaches_vision,
    read_adapter,
)
from coltrain.model.audit import Base, probe
from coltrain.model.base import check_base, locate_base
from coltrain.model.build import BuiltModel, load_preparer, report_of
from coltrain.model.start import without_projection
from coltrain.model.weights import (
    PROJECTION,
    Checkpoint,
    LoadedBackbone,
    load_backbone,
    refuse_other_tensors,
    take_dense,
)
from coltrain.recipe import Template


def load_published(
    checkpoint: Checkpoint,
    name: str,
    *,
    revision: str | None,
    base: str | None,
    template: Template,
    max_visual_tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    key_mapping: bool,
    allow_pickle: bool,
) -> BuiltModel:
    """Load a network, or an adapter over the base that it names, and encode a probe with it.

    Args:
        checkpoint: What `recognise` found.
        name: As the user named it.
        revision: Of a hub model.
        base: In place of the base that an adapter names.
        template: The strings around queries and pages.
        max_visual_tokens: Budget of a page.
        dtype: Type of all weights, the adapter's as well.
        device: Where it computes.
        key_mapping: False insists that every tensor has ColQwen2's own name.
        allow_pickle: Read pickled weights where there are no safetensors.

    Raises:
        ModelError: A tensor, a file or the base is not what it has to be, or the probe shows that
            the network does not do what a retriever does.
    """
    reading = {"key_mapping": key_mapping, "allow_pickle": allow_pickle}
    adapter, found_base, lora, untrained = None, None, None, []
    if checkpoint.adapter is None:
        # A network without a projection is refused: its embeddings would be a random one's.
        loaded = load_backbone(
            checkpoint.folder, dim=None, dtype=dtype, projection_std=None, seed=0, **reading
        )
        base_folder, recorded = checkpoint.folder, _compare_hashes(checkpoint.folder, loaded)
    else:
        adapter = read_adapter(checkpoint.adapter, **reading)
        untrained = audit_adapter(adapter, may_be_fresh=False)
        name = base or adapter.base
        revision = adapter.base_revision if base is None else None
        config = str(checkpoint.adapter / "adapter_config.json")
        base_folder = locate_base(name, revision, config)
        # Its projection is replaced where the adapter's folder has a whole one.
        std = 1.0 if checkpoint.dense is not None else None
        loaded = load_backbone(
            base_folder, dim=None, dtype=dtype, projection_std=std, seed=0, **reading
        )
        found_base = check_base(adapter, name, revision, base_folder, loaded.weights_hash)
        lora = _adapt(checkpoint, adapter, loaded, dtype, config, allow_pickle)
        recorded = False
    preparer = load_preparer(
        _processor_folder(checkpoint, base_folder), template, max_visual_tokens
    )
    report = report_of(
        checkpoint.layout,
        loaded,
        adapter=adapter,
        base=found_base,
        untrained=untrained,
        hashes_recorded=recorded,
        notes=_notes(checkpoint, adapter, found_base),
    )
    built = BuiltModel(
        loaded.model.to(device),
        preparer,
        lora,
        name,
        revision,
        loaded.weights_hash,
        loaded.projection_from_file,
        dtype,
        report,
    )
    return replace(built, report=replace(report, probe=probe(built.model, preparer, name)))


def _adapt(
    checkpoint: Checkpoint,
    adapter: Adapter,
    loaded: LoadedBackbone,
    dtype: torch.dtype,
    config: str,
    allow_pickle: bool,
) -> LoraSettings:
    settings = replace(fit_targets(loaded.model, adapter), dtype=dtype)
    tensors = adapter.tensors
    if checkpoint.dense is not None:
        take_dense(loaded, checkpoint.dense, dtype=dtype, allow_pickle=allow_pickle)
        tensors = without_projection(tensors)
        expression = f"(?!{PROJECTION})(?:{settings.target_modules})"
        settings = replace(settings, target_modules=expression)
    if reaches_vision(loaded.model, settings):
        # Nothing is dropped in use, and keyed dropout knows no patches.
        settings = replace(settings, dropout=0.0)
    add_lora(loaded.model, settings, seed=0, where=config)
    load_adapter_weights(loaded.model, tensors, str(adapter.file), adapter.keys)
    return settings


def _compare_hashes(folder: Path, loaded: LoadedBackbone) -> bool:
    files = ", ".join(str(file) for file in loaded.found.files)
    return refuse_other_tensors(folder, "model", loaded.found.hashes, files)


def _processor_folder(checkpoint: Checkpoint, base_folder: Path) -> Path:
    folder = checkpoint.network or checkpoint.adapter
    return folder if (folder / "tokenizer_config.json").is_file() else base_folder


def _notes(checkpoint: Checkpoint, adapter: Adapter | None, base: Base | None) -> list[str]:
    notes = []
    if base is not None and base.check == "not known":
        named = f"the adapter names {base.named}" if base.named else "the adapter names no base"
        notes.append(f"{named}; whether {base.name} has its weights is not known")
    if adapter is not None and checkpoint.dense is not None and PROJECTION in adapter.modules:
        notes.append(
            f"the adapter's layers over {PROJECTION} are not used: the Dense layer takes the place "
            "of the projection, as in sentence-transformers"
        )
    return notes
