"""`key.path=value` from the command line, laid over what a file says."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coltrain.recipe.dialect import read_value
from coltrain.recipe.keys import all_paths
from coltrain.recipe.mistakes import COMMAND_LINE, Mistake
from coltrain.recipe.template import ALIASES, REGISTERED

_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_LENGTHS = {"train.steps": "train.epochs", "train.epochs": "train.steps"}
_ORIGIN = "set on the command line"


@dataclass(frozen=True)
class Override:
    """One key and the value that replaces what the file says."""

    path: str
    value: Any


def parse_overrides(texts: Sequence[str]) -> tuple[list[Override], list[Mistake]]:
    """Read `key.path=value`, the value as YAML; the last one of a key holds.

    Returns:
        The overrides, and a mistake for each text that is none.
    """
    overrides: dict[str, Override] = {}
    mistakes = []
    for text in texts:
        path, equals, value = text.partition("=")
        path = path.strip()
        if not equals or not _KEY.fullmatch(path):
            mistakes.append(_unreadable(text, "key.path=value, such as train.steps=30"))
            continue
        try:
            overrides.pop(path, None)
            overrides[path] = Override(path, read_value(value))
        except ValueError as error:
            mistakes.append(_unreadable(text, f"a value in YAML after {path}= ({error})"))
    return list(overrides.values()), mistakes


def _unreadable(text: str, expected: str) -> Mistake:
    sentence = "an override cannot be read."
    return Mistake("bad-override", COMMAND_LINE, sentence, text or "an empty text", expected)


def apply_overrides(
    values: Mapping[str, Any], overrides: Sequence[Override]
) -> tuple[dict[str, Any], list[Mistake]]:
    """Lay overrides over the values of a file.

    A key that no recipe has is set like any other: checking the recipe reports it with all other
    mistakes. Steps from the command line replace epochs from the file, and the other way round.
    `sources` says which values came from the command line.

    Returns:
        The values, and a mistake for each override that found no place.
    """
    values = copy.deepcopy(dict(values))
    mistakes = []
    given = {override.path for override in overrides}
    for override in overrides:
        holder = _set(values, override.path.split("."), override.value)
        if holder is not None:
            mistakes.append(_not_a_section(holder, override.path))
            continue
        _note_origin(values, override.path, _ORIGIN)
        other = _LENGTHS.get(override.path)
        if other and override.value is not None and other not in given:
            _give_up(values, other, f"given up for {override.path}, {_ORIGIN}")
    return values, mistakes


def _set(values: dict[str, Any], parts: Sequence[str], value: Any) -> str | None:
    """Set a key; or say which key on the way to it holds a value and no further keys."""
    *sections, last = parts
    for depth, name in enumerate(sections, start=1):
        inner = values.get(name)
        if sections[:depth] == ["model", "template"] and isinstance(inner, str):
            inner = {"name": inner, **REGISTERED.get(ALIASES.get(inner, inner), {})}
        if inner is None:
            inner = {}
        if not isinstance(inner, dict):
            return ".".join(sections[:depth])
        values[name] = inner
        values = inner
    values[last] = value
    return None


def _not_a_section(holder: str, path: str) -> Mistake:
    return Mistake(
        code="unknown-key",
        path=path,
        sentence=f"{path} is not a key of a recipe.",
        received=path,
        expected=f"{holder} as a whole, which has no keys below it",
        suggestion=holder,
    )


def _give_up(values: dict[str, Any], path: str, origin: str) -> None:
    section, _, key = path.partition(".")
    inner = values.get(section)
    if isinstance(inner, dict) and inner.get(key) is not None:
        inner[key] = None
        _note_origin(values, path, origin)


def _note_origin(values: dict[str, Any], path: str, origin: str) -> None:
    sources = values.get("sources")
    if path == "sources" or path not in all_paths() or not isinstance(sources, dict):
        return
    for explained in [known for known in sources if str(known).startswith(path + ".")]:
        del sources[explained]
    sources[path] = origin
