"""YAML of foreign trainings, whose tags and constructors stay data."""

import tomllib
from pathlib import Path
from typing import Any

import yaml

from coltrain.reproduction.targets.calls import Call, Ref
from coltrain.reproduction.targets.facts import UNKNOWN

CONSTRUCTOR = "()"
"""configue's key for what a mapping builds."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, in which a tag is kept as data and `5e-4` is a number."""

    file: Path
    depth: int
    not_read: list[str]


def _ext(loader: _Loader, node: yaml.Node) -> Any:
    return Ref(loader.construct_scalar(node))


def _scalar(loader: _Loader, node: yaml.Node) -> Any:
    return loader.construct_scalar(node)


def _import(loader: _Loader, node: yaml.Node) -> Any:
    name = loader.construct_scalar(node)
    file = loader.file.parent / name
    if not file.is_file() and (loader.file.parent / file.name).is_file():
        file = loader.file.parent / file.name  # a run's folder keeps files flat
    if not file.is_file() or loader.depth > 5:
        loader.not_read.append(f"{loader.file.name}: !import {name} is not here")
        return Ref(name)
    return load_yaml(file, loader.not_read, loader.depth + 1)


def _other(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    loader.not_read.append(f"{loader.file.name}, line {node.start_mark.line + 1}: tag !{suffix}")
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


_Loader.add_constructor("!ext", _ext)
_Loader.add_constructor("!path", _scalar)
_Loader.add_constructor("!cfg", _ext)
_Loader.add_constructor("!import", _import)
_Loader.add_multi_constructor("!", _other)
_Loader.add_multi_constructor("tag:yaml.org,2002:python", _other)


def load_yaml(file: Path, not_read: list[str], depth: int = 0) -> Any:
    """A file's content, its `()` mappings as calls.

    Args:
        file: YAML, JSON or TOML.
        not_read: Gets what was not understood.
        depth: Of imports so far.
    """
    if file.suffix == ".toml":
        try:
            return tomllib.loads(file.read_text(encoding="utf-8", errors="replace"))
        except tomllib.TOMLDecodeError as error:
            not_read.append(f"{file.name}: not TOML ({error})")
            return UNKNOWN
    loader = None
    try:
        loader = _Loader(file.read_text(encoding="utf-8", errors="replace"))
        loader.file, loader.depth, loader.not_read = file, depth, not_read
        content = loader.get_single_data()
    except (yaml.YAMLError, ValueError) as error:
        first = str(error).splitlines()[0]
        not_read.append(f"{file.name}: not YAML ({first})")
        return UNKNOWN
    finally:
        if loader is not None:
            loader.dispose()
    return _with_calls(content, file.name)


def _with_calls(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        inner = {
            key: _with_calls(one, f"{where}, {key}" if "," not in where else f"{where}.{key}")
            for key, one in value.items()
            if key != CONSTRUCTOR
        }
        if CONSTRUCTOR in value:
            built = value[CONSTRUCTOR]
            name = built.name if isinstance(built, Ref) else str(built)
            return Call(name, [], {str(key): one for key, one in inner.items()}, where)
        return inner
    if isinstance(value, list):
        return [_with_calls(one, f"{where}[{place}]") for place, one in enumerate(value)]
    return value
