"""The runs of a study: every cell with every seed, each known by its recipe and its data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from coltrain.data.sources import load_collection
from coltrain.recipe import Recipe, Source, result_hash
from coltrain.reproduction.study.design import (
    Cell,
    cells,
    check_recipes,
    evaluation_sources,
    recipe_of,
)
from coltrain.reproduction.study.schema import Study


@dataclass(frozen=True)
class PlannedRun:
    """One training run and its evaluation.

    Attributes:
        training: Of recipe and training data: the name of its folder, the same in every study.
        identity: Of these and the evaluation data.
        cell: Whose run it is.
        seed: Its seed.
        recipe: What is trained.
    """

    training: str
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
        evaluation: What they are measured on.
        data: Fingerprint of each data set, by what recipes call it.
    """

    study: Study
    runs: tuple[PlannedRun, ...]
    evaluation: tuple[Source, ...]
    data: dict[str, str]


def make_plan(study: Study) -> Plan:
    """Check every recipe of a study, look at its data, and list its runs.

    Raises:
        UsageError: A cell is not valid, two are alike, or there is nothing to measure on.
        RecipeError: The base recipe is not valid.
        DataError: A data set cannot be read.
    """
    recipes = check_recipes(study)
    evaluation = evaluation_sources(study)
    known = _fingerprints(
        [
            *((source, "train") for recipe in recipes.values() for source in recipe.data.train),
            *((source, "test") for source in evaluation),
        ]
    )
    measured = _digest([known[_named(source, "test")] for source in evaluation])[:8]
    runs = []
    for seed in study.seed_numbers:
        for cell in cells(study):
            recipe = recipe_of(study, cell, seed)
            read = [known[_named(source, "train")] for source in recipe.data.train]
            training = _digest([result_hash(recipe), *read])
            runs.append(PlannedRun(training, f"{training}-{measured}", cell, seed, recipe))
    return Plan(study, tuple(runs), evaluation, known)


def _named(source: Source, split: str) -> str:
    return f"{source.path}, {source.split or split}, {_digest([source.model_dump_json()])[:4]}"


def _fingerprints(data: Iterable[tuple[Source, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for source, split in data:
        name = _named(source, split)
        if name not in found:
            found[name] = str(load_collection(source, split).fingerprint()["hash"])
    return found


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:16]
