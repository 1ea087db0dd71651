"""What a followed expression can be, and what is done with values that are plain."""

import ast
import json
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from coltrain.reproduction.targets.calls import Call, Ref
from coltrain.reproduction.targets.facts import UNKNOWN

POSITIONAL = ""
"""Key of a script's options under which the words that are no options stand."""

MAX_DEPTH = 12
"""Of calls, and of files that import one another."""

MAX_ITEMS = 64
"""Of a loop or comprehension that are followed."""


@dataclass
class Namespace:
    """Attributes by name: parsed arguments, an instance of a class of the script."""

    values: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    of: Any = None  # the class of the script


@dataclass
class Function:
    """A function of the script, with the names that it sees."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: dict[str, Any]
    bound: Any = None  # the instance or class that it is a method of


@dataclass
class Class:
    """A class of the script, with the names that it sees."""

    node: ast.ClassDef
    scope: dict[str, Any]


class Return(Exception):  # noqa: N818 - no error: a value on its way out of a function
    """A function ends with this value."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


@dataclass(frozen=True)
class Attribute:
    """An attribute of what is not known itself."""

    of: Any
    name: str


def of_call(value: Any) -> Any:
    """An argument: a part of what a call gave is that call's still, such as a split of a data set."""
    if not isinstance(value, Attribute):
        return value
    owner = of_call(value.of)
    return Call(f"{owner.name}().{value.name}", on=owner) if isinstance(owner, Call) else UNKNOWN


def as_load(node: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(node), mode="eval").body


def merged(one: Any, other: Any) -> Any:
    """Two mappings as one, key by key; the second counts."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    found = dict(one)
    for key, value in other.items():
        found[key] = merged(found[key], value) if key in found else value
    return found


def joined(one: Any, other: Any) -> Any:
    """A quotient, or `folder / "name"` of a path, of which only the known end counts."""
    if not isinstance(other, str):
        return apply(operator.truediv, one, other)
    return f"{one}/{other}" if isinstance(one, str) else other


def apply(function: Callable[[Any, Any], Any] | None, one: Any, other: Any) -> Any:
    plain = str | int | float | list | dict | bool | None
    if function is None or not isinstance(one, plain) or not isinstance(other, plain):
        return UNKNOWN
    try:
        return function(one, other)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
        return UNKNOWN


def apply_many(function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if function is None or any(not _is_plain(one) for one in args):
        return UNKNOWN
    if function is dict:
        return dict(kwargs)
    try:
        return function(*args, **kwargs)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
        return UNKNOWN


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, str | int | float | bool | dict | None)


def as_mapping(value: Any) -> dict[Any, Any]:
    if isinstance(value, Namespace):
        return value.values
    return dict(value) if isinstance(value, dict) else {}


def differ(one: Any, other: Any) -> bool:
    return one is not other


def typed(value: Any, kind: Any) -> Any:
    if isinstance(kind, Ref) and kind.name in ("int", "float", "str", "json.loads"):
        kinds: dict[str, Callable[[Any], Any]] = {
            "int": int,
            "float": float,
            "str": str,
            "json.loads": json.loads,
        }
        try:
            return kinds[kind.name](value)
        except (TypeError, ValueError):
            return UNKNOWN
    return value
