"""Calls in a script: of its own functions and classes, which are entered, and of what is from outside."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from coltrain.reproduction.targets.calls import OPEN, Call, Ref
from coltrain.reproduction.targets.facts import UNKNOWN
from coltrain.reproduction.targets.python.state import State
from coltrain.reproduction.targets.python.values import (
    MAX_DEPTH,
    POSITIONAL,
    Attribute,
    Class,
    Function,
    Namespace,
    Return,
    apply_many,
    as_mapping,
    merged,
    of_call,
)
from coltrain.reproduction.targets.yaml_config import load_yaml

_ENDINGS = (".yaml", ".yml", ".json", ".toml")
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


class Invocations(State):
    """Follows a call, or records it."""

    def _call(self, node: ast.Call, scope: dict[str, Any]) -> Any:
        called = self.value(node.func, scope)
        args = self._items(node.args, scope)
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value, scope)
            if keyword.arg is not None:
                kwargs[keyword.arg] = value
            elif isinstance(value, dict | Namespace):
                kwargs |= as_mapping(value)
            elif isinstance(called, Ref | Attribute):
                kwargs[OPEN] = UNKNOWN
        for handed in [*args, *kwargs.values()]:  # typer.run(main), Process(target=main)
            if isinstance(handed, Function) and id(handed.node) not in self.entered:
                self._enter(handed, [], {})
        if isinstance(called, Function):
            return self._enter(called, args, kwargs)
        if isinstance(called, Class):
            return self._instance(called, args, kwargs)
        if isinstance(called, Ref):
            return self._foreign(called.name, None, args, kwargs, node)
        if isinstance(called, Attribute):
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
                whole = merged(whole, as_mapping(one))
            return whole
        if name == "dict" and args and isinstance(args[0], dict | Namespace):
            return dict(as_mapping(args[0])) | kwargs
        if name in _BUILTINS and not (name == "dict" and args):
            return apply_many(_BUILTINS[name], args, kwargs)
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
        named = {key: of_call(value) for key, value in kwargs.items()}
        values = [of_call(value) for value in args]
        call = Call(name, values, named, where, on, is_unsure=self.unsure > 0)
        self.calls.append(call)
        return call

    def _made(self, factory: Any) -> Any:
        """What a default factory gives."""
        if isinstance(factory, Class):
            return self._instance(factory, [], {})
        if isinstance(factory, Function):
            return self._enter(factory, [], {})
        name = factory.name if isinstance(factory, Ref) else ""
        return {"list": [], "dict": {}}.get(name, UNKNOWN)

    def _method(
        self, called: Attribute, args: list[Any], kwargs: dict[str, Any], node: ast.Call
    ) -> Any:
        owner, name = called.of, called.name
        if isinstance(owner, dict):
            if name == "get" and args:
                return owner.get(args[0], args[1] if len(args) > 1 else None)
            if name == "update" and args:
                owner.update(as_mapping(args[0]))
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
            return apply_many(getattr(owner, name, None), args, {}) if plain else UNKNOWN
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
        self, called: Function, args: list[Any], kwargs: dict[str, Any], hidden: bool = False
    ) -> Any:
        node = called.node
        if called.bound is not None:
            args = [called.bound, *args]
        if self.depth >= MAX_DEPTH:
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
        except Return as returned:
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
                    whole = merged(whole, {str(group): load_yaml(chosen, self.not_read)})
        whole = merged(whole, content)
        return merged(whole, self._dotted())

    def _dotted(self) -> dict[str, Any]:
        """`trainer.lr=5e-5` of the command line, as hydra and OmegaConf read it."""
        found: dict[str, Any] = {}
        for word in (self.options or {}).get(POSITIONAL, []):
            key, is_setting, text = word.lstrip("+").partition("=")
            if is_setting:
                value: Any = yaml.safe_load(text)
                for part in reversed(key.split(".")):
                    value = {part: value}
                found = merged(found, value)
        return found

    def _instance(self, made: Class, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """A dataclass or a plain class of the script: its fields, and what was handed over.

        A class that inherits from another library's is that library's, with these as arguments.
        """
        values: dict[str, Any] = {}
        names = []
        for base in made.node.bases:
            inherited = self.value(base, made.scope)
            if isinstance(inherited, Class):
                values |= as_mapping(self._instance(inherited, [], {}))
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
            self._enter(Function(setup, made.scope), [instance, *args], kwargs)
        return instance
