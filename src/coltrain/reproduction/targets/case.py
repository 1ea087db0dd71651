"""`case.yaml`: what a person, or a thread, says of a training beside its files."""

from pathlib import Path
from typing import Any

import yaml

from coltrain.errors import UsageError
from coltrain.reproduction.targets.facts import NAMES, Facts
from coltrain.reproduction.targets.versions import put_version

CASE = "case.yaml"
_KEYS = {"source", "facts", "unknown", "means", "notes"}


def read_case(folder: Path) -> dict[str, Any]:
    """The case of a folder; empty where it has none.

    Returns:
        `source`, a page; `facts`, by name with `value` and `source`; `unknown`, by name why; `means`,
        stated means over a benchmark; `notes`, lines about a fact. Each may be missing.

    Raises:
        UsageError: [bad-case] It is no YAML, has other keys, or names what is no fact.
    """
    path = folder / CASE
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        problem = _problem(content)
    except (OSError, ValueError, yaml.YAMLError) as error:
        content, problem = {}, str(error).splitlines()[0]
    if problem:
        raise UsageError(
            "bad-case",
            "a case file cannot be read.",
            where=str(path),
            received=problem,
            expected="source, facts (each with value and source), unknown, means, notes",
            suggestion="examples/issue-84/case.yaml is one",
        )
    return content


def _problem(content: Any) -> str | None:
    if not isinstance(content, dict):
        return "no mapping"
    if unknown := sorted(set(content) - _KEYS):
        return ", ".join(map(str, unknown))
    for key in ("facts", "unknown", "notes"):
        if not isinstance(content.get(key, {}), dict):
            return f"{key}: no mapping"
    for name, entry in content.get("facts", {}).items():
        if name not in NAMES:
            return f"facts.{name}: no fact has this name"
        if not isinstance(entry, dict) or set(entry) != {"value", "source"}:
            return f"facts.{name}: not a value with its source"
    for mean in content.get("means", []):
        if not isinstance(mean, dict) or set(mean) != {"benchmark", "measure", "value", "source"}:
            return "means: one has not benchmark, measure, value and source"
    return None


def put_case(case: dict[str, Any], facts: Facts) -> None:
    """Add the facts of a case, each with its source."""
    for name, entry in case.get("facts", {}).items():
        if name.startswith("versions."):
            library = name.removeprefix("versions.")
            put_version(facts, library, str(entry["value"]), entry["source"], "told")
        else:
            facts.put(name, entry["value"], entry["source"], "told")
