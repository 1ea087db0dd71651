"""Which levels go together, and the checked recipe of each combination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from coltrain.errors import RecipeError, UsageError
from coltrain.recipe import Recipe, Source, load_recipe, result_hash
from coltrain.recipe.dialect import write_value
from coltrain.recipe.wording import listed
from coltrain.reproduction.study.schema import Settings, Study


@dataclass(frozen=True)
class Cell:
    """A level of every factor.

    Attributes:
        levels: Pairs of factor and level, in the order of the study.
    """

    levels: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, levels: dict[str, str]) -> Cell:
        """The cell of a mapping from factors to levels."""
        return cls(tuple(levels.items()))

    def with_level(self, factor: str, level: str) -> Cell:
        """The same with another level of one factor."""
        return Cell(tuple((name, level if name == factor else own) for name, own in self.levels))

    def level(self, factor: str) -> str:
        """The level of a factor."""
        return dict(self.levels)[factor]

    def __str__(self) -> str:
        return ", ".join(f"{factor} = {level}" for factor, level in self.levels)


def ends(study: Study) -> tuple[Cell, Cell]:
    """The cells between which the gap lies."""
    return Cell.of(study.ends["from"]), Cell.of(study.ends["to"])


def cells(study: Study) -> list[Cell]:
    """The cells of the study's design: both ends first, then the others in a fixed order."""
    first, last = ends(study)
    if study.design == "full":
        names = list(study.factors)
        others = [
            Cell(tuple(zip(names, levels, strict=True)))
            for levels in product(*(study.factors[name] for name in names))
        ]
    else:
        others = [
            end.with_level(factor, level)
            for name, end in (("from", first), ("to", last))
            if study.around in (name, "both")
            for factor, levels in study.factors.items()
            for level in levels
        ]
    return list(dict.fromkeys([first, last, *others]))


def recipe_of(study: Study, cell: Cell, seed: int) -> Recipe:
    """The recipe of a run.

    Raises:
        UsageError: `[study-cell-invalid]`: the cell is no valid recipe; factor, level and cell named.
        RecipeError: The base recipe itself, or what the study sets in every cell, is not valid.
    """
    try:
        return _load(study, [study.factors[factor][level] for factor, level in cell.levels], seed)
    except RecipeError as error:
        _load(study, [], seed)  # a mistake of the base recipe is none of a cell
        raise _invalid_cell(study, cell, seed, error) from None


def evaluation_sources(study: Study) -> tuple[Source, ...]:
    """What every cell is measured on.

    Raises:
        UsageError: `[nothing-to-measure]`
        RecipeError: A source cannot be used.
    """
    given = study.evaluation.data
    overrides = [] if given is None else [f"eval.data={write_value(given)}"]
    sources = load_recipe(study.base, overrides).eval.data
    if not sources:
        raise UsageError(
            "nothing-to-measure",
            "the study has no data to measure its cells on.",
            where=f"{study.name}: evaluation.data",
            received="none, and the base recipe evaluates nothing",
            expected="data sets, such as [vidore/docvqa_test_subsampled_beir] or [./pages]",
        )
    return sources


def check_recipes(study: Study) -> dict[Cell, Recipe]:
    """The recipe of every cell with the first seed: all of them are valid, no two are the same.

    Raises:
        UsageError: `[study-cell-invalid]`; `[levels-alike]` where two cells are one run.
        RecipeError: As `recipe_of`.
    """
    recipes: dict[Cell, Recipe] = {}
    owners: dict[str, Cell] = {}
    for cell in cells(study):
        recipe = recipes[cell] = recipe_of(study, cell, study.seed_numbers[0])
        other = owners.setdefault(result_hash(recipe), cell)
        if other != cell:
            differing = [
                f"{factor}: {level} and {other.level(factor)}"
                for factor, level in cell.levels
                if other.level(factor) != level
            ]
            raise UsageError(
                "levels-alike",
                "two cells of the study are the same run, so nothing can differ between them.",
                where=study.name,
                received=listed(differing, "and"),
                expected="levels that set something that can move a result",
                suggestion="levels with other values, or without this factor",
            )
    return recipes


def _load(study: Study, levels: Sequence[Settings], seed: int) -> Recipe:
    return load_recipe(study.base, list(_overrides(study, levels, seed)))


def _overrides(study: Study, levels: Sequence[Settings], seed: int) -> Iterator[str]:
    settings: Settings = dict(study.overrides)
    settings["eval.data"] = []  # measured once, when it is trained: see measuring.py
    settings["train.seed"] = seed
    for level in levels:
        # A level's length takes the place of the other kind of length that all cells have.
        for mine, other in (("train.steps", "train.epochs"), ("train.epochs", "train.steps")):
            if mine in level and other not in level:
                settings.pop(other, None)
        settings.update(level)
    for key, value in settings.items():
        yield f"{key}={write_value(value)}"


def _invalid_cell(study: Study, cell: Cell, seed: int, error: RecipeError) -> UsageError:
    """Name the level that is at fault by itself; else the levels clash with one another."""
    for factor, level in cell.levels:
        try:
            _load(study, [study.factors[factor][level]], seed)
        except RecipeError as alone:
            place = f"factor {factor}, level {level}; in the cell {cell}"
            return _invalid(study, place, alone)
    return _invalid(study, f"the levels together, in the cell {cell}", error)


def _invalid(study: Study, place: str, error: RecipeError) -> UsageError:
    received = error.received if error.received and error.where else error.message
    where = f" ({error.where.rpartition(': ')[2]})" if error.where else ""
    return UsageError(
        "study-cell-invalid",
        "a level of the study does not go with the recipe.",
        where=f"{study.name}: {place}",
        received=f"{received}{where}",
        expected=error.expected,
        suggestion=error.suggestion,
    )
