"""Configurations of a data set: what its README declares, and languages with tables of their own.

The hub's data sets say in the front matter of README.md which files make up which split of which
configuration. Benchmarks for retrieval have one for each table (`corpus`, `queries`, `qrels`), and
for each language where they have several (`english-corpus`, `english-queries`, `english-qrels`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from coltrain.errors import DataError

TABLES = ("corpus", "queries", "qrels")
_OF_TABLE = re.compile(r"(?:(?P<language>.+)-)?(?P<table>corpus|queries|query|qrels)")
_DEFAULT = "default"
_SPLIT_WITHOUT_NAME = "train"  # as in `datasets`, for files of a configuration that names no split


@dataclass(frozen=True)
class Configuration:
    """One configuration of a data set.

    Attributes:
        name: As in the README, or the name of a folder.
        splits: Split to its parquet files, in order; the split None for files whose names have to
            say it.
        is_default: Whether the README marks it.
    """

    name: str
    splits: Mapping[str | None, list[str]]
    is_default: bool = False


def declared(readme: str, names: Iterable[str], where: str) -> list[Configuration]:
    """The configurations that a README maps to files.

    Args:
        readme: Its text.
        names: Files of the data set, to which the patterns are applied.
        where: The data set, for messages.

    Returns:
        None at all where the README declares none with files.

    Raises:
        DataError: [broken-readme] The front matter is no YAML, or maps files in no known form.

    Source:
        huggingface.co/docs/hub/datasets-manual-configuration: `path` is a pattern or a list of
        them; `data_files` is a pattern, a list of them, or a list of splits.
    """
    front = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", readme, re.DOTALL)
    if front is None or not re.search(r"^configs\s*:", front[1], re.MULTILINE):
        return []
    try:
        entries = yaml.safe_load(front[1])["configs"]
        names = sorted(names)
        return [found for entry in entries or [] if (found := _configuration(entry, names))]
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            "broken-readme",
            "the configurations in README.md cannot be read.",
            where=f"{where}, README.md",
            received=f"{type(error).__name__}: {' '.join(str(error).split())}",
            expected="`configs:`, a list of `config_name` and `data_files`",
            suggestion="mend the front matter, or download the files and leave README.md out",
        ) from error


def _configuration(entry: Mapping[str, Any], names: list[str]) -> Configuration | None:
    files = entry.get("data_files")
    if files is None:
        return None  # a folder by its name, or nothing that is ours to read
    if isinstance(files, str | Mapping):
        files = [files]
    folder = str(entry["data_dir"]).strip("/") + "/" if entry.get("data_dir") else ""
    splits: dict[str | None, list[str]] = {}
    for part in files:
        split, patterns = (
            (part.get("split", _SPLIT_WITHOUT_NAME), part["path"])
            if isinstance(part, Mapping)
            else (_SPLIT_WITHOUT_NAME, part)
        )
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            chosen = splits.setdefault(str(split), [])
            matches = _pattern(folder + pattern.removeprefix("./"))
            chosen += [
                name
                for name in names
                if name.endswith(".parquet") and matches.fullmatch(name) and name not in chosen
            ]
    return Configuration(
        str(entry.get("config_name", _DEFAULT)), splits, bool(entry.get("default"))
    )


def _pattern(glob: str) -> re.Pattern[str]:
    """A pattern of files: `*` and `?` stay within a folder, `**` does not; a folder is its files."""
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob.rstrip("/"))
    text = "".join(signs.get(part, re.escape(part)) for part in parts)
    return re.compile(text + "(?:/.*)?")


def of_folders(names: Iterable[str]) -> list[Configuration]:
    """Folders such as `english-corpus` as configurations, for a data set whose README is silent."""
    files: dict[str, list[str]] = {}
    for name in sorted(names):
        folder, slash, _ = name.partition("/")
        of_table = _OF_TABLE.fullmatch(folder)
        if slash and of_table and of_table["language"] and name.endswith(".parquet"):
            files.setdefault(folder, []).append(name)
    return [Configuration(folder, {None: some}) for folder, some in files.items()]


def by_language(
    configurations: Iterable[Configuration],
) -> dict[str | None, dict[str, Configuration]]:
    """The languages whose three tables are all there, each with table to configuration.

    The language None is that of tables without a prefix. There the judgements may be in the
    configuration `default` and the queries in `query`, as in some sets of mteb.
    """
    found: dict[str | None, dict[str, Configuration]] = {}
    configurations = list(configurations)
    for one in configurations:
        of_table = _OF_TABLE.fullmatch(one.name)
        if of_table:
            table = "queries" if of_table["table"] == "query" else of_table["table"]
            found.setdefault(of_table["language"], {})[table] = one
    plain = found.get(None, {})
    judgements = [one for one in configurations if one.name == _DEFAULT]
    if {"corpus", "queries"} <= plain.keys() and "qrels" not in plain and judgements:
        plain["qrels"] = judgements[0]
    return {language: tables for language, tables in found.items() if len(tables) == len(TABLES)}
