"""From what a user names to a side."""

import json
from pathlib import Path
from typing import Any

from coltrain.errors import ColtrainError, UsageError
from coltrain.evaluation.published.names import MAIN_MEASURES
from coltrain.evaluation.published.scores import (
    benchmark_means,
    latest,
    model_named,
    published_averages,
    published_scores,
)
from coltrain.recipe import Recipe, as_mapping, shipped_names
from coltrain.reproduction.causes.negatives import put_negatives
from coltrain.reproduction.causes.run import put_run
from coltrain.reproduction.causes.side import Side, StatedMean
from coltrain.reproduction.comparison.sides import PUBLISHED
from coltrain.reproduction.targets import UNKNOWN, Target, read_target
from coltrain.reproduction.targets.versions import Versions

# Keys of a recipe that stand among the facts of every target, under these or other names.
_TOLD_BY_FACTS = (
    "batch.negatives",
    "data.train",
    "eval.data",
    "lora.dtype",
    "model.dtype",
    "model.max_visual_tokens",
    "model.template",
    "projection.start",
)


def read_causes_side(name: str) -> Side | None:
    """Read a training; None where there is only an evaluation, of which nothing more is known.

    Args:
        name: A run, a recipe, `published:MODEL`, a model's folder, or a foreign configuration, script
            or folder.

    Raises:
        ColtrainError: A recipe is wrong, or nothing of this name is there.
    """
    if name.startswith(PUBLISHED):
        return _published(name.removeprefix(PUBLISHED))
    path = Path(name).expanduser()
    if path.is_file() and path.suffix in (".json", ".jsonl") and _is_evaluation(path):
        return None
    try:
        target = read_target(name)
    except UsageError as error:
        if error.code == "no-such-target" and path.exists():
            return None  # a folder of an evaluation, of which the scores are all that is there
        raise
    side = side_of(target)
    # A case knows its gaps: what a default of a library would fill is no knowledge there.
    side.unknown |= target.case.get("unknown", {})
    side.notes |= target.case.get("notes", {})
    side.means += [StatedMean(**entry) for entry in target.case.get("means", [])]
    if target.kind == "recipe":
        side.means += _means_of(name)
    return side


def side_of(target: Target) -> Side:
    """All that is known of a target, as values by name."""
    side = Side(target.path, target.kind, not_read=list(target.not_read))
    for name in target.facts:
        fact = target.facts[name]
        if fact.value is UNKNOWN:
            side.unknown[name] = fact.where
        elif isinstance(fact.value, Versions) and fact.value.first != fact.value.last:
            side.unknown[name] = f"{fact.value} ({fact.where})"
        else:
            side.put(name, _plain(fact.value), fact.where)
    if target.recipe is not None:
        where = "run.json" if target.run is not None else target.path
        _put_recipe(target.recipe, side, where)
        put_negatives(target.recipe, side, where)
        # A run's facts name the results; what they are of is compared by its fingerprints.
        paths = [source.path for source in target.recipe.eval.data]
        side.put("eval.data", paths, f"{where}, eval.data")
    if target.run is not None:
        put_run(target.run, side)
    strings = [
        side.value(f"template.{key}") for key in ("query_prefix", "query_suffix", "page_prompt")
    ]
    if None not in strings:
        side.put("template", strings, side.values["template.query_prefix"].where)
    return side


def _put_recipe(recipe: Recipe, side: Side, where: str) -> None:
    """Keys of a recipe that no fact has."""
    side.recipe = True
    for key, value in _leaves(as_mapping(recipe), ""):
        section = key.partition(".")[0]
        if section in ("name", "description", "sources") or key.startswith(_TOLD_BY_FACTS):
            continue
        if key not in side.values or side.values[key].where.startswith(where):
            side.put(key, _plain(value), f"{where}, {key}")


def _leaves(values: dict[str, Any], prefix: str):
    for key, value in values.items():
        path = prefix + key
        if isinstance(value, dict) and path not in ("sources", "model.template"):
            yield from _leaves(value, path + ".")
        else:
            yield path, value


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, list | str | int | float | bool | dict | None):
        return value
    return str(value)


def _published(name: str) -> Side:
    """A published model: the recipe that ships for it, and its means."""
    model = model_named(name)
    recipe = model.rpartition("/")[2]
    side = Side(f"{PUBLISHED}{model}", "published")
    if recipe in shipped_names():
        target = read_target(recipe)
        side = side_of(target)
        side.label, side.kind = f"{PUBLISHED}{model}", "published"
        assert target.recipe is not None
        _as_it_was(target.recipe, side)
    side.means += _means_of(model)
    return side


# How we run it, and not how they did; and what only our schema spells out.
_OURS_ONLY = ("batch.per_device", "batch.chunk_size", "batch.accumulation", "data.num_workers")
_OURS = ("our choice", "our rule", "not read")
_ENGINE_OF = {"colqwen2-v0.1": ("0.3.1", "the model card")}


def _as_it_was(recipe: Recipe, side: Side) -> None:
    """What the published run had, without the choices of ours that stand in its recipe."""
    for key in list(side.values):
        source = _source(recipe, key)
        is_ours = source.startswith(_OURS) or " stands for " in source
        if is_ours or key in _OURS_ONLY:
            side.values.pop(key)
        elif source:
            side.put(key, side.value(key), source)
    side.recipe = False
    side.put("loss.padding", "zero", "late_interaction_losses.py: padding stays in the maximum")
    if recipe.name in _ENGINE_OF:
        side.put("versions.colpali-engine", *_ENGINE_OF[recipe.name])


_KEYS_OF_FACTS = {
    "precision.lora": "lora.dtype",
    "precision.moments": "lora.dtype",
    "precision.weights": "model.dtype",
    "precision.scaler": "precision.compute",
    "pixels.max_visual_tokens": "model.max_visual_tokens",
    "template": "model.template",
}


def _source(recipe: Recipe, key: str) -> str:
    """Where a recipe says that a value comes from."""
    key = _KEYS_OF_FACTS.get(key, key)
    for name in (key, key.rpartition(".")[0]):
        if name in recipe.sources:
            return recipe.sources[name]
    return ""


def _means_of(name: str) -> list[StatedMean]:
    """The published means of a model, or of the model that a shipped recipe is of."""
    try:
        model = model_named(name)
    except ColtrainError:
        return []
    found = [
        StatedMean(one.benchmark, one.measure, one.value, one.source)
        for one in published_averages(model)
    ]
    stated = {one.benchmark for one in found}
    measures = {task: score.measures for task, score in latest(published_scores(model)).items()}
    for benchmark, value in benchmark_means(measures).items():
        if benchmark in MAIN_MEASURES and benchmark not in stated:
            source = "mean of its published tasks (coltrain published)"
            found.append(StatedMean(benchmark, MAIN_MEASURES[benchmark], value, source))
    return found


def _is_evaluation(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "results" in content
