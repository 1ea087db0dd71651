"""Visual tokens that the runs of a study share: computed once for each page, whoever wants it first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from coltrain.model.retriever import Retriever
from coltrain.model.vision_cache import FeatureStore, VisionFeatures, vision_identity
from coltrain.recipe import Recipe, as_mapping, recipe_from_mapping

FOLDER = "features"


def with_shared_features(recipe: Recipe, folder: Path) -> Recipe:
    """A run's recipe with the study's cache of visual tokens, where it names none of its own.

    Where they lie and how much may be kept moves no result, so the run stays the same run.
    """
    if recipe.data.vision_cache.path is not None:
        return recipe
    mapping = as_mapping(recipe)
    mapping["data"]["vision_cache"]["path"] = str(folder / FOLDER)
    return recipe_from_mapping(mapping)


def measuring_features(retriever: Retriever, folder: Path, max_gib: float) -> VisionFeatures:
    """The same cache for the evaluation of a run, in the type that its weights have.

    A tower with an adapter on it has an identity of its own, and shares with nobody.
    """
    model = retriever.built.model.requires_grad_(False)
    dtype: torch.dtype = model.visual.dtype
    identity = vision_identity(model, retriever.built.preparer, dtype, dtype)
    return VisionFeatures(model, FeatureStore(folder / FOLDER, identity, max_gib))


def shared_features(folder: Path) -> dict[str, Any] | None:
    """What the runs of a study took from one another, from what each recorded; None where nothing.

    Returns:
        `runs` with a cache, `pages_found` there and `pages_computed`, each time one was wanted.
    """
    counts = []
    for file in sorted((folder / "runs").glob("*/run.json")):
        try:
            recorded = json.loads(file.read_text(encoding="utf-8")).get("vision_cache")
        except (OSError, ValueError, AttributeError):
            continue  # a run under way, which says it at its end
        if recorded:
            counts.append(recorded)
    if not counts:
        return None
    return {
        "runs": len(counts),
        "pages_found": sum(one["hits"] for one in counts),
        "pages_computed": sum(one["misses"] for one in counts),
    }
