"""What a Python training script builds, read from its syntax tree; nothing of it is ever executed.

A small reader of the part of Python that training scripts are written in: literals, variables,
arithmetic, keyword arguments that come from a dict or a file beside the script, arguments of the
command line with their defaults, environment variables, branches whose condition is known, and
functions and dataclasses of the script itself. What is outside of it becomes `UNKNOWN`, and a call
of anything from outside becomes a `Call`.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coltrain.reproduction.targets.calls import Call, unique
from coltrain.reproduction.targets.python.by_hand import by_hand
from coltrain.reproduction.targets.python.expressions import Expressions
from coltrain.reproduction.targets.python.invocations import Invocations
from coltrain.reproduction.targets.python.options import Options
from coltrain.reproduction.targets.python.statements import Statements
from coltrain.reproduction.targets.python.unused import without_unused
from coltrain.reproduction.targets.source import read_source
from coltrain.reproduction.targets.target import Mention

_AUGMENTATION = re.compile(r"^query_augmentation_token$|^(<\|endoftext\|>)+$")


@dataclass
class Script:
    """What a script builds.

    Attributes:
        calls: In the order in which they are met.
        mentions: Every name that it calls or reads as an attribute, followed or not.
        names: Module-level variables at the end.
        not_read: What stopped the reading.
    """

    calls: list[Call]
    mentions: list[Mention]
    names: dict[str, Any]
    not_read: list[str]


def read_script(
    file: Path,
    options: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Script:
    """Read a script.

    Args:
        file: Python source, or a notebook.
        options: `--name value` of the command that starts it; None where no command is known.
        environment: Variables that the command sets.
    """
    try:
        tree = ast.parse(read_source(file).python)
    except (SyntaxError, ValueError, RecursionError) as error:
        return Script([], [], {}, [f"{file.name}: not Python ({error})"])
    tree = without_unused(tree)
    reader = _Reader(file, options, environment or {})
    reader.module(tree)
    mentions = _mentions(tree, file.name)
    return Script(unique(reader.calls), mentions, reader.scope, sorted(set(reader.not_read)))


def _mentions(tree: ast.AST, name: str) -> list[Mention]:
    found = []
    texts = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            last = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            text = " ".join(
                part.value
                for argument in node.args
                for part in ast.walk(argument)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )
            owner = ast.unparse(called.value) if isinstance(called, ast.Attribute) else ""
            found.append(Mention(last, f"{name}, line {node.lineno}", text, owner))
            if last == "format" and isinstance(called, ast.Attribute):
                text = _begins(called.value, texts)
                found += (
                    [Mention("prefixed text", f"{name}, line {node.lineno}", text)] if text else []
                )
        elif isinstance(node, ast.JoinedStr | ast.BinOp) and (text := _begins(node, texts)):
            found.append(Mention("prefixed text", f"{name}, line {node.lineno}", text))
        elif isinstance(node, ast.Attribute | ast.Constant) and _AUGMENTATION.search(
            str(getattr(node, "attr", getattr(node, "value", "")))
        ):
            found.append(Mention("augmentation", f"{name}, line {node.lineno}"))
    found += [Mention(sign, f"{name}, line {line}", text) for sign, line, text in by_hand(tree)]
    return sorted(found, key=lambda one: int(one.where.rsplit(" ", 1)[1]))


def _begins(node: ast.expr, texts: Mapping[str, str]) -> str:
    """The text that a built-up text begins with, where it is a query's prefix.

    Args:
        node: `"Query: " + q`, `f"{PREFIX}{q}"`, `"Query: {}"`.
        texts: Of names that are assigned a text.
    """
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        node = node.left
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    if isinstance(node, ast.FormattedValue):
        node = node.value
    if isinstance(node, ast.Name):
        text = texts.get(node.id, "")
        return text if text.startswith("Query:") else ""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value if node.value.startswith("Query:") else ""
    return ""


class _Reader(Statements, Expressions, Invocations, Options):
    """All parts of the language together."""
