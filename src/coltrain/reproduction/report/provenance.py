"""Where a run comes from: its recipe, data and machine, and how to run it again."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coltrain.errors import ColtrainError
from coltrain.recipe import (
    Difference,
    Recipe,
    difference,
    load_recipe,
    recipe_from_yaml,
    shipped_names,
)
from coltrain.recipe.dialect import write_value
from coltrain.reproduction.report import figures
from coltrain.reproduction.report.reading import RunRecord
from coltrain.reproduction.report.table import Table

_HASH_SHOWN = 16  # hexadecimal digits; run.json has them all
_FEW = 12  # overrides that still make a command; more are better as a file


@dataclass(frozen=True)
class RecipeLine:
    """One line of YAML in its three parts."""

    key: str
    value: str
    comment: str


@dataclass(frozen=True)
class Provenance:
    """Where a run comes from.

    Attributes:
        yaml: The resolved recipe.
        lines: The same, each line in its parts.
        hashes: What identifies recipe and weights.
        ancestor: Shipped recipe that the run's is compared with, in a sentence.
        differences: From that recipe; None where there are none.
        departures: What departs from the published method, and what that does.
        data: Fingerprints, one source a row.
        sources: Rows of each part of a mix, where there are several.
        environment: Machine, versions and parameters.
        probe: Token ids of a query and a page: name, text, ids in short.
        again: The command, and a remark on it.
        again_with: What to install first, for the same versions.
        go_on: Command that continues a run which is not finished.
    """

    yaml: str
    lines: tuple[RecipeLine, ...]
    hashes: Table
    ancestor: str
    differences: Table | None
    departures: tuple[tuple[str, str], ...]
    data: Table | None
    sources: Table | None
    environment: Table
    probe: tuple[tuple[str, str, str], ...]
    again: tuple[str, ...]
    again_with: tuple[str, ...]
    again_remark: str
    go_on: str | None


def provenance_of(record: RunRecord) -> Provenance:
    """Everything that a second run would need to be the same."""
    yaml = record.fact("recipe_yaml", "")
    recipe = readable_recipe(record)
    ancestor, differences = _ancestor(recipe)
    again, remark = _again(record, recipe, ancestor, differences)
    return Provenance(
        yaml=yaml,
        lines=tuple(_line(line) for line in yaml.splitlines()),
        hashes=_hashes(record),
        ancestor=_ancestor_in_words(recipe, ancestor, differences),
        differences=_differences(ancestor, differences),
        departures=tuple(
            (str(one.get("what", "")), str(one.get("why", "")))
            for one in record.fact("deviations", [])
        ),
        data=_data(record),
        sources=_sources(record),
        environment=_environment(record),
        probe=_probe(record),
        again=again,
        again_with=_again_with(record),
        again_remark=remark,
        go_on=None if record.is_complete else f"coltrain resume {shlex.quote(str(record.folder))}",
    )


def readable_recipe(record: RunRecord) -> Recipe | None:
    """The recipe; None where another version of coltrain wrote what this one cannot read."""
    try:
        return recipe_from_yaml(record.fact("recipe_yaml", ""))
    except ColtrainError:
        return None


def _ancestor(recipe: Recipe | None) -> tuple[str | None, list[Difference]]:
    """The shipped recipe of the same name, or else the one with the fewest differences."""
    if recipe is None:
        return None, []
    names = [recipe.name] if recipe.name in shipped_names() else shipped_names()
    compared = [(name, difference(load_recipe(name), recipe)) for name in names]
    return min(compared, key=lambda pair: sum(one.affects_result for one in pair[1]))


def _ancestor_in_words(
    recipe: Recipe | None, ancestor: str | None, differences: Sequence[Difference]
) -> str:
    if recipe is None or ancestor is None:
        return "This version of coltrain cannot read the recipe, so it is compared with none."
    which = f"the shipped recipe {ancestor}"
    if recipe.name != ancestor:
        which = f"{ancestor}, of the shipped recipes the one most like it"
    if not differences:
        return f"No difference from {which}."
    number = figures.number_of(len(differences), "difference")
    moving = sum(one.affects_result for one in differences)
    if moving == 0:
        effect = "none of which moves the result"
    elif moving == len(differences):
        effect = "all of which can move the result"
    else:
        effect = f"{moving} of which can move the result"
    return f"{number} from {which}, {effect}."


def _differences(ancestor: str | None, differences: Sequence[Difference]) -> Table | None:
    if not differences:
        return None
    ordered = sorted(differences, key=lambda one: not one.affects_result)
    return Table(
        headings=("key", ancestor or "shipped", "this run", "moves the result"),
        rows=tuple(
            (
                one.path,
                write_value(one.left),
                write_value(one.right),
                "yes" if one.affects_result else "no",
            )
            for one in ordered
        ),
        caption=f"Differences from the recipe {ancestor}",
        text_columns=(0, 1, 2, 3),
    )


def _line(line: str) -> RecipeLine:
    key, rest = "", line
    if match := re.match(r"\s*(?:[\w.]+|\"[^\"]*\"|'[^']*'):(?=\s|$)", line):
        key, rest = match[0], line[match.end() :]
    value, mark, comment = rest.partition("  # ")
    return RecipeLine(key, value, mark + comment)


def _hashes(record: RunRecord) -> Table:
    known = [
        ("result hash", record.fact("result_hash"), "all that can move the result"),
        ("full hash", record.fact("full_hash"), "every key of the recipe"),
        ("base weights", record.fact("base_weights_hash"), "as loaded"),
        ("projection at the start", record.fact("projection_hash"), _projection(record)),
    ]
    return Table(
        headings=("", "hash", "of what"),
        rows=tuple((name, str(value), of) for name, value, of in known if value is not None),
        caption="Hashes",
        text_columns=(0, 1, 2),
    )


def _projection(record: RunRecord) -> str:
    is_from_base = record.fact("projection_from_base")
    if is_from_base is None:
        return "weights before training"
    return "read from the base" if is_from_base else "drawn with the run's seed"


def _data(record: RunRecord) -> Table | None:
    rows = []
    for role in ("train", "eval"):
        for source in record.fact(f"data.{role}", []):
            rows.append(
                (
                    role,
                    str(source.get("name", "–")),
                    str(source.get("layout", "–")),
                    str(source.get("revision") or "–"),
                    str(source.get("hash", "–"))[:_HASH_SHOWN],
                    figures.count(source.get("rows")),
                    figures.count(source.get("distinct_queries")),
                    figures.count(source.get("distinct_pages")),
                    figures.count(source.get("pages")),
                )
            )
    if not rows:
        return None
    return Table(
        headings=(
            "used for",
            "data set",
            "layout",
            "revision",
            "hash of ids, texts, order",
            "rows",
            "queries",
            "pages in rows",
            "pages in all",
        ),
        rows=tuple(rows),
        caption="Fingerprints of the data",
        text_columns=(0, 1, 2, 3, 4),
    )


def _sources(record: RunRecord) -> Table | None:
    rows = [
        (str(source.get("name", "–")), str(part), figures.count(number))
        for source in record.fact("data.train", [])
        if len(source.get("rows_per_source", {})) > 1
        for part, number in source["rows_per_source"].items()
    ]
    if not rows:
        return None
    return Table(
        headings=("data set", "part", "rows"),
        rows=tuple(rows),
        caption="Rows of each part of the training data",
        text_columns=(0, 1),
    )


def _environment(record: RunRecord) -> Table:
    device = record.fact("device", {})
    machine = [str(device[key]) for key in ("type", "name", "system") if device.get(key)]
    more = {
        "threads": lambda value: figures.number_of(value, "thread"),
        "memory_gib": lambda value: f"{value} GiB",
        "capability": lambda value: f"compute capability {value}",
        "cuda": lambda value: f"CUDA {value}",
    }
    machine += [write(device[key]) for key, write in more.items() if device.get(key) is not None]
    versions = record.fact("versions", {})
    parameters = record.fact("parameters", {})
    rows = [("device", ", ".join(machine) or "–")]
    if (peak := record.fact("peak_memory_gib")) is not None:
        rows.append(("peak GPU memory", f"{peak} GiB"))
    rows += _precision(record.fact("precision", {}))
    if parameters:
        rows += _parameters(parameters)
    rows.append(("commit of coltrain", str(record.fact("commit", "none: installed as a package"))))
    rows += [(name, str(version)) for name, version in versions.items()]
    rows.append(("started", figures.moment(record.fact("started"))))
    rows.append(("ended", figures.moment(record.fact("finished"))))
    return Table(("", ""), tuple(rows), "Where it ran", text_columns=(0, 1))


def _precision(precision: dict[str, Any]) -> list[tuple[str, str]]:
    """What a float16 run kept out of float16; other precisions stand in the recipe."""
    if precision.get("compute") != "float16":
        return []
    kept = precision.get("keep_float32") or ["nothing but the projection and layer norms"]
    scale = figures.significant(precision.get("gradient_scale"))
    return [
        ("kept in float32", ", ".join(kept)),
        ("gradient scale", f"{scale}; steps skipped: {precision.get('skipped_steps', 0)}"),
    ]


def _parameters(parameters: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for kind in ("trainable", "frozen"):
        dtypes = parameters.get("by_dtype", {}).get(kind, {})
        rows.append(
            (
                f"{kind} parameters",
                f"{figures.count(parameters.get(kind))} ({', '.join(dtypes) or 'none'})",
            )
        )
    modules = figures.count(parameters.get("lora_modules"))
    in_vision = figures.count(parameters.get("lora_modules_in_vision_tower"))
    return [*rows, ("modules under LoRA", f"{modules}, {in_vision} of them in the vision tower")]


def _probe(record: RunRecord) -> tuple[tuple[str, str, str], ...]:
    probe = record.fact("probe", {})
    rows = []
    if probe.get("query_ids"):
        rows.append(("query", str(probe.get("query", "")), _in_short(probe["query_ids"])))
    if probe.get("page_ids"):
        text = str(probe.get("page", "a page"))
        if probe.get("visual_tokens") is not None:
            text += f", {figures.count(probe['visual_tokens'])} visual tokens"
        rows.append(("page", text, _in_short(probe["page_ids"])))
    return tuple(rows)


def _in_short(ids: Sequence[int]) -> str:
    parts = [
        str(token) if times == 1 else f"{token} (× {times})"
        for token, times in figures.run_lengths(ids)
    ]
    return f"{' '.join(parts)} — {figures.count(len(ids))} tokens"


def _again(
    record: RunRecord,
    recipe: Recipe | None,
    ancestor: str | None,
    differences: Sequence[Difference],
) -> tuple[tuple[str, ...], str]:
    """The command of a run that must give the same, and what else has to be the same for it."""
    device = record.fact("device.type", "cpu")
    name = recipe.name if recipe else "recipe"
    end = f"--device {device} --out {shlex.quote(f'runs/{name}-again')}"
    overrides = [f"{one.path}={write_value(one.right)}" for one in differences]
    if recipe and recipe.name == ancestor and _is_given_by(ancestor, overrides, recipe):
        words = " ".join(shlex.quote(word) for word in overrides)
        command = " ".join(part for part in ("coltrain train", ancestor, words, end) if part)
        remark = f"The result hash has to be {record.fact('result_hash')} again."
    else:
        command = f"coltrain train recipe.yaml {end}"
        remark = "Save the recipe above as recipe.yaml first."
    version = record.fact("coltrain", record.fact("versions.coltrain", ""))
    where = record.fact("commit")
    remark += f" Written by coltrain {version}" + (f", commit {where}" if where else "")
    if python := record.fact("versions.python"):
        remark += f", on Python {python}"
    remark += ". Relative paths of data are meant from the folder in which the command is given."
    return (command,), remark


# What computes; what only reads files and talks to the hub follows from these.
_PINNED = ("coltrain", "torch", "transformers", "peft", "tokenizers", "datasets", "pillow", "numpy")


def _again_with(record: RunRecord) -> tuple[str, ...]:
    """One command that installs the versions that computed, as far as they were recorded."""
    found = record.fact("versions", {})
    optimizer = str(record.fact("recipe.optimizer.name", ""))
    names = [*_PINNED, *(["bitsandbytes"] if "8bit" in optimizer else [])]
    pins = [f"{name}=={found[name]}" for name in names if found.get(name, "unknown") != "unknown"]
    return (f"pip install {' '.join(map(shlex.quote, pins))}",) if pins else ()


def _is_given_by(name: str, overrides: Sequence[str], recipe: Recipe) -> bool:
    """Whether the command line really gives this recipe back."""
    if len(overrides) > _FEW:
        return False
    try:
        return not difference(load_recipe(name, overrides), recipe)
    except ColtrainError:
        return False
