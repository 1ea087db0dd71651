"""YAML as recipes use it: `5e-5` is a number, `on` is a text, a key stands once.

PyYAML follows YAML 1.1, where `5e-5` is a text, `on` is true and `1:30` is 90. Here the scalars are
those of YAML 1.2. Aliases are left out: a recipe says each thing where it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from coltrain.errors import RecipeError

_FLOAT = (
    r"^[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)
_SCALARS = [
    # PyYAML tries these in order, by the first character of the scalar.
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("tag:yaml.org,2002:int", r"^[-+]?\d+$", list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789")),
]


class _Loader(yaml.SafeLoader):
    # PyYAML copies this table per class on the first change; an own one drops all of YAML 1.1.
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012

    def compose_node(self, parent, index):
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.constructor.ConstructorError(
                None, None, "a recipe has no aliases (*name)", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _Dumper):
    for _tag, _pattern, _first in _SCALARS:
        _class.add_implicit_resolver(_tag, re.compile(_pattern), _first)

# PyYAML reads 010 as octal; here a whole number is decimal.
_Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node))
)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Line breaks and blanks at the ends are part of a template: double quotes show them.
    style = None if text.isprintable() and text == text.strip() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


@dataclass(frozen=True)
class Document:
    """What a YAML file says, and on which line it says it."""

    values: dict[str, Any]
    lines: dict[str, int]


def read_document(text: str, label: str) -> Document:
    """Read the mapping that a recipe is.

    Args:
        text: YAML.
        label: Name or path for error messages.

    Raises:
        RecipeError: broken-yaml, empty-recipe, recipe-not-a-mapping or duplicate-key.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines, twice = _lines(node)
            if twice:
                raise RecipeError(
                    "duplicate-key",
                    "a key stands more than once, so one of its values would be lost.",
                    where=label,
                    received="\n".join(twice),
                    expected="each key once",
                )
            values = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _broken(error, label) from None
    if values is None:
        raise RecipeError(
            "empty-recipe",
            "the recipe says nothing.",
            where=label,
            received="no keys" if text.strip() else "an empty file",
            expected="a mapping of keys such as model, lora and loss",
            suggestion="coltrain recipes show tiny, which prints a whole recipe to start from",
        )
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else f"the single value {str(values)[:80]!r}"
        raise RecipeError(
            "recipe-not-a-mapping",
            "a recipe is a mapping of keys to values.",
            where=label,
            received=kind,
            expected="keys such as `model:`, `lora:` and `loss:`, each on a line of its own",
            suggestion="coltrain recipes show tiny, which prints a whole recipe to start from",
        )
    return Document(values, lines)


def read_value(text: str) -> Any:
    """Read one value, as it stands after the `=` of an override.

    Raises:
        ValueError: The text is not YAML; says why in a few words.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            twice = _lines(node)[1]
            if twice:
                raise ValueError(f"a key stands more than once: {', '.join(twice)}")
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(_problem(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_value(value: Any) -> str:
    """One value on one line, in a form that `read_document` gives back unchanged."""
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        width=2**31,
        allow_unicode=True,
        sort_keys=False,
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _lines(node: yaml.Node | None, prefix: str = "") -> tuple[dict[str, int], list[str]]:
    """The line of each key, and keys that stand more than once."""
    lines: dict[str, int] = {}
    twice: list[str] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{prefix}{key.value}"
            number = key.start_mark.line + 1
            if path in lines:
                twice.append(f"{path} on lines {lines[path]} and {number}")
            inner_lines, inner_twice = _lines(value, path + ".")
            lines.update({path: number, **inner_lines})
            twice.extend(inner_twice)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            inner_lines, inner_twice = _lines(value, f"{prefix.removesuffix('.')}[{index}].")
            lines.update(inner_lines)
            twice.extend(inner_twice)
    return lines, twice


def _problem(error: Exception) -> str:
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    text = ", ".join(part for part in parts if part)
    return text or getattr(error, "reason", None) or str(error) or "it cannot be read"


def _broken(error: Exception, label: str) -> RecipeError:
    if isinstance(error, RecursionError):
        return RecipeError("broken-yaml", "the file is nested too deeply.", where=label)
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where, received = label, None
    if mark is not None:
        where = f"{label}, line {mark.line + 1}, column {mark.column + 1}"
        snippet = mark.get_snippet(indent=0, max_length=75)
        received = snippet or None
    return RecipeError(
        "broken-yaml",
        f"the file is not YAML: {_problem(error)}.",
        where=where,
        received=received,
        expected="`key: value` lines, indented by spaces",
    )
