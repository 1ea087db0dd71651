"""A study by name or from a file, checked at once."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from coltrain.errors import RecipeError, UsageError
from coltrain.recipe.dialect import read_document
from coltrain.recipe.wording import listed, nearest, shown
from coltrain.reproduction.study.between import spelled_out
from coltrain.reproduction.study.schema import Evaluation, Study

_SUFFIXES = (".yaml", ".yml")


def shipped_studies() -> dict[str, Study]:
    """The studies that ship with the package, by name, in alphabetical order."""
    return {name: study_from_yaml(_shipped_text(name), name) for name in shipped_names()}


def shipped_names() -> list[str]:
    """Their names."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in _folder().iterdir()
        if entry.name.endswith(".yaml")
    )


def load_study(name_or_path: str | Path) -> Study:
    """Read a study that ships with the package, or one of your own.

    Args:
        name_or_path: A name from `shipped_names()`, or a file: something with a `/` in it or with
            the ending .yaml or .yml.

    Raises:
        UsageError: `[unknown-study]`, or `[invalid-study]` with every mistake at once.
        RecipeError: `[broken-yaml]`, `[duplicate-key]`
    """
    text = str(name_or_path)
    if not isinstance(name_or_path, Path) and "/" not in text and not text.endswith(_SUFFIXES):
        if text not in shipped_names():
            raise _unknown(f"{text} (no study of this name)", nearest(text, shipped_names(), 0.4))
        return study_from_yaml(_shipped_text(text), text)
    path = Path(name_or_path).expanduser()
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _unknown(f"{text} ({reason})", _near_file(path)) from None
    return study_from_yaml(content, text)


def study_from_yaml(text: str, label: str) -> Study:
    """Read a study from the text of a file; errors as `load_study`.

    Args:
        text: YAML.
        label: What error messages call it.
    """
    try:
        document = read_document(text, label)
    except RecipeError as error:
        if error.code not in ("empty-recipe", "recipe-not-a-mapping"):
            raise
        raise _invalid(label, [("the file", error.received or "nothing", _KEYS, None)]) from None
    values = spelled_out(document.values, label)
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        mistakes = [_mistake(detail, document.lines) for detail in error.errors(include_url=False)]
        raise _invalid(label, list(dict.fromkeys(mistakes))) from None


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


_KEYS = "a mapping with the keys " + ", ".join(_names(Study))
_EXPECTED = {
    "missing": "it to be there",
    "too_short": "two levels or more",
}
_TOO_FEW = {("factors",): "one factor or more"}
Found = tuple[str, str, str, str | None]
"""Where, what came, what was expected, a way out."""


def _mistake(detail: Any, lines: dict[str, int]) -> Found:
    loc = [str(part) for part in detail["loc"] if not str(part).startswith("function-")]
    context = detail.get("ctx", {})
    place, expected, suggestion = ".".join(loc), "", None
    received = shown(detail["input"])
    if "expected" in context and detail["type"] == "study":
        place = context.get("place", place)
        received = context.get("received", received)
        expected, suggestion = context["expected"], context.get("suggestion") or None
    elif detail["type"] == "extra_forbidden":
        known = _names(Evaluation if loc[0] == "evaluation" else Study)
        start = "evaluation." if loc[0] == "evaluation" else ""
        near = nearest(loc[-1], known)
        received, expected = "an unknown key", f"one of {listed(known)}"
        suggestion = start + near if near else None
    elif detail["type"] == "missing":
        received, expected = "nothing", _EXPECTED["missing"]
    elif detail["type"] == "too_short":
        received = f"{context.get('actual_length', 0)} of them"
        expected = _TOO_FEW.get(tuple(loc), _EXPECTED["too_short"])
    elif detail["type"] == "string_pattern_mismatch":
        expected = "letters, digits, dots, hyphens and underscores"
    else:
        message = detail["msg"]
        expected = message.removeprefix("Input should be ").removeprefix("a valid ")
    line = lines.get(place)
    return (f"{place}, line {line}" if line else place, received, expected, suggestion)


def _invalid(label: str, mistakes: list[Found]) -> UsageError:
    if len(mistakes) == 1:
        ((place, received, expected, suggestion),) = mistakes
        return UsageError(
            "invalid-study",
            "the study cannot be used as it is.",
            where=f"{label}: {place}",
            received=received,
            expected=expected,
            suggestion=suggestion,
        )
    return UsageError(
        "invalid-study",
        "the study cannot be used as it is.",
        where=label,
        received="\n".join(_lines(mistakes)),
        expected="each of these mended",
    )


def _lines(mistakes: Iterable[Found]) -> Iterable[str]:
    for place, received, expected, suggestion in mistakes:
        way_out = f"; try {suggestion}" if suggestion else ""
        yield f"{place}: {received}, expected {expected}{way_out}"


def _unknown(received: str, suggestion: str | None) -> UsageError:
    return UsageError(
        "unknown-study",
        "there is no such study.",
        received=received,
        expected=f"{listed(shipped_names())}, or the path of a .yaml file",
        suggestion=suggestion,
    )


def _near_file(path: Path) -> str | None:
    if path.parent.is_dir():
        files = [entry.name for entry in path.parent.iterdir() if entry.suffix in _SUFFIXES]
        close = nearest(path.name, files)
        if close:
            return str(path.parent / close)
    return nearest(path.stem, shipped_names())


def _folder():
    return resources.files("coltrain.reproduction.study") / "shipped"


def _shipped_text(name: str) -> str:
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")
