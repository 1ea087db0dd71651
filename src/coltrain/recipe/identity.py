"""When are two recipes the same? Two hashes, and the list of what differs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from coltrain.recipe.schema import Recipe
from coltrain.recipe.template import FIRST_NAMES
from coltrain.recipe.writing import as_mapping

EXECUTION_ONLY = (
    "model.activation_checkpointing",
    "batch.chunk_size",
    "data.num_workers",
    "data.vision_cache.path",
    "data.vision_cache.max_gib",
    "data.page_cache",
    "checkpoint",
    "logging",
)
"""Keys and sections that change memory, time or what is kept, but not what is learnt."""

ADDED_LATER: dict[str, Any] = {
    "loss.padding": "masked",
    "loss.maxsim_kernel": "none",
    "precision.keep_float32": [],
    "data.vision_cache.path": None,
    "data.vision_cache.dtype": "exact",
    "data.vision_cache.max_gib": 32.0,
    "data.page_cache.path": None,
    "data.page_cache.max_gib": 32.0,
    "data.decoding": "exact",
}
"""Keys that the first recipes lack, with the value that they had in effect: the hash of a recipe
that has it still is the first one."""

DESCRIPTION_ONLY = ("name", "description", "sources")
"""Keys that tell people about a recipe."""


@dataclass(frozen=True)
class Difference:
    """One key in which two recipes differ."""

    path: str
    left: Any
    right: Any
    affects_result: bool


def affects_result(path: str) -> bool:
    """True if a change of this key can change what a run gives."""
    return not any(
        path == key or path.startswith(key + ".") for key in EXECUTION_ONLY + DESCRIPTION_ONLY
    )


def result_hash(recipe: Recipe) -> str:
    """The same for all recipes that must give the same result, whatever they run on.

    Chunks, workers, checkpoints, logging, names and sources are left out.
    """
    return _hash({path: value for path, value in _hashed(recipe).items() if affects_result(path)})


def full_hash(recipe: Recipe) -> str:
    """The same for equal recipes only."""
    return _hash(_hashed(recipe))


def difference(left: Recipe, right: Recipe) -> list[Difference]:
    """The keys in which two recipes differ, in the order of the schema.

    Name, description and sources are left out: they say nothing about the run.
    """
    left_values, right_values = _leaves(left), _leaves(right)
    return [
        Difference(path, value, right_values[path], affects_result(path))
        for path, value in left_values.items()
        if path not in DESCRIPTION_ONLY and value != right_values[path]
    ]


def _hashed(recipe: Recipe) -> dict[str, Any]:
    leaves = _leaves(recipe)
    name = recipe.model.template.name
    leaves |= {"model.template.name": FIRST_NAMES.get(name, name)}
    return {
        path: value
        for path, value in leaves.items()
        if path not in ADDED_LATER or value != ADDED_LATER[path]
    }


def _leaves(recipe: Recipe) -> dict[str, Any]:
    return dict(_flat(as_mapping(recipe), ""))


def _flat(values: dict[str, Any], prefix: str):
    for key, value in values.items():
        path = prefix + key
        if isinstance(value, dict) and path not in DESCRIPTION_ONLY:
            yield from _flat(value, path + ".")
        else:
            yield path, value


def _hash(values: dict[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:16]
