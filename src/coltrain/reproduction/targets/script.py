"""What a Python training script builds, read from its syntax tree; nothing of it is ever executed.

A small reader of the part of Python that training scripts are written in: literals, variables,
arithmetic, keyword arguments that come from a dict or a file beside the script, arguments of the
command line with their defaults, environment variables, branches whose condition is known, and
functions and dataclasses of the script itself. What is outside of it becomes `UNKNOWN`, and a call
of anything from outside becomes a `Call`.
"""

import ast
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from coltrain.reproduction.targets.calls import OPEN, Call, Ref, unique
from coltrain.reproduction.targets.facts import UNKNOWN
from coltrain.reproduction.targets.source import read_source
from coltrain.reproduction.targets.target import Mention
from coltrain.reproduction.targets.yaml_config import load_yaml

POSITIONAL = ""
"""Key of a script's options under which the words that are no options stand."""

_MAX_DEPTH = 12
_MAX_ITEMS = 64
_AUGMENTATION = re.compile(r"^query_augmentation_token$|^(<\|endoftext\|>)+$")
_ENDINGS = (".yaml", ".yml", ".json", ".toml")
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda a, b: a**b if abs(b) < 64 else UNKNOWN,
    ast.BitOr: operator.or_,
}
_COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_BUILTINS: dict[str, Callable[..., Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "dict": dict,
    "list": list,
    "tuple": list,
    "max": max,
    "min": min,
    "len": len,
    "abs": abs,
    "round": round,
}


@dataclass
class Namespace:
    """Attributes by name: parsed arguments, an instance of a class of the script."""

    values: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    of: Any = None  # the class of the script


@dataclass
class _Function:
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: dict[str, Any]
    bound: Any = None  # the instance or class that it is a method of


@dataclass
class _Class:
    node: ast.ClassDef
    scope: dict[str, Any]


class _Return(Exception):  # noqa: N818 - no error: a value on its way out of a function
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


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
    reader = _Reader(file, options, environment or {})
    reader.module(tree)
    return Script(
        unique(reader.calls), _mentions(tree, file.name), reader.scope, sorted(set(reader.not_read))
    )


def _mentions(tree: ast.AST, name: str) -> list[Mention]:
    found = []
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
            found.append(Mention(last, f"{name}, line {node.lineno}", text))
        elif isinstance(node, ast.JoinedStr | ast.BinOp) and (text := _begins(node)):
            found.append(Mention("prefixed text", f"{name}, line {node.lineno}", text))
        elif isinstance(node, ast.Attribute | ast.Constant) and _AUGMENTATION.search(
            str(getattr(node, "attr", getattr(node, "value", "")))
        ):
            found.append(Mention("augmentation", f"{name}, line {node.lineno}"))
    return sorted(found, key=lambda one: int(one.where.rsplit(" ", 1)[1]))


def _begins(node: ast.expr) -> str:
    """The text that a built-up text begins with, where it is a query's prefix."""
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        node = node.left
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value if node.value.startswith("Query:") else ""
    return ""


class _Reader:
    """Walks statements in order, with one scope for the module and one for each function call."""

    def __init__(
        self, file: Path, options: Mapping[str, Any] | None, environment: Mapping[str, str]
    ) -> None:
        self.file = file
        self.options = options
        self.environment = dict(environment)
        self.calls: list[Call] = []
        self.not_read: list[str] = []
        self.scope: dict[str, Any] = {"__name__": "__main__"}
        self.entered: set[int] = set()
        self.depth = 0

    # Statements

    def module(self, tree: ast.Module) -> None:
        self.statements(tree.body, self.scope)
        # What nothing called by name may still be called: by a decorator, a library, another file.
        for value in list(self.scope.values()):
            if isinstance(value, _Function) and id(value.node) not in self.entered:
                self._enter(value, [], {}, hidden=True)
            elif isinstance(value, _Class):
                self._methods(value)

    def _methods(self, value: _Class) -> None:
        instance = Namespace(name=value.node.name, of=value)
        for node in value.node.body:
            if isinstance(node, ast.FunctionDef) and id(node) not in self.entered:
                self._enter(_Function(node, value.scope), [instance], {}, hidden=True)

    def statements(self, body: list[ast.stmt], scope: dict[str, Any]) -> None:
        for node in body:
            self.statement(node, scope)

    def statement(self, node: ast.stmt, scope: dict[str, Any]) -> None:
        match node:
            case ast.Import() | ast.ImportFrom():
                self._import(node, scope)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                scope[node.name] = _Function(node, scope)
            case ast.ClassDef():
                scope[node.name] = _Class(node, scope)
            case ast.Assign():
                value = self.value(node.value, scope)
                for target in node.targets:
                    self._assign(target, value, scope)
            case ast.AnnAssign() if node.value is not None:
                self._assign(node.target, self.value(node.value, scope), scope)
            case ast.AugAssign():
                whole = ast.BinOp(_as_load(node.target), node.op, node.value)
                self._assign(node.target, self.value(whole, scope), scope)
            case ast.Expr():
                self.value(node.value, scope)
            case ast.Return():
                raise _Return(None if node.value is None else self.value(node.value, scope))
            case ast.If():
                self._branch(node, scope)
            case ast.For() | ast.AsyncFor():
                self._loop(node, scope)
            case ast.While():
                self.statements(node.body, scope)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    value = self.value(item.context_expr, scope)
                    if item.optional_vars is not None:
                        self._assign(item.optional_vars, value, scope)
                self.statements(node.body, scope)
            case ast.Try():
                self.statements(node.body, scope)
                self.statements(node.orelse + node.finalbody, scope)
            case ast.Match():
                self._match(node, scope)

    def _import(self, node: ast.Import | ast.ImportFrom, scope: dict[str, Any]) -> None:
        module = getattr(node, "module", None)
        beside = None
        if module and (self.file.parent / f"{module.rpartition('.')[2]}.py").is_file():
            beside = self._beside(self.file.parent / f"{module.rpartition('.')[2]}.py")
        for alias in node.names:
            if isinstance(node, ast.Import):
                file = self.file.parent / f"{alias.name}.py"
                name = alias.asname or alias.name.partition(".")[0]
                whole = alias.name if alias.asname else name
                inner = self._beside(file) if file.is_file() else None
                scope[name] = Ref(whole) if inner is None else Namespace(inner)
            elif beside is not None and alias.name == "*":
                scope.update(beside)
            elif beside is not None and alias.name in beside:
                scope[alias.asname or alias.name] = beside[alias.name]
            else:
                name = f"{module}.{alias.name}" if module else alias.name
                scope[alias.asname or alias.name] = Ref(name)

    def _beside(self, file: Path) -> dict[str, Any] | None:
        if self.depth >= _MAX_DEPTH or file == self.file:
            return None
        inner = _Reader(file, self.options, self.environment)
        inner.depth = self.depth + 1
        inner.scope["__name__"] = file.stem
        try:
            inner.statements(ast.parse(file.read_text(encoding="utf-8")).body, inner.scope)
        except (SyntaxError, ValueError, _Return):
            self.not_read.append(f"{file.name}: not Python")
            return None
        self.calls += inner.calls
        return inner.scope

    def _branch(self, node: ast.If, scope: dict[str, Any]) -> None:
        test = self.truth(self.value(node.test, scope))
        if test is not UNKNOWN:
            self.statements(node.body if test else node.orelse, scope)
            return
        before = dict(scope)
        left: list[_Return] = []
        for body in (node.orelse, node.body):  # the branch that does something counts last
            try:
                self.statements(body, scope)
            except _Return as returned:
                left.append(returned)
        if len(left) == 2:
            raise left[-1]
        for name, value in before.items():
            if name in scope and _differ(value, scope[name]) and not node.orelse:
                continue  # what an option switches on; the switch is not known, the value is

    def _match(self, node: ast.Match, scope: dict[str, Any]) -> None:
        subject = self.value(node.subject, scope)
        for case in node.cases:
            options = getattr(case.pattern, "patterns", [case.pattern])
            if all(isinstance(one, ast.MatchValue) for one in options) and case.guard is None:
                known = [self.value(one.value, scope) for one in options]
            elif isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None:
                known = [subject]
            else:
                self.not_read.append(f"{self.file.name}, line {case.pattern.lineno}: match")
                return
            if subject is UNKNOWN or isinstance(subject, Ref | Call | _Attribute):
                self.statements(case.body, scope)
            elif subject in known:
                self.statements(case.body, scope)
                return

    def _loop(self, node: ast.For | ast.AsyncFor, scope: dict[str, Any]) -> None:
        items = self.value(node.iter, scope)
        rounds = items if isinstance(items, list) and len(items) <= 8 else [UNKNOWN]
        for item in rounds:
            self._assign(node.target, item, scope)
            self.statements(node.body, scope)

    def _assign(self, target: ast.expr, value: Any, scope: dict[str, Any]) -> None:
        match target:
            case ast.Name():
                scope[target.id] = value
            case ast.Tuple() | ast.List():
                many = isinstance(value, list) and len(value) == len(target.elts)
                for place, one in enumerate(target.elts):
                    self._assign(one, value[place] if many else UNKNOWN, scope)
            case ast.Attribute():
                self._set(target, value, scope)
            case ast.Subscript():
                owner, key = self.value(target.value, scope), self.value(target.slice, scope)
                if isinstance(owner, dict) and isinstance(key, str | int):
                    owner[key] = value
                elif isinstance(owner, Ref) and owner.name == "os.environ":
                    self.environment[str(key)] = str(value)
                elif isinstance(owner, _Attribute) and isinstance(owner.of, Call):
                    owner.of.later[f"{owner.name}.{key}"] = value

    def _set(self, target: ast.Attribute, value: Any, scope: dict[str, Any]) -> None:
        owner = self.value(target.value, scope)
        if isinstance(owner, Namespace):
            owner.values[target.attr] = value
        elif isinstance(owner, Call):
            owner.later[target.attr] = value
        elif isinstance(owner, _Attribute) and isinstance(owner.of, Call):
            owner.of.later[f"{owner.name}.{target.attr}"] = value
        elif isinstance(owner, Ref):
            where = f"{self.file.name}, line {target.lineno}"
            self.calls.append(Call("setattr", [owner, target.attr, value], {}, where))

    # Expressions

    def value(self, node: ast.expr | None, scope: dict[str, Any]) -> Any:
        match node:
            case None:
                return None
            case ast.Constant():
                return node.value
            case ast.Name():
                return self._name(node.id, scope)
            case ast.Attribute():
                return self._attribute(self.value(node.value, scope), node.attr)
            case ast.List() | ast.Tuple() | ast.Set():
                return self._items(node.elts, scope)
            case ast.Dict():
                return self._dict(node, scope)
            case ast.Call():
                return self._call(node, scope)
            case ast.BinOp():
                sides = self.value(node.left, scope), self.value(node.right, scope)
                if isinstance(node.op, ast.Div):
                    return _joined(*sides)
                return _apply(_OPERATORS.get(type(node.op)), *sides)
            case ast.UnaryOp():
                return self._unary(node, scope)
            case ast.BoolOp():
                return self._bool(node, scope)
            case ast.Compare():
                return self._compare(node, scope)
            case ast.IfExp():
                return self._choice(node, scope)
            case ast.JoinedStr():
                return self._text(node, scope)
            case ast.Subscript():
                return self._item(self.value(node.value, scope), self.value(node.slice, scope))
            case ast.Slice():
                parts = [self.value(one, scope) for one in (node.lower, node.upper, node.step)]
                whole = all(isinstance(one, int | None) for one in parts)
                return slice(*parts) if whole else UNKNOWN
            case ast.NamedExpr():
                value = self.value(node.value, scope)
                self._assign(node.target, value, scope)
                return value
            case ast.Lambda():
                return _Function(node, scope)
            case ast.Await() | ast.Starred():
                return self.value(node.value, scope)
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp() | ast.DictComp():
                return self._comprehension(node, scope)
            case _:
                return UNKNOWN

    def _comprehension(self, node: Any, scope: dict[str, Any]) -> Any:
        items = [self.value(part.iter, scope) for part in node.generators][-1]
        inner = dict(scope)
        if len(node.generators) > 1 or not isinstance(items, list) or len(items) > _MAX_ITEMS:
            return UNKNOWN
        keys, values = [], []
        for item in items:
            self._assign(node.generators[0].target, item, inner)
            kept = [self.truth(self.value(one, inner)) for one in node.generators[0].ifs]
            if UNKNOWN in kept:
                return UNKNOWN
            if all(kept):
                keys.append(self.value(getattr(node, "key", None), inner))
                values.append(self.value(getattr(node, "value", getattr(node, "elt", None)), inner))
        if not isinstance(node, ast.DictComp):
            return values
        is_named = all(isinstance(key, str | int) for key in keys)
        return dict(zip(keys, values, strict=True)) if is_named else UNKNOWN

    def truth(self, value: Any) -> Any:
        """True, False or `UNKNOWN`."""
        if value is UNKNOWN or isinstance(value, Ref | Call | _Attribute):
            return UNKNOWN
        return bool(value) if not isinstance(value, Namespace) else True

    def _name(self, name: str, scope: dict[str, Any]) -> Any:
        for known in (scope, self.scope):
            if name in known:
                return known[name]
        return Ref(name)

    def _attribute(self, owner: Any, name: str) -> Any:
        if isinstance(owner, Namespace):
            return owner.values[name] if name in owner.values else self._method_of(owner, name)
        if isinstance(owner, Ref):
            return Ref(f"{owner.name}.{name}")
        if isinstance(owner, Call) and name in (*owner.later, *owner.kwargs):
            return owner.argument(name)
        if isinstance(owner, Call):
            return _Attribute(owner, name)
        if isinstance(owner, _Attribute):
            return _Attribute(owner.of, f"{owner.name}.{name}")
        if isinstance(owner, _Class):
            instance = self._instance(owner, [], {})
            if not isinstance(instance, Namespace):
                return _Attribute(instance, name)
            return self._attribute(instance, name)
        if isinstance(owner, dict):
            return owner.get(name, _Attribute(owner, name))
        return _Attribute(owner, name)

    def _method_of(self, owner: Namespace, name: str) -> Any:
        """A method of an instance's class, or the value of a property."""
        for made in self._classes(owner.of):
            for node in made.node.body:
                if not isinstance(node, ast.FunctionDef) or node.name != name:
                    continue
                marks = {
                    getattr(one, "id", getattr(one, "attr", "")) for one in node.decorator_list
                }
                if marks & {"property", "cached_property"}:
                    return self._enter(_Function(node, made.scope), [owner], {})
                return _Function(node, made.scope, None if "staticmethod" in marks else owner)
        return UNKNOWN

    def _classes(self, made: Any) -> Iterator[_Class]:
        """A class of the script and those that it inherits from."""
        if isinstance(made, _Class):
            yield made
            for base in made.node.bases:
                yield from self._classes(self.value(base, made.scope))

    def _items(self, nodes: list[ast.expr], scope: dict[str, Any]) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            value = self.value(node, scope)
            if isinstance(node, ast.Starred):
                found += value if isinstance(value, list) else []
            else:
                found.append(value)
        return found

    def _dict(self, node: ast.Dict, scope: dict[str, Any]) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            inner = self.value(value, scope)
            if key is None:
                found |= _as_mapping(inner)
                continue
            name = self.value(key, scope)
            if isinstance(name, str | int | float | bool):
                found[name] = inner
        return found

    def _unary(self, node: ast.UnaryOp, scope: dict[str, Any]) -> Any:
        value = self.value(node.operand, scope)
        if isinstance(node.op, ast.Not):
            truth = self.truth(value)
            return truth if truth is UNKNOWN else not truth
        if isinstance(node.op, ast.USub) and isinstance(value, int | float):
            return -value
        return value if isinstance(value, int | float) else UNKNOWN

    def _bool(self, node: ast.BoolOp, scope: dict[str, Any]) -> Any:
        values = [self.value(one, scope) for one in node.values]
        decisive = isinstance(node.op, ast.Or)
        for value in values:
            truth = self.truth(value)
            if truth is UNKNOWN:
                return value if decisive and not values.index(value) else UNKNOWN
            if truth == decisive:
                return value
        return values[-1]

    def _compare(self, node: ast.Compare, scope: dict[str, Any]) -> Any:
        left = self.value(node.left, scope)
        for kind, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(right_node, scope)
            outcome = _apply(_COMPARISONS[type(kind)], left, right)
            if not isinstance(outcome, bool) or not outcome:
                return outcome if isinstance(outcome, bool) else UNKNOWN
            left = right
        return True

    def _choice(self, node: ast.IfExp, scope: dict[str, Any]) -> Any:
        test = self.truth(self.value(node.test, scope))
        if test is UNKNOWN:  # `LoraConfig(…) if args.peft else None`: what the option switches on
            other = self.value(node.orelse, scope)
            chosen = self.value(node.body, scope)
            return other if chosen is None else chosen
        return self.value(node.body if test else node.orelse, scope)

    def _text(self, node: ast.JoinedStr, scope: dict[str, Any]) -> Any:
        parts = []
        for part in node.values:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            value = self.value(inner, scope)
            if not isinstance(value, str | int | float):
                return UNKNOWN
            parts.append(str(value))
        return "".join(parts)

    def _item(self, owner: Any, key: Any) -> Any:
        if isinstance(owner, Ref) and owner.name == "os.environ":
            return self.environment.get(str(key), UNKNOWN)
        if isinstance(owner, Ref) and owner.name == "sys.argv":
            owner = ["", *(self.options or {}).get(POSITIONAL, [])]
        try:
            return (
                owner[key] if isinstance(owner, dict | list | str) else _Attribute(owner, str(key))
            )
        except (KeyError, IndexError, TypeError):
            return UNKNOWN

    # Calls

    def _call(self, node: ast.Call, scope: dict[str, Any]) -> Any:
        called = self.value(node.func, scope)
        args = self._items(node.args, scope)
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value, scope)
            if keyword.arg is not None:
                kwargs[keyword.arg] = value
            elif isinstance(value, dict | Namespace):
                kwargs |= _as_mapping(value)
            elif isinstance(called, Ref | _Attribute):
                kwargs[OPEN] = UNKNOWN
        for handed in [*args, *kwargs.values()]:  # typer.run(main), Process(target=main)
            if isinstance(handed, _Function) and id(handed.node) not in self.entered:
                self._enter(handed, [], {})
        if isinstance(called, _Function):
            return self._enter(called, args, kwargs)
        if isinstance(called, _Class):
            return self._instance(called, args, kwargs)
        if isinstance(called, Ref):
            return self._foreign(called.name, None, args, kwargs, node)
        if isinstance(called, _Attribute):
            return self._method(called, args, kwargs, node)
        return UNKNOWN

    def _foreign(
        self, name: str, on: Any, args: list[Any], kwargs: dict[str, Any], node: ast.Call
    ) -> Any:
        last = name.rpartition(".")[2]
        if name == "getattr" and len(args) > 1 and isinstance(args[1], str):
            return self._attribute(args[0], args[1])
        if name.endswith("path.join"):
            return "/".join(one for one in args if isinstance(one, str)) or UNKNOWN
        if name.endswith("OmegaConf.from_cli"):
            return self._dotted()
        if name.endswith(("OmegaConf.merge", "OmegaConf.create", "OmegaConf.to_container")):
            whole: dict[str, Any] = {}
            for one in args:
                whole = _merged(whole, _as_mapping(one))
            return whole
        if name == "dict" and args and isinstance(args[0], dict | Namespace):
            return dict(_as_mapping(args[0])) | kwargs
        if name in _BUILTINS and not (name == "dict" and args):
            return _apply_many(_BUILTINS[name], args, kwargs)
        if name in ("os.getenv", "os.environ.get"):
            default = args[1] if len(args) > 1 else kwargs.get("default")
            return self.environment.get(str(args[0]) if args else "", default)
        if last in ("safe_load", "load", "full_load", "loads", "open", "read_text"):
            content = self._content(args)
            if content is not UNKNOWN:
                return content
        if last == "partial" and args and isinstance(args[0], Ref):
            name, args = args[0].name, args[1:]
        if last in ("field", "Field") and "default_factory" in kwargs:
            return self._made(kwargs["default_factory"])
        if last in ("field", "Field", "Option", "Argument", "option"):
            return kwargs.get("default", args[0] if args else UNKNOWN)
        where = f"{self.file.name}, line {node.lineno}"
        named = {key: _of_call(value) for key, value in kwargs.items()}
        call = Call(name, [_of_call(value) for value in args], named, where, on)
        self.calls.append(call)
        return call

    def _made(self, factory: Any) -> Any:
        """What a default factory gives."""
        if isinstance(factory, _Class):
            return self._instance(factory, [], {})
        if isinstance(factory, _Function):
            return self._enter(factory, [], {})
        name = factory.name if isinstance(factory, Ref) else ""
        return {"list": [], "dict": {}}.get(name, UNKNOWN)

    def _method(
        self, called: "_Attribute", args: list[Any], kwargs: dict[str, Any], node: ast.Call
    ) -> Any:
        owner, name = called.of, called.name
        if isinstance(owner, dict):
            if name == "get" and args:
                return owner.get(args[0], args[1] if len(args) > 1 else None)
            if name == "update" and args:
                owner.update(_as_mapping(args[0]))
            owner.update(kwargs if name == "update" else {})
            if name in ("pop", "setdefault") and args and isinstance(args[0], str):
                found = owner.get(args[0], args[1] if len(args) > 1 else UNKNOWN)
                if name == "pop":
                    owner.pop(args[0], None)
                else:
                    owner.setdefault(args[0], found)
                return found
            views: dict[str, Callable[[], Any]] = {
                "copy": lambda: dict(owner),
                "items": lambda: [[key, value] for key, value in owner.items()],
                "keys": lambda: list(owner),
                "values": lambda: list(owner.values()),
            }
            return views[name]() if name in views else UNKNOWN
        if isinstance(owner, str | list):
            if name == "append" and isinstance(owner, list):
                owner.append(args[0] if args else UNKNOWN)
                return None
            plain = all(isinstance(one, str | int) for one in args)
            return _apply_many(getattr(owner, name, None), args, {}) if plain else UNKNOWN
        if isinstance(owner, Call) and name.startswith("parse"):
            return self._parsed(owner, name)
        if isinstance(owner, Call):
            return self._foreign(f"{owner.name}().{name}", owner, args, kwargs, node)
        return UNKNOWN

    def _content(self, args: list[Any]) -> Any:
        """What a file beside the script holds."""
        source = args[0] if args else UNKNOWN
        if isinstance(source, Call) and source.args:
            source = source.args[0]
        if isinstance(source, dict):
            return source  # opened already
        if not isinstance(source, str) or not source.endswith(_ENDINGS):
            return UNKNOWN
        beside = self.file.parent
        for file in (beside / source, beside / Path(source).name, beside.parent / source):
            if file.is_file():
                return load_yaml(file, self.not_read)
        self.not_read.append(f"{self.file.name}: {source} is not here")
        return UNKNOWN

    def _enter(
        self, called: _Function, args: list[Any], kwargs: dict[str, Any], hidden: bool = False
    ) -> Any:
        node = called.node
        if called.bound is not None:
            args = [called.bound, *args]
        if self.depth >= _MAX_DEPTH:
            return UNKNOWN
        self.entered.add(id(node))
        scope = dict(called.scope) if called.scope is not self.scope else {}
        parameters = [*node.args.posonlyargs, *node.args.args]
        defaults: list[Any] = [None] * (len(parameters) - len(node.args.defaults))
        decorated = {} if isinstance(node, ast.Lambda) else self._decorated(node, called.scope)
        for place, (parameter, default) in enumerate(
            zip(parameters, [*defaults, *node.args.defaults], strict=True)
        ):
            value = UNKNOWN if default is None else self.value(default, called.scope)
            if isinstance(value, Call):
                value = value.argument("default", 0)
            value = decorated.get(parameter.arg, value)
            if self.options and not args and parameter.arg in self.options:
                value = self.options[parameter.arg]
            if place < len(args):
                value = args[place]
            scope[parameter.arg] = kwargs.get(parameter.arg, value)
        for parameter, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            value = UNKNOWN if default is None else self.value(default, called.scope)
            scope[parameter.arg] = kwargs.get(parameter.arg, decorated.get(parameter.arg, value))
        if node.args.kwarg is not None:
            named = {parameter.arg for parameter in [*parameters, *node.args.kwonlyargs]}
            scope[node.args.kwarg.arg] = {k: v for k, v in kwargs.items() if k not in named}
        self.depth += 1
        try:
            if isinstance(node, ast.Lambda):
                return self.value(node.body, dict(called.scope) | scope)
            self.statements(node.body, scope)
        except _Return as returned:
            return returned.value
        finally:
            self.depth -= 1
        return None

    def _decorated(self, node: Any, scope: dict[str, Any]) -> dict[str, Any]:
        """Defaults that click's decorators state."""
        found: dict[str, Any] = {}
        for decorator in node.decorator_list:
            if not isinstance(decorator, ast.Call):
                continue
            if ast.unparse(decorator.func) == "hydra.main" and node.args.args:
                found[node.args.args[0].arg] = self._hydra(decorator, scope)
            if getattr(decorator.func, "attr", getattr(decorator.func, "id", "")) != "option":
                continue
            names = [one.value for one in decorator.args if isinstance(one, ast.Constant)]
            given = {k.arg: self.value(k.value, scope) for k in decorator.keywords if k.arg}
            name = next(
                (n.lstrip("-").replace("-", "_") for n in names if n.startswith("--")), None
            )
            if name:
                default = given.get("default", UNKNOWN)
                found[name] = (self.options or {}).get(name, default)
        return found

    def _hydra(self, decorator: ast.Call, scope: dict[str, Any]) -> Any:
        """The configuration that hydra composes: the file, its defaults, `key=value` of the command."""
        given = {k.arg: self.value(k.value, scope) for k in decorator.keywords if k.arg}
        folder = self.file.parent / str(given.get("config_path") or ".")
        file = folder / f"{str(given.get('config_name', 'config')).removesuffix('.yaml')}.yaml"
        if not file.is_file():
            self.not_read.append(f"{self.file.name}: {file.name} is not here")
            return UNKNOWN
        content = load_yaml(file, self.not_read)
        whole: dict[str, Any] = {}
        for entry in content.pop("defaults", []) if isinstance(content, dict) else []:
            for group, name in entry.items() if isinstance(entry, dict) else ():
                chosen = folder / str(group) / f"{name}.yaml"
                if chosen.is_file():
                    whole = _merged(whole, {str(group): load_yaml(chosen, self.not_read)})
        whole = _merged(whole, content)
        return _merged(whole, self._dotted())

    def _dotted(self) -> dict[str, Any]:
        """`trainer.lr=5e-5` of the command line, as hydra and OmegaConf read it."""
        found: dict[str, Any] = {}
        for word in (self.options or {}).get(POSITIONAL, []):
            key, is_setting, text = word.lstrip("+").partition("=")
            if is_setting:
                value: Any = yaml.safe_load(text)
                for part in reversed(key.split(".")):
                    value = {part: value}
                found = _merged(found, value)
        return found

    def _instance(self, made: _Class, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """A dataclass or a plain class of the script: its fields, and what was handed over.

        A class that inherits from another library's is that library's, with these as arguments.
        """
        values: dict[str, Any] = {}
        names = []
        for base in made.node.bases:
            inherited = self.value(base, made.scope)
            if isinstance(inherited, _Class):
                values |= _as_mapping(self._instance(inherited, [], {}))
        for node in made.node.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.append(node.target.id)
                if node.value is not None:
                    values[node.target.id] = self.value(node.value, made.scope)
            elif isinstance(node, ast.Assign):
                value = self.value(node.value, made.scope)
                values |= {t.id: value for t in node.targets if isinstance(t, ast.Name)}
        values |= dict(zip(names, args, strict=False)) | kwargs
        bases = [self.value(base, made.scope) for base in made.node.bases]
        foreign = next((base for base in bases if isinstance(base, Ref)), None)
        if foreign is not None and foreign.last not in ("object", "BaseModel", "NamedTuple"):
            where = f"{self.file.name}, line {made.node.lineno}"
            call = Call(foreign.name, args, values, where)
            self.calls.append(call)
            return call
        instance = Namespace(values, made.node.name, made)
        setup = next((n for n in made.node.body if getattr(n, "name", "") == "__init__"), None)
        if isinstance(setup, ast.FunctionDef):
            self._enter(_Function(setup, made.scope), [instance, *args], kwargs)
        return instance

    # Arguments of the command line

    def _parsed(self, parser: Call, name: str) -> Any:
        if parser.last == "HfArgumentParser":
            return self._dataclasses(parser)
        values: dict[str, Any] = {}
        for call in self.calls:
            if call.last != "add_argument" or not call.args:
                continue
            flags = [one for one in call.args if isinstance(one, str)]
            if not flags:
                continue
            long = next((one for one in flags if one.startswith("--")), flags[0])
            stored = call.kwargs.get("dest") or long.lstrip("-").replace("-", "_")
            values[stored] = self._option(call, flags)
        parsed = Namespace(values, "arguments")
        return [parsed, []] if name == "parse_known_args" else parsed

    def _option(self, call: Call, flags: list[str]) -> Any:
        for flag in flags:
            key = flag.lstrip("-").replace("-", "_")
            if self.options is not None and key in self.options:
                return _typed(self.options[key], call.kwargs.get("type"))
        if call.kwargs.get("action") in ("store_true", "store_false"):
            stands = call.kwargs["action"] == "store_false"
            # Without the command nobody knows whether the switch was there.
            return call.kwargs.get("default", stands) if self.options is not None else UNKNOWN
        return call.kwargs.get("default", UNKNOWN)

    def _given(self) -> dict[str, Any]:
        """Options of the command, and those of a file that it names alone."""
        found: dict[str, Any] = {}
        for word in (self.options or {}).get(POSITIONAL, []):
            content = self._content([word])
            found |= content if isinstance(content, dict) else {}
        return found | {k: v for k, v in (self.options or {}).items() if k != POSITIONAL}

    def _dataclasses(self, parser: Call) -> list[Any]:
        kinds = parser.args[0] if parser.args else []
        made = []
        given = self._given()
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            if isinstance(kind, _Class):
                instance = self._instance(kind, [], {})
                inner = instance.values if isinstance(instance, Namespace) else instance.later
                inner |= given
                made.append(instance)
            elif isinstance(kind, Ref):
                call = Call(kind.name, [], dict(given), f"{self.file.name}, command line")
                self.calls.append(call)
                made.append(call)
        return made


@dataclass(frozen=True)
class _Attribute:
    """An attribute of what is not known itself."""

    of: Any
    name: str


def _of_call(value: Any) -> Any:
    """An argument: a part of what a call gave is that call's still, such as a split of a data set."""
    if not isinstance(value, _Attribute):
        return value
    owner = _of_call(value.of)
    return Call(f"{owner.name}().{value.name}", on=owner) if isinstance(owner, Call) else UNKNOWN


def _as_load(node: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(node), mode="eval").body


def _merged(one: Any, other: Any) -> Any:
    """Two mappings as one, key by key; the second counts."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    found = dict(one)
    for key, value in other.items():
        found[key] = _merged(found[key], value) if key in found else value
    return found


def _joined(one: Any, other: Any) -> Any:
    """A quotient, or `folder / "name"` of a path, of which only the known end counts."""
    if not isinstance(other, str):
        return _apply(operator.truediv, one, other)
    return f"{one}/{other}" if isinstance(one, str) else other


def _apply(function: Callable[[Any, Any], Any] | None, one: Any, other: Any) -> Any:
    plain = str | int | float | list | dict | bool | None
    if function is None or not isinstance(one, plain) or not isinstance(other, plain):
        return UNKNOWN
    try:
        return function(one, other)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
        return UNKNOWN


def _apply_many(function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
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


def _as_mapping(value: Any) -> dict[Any, Any]:
    if isinstance(value, Namespace):
        return value.values
    return dict(value) if isinstance(value, dict) else {}


def _differ(one: Any, other: Any) -> bool:
    return one is not other


def _typed(value: Any, kind: Any) -> Any:
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
