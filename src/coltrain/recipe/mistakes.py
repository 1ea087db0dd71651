"""From what is wrong with a recipe to one error that says all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from coltrain.errors import RecipeError
from coltrain.recipe.keys import advice, locate, siblings
from coltrain.recipe.wording import shown

# Rules with a page of their own; every other mistake is an `invalid-recipe`.
_OWN_CODES = {
    "batch-not-divisible",
    "steps-and-epochs",
    "template-drift",
    "unknown-key",
    "unknown-template",
}


NOTHING = "nothing"
COMMAND_LINE = "the command line"


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong with a recipe."""

    code: str
    path: str
    sentence: str
    received: str
    expected: str
    suggestion: str | None = None

    def line(self, place: str) -> str:
        """The mistake on one line, for when there are several."""
        if self.code == "unknown-key":
            near = f"nearest known key {self.suggestion}" if self.suggestion else self.expected
            return f"{place}: unknown key; {near}"
        if self.received == NOTHING:
            return f"{place}: missing; expected {self.expected}"
        text = f"{place}: received {self.received}, expected {self.expected}"
        return f"{text}; try {self.suggestion}" if self.suggestion else text


def mistakes_of(error: ValidationError) -> list[Mistake]:
    """What pydantic found, one mistake for each key, in its order."""
    found: dict[str, Mistake] = {}
    for detail in error.errors(include_url=False):
        for mistake in _mistakes(detail):
            found.setdefault(mistake.path, mistake)
    return list(found.values())


def _mistakes(detail: Mapping[str, Any]) -> list[Mistake]:
    kind, loc, received = detail["type"], detail["loc"], detail["input"]
    context = detail.get("ctx", {})
    path, expected = locate(loc)
    if kind in ("extra_forbidden", "invalid_key"):
        start = path + "." if path else ""
        return [_unknown(start + leaf, value) for leaf, value in _leaves(str(loc[-1]), received)]
    if kind == "missing":
        return [Mistake("invalid-recipe", path, f"{path} is missing.", NOTHING, expected)]
    if "expected" in context and kind != "literal_error":
        path = context.get("path", path)
        code = kind if kind in _OWN_CODES else "invalid-recipe"
        sentence = detail["msg"] if code == kind else f"{path} cannot be used as it is."
        received = context.get("received", shown(received))
        return [
            Mistake(code, path, sentence, received, context["expected"], context.get("suggestion"))
        ]
    if (
        kind == "string_type"
        and isinstance(received, int | float)
        and expected.startswith("a text")
    ):
        expected += " (put it in quotes)"
    if kind == "too_short":
        received = list(received)
    suggestion = None
    if kind == "tuple_type" and isinstance(received, str) and expected.startswith("a list of"):
        suggestion = f"[{received}]"
    sentence = f"{path} cannot be used as it is."
    return [Mistake("invalid-recipe", path, sentence, shown(received), expected, suggestion)]


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{path}.{key}", inner)]
    return [(path, value)]


def _unknown(path: str, value: Any) -> Mistake:
    return Mistake(
        code="unknown-key",
        path=path,
        sentence=f"{path} is not a key of a recipe.",
        received=f"{path} = {shown(value)}",
        expected="one of " + ", ".join(siblings(path)),
        suggestion=advice(path),
    )


def recipe_error(
    mistakes: Sequence[Mistake],
    label: str,
    lines: Mapping[str, int] | None = None,
    overridden: Sequence[str] = (),
) -> RecipeError:
    """One error for all the mistakes in a recipe.

    Args:
        mistakes: At least one.
        label: Name or path of the recipe.
        lines: The line of each key in the file.
        overridden: Keys that were set on the command line.
    """

    def place(path: str) -> str:
        if any(_is_within(path, key) or _is_within(key, path) for key in overridden):
            return f"{path}, on the command line"
        known = lines or {}
        number = known.get(path) or known.get(path.partition("[")[0])
        return f"{path}, line {number}" if number else path

    if len(mistakes) == 1:
        (only,) = mistakes
        return RecipeError(
            only.code,
            only.sentence,
            where=COMMAND_LINE if only.path == COMMAND_LINE else f"{label}: {place(only.path)}",
            received=only.received,
            expected=only.expected,
            suggestion=only.suggestion,
        )
    codes = {mistake.code for mistake in mistakes}
    code = codes.pop() if len(codes) == 1 else "invalid-recipe"
    listing = "".join(f"\n  - {mistake.line(place(mistake.path))}" for mistake in mistakes)
    return RecipeError(code, f"{len(mistakes)} mistakes in {label}:{listing}")


def _is_within(path: str, holder: str) -> bool:
    return path == holder or path.startswith((f"{holder}.", f"{holder}["))
