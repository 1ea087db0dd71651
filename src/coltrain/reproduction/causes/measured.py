"""What studies measured of a difference: figures from their results files, never typed by hand."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from coltrain.errors import ColtrainError, UsageError
from coltrain.recipe import load_recipe
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.reproduction.causes.negatives import NEGATIVES
from coltrain.reproduction.causes.side import Side
from coltrain.reproduction.report.figures import change, count

MEASURED = "measured here by a study"
_SHIPPED = {"seed-study.json": "docs/explanation/why-84.md"}
_RESULTS = "results.json"


@dataclass(frozen=True)
class Effect:
    """What one change of a factor did in a study.

    Attributes:
        study: Its name.
        source: Its results file, or the page that shows it.
        base: The recipe that every cell started from.
        model: The model that this recipe trains; None where the recipe is not here.
        measure: What was measured.
        before: Keys with their values before the change.
        after: The same keys after it.
        others: What the other factors were at.
        value: Change of the measure, as a fraction; its interval is `low` to `high`.
        low: Lower end.
        high: Upper end.
        num_seeds: Seeds on both sides.
        num_queries: Queries of the evaluation.
    """

    study: str
    source: str
    base: str
    model: str | None
    measure: str
    before: dict[str, Any]
    after: dict[str, Any]
    others: str
    value: float
    low: float
    high: float
    num_seeds: int
    num_queries: int

    def reversed(self) -> "Effect":
        """The change the other way."""
        return replace(
            self,
            before=self.after,
            after=self.before,
            value=-self.value,
            low=-self.high,
            high=-self.low,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def shipped_effects() -> list[Effect]:
    """Of the studies that ship with the package and were run."""
    folder = resources.files("coltrain.reproduction.study") / "shipped"
    return [
        effect
        for name, page in _SHIPPED.items()
        for effect in _effects(json.loads((folder / name).read_text(encoding="utf-8")), page)
    ]


def study_effects(folder: Path) -> list[Effect]:
    """Of a study's folder, or of its results file.

    Raises:
        UsageError: [no-study-results] It holds no results of a study.
    """
    path = folder / _RESULTS if folder.is_dir() else folder
    try:
        return list(_effects(json.loads(path.read_text(encoding="utf-8")), str(path)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "no-study-results",
            "this folder holds no results of a study.",
            where=str(path),
            received=getattr(error, "strerror", None) or f"{type(error).__name__}: {error}",
            expected="the folder that `coltrain study` wrote, with results.json",
            suggestion="run the study first: the same command again goes on with it",
        ) from None


def _effects(document: dict[str, Any], source: str) -> Iterator[Effect]:
    study = document["study"]
    model, whole = _model_and_batch(study)
    for one in document["effects"]:
        found = one["change"]
        if found is None:
            continue
        levels = study["factors"][one["factor"]]
        before, after = dict(levels[one["reference"]]), dict(levels[one["level"]])
        for settings in (before, after):
            if NEGATIVES in settings:  # a recipe's setting, as the number that a query meets
                group = whole if settings[NEGATIVES] == "global" else settings[NEGATIVES]
                settings[NEGATIVES] = None if group is None else group - 1
        yield Effect(
            study=study["name"],
            source=source,
            base=study["base"],
            model=model,
            measure=document["measure"],
            before=before,
            after=after,
            others=one["others"],
            value=found["value"],
            low=found["low"],
            high=found["high"],
            num_seeds=len(found["seeds"]),
            num_queries=document["num_queries"],
        )


def _model_and_batch(study: dict[str, Any]) -> tuple[str | None, int | None]:
    """The model that a study trains, and its global batch; None where its recipe is not here."""
    try:
        recipe = load_recipe(study["base"])
    except ColtrainError:
        return None, study["overrides"].get("batch.global_size")
    size = study["overrides"].get("batch.global_size", recipe.batch.global_size)
    return study["overrides"].get("model.base", recipe.model.base), size


def effects_of(key: str, a: Side, b: Side, effects: Sequence[Effect]) -> list[Effect]:
    """Effects of exactly this difference, as changes from B to A.

    A factor that sets several keys counts where the sides have all of its values; it is told under
    the first of them.
    """
    found: list[Effect] = []
    mined = any(side.value("loss.name") in HARD_NEGATIVE_LOSSES for side in (a, b))
    if key == NEGATIVES and mined:
        return found  # a mined page is another negative than one of the batch
    for effect in effects:
        if key != next((one for one in effect.after if _differs(one, effect)), None):
            continue
        if _has(a, effect.after) and _has(b, effect.before):
            found.append(effect)
        elif _has(b, effect.after) and _has(a, effect.before):
            found.append(effect.reversed())
    return found


def _differs(key: str, effect: Effect) -> bool:
    return effect.before.get(key) != effect.after[key]


def _has(side: Side, settings: dict[str, Any]) -> bool:
    return all(key in side.values and side.value(key) == value for key, value in settings.items())


def is_of_their_model(effect: Effect, a: Side, b: Side) -> bool:
    """Whether a study trained what both sides trained."""
    bases = {side.value("model.base") for side in (a, b)}
    return effect.model is not None and bases == {effect.model}


def effect_words(effect: Effect) -> str:
    """An effect in a sentence: the change from B to A, with its interval and what it rests on."""
    return (
        f"A − B {change(effect.value)} [{change(effect.low)}, {change(effect.high)}] points of "
        f"{effect.measure} in {effect.study} (recipe {effect.base}; {effect.num_seeds} seeds, "
        f"{count(effect.num_queries)} queries; {effect.others}): {effect.source}"
    )
