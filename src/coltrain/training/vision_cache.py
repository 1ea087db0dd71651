"""The cache of visual tokens that a recipe asks for, and what a person should know about it."""

import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from coltrain.data.collection import Collection
from coltrain.errors import RunError
from coltrain.model.vision_cache import (
    DTYPES,
    GIB,
    Counts,
    FeatureStore,
    PageLookup,
    VisionFeatures,
    default_folder,
    size_of,
    vision_identity,
)
from coltrain.training.host_memory import mean_page
from coltrain.training.ranks import Ranks
from coltrain.training.setup import Setup


def open_vision_cache(
    setup: Setup, earlier: Mapping[str, Any] | None = None
) -> VisionFeatures | None:
    """The cache of a run; None where the recipe names none.

    Args:
        setup: The run's.
        earlier: What run.json says of it, of a run that goes on.

    Raises:
        RunError: [vision-cache-of-a-trained-tower]
        ModelError: [cannot-write-vision-cache]
    """
    settings, model = setup.recipe.data.vision_cache, setup.built.model
    if settings.path is None:
        return None
    if not model.vision_is_frozen:
        raise RunError(
            "vision-cache-of-a-trained-tower",
            "the vision tower is trained, so a page's visual tokens change with every step.",
            where="data.vision_cache.path, lora.target_modules",
            received=f"{_first_trained(model)} is trained",
            expected="a vision tower without trained weights, as in the published recipes",
            suggestion="data.vision_cache.path=null",
        )
    computed_in = _computed_in(setup)
    stored_as = computed_in if settings.dtype == "exact" else DTYPES[settings.dtype]
    decoding = setup.recipe.data.decoding
    identity = vision_identity(model, setup.built.preparer, computed_in, stored_as, decoding)
    folder = default_folder() if settings.path == "auto" else Path(settings.path).expanduser()
    names = [field.name for field in fields(Counts)]
    # What all ranks counted before is one's to go on with, or it would count once for each.
    goes_on = earlier is not None and setup.ranks.is_first
    counts = Counts(**{name: earlier[name] for name in names}) if goes_on else None
    store = FeatureStore(folder, identity, settings.max_gib)
    return VisionFeatures(model, store, counts, setup.compute_context)


def hear_of_other_ranks(vision: VisionFeatures | None, ranks: Ranks) -> None:
    """Learn what the cache did on the other ranks: one exchange, where there are a cache and ranks.

    Not in each step: after an evaluation, and at the end. A run that ends because a rank is gone
    records what was heard last.
    """
    if vision is None or not ranks.are_many:
        return
    of_ranks = ranks.exchange_objects(vision.counts)
    del of_ranks[ranks.rank]
    vision.elsewhere = sum(of_ranks, Counts())


def lookup_of(setup: Setup, vision: VisionFeatures | None, data: Collection) -> PageLookup | None:
    """Reads a data set's pages by way of the cache; None without one."""
    return None if vision is None else PageLookup(vision.store, data, setup.built.preparer)


def serves_evaluations(vision: VisionFeatures | None, decoding: str) -> bool:
    """Whether an evaluation may take visual tokens from the cache.

    Never where they are rounded, or of pages that are decoded otherwise than an evaluation's.
    """
    return vision is not None and vision.is_exact and decoding == "exact"


def room_notice(setup: Setup, vision: VisionFeatures) -> str | None:
    """A word where not all visual tokens of a run will find room; None where they will.

    The mean of a few pages is taken for that of all, and pages that are there already count as to
    be added.
    """
    collections = [setup.collection]
    if serves_evaluations(vision, setup.recipe.data.decoding):
        collections += setup.eval_data
    needed = sum(_needed(setup, vision, data) for data in collections)
    used = size_of(vision.store.home)
    limit = vision.store.max_bytes - used
    free = shutil.disk_usage(vision.store.home).free
    missing = needed - len(vision.store) * needed // max(1, sum(map(_num_pages, collections)))
    if missing <= min(limit, free):
        return None
    return (
        f"the cache of visual tokens has no room for all pages: about {missing / GIB:.3g} GiB are "
        f"to be added, {max(0, limit) / GIB:.3g} GiB are left of data.vision_cache.max_gib = "
        f"{vision.store.max_bytes / GIB:.3g}, {free / GIB:.3g} GiB on the disk; pages without room "
        "pass the vision tower in every epoch"
    )


FULL = (
    "the cache of visual tokens is full: what it holds is used, and the other pages pass the vision "
    "tower in every epoch"
)


def _num_pages(data: Collection) -> int:
    return len({row.page for row in data.rows}) or len(data.page_ids)


def _needed(setup: Setup, vision: VisionFeatures, data: Collection) -> int:
    tokens = mean_page(data, setup.built.preparer).visual_tokens
    width = setup.built.model.custom_text_proj.in_features
    return _num_pages(data) * tokens * width * vision.store.dtype.itemsize


def _computed_in(setup: Setup) -> torch.dtype:
    """The type of visual tokens in this run: what the tower gives for the smallest page."""
    model = setup.built.model
    grid = torch.tensor([[1, 2, 2]], device=model.device)
    config = model.visual.config
    size = config.in_channels * config.temporal_patch_size * config.patch_size**2
    patches = torch.zeros(4, size, device=model.device)
    context = setup.compute_context()
    with torch.no_grad():
        if context is None:
            return model.encode_vision(patches, grid).dtype
        with context:
            return model.encode_vision(patches, grid).dtype


def _first_trained(model: torch.nn.Module) -> str:
    return next(name for name, one in model.visual.named_parameters() if one.requires_grad)
