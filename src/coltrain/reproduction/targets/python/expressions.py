"""Expressions of a script: literals, names, arithmetic, comparisons, items."""

import ast
import operator
from collections.abc import Callable, Iterator
from typing import Any

from coltrain.reproduction.targets.calls import Call, Ref
from coltrain.reproduction.targets.facts import UNKNOWN
from coltrain.reproduction.targets.python.state import State
from coltrain.reproduction.targets.python.values import (
    MAX_ITEMS,
    POSITIONAL,
    Attribute,
    Class,
    Function,
    Namespace,
    apply,
    as_mapping,
    joined,
)

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


class Expressions(State):
    """What an expression is worth, or `UNKNOWN`."""

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
                    return joined(*sides)
                return apply(_OPERATORS.get(type(node.op)), *sides)
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
                return Function(node, scope)
            case ast.Await() | ast.Starred():
                return self.value(node.value, scope)
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp() | ast.DictComp():
                return self._comprehension(node, scope)
            case _:
                return UNKNOWN

    def _comprehension(self, node: Any, scope: dict[str, Any]) -> Any:
        items = [self.value(part.iter, scope) for part in node.generators][-1]
        inner = dict(scope)
        if len(node.generators) > 1 or not isinstance(items, list) or len(items) > MAX_ITEMS:
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
        if value is UNKNOWN or isinstance(value, Ref | Call | Attribute):
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
            return Attribute(owner, name)
        if isinstance(owner, Attribute):
            return Attribute(owner.of, f"{owner.name}.{name}")
        if isinstance(owner, Class):
            instance = self._instance(owner, [], {})
            if not isinstance(instance, Namespace):
                return Attribute(instance, name)
            return self._attribute(instance, name)
        if isinstance(owner, dict):
            return owner.get(name, Attribute(owner, name))
        return Attribute(owner, name)

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
                    return self._enter(Function(node, made.scope), [owner], {})
                return Function(node, made.scope, None if "staticmethod" in marks else owner)
        return UNKNOWN

    def _classes(self, made: Any) -> Iterator[Class]:
        """A class of the script and those that it inherits from."""
        if isinstance(made, Class):
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
                found |= as_mapping(inner)
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
            outcome = apply(_COMPARISONS[type(kind)], left, right)
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
                owner[key] if isinstance(owner, dict | list | str) else Attribute(owner, str(key))
            )
        except (KeyError, IndexError, TypeError):
            return UNKNOWN
