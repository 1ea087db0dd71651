"""A recipe by name or from a file, with overrides, checked at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from coltrain.errors import RecipeError
from coltrain.recipe.dialect import read_document
from coltrain.recipe.mistakes import Mistake, mistakes_of, recipe_error
from coltrain.recipe.overrides import apply_overrides, parse_overrides
from coltrain.recipe.schema import Recipe
from coltrain.recipe.wording import listed, nearest, nearest_ones

_SUFFIXES = (".yaml", ".yml")


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe that ships with the package, or one of your own.

    Args:
        name_or_path: A name from `shipped_names()`, or a file: something with a `/` in it or with
            the ending .yaml or .yml.
        overrides: `key.path=value`, the value as YAML.

    Raises:
        RecipeError: Says every mistake at once, each with its key, what came and what was expected.

    Example:
        >>> load_recipe("tiny", ["train.steps=30"]).train.steps
        30
    """
    text = _published(name_or_path)
    if text is None:
        text = _file(Path(name_or_path).expanduser(), label=str(name_or_path))
    return recipe_from_yaml(text, str(name_or_path), overrides)


def recipe_from_yaml(text: str, label: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from the text of a file.

    Args:
        text: YAML.
        label: What error messages call it.
        overrides: As for `load_recipe`.

    Raises:
        RecipeError: As `load_recipe`.
    """
    document = read_document(text, label)
    given, unreadable = parse_overrides(overrides)
    values, misplaced = apply_overrides(document.values, given)
    recipe, found = _check(values)
    mistakes = [*unreadable, *misplaced, *found]
    if recipe is None or mistakes:
        paths = [override.path for override in given]
        raise recipe_error(mistakes, label, document.lines, paths)
    return recipe


def recipe_from_mapping(values: Mapping[str, Any], label: str = "recipe") -> Recipe:
    """Check values that are already a mapping, such as the recipe in a run's run.json.

    Args:
        values: Sections and their keys.
        label: What error messages call it.

    Raises:
        RecipeError: As `load_recipe`.
    """
    recipe, mistakes = _check(values)
    if recipe is None:
        raise recipe_error(mistakes, label)
    return recipe


def _check(values: Mapping[str, Any]) -> tuple[Recipe | None, list[Mistake]]:
    try:
        return Recipe.model_validate(dict(values)), []
    except ValidationError as error:
        return None, mistakes_of(error)


def shipped_names() -> list[str]:
    """Names of the recipes that ship with the package, in alphabetical order."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in _folder().iterdir()
        if entry.name.endswith(".yaml")
    )


def _folder():
    return resources.files("coltrain.recipe") / "published"


def _published(name: str | Path) -> str | None:
    """The text of a shipped recipe, or None when the argument is a path."""
    if isinstance(name, Path) or "/" in name or "\\" in name or name.endswith(_SUFFIXES):
        return None
    names = shipped_names()
    if name not in names:
        raise _unknown(name, names)
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def _unknown(name: str, names: list[str]) -> RecipeError:
    own = [f"./{name}{suffix}" for suffix in _SUFFIXES if Path(name + suffix).is_file()]
    close = own or nearest_ones(name, names, cutoff=0.4)
    return RecipeError(
        "unknown-recipe",
        "no recipe of this name ships with the package.",
        received=name or "an empty name",
        expected=f"{listed(names)}, or the path of a .yaml file",
        suggestion=listed(close) if close else None,
    )


def _file(path: Path, label: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(
            "broken-yaml",
            "the file is not text in UTF-8.",
            where=label,
            received=f"the byte {error.object[error.start]:#04x} at position {error.start}",
            expected="a YAML file",
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecipeError(
            "unknown-recipe",
            "the recipe file cannot be read.",
            received=f"{label} ({reason})",
            expected="the path of a .yaml file, or the name of a recipe that ships with the package",
            suggestion=_near_file(path),
        ) from None


def _near_file(path: Path) -> str | None:
    names = shipped_names()
    if path.stem in names:
        return path.stem
    if path.is_dir():
        inside = sorted(entry for entry in path.iterdir() if entry.suffix in _SUFFIXES)
        return str(inside[0]) if inside else None
    if path.parent.is_dir():
        files = [entry.name for entry in path.parent.iterdir() if entry.suffix in _SUFFIXES]
        close = nearest(path.name, files)
        if close:
            return str(path.parent / close)
    return nearest(path.stem, names)
