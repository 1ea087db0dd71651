"""What a model is, in numbers: what `coltrain inspect` prints."""

from collections import Counter
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import torch
from PIL import Image

from coltrain.model.adapter import adapter_tensors, lora_layers
from coltrain.model.audit import (
    LANGUAGE,
    PROBE_QUERIES,
    PROJECTION_PART,
    VISION,
    part_of,
    probe,
    probe_pages,
)
from coltrain.model.build import BuiltModel
from coltrain.model.weights import tensor_hashes

EMBEDDINGS, ADAPTER = "embeddings", "adapter"
# Pixels across and down.
PAGE_SIZES = {"Letter, 850 x 1100": (850, 1100), "A4 at 200 dpi, 1654 x 2339": (1654, 2339)}


def inspect(built: BuiltModel) -> dict[str, Any]:
    """Everything about a loaded model that decides its embeddings, as one JSON object.

    Costs the probe's forward passes where loading did not run them, and resizes two blank pages.

    Args:
        built: A model as `coltrain.load` gives it.

    Raises:
        ModelError: The probe fails.
    """
    report, preparer = built.report, built.preparer
    found = report.probe or probe(built.model, preparer, built.base)
    page = probe_pages()[1]
    inputs = preparer.collate_pages([preparer.prepare_page(page)])
    query_ids = preparer.query_ids(PROBE_QUERIES[0])
    return {
        "layout": report.layout,
        "names": report.names,
        "adapter_names": report.adapter_names,
        "base": None if report.base is None else asdict(report.base),
        "parameters": parameters(built),
        "dtypes": dtypes(built),
        "lora": lora(built),
        "template": preparer.template.model_dump(),
        "max_visual_tokens": preparer.max_visual_tokens,
        "visual_tokens": {name: visual_tokens(built, size) for name, size in PAGE_SIZES.items()},
        "positions": positions(built, inputs.position_ids),
        "probe_query": {
            "text": PROBE_QUERIES[0],
            "ids": query_ids,
            "tokens": preparer.tokenizer.convert_ids_to_tokens(query_ids),
        },
        "probe_page": {
            "pixels": list(page.size),
            "visual_tokens": int((inputs.input_ids == preparer.image_token_id).sum()),
            "ids": inputs.input_ids[0].tolist(),
        },
        "hashes": {
            "weights": built.weights_hash,
            "projection": built.projection_hash,
            "adapter": _whole(tensor_hashes(adapter_tensors(built.model))),
        },
        "audit": {**report.to_json(), "probe": asdict(found)},
    }


def parameters(built: BuiltModel) -> dict[str, int]:
    """Number of parameters by part; the adapter's are not counted in the part that it adapts."""
    counts = dict.fromkeys((VISION, LANGUAGE, EMBEDDINGS, PROJECTION_PART, ADAPTER), 0)
    for name, parameter in built.model.named_parameters():
        if ".lora_" in name:
            counts[ADAPTER] += parameter.numel()
        elif name.startswith("language_model.embed_tokens."):
            counts[EMBEDDINGS] += parameter.numel()
        else:
            counts[part_of(name)] += parameter.numel()
    return {**counts, "total": sum(counts.values())}


def dtypes(built: BuiltModel) -> dict[str, dict[str, int]]:
    """Number of tensors by type: as the files had them, and as they are now."""
    kept: dict[str, Counter[str]] = {"network": Counter(), ADAPTER: Counter()}
    for name, parameter in built.model.named_parameters():
        part = ADAPTER if ".lora_" in name else "network"
        kept[part][str(parameter.dtype).removeprefix("torch.")] += 1
    return {"files": built.report.file_types} | {part: dict(sum_) for part, sum_ in kept.items()}


def lora(built: BuiltModel) -> dict[str, Any] | None:
    """Rank, scale, and how many of the layers that ColQwen2 adapts are adapted."""
    if built.lora is None:
        return None
    coverage = built.report.coverage
    # Of the layers that the published recipe adapts: all but the vision tower's.
    num_layers = coverage[LANGUAGE][1] + coverage[PROJECTION_PART][1]
    num_adapted = coverage[LANGUAGE][0] + coverage[PROJECTION_PART][0]
    return {
        "r": built.lora.r,
        "alpha": built.lora.alpha,
        "dropout": built.lora.dropout,
        "target_modules": built.lora.target_modules,
        "coverage": f"{num_adapted} of {num_layers}",
        "adapted": len(lora_layers(built.model)),
        "by_part": {part: list(counts) for part, counts in coverage.items()},
    }


def visual_tokens(built: BuiltModel, size: tuple[int, int]) -> int:
    """Visual tokens of a page of so many pixels at the model's budget."""
    page = built.preparer.prepare_page(Image.new("RGB", size, "white"))
    return page.grid_height * page.grid_width // built.preparer.merge_size**2


def positions(built: BuiltModel, position_ids: torch.Tensor) -> dict[str, Any]:
    """Whether a page's tokens have places in height and width, as M-RoPE gives them."""
    time, height, width = position_ids[:, 0]
    text = built.model.config.text_config.rope_parameters
    return {
        "mrope": not (torch.equal(time, height) and torch.equal(time, width)),
        "mrope_section": list(text["mrope_section"]),
        "probe_page": position_ids[:, 0].tolist(),
    }


def _whole(hashes: dict[str, str]) -> str | None:
    if not hashes:
        return None
    lines = "".join(f"{name} {value}\n" for name, value in hashes.items())
    return sha256(lines.encode()).hexdigest()[:16]
