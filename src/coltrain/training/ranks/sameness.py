"""Ranks that were started with different things would train a model of neither."""

from collections.abc import Mapping
from typing import Any

from coltrain.errors import RunError
from coltrain.recipe import Recipe, difference, full_hash, recipe_from_mapping
from coltrain.recipe.writing import as_mapping
from coltrain.training.ranks.ranks import Ranks


def refuse_other_recipes(recipe: Recipe, ranks: Ranks) -> None:
    """End all ranks if not all have the same recipe, and say where two part.

    Raises:
        RunError: [ranks-differ]
    """
    if not ranks.are_many:
        return
    found = ranks.exchange_objects((full_hash(recipe), as_mapping(recipe)))
    other = _first_other([hashed for hashed, _ in found])
    if other is None:
        return
    first, second = (recipe_from_mapping(found[rank][1]) for rank in (0, other))
    keys = [f"{one.path} = {one.left!r}, {one.right!r}" for one in difference(first, second)]
    _refuse("recipe", {rank: hashed for rank, (hashed, _) in enumerate(found)}, other, keys)


def refuse_others(what: str, hashes: Mapping[str, str], ranks: Ranks) -> None:
    """End all ranks if not all see the same of something.

    Args:
        what: For people: data, model.
        hashes: By the name of a part.
        ranks: Who compares.

    Raises:
        RunError: [ranks-differ]
    """
    found: list[Mapping[str, Any]] = ranks.exchange_objects(dict(hashes))
    other = _first_other(found)
    if other is None:
        return
    names = dict.fromkeys(name for one in (found[0], found[other]) for name in one)
    part = next(name for name in names if found[0].get(name) != found[other].get(name))
    shown = {rank: str(one.get(part, "nothing")) for rank, one in enumerate(found)}
    _refuse(f"{what} ({part})", shown, other, [])


def _first_other(found: list) -> int | None:
    return next((rank for rank, one in enumerate(found) if one != found[0]), None)


def _refuse(what: str, hashes: Mapping[int, str], other: int, lines: list[str]) -> None:
    shown = [f"rank {rank}: {hashes[rank]}" for rank in (0, other)]
    raise RunError(
        "ranks-differ",
        f"the ranks were started with different {what.split(' ')[0]}.",
        where=f"{what}, rank 0 and rank {other} of {len(hashes)}",
        received="\n".join([*shown, *lines]),
        expected="the same on every rank",
        suggestion="start all ranks with one command, one recipe file and one copy of the data",
    )
