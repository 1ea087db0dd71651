"""A study between two recipes: what they differ in becomes its factors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coltrain.errors import UsageError
from coltrain.recipe import load_recipe, shipped_names
from coltrain.recipe.identity import Difference, difference
from coltrain.recipe.wording import listed, shown
from coltrain.reproduction.study.schema import NOT_A_FACTOR

_TOGETHER = {
    "template": ("model.template",),
    "length": ("train.steps", "train.epochs"),
}
"""Keys that make one factor, where they differ: one says nothing without the other."""


def spelled_out(values: dict[str, Any], label: str) -> dict[str, Any]:
    """The mapping of a study whose ends are two recipes, as one with a base, factors and levels.

    Each key that can move a result and in which the recipes differ is a factor of its own name.
    `factors` may put keys together: a name, and a list of keys or sections.

    Args:
        values: What the file holds; returned as it is where `from` and `to` name levels.
        label: What error messages call the file, which recipes may lie beside.

    Raises:
        UsageError: `[invalid-study]`
        RecipeError: One of the two is no recipe, or is wrong.
    """
    ends = values.get("from"), values.get("to")
    if not any(isinstance(end, str) for end in ends):
        return values
    if not all(isinstance(end, str) for end in ends):
        raise _mistake(label, "from and to", "a recipe, and not another", "two recipes")
    if "base" in values:
        raise _mistake(label, "base", shown(values["base"]), "nothing: `from` is the base")
    start, end = (_beside(str(name), label) for name in ends)
    found = [
        one
        for one in difference(load_recipe(start), load_recipe(end))
        if one.affects_result and not _is_no_factor(one.path)
    ]
    if not found:
        raise _mistake(
            label, "from and to", f"{start} and {end}", "two recipes that differ in what they train"
        )
    groups = {**_groups(values.get("factors"), found, label)}
    names = (Path(start).stem, Path(end).stem)
    if names[0] == names[1]:
        names = ("start", "end")
    rest = {key: inner for key, inner in values.items() if key not in ("from", "to", "factors")}
    return {
        **rest,
        "base": start,
        "factors": {name: _levels(keys, names) for name, keys in groups.items()},
    }


def _is_no_factor(path: str) -> bool:
    return path in NOT_A_FACTOR or path.partition(".")[0] in NOT_A_FACTOR


def _groups(asked: Any, found: list[Difference], label: str) -> dict[str, list[Difference]]:
    """Factors by name: those that the file puts together, the usual ones, each other key alone."""
    if asked is not None and not isinstance(asked, dict):
        raise _mistake(label, "factors", shown(asked), "names, each with a list of keys")
    left = list(found)
    groups: dict[str, list[Difference]] = {}
    for name, keys in {**(asked or {}), **_TOGETHER}.items():
        is_asked = name in (asked or {})
        keys = [keys] if isinstance(keys, str) else keys
        if not isinstance(keys, list | tuple) or not all(isinstance(key, str) for key in keys):
            raise _mistake(label, f"factors.{name}", shown(keys), "a list of keys or sections")
        for key in keys:
            of_key = [one for one in left if one.path == key or one.path.startswith(f"{key}.")]
            if is_asked and not of_key:
                raise _mistake(
                    label,
                    f"factors.{name}",
                    key,
                    "what the two recipes differ in: " + listed([one.path for one in found]),
                )
            if of_key:
                groups.setdefault(str(name), []).extend(of_key)
            left = [one for one in left if one not in of_key]
    return groups | {one.path: [one] for one in left}


def _levels(keys: list[Difference], names: tuple[str, str]) -> dict[str, dict[str, Any]]:
    if len(keys) == 1 and shown(keys[0].left) != shown(keys[0].right):
        names = shown(keys[0].left), shown(keys[0].right)
    return {
        names[0]: {one.path: one.left for one in keys},
        names[1]: {one.path: one.right for one in keys},
    }


def _beside(name: str, label: str) -> str:
    """A recipe where it is named, or where it lies beside the study's file."""
    beside = Path(label).parent / name
    if name not in shipped_names() and not Path(name).expanduser().exists() and beside.exists():
        return str(beside)
    return name


def _mistake(label: str, place: str, received: str, expected: str) -> UsageError:
    return UsageError(
        "invalid-study",
        "the study cannot be used as it is.",
        where=f"{label}: {place}",
        received=received,
        expected=expected,
    )
