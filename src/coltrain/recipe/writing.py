"""A recipe as YAML that is itself a recipe."""

from __future__ import annotations

from typing import Any

from coltrain.recipe.dialect import write_value
from coltrain.recipe.schema import Recipe

_LONGEST_COMMENT = 72


def as_mapping(recipe: Recipe) -> dict[str, Any]:
    """All keys of a recipe with their values, as plain types that JSON and YAML can hold."""
    return recipe.model_dump(mode="json")


def to_yaml(recipe: Recipe) -> str:
    """Write a recipe with every key spelled out.

    Reading the text gives an equal recipe. Behind a value stands where it comes from, shortened;
    the whole text is under `sources`, at the end.
    """
    lines: list[str] = []
    _write(as_mapping(recipe), "", recipe.sources, lines)
    return "\n".join(lines) + "\n"


def _write(values: dict[str, Any], prefix: str, sources: dict[str, str], lines: list[str]) -> None:
    indent = "  " * prefix.count(".")
    for key, value in values.items():
        path = prefix + key
        if path == "sources" and value:
            lines.append("sources:")
            lines.extend(f"  {write_value(of)}: {write_value(text)}" for of, text in value.items())
        elif isinstance(value, dict) and value:
            lines.append(f"{indent}{key}:{_comment(sources.get(path))}")
            _write(value, f"{path}.", sources, lines)
        else:
            lines.append(f"{indent}{key}: {write_value(value)}{_comment(sources.get(path))}")


def _comment(source: str | None) -> str:
    if not source:
        return ""
    text = " ".join("".join(char if char.isprintable() else " " for char in source).split())
    if len(text) > _LONGEST_COMMENT:
        text = text[: _LONGEST_COMMENT - 1].rstrip() + "…"
    return f"  # {text}" if text else ""
