"""Statements of a script: imports, assignments, branches and loops."""

import ast
from pathlib import Path
from typing import Any

from coltrain.reproduction.targets.calls import Call, Ref
from coltrain.reproduction.targets.facts import UNKNOWN
from coltrain.reproduction.targets.python.by_hand import passes_of_a_step
from coltrain.reproduction.targets.python.state import State
from coltrain.reproduction.targets.python.values import (
    MAX_DEPTH,
    Attribute,
    Class,
    Function,
    Namespace,
    Return,
    as_load,
    differ,
)


class Statements(State):
    """Walks statements in order, with one scope for the module and one for each function call."""

    def module(self, tree: ast.Module) -> None:
        self.statements(tree.body, self.scope)
        # What nothing called by name may still be called: by a decorator, a library, another file.
        for value in list(self.scope.values()):
            if isinstance(value, Function) and id(value.node) not in self.entered:
                self._enter(value, [], {}, hidden=True)
            elif isinstance(value, Class):
                self._methods(value)

    def _methods(self, value: Class) -> None:
        instance = Namespace(name=value.node.name, of=value)
        for node in value.node.body:
            if isinstance(node, ast.FunctionDef) and id(node) not in self.entered:
                self._enter(Function(node, value.scope), [instance], {}, hidden=True)

    def statements(self, body: list[ast.stmt], scope: dict[str, Any]) -> None:
        for node in body:
            self.statement(node, scope)

    def statement(self, node: ast.stmt, scope: dict[str, Any]) -> None:
        match node:
            case ast.Import() | ast.ImportFrom():
                self._import(node, scope)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                scope[node.name] = Function(node, scope)
            case ast.ClassDef():
                scope[node.name] = Class(node, scope)
            case ast.Assign():
                value = self.value(node.value, scope)
                for target in node.targets:
                    self._assign(target, value, scope)
            case ast.AnnAssign() if node.value is not None:
                self._assign(node.target, self.value(node.value, scope), scope)
            case ast.AugAssign():
                whole = ast.BinOp(as_load(node.target), node.op, node.value)
                self._assign(node.target, self.value(whole, scope), scope)
            case ast.Expr():
                self.value(node.value, scope)
            case ast.Return():
                raise Return(None if node.value is None else self.value(node.value, scope))
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
        if self.depth >= MAX_DEPTH or file == self.file:
            return None
        inner = type(self)(file, self.options, self.environment)
        inner.depth = self.depth + 1
        inner.scope["__name__"] = file.stem
        try:
            inner.statements(ast.parse(file.read_text(encoding="utf-8")).body, inner.scope)
        except (SyntaxError, ValueError, Return):
            self.not_read.append(f"{file.name}: not Python")
            return None
        self.calls += inner.calls
        return inner.scope

    def _branch(self, node: ast.If, scope: dict[str, Any]) -> None:
        passes = passes_of_a_step(node)
        if passes is not None:
            where = f"{self.file.name}, line {node.lineno}"
            self.calls.append(Call("manual accumulation", [self.value(passes, scope)], {}, where))
        test = self.truth(self.value(node.test, scope))
        if test is not UNKNOWN:
            self.statements(node.body if test else node.orelse, scope)
            return
        before = dict(scope)
        left: list[Return] = []
        for body in (node.orelse, node.body):  # the branch that does something counts last
            self.unsure += 1
            try:
                self.statements(body, scope)
            except Return as returned:
                left.append(returned)
            finally:
                self.unsure -= 1
        if len(left) == 2:
            raise left[-1]
        for name, value in before.items():
            if name in scope and differ(value, scope[name]) and not node.orelse:
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
            if subject is UNKNOWN or isinstance(subject, Ref | Call | Attribute):
                self.statements(case.body, scope)
            elif subject in known:
                self.statements(case.body, scope)
                return

    def _loop(self, node: ast.For | ast.AsyncFor, scope: dict[str, Any]) -> None:
        items = self.value(node.iter, scope)
        self._epochs(node, items)
        rounds = items if isinstance(items, list) and len(items) <= 8 else [UNKNOWN]
        for item in rounds:
            self._assign(node.target, item, scope)
            self.statements(node.body, scope)

    def _epochs(self, node: ast.For | ast.AsyncFor, items: Any) -> None:
        """How often a loop over epochs goes round, as a call that says so."""
        while isinstance(items, Call) and items.last != "range" and items.args:
            items = items.args[0]  # tqdm(range(…))
        name = node.target.id if isinstance(node.target, ast.Name) else ""
        ends = items.args if isinstance(items, Call) and items.last in ("range", "trange") else []
        if "epoch" in name.lower() and ends and all(isinstance(one, int) for one in ends):
            rounds = ends[1] - ends[0] if len(ends) > 1 else ends[0]
            where = f"{self.file.name}, line {node.lineno}"
            self.calls.append(Call("for epoch in", [rounds], {}, where))

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
                elif isinstance(owner, Attribute) and isinstance(owner.of, Call):
                    owner.of.later[f"{owner.name}.{key}"] = value

    def _set(self, target: ast.Attribute, value: Any, scope: dict[str, Any]) -> None:
        owner = self.value(target.value, scope)
        if isinstance(owner, Namespace):
            owner.values[target.attr] = value
        elif isinstance(owner, Call):
            owner.later[target.attr] = value
        elif isinstance(owner, Attribute) and isinstance(owner.of, Call):
            owner.of.later[f"{owner.name}.{target.attr}"] = value
        elif isinstance(owner, Ref):
            where = f"{self.file.name}, line {target.lineno}"
            self.calls.append(Call("setattr", [owner, target.attr, value], {}, where))
