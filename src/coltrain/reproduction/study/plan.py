"""The runs of a study: every cell with every seed, each known by its recipe and its data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from coltrain.data.sources import load_collection
from coltrain.recipe import Recipe, Source, result_hash
from coltrain.reproduction.study.design import Cell, cells, check_recipes, recipe_of
from coltrain.reproduction.study.schema import Study


@dataclass(frozen=True)
class PlannedRun:
    """One training run.

    Attributes:
        identity: Of recipe and data: the name of its folder, the same in every study.
        cell: Whose run it is.
        seed: Its seed.
        recipe: What it does.
    """

    identity: str
    cell: Cell
    seed: int
    recipe: Recipe

    def __str__(self) -> str:
        return f"{self.cell}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A study with its runs.

    Attributes:
        study: The study.
        runs: In the order in which they are worked on: all cells of the first seed come first, so
            that a study which is cut short has whole repetitions.
        data: Fingerprint of each data set, by what recipes call it.
    """

    study: Study
    runs: tuple[PlannedRun, ...]
    data: dict[str, str]


def make_plan(study: Study) -> Plan:
    """Check every recipe of a study, look at its data, and list its runs.

    Raises:
        UsageError: A cell is not valid, or two are alike.
        RecipeError: The base recipe is not valid.
        DataError: A data set cannot be read.
    """
    recipes = check_recipes(study)
    data = _fingerprints(recipes.values())
    runs = []
    for seed in study.seed_numbers:
        for cell in cells(study):
            recipe = recipe_of(study, cell, seed)
            used = "".join(data[_named(kind, source)] for kind, source in _sources(recipe))
            digest = hashlib.sha256((result_hash(recipe) + used).encode()).hexdigest()[:16]
            runs.append(PlannedRun(digest, cell, seed, recipe))
    return Plan(study, tuple(runs), data)


def _sources(recipe: Recipe) -> list[tuple[str, Source]]:
    return [("train", source) for source in recipe.data.train] + [
        ("test", source) for source in recipe.eval.data
    ]


def _named(split: str, source: Source) -> str:
    return f"{source.model_dump_json(exclude_defaults=True)}, {split}"


def _fingerprints(recipes: Iterable[Recipe]) -> dict[str, str]:
    found: dict[str, str] = {}
    for recipe in recipes:
        for split, source in _sources(recipe):
            name = _named(split, source)
            if name not in found:
                found[name] = str(load_collection(source, split).fingerprint()["hash"])
    return found
