"""What `coltrain recipes list|show|diff` print, as rows and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coltrain.recipe.identity import difference, result_hash
from coltrain.recipe.reading import load_recipe, shipped_names
from coltrain.recipe.schema import Recipe
from coltrain.recipe.writing import to_yaml


def list_rows() -> list[dict[str, Any]]:
    """One row for each recipe that ships with the package."""
    return [_row(load_recipe(name)) for name in shipped_names()]


def _row(recipe: Recipe) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "base": recipe.model.base,
        "data": [source.path for source in recipe.data.train],
        "loss": recipe.loss.name,
        "global_batch_size": recipe.batch.global_size,
        "epochs": recipe.train.epochs,
        "steps": recipe.train.steps,
        "learning_rate": recipe.optimizer.learning_rate,
        "optimizer": recipe.optimizer.name,
        "compute": recipe.precision.compute,
        "result_hash": result_hash(recipe),
        "description": recipe.description,
    }


def show_text(name_or_path: str | Path, overrides: Sequence[str] = ()) -> str:
    """A recipe with its overrides, as YAML that is itself a recipe."""
    return to_yaml(load_recipe(name_or_path, overrides))


def difference_rows(left: str | Path, right: str | Path) -> list[dict[str, Any]]:
    """One row for each key in which two recipes differ, those that affect the result first.

    Args:
        left: Name or path of a recipe.
        right: Name or path of another.
    """
    rows = [
        {
            "key": change.path,
            "left": change.left,
            "right": change.right,
            "affects_result": change.affects_result,
        }
        for change in difference(load_recipe(left), load_recipe(right))
    ]
    return sorted(rows, key=lambda row: not row["affects_result"])
