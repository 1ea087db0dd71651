"""Which files of a folder, or of a hub repository, hold a split.

File names alone decide, so a hub repository is looked at before anything of it is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from coltrain.data.configs import Configuration, by_language, of_folders
from coltrain.errors import DataError
from coltrain.recipe.wording import listed

CORPUS_TABLES = ("corpus", "queries", "qrels")
_MINED_TABLE = "negatives"

# `train-00000-of-00082`, also with a hash behind it as the hub once wrote them.
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(-[0-9a-f]{16})?$")
_SAME_SPLIT = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}


@dataclass(frozen=True)
class Wanted:
    """What is looked for in a data set.

    Attributes:
        split: Name of the split.
        is_explicit: Whether the user named it; otherwise files without any split's name do too.
        layout: auto, rows, corpus or negatives.
        where: The data set, for messages.
        config: Configuration of the rows, by name; None for the only one, or the default.
        language: Of the queries, where a corpus has several; None where nothing is said.
    """

    split: str
    is_explicit: bool
    layout: str
    where: str
    config: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class Found:
    """The files of a split.

    Attributes:
        layout: rows, corpus or negatives.
        tables: `rows`; or `corpus`, `queries`, `qrels`, and `negatives` where there is one; or
            `corpus` and `rows` in the layout of negatives. Each with its files in order.
        language: That the column `language` of the queries has to say, where the files do not.
    """

    layout: str
    tables: dict[str, list[str]]
    language: str | None = None

    @property
    def files(self) -> list[str]:
        """All of them."""
        return [name for names in self.tables.values() for name in names]


def find_files(
    names: Iterable[str], wanted: Wanted, declared: Sequence[Configuration] = ()
) -> Found | None:
    """The files of a split among the files of a data set.

    Configurations that a README declares come first. Where there are none, names decide: a folder
    named like the split is the data set's part for it. Inside, `corpus`, `queries` and
    `qrels` (files or folders) are the corpus layout, `negatives` beside them is its hard
    negatives; `corpus` with `queries`, or with other files, and without `qrels` are pages and
    training rows that name them. Any other parquet files are rows, and belong to the split that
    their name or folder says (`data/train-00000-of-00082.parquet`). Folders such as
    `english-corpus`, `english-queries` and `english-qrels` are a corpus for each language.

    Args:
        names: Relative paths with `/` between folders.
        wanted: Split, layout, configuration and language.
        declared: What the README maps to files.

    Returns:
        None where there is no parquet file at all.

    Raises:
        DataError: [unknown-split], [unknown-config] or [unknown-language], which are also raised
            where one has to be named; [missing-file] where a table or a shard is not there.
    """
    parquet = sorted(name for name in names if name.endswith(".parquet"))
    if not parquet:
        return None
    found = _of_configurations(list(declared) or of_folders(parquet), wanted)
    if found is not None:
        return found
    if wanted.config is not None:
        raise _unknown(wanted, "config", wanted.config, [])
    inside = [name for name in parquet if PurePosixPath(name).parts[0] == wanted.split]
    has_split_folder = any("/" in name for name in inside)
    # A data set with a folder for each split, each of which holds all tables.
    if has_split_folder and wanted.layout != "rows":
        found = _tables([name[len(wanted.split) + 1 :] for name in inside], wanted, has_split=True)
        if found:
            start = f"{wanted.split}/"
            tables = {t: [start + name for name in names] for t, names in found.tables.items()}
            return Found(found.layout, tables)
    if wanted.layout != "rows":
        found = _tables(parquet, wanted, has_split=False)
        if found:
            return found
    if wanted.layout in ("corpus", "negatives") or (
        wanted.layout != "rows" and _splits_of_corpora(parquet)
    ):
        _raise_for_no_corpus(parquet, wanted)
    return Found("rows", {"rows": _of_split(parquet, wanted)})


def _tables(names: Sequence[str], wanted: Wanted, *, has_split: bool) -> Found | None:
    """The tables of a corpus with judgements, or with training rows; None where there is neither.

    Args:
        names: Files, without the split's folder.
        wanted: Split and layout.
        has_split: Whether they lie in the split's folder, so that their names need not say it.
    """
    tables = _corpus_tables(names)
    mined = tables.pop(_MINED_TABLE, None)
    if not tables:
        return None
    others = [name for name in names if _first(name) not in (*CORPUS_TABLES, _MINED_TABLE)]
    rows = tables.get("queries") or others
    if wanted.layout != "corpus" and "corpus" in tables and "qrels" not in tables and rows:
        # The pages serve all splits, so their files need not name one.
        return Found(
            "negatives",
            {"corpus": tables["corpus"], "rows": rows if has_split else _of_split(rows, wanted)},
        )
    if (wanted.layout == "negatives" and mined is None) or len(tables) < len(CORPUS_TABLES):
        raise incomplete(tables, wanted, f"{wanted.split}/" if has_split else "")
    chosen = {table: tables[table] for table in CORPUS_TABLES}
    if mined is not None:
        chosen[_MINED_TABLE] = mined
    if not has_split:
        chosen = {table: _of_split(files, wanted) for table, files in chosen.items()}
    return Found("corpus", chosen, wanted.language)


def _of_configurations(configurations: Sequence[Configuration], wanted: Wanted) -> Found | None:
    """A split's files by configurations; None where these do not decide."""
    languages = by_language(configurations) if wanted.config is None else {}
    if languages and wanted.layout in ("auto", "corpus"):
        language = _language(languages, wanted)
        tables = {
            table: _of_configuration(languages[language][table], wanted, table != "qrels")
            for table in CORPUS_TABLES
        }
        return Found("corpus", tables, wanted.language if language is None else None)
    if wanted.layout not in ("auto", "rows"):
        return None
    named = {one.name: one for one in configurations if not one.name.endswith(CORPUS_TABLES)}
    if wanted.config is not None:
        every = {one.name: one for one in configurations}
        if wanted.config not in every:
            raise _unknown(wanted, "config", wanted.config, list(every))
        return Found("rows", {"rows": _of_configuration(every[wanted.config], wanted)})
    marked = [one for one in named.values() if one.is_default] or [
        one for one in named.values() if one.name == "default"
    ]
    if not named or (len(named) < len(configurations) and not marked):
        return None  # pages of a corpus, and rows that name them: names tell the files
    if len(named) > 1 and not marked:
        raise _unknown(wanted, "config", None, list(named))
    chosen = marked[0] if marked else next(iter(named.values()))
    return Found("rows", {"rows": _of_configuration(chosen, wanted)})


def _language(languages: Collection[str | None], wanted: Wanted) -> str | None:
    """Which of the languages is read; None for tables without a prefix."""
    named = sorted(language for language in languages if language is not None)
    if wanted.language in named:
        return wanted.language
    if None in languages:
        return None  # the queries' own column tells languages apart
    if wanted.language is None and len(named) == 1:
        return named[0]
    raise _unknown(wanted, "language", wanted.language, named)


def _of_configuration(
    configuration: Configuration, wanted: Wanted, may_be_other: bool = False
) -> list[str]:
    """A configuration's files of a split.

    Args:
        configuration: That holds it.
        wanted: The split.
        may_be_other: Whether a lone split serves, whatever its name: pages and queries often have
            one of their own for all judgements, such as `corpus`.
    """
    splits = configuration.splits
    if None in splits:
        return _of_split(splits[None], wanted)
    asked = _SAME_SPLIT.get(wanted.split, wanted.split)
    chosen = [split for split in splits if split == wanted.split] or [
        split for split in splits if _SAME_SPLIT.get(str(split), split) == asked
    ]
    if not chosen and may_be_other and len(splits) == 1:
        chosen = list(splits)
    if not chosen:
        said = sorted(str(split) for split in splits)
        raise unknown_split(wanted, said, _say_split(wanted, said))
    files = splits[chosen[0]]
    if not files:
        raise DataError(
            "missing-file",
            "the README names files that are not there, or are not parquet.",
            where=wanted.where,
            received=f"no parquet file for split {chosen[0]} of configuration {configuration.name}",
            expected="parquet files",
        )
    _refuse_missing_shards(files, wanted)
    return files


def _unknown(wanted: Wanted, key: str, received: str | None, there: Sequence[str]) -> DataError:
    """[unknown-config] or [unknown-language]: none of that name, or several and none named."""
    path = wanted.where.partition("@")[0]
    return DataError(
        "unknown-config" if key == "config" else "unknown-language",
        f"the data set has several {key}s, and none is named."
        if received is None
        else f"there is no {key} {received!r}.",
        where=wanted.where,
        received=received or f"no `{key}`",
        expected=listed(there) if there else f"no {key}: the data set declares none",
        suggestion=f"{{path: {path}, {key}: {there[0]}}}" if there else f"leave out `{key}`",
    )


def _first(name: str) -> str:
    return PurePosixPath(name).parts[0].removesuffix(".parquet")


def _corpus_tables(names: Sequence[str]) -> dict[str, list[str]]:
    """Table to files, for the names of the corpus layout that are there."""
    tables: dict[str, list[str]] = {}
    for name in names:
        if _first(name) in (*CORPUS_TABLES, _MINED_TABLE):
            tables.setdefault(_first(name), []).append(name)
    return tables


def _splits_of_corpora(names: Sequence[str]) -> list[str]:
    """Folders of a data set that hold the corpus layout."""
    folders = {PurePosixPath(name).parts[0] for name in names if "/" in name}
    return sorted(
        folder
        for folder in folders
        if _corpus_tables(
            [n[len(folder) + 1 :] for n in names if n.startswith(f"{folder}/")]
        ).keys()
        - {_MINED_TABLE}
    )


def incomplete(tables: Collection[str], wanted: Wanted, folder: str) -> DataError:
    """The error [missing-file] for a corpus some of whose tables are not there.

    Args:
        tables: Names of those that are.
        wanted: Layout, and the data set's name.
        folder: The split's, with its slash, or nothing.
    """
    needed = [*CORPUS_TABLES, *([_MINED_TABLE] if wanted.layout == "negatives" else [])]
    missing = [table for table in needed if table not in tables]
    return DataError(
        "missing-file",
        "the data set is not complete.",
        where=wanted.where,
        received=f"{folder}{' and '.join(sorted(tables))} only",
        expected=" and ".join(f"{folder}{table}.parquet" for table in missing)
        + ", or folders of these names",
    )


def _raise_for_no_corpus(names: Sequence[str], wanted: Wanted) -> None:
    folders = _splits_of_corpora(names)
    if folders:
        raise unknown_split(wanted, folders, _say_split(wanted, folders))
    raise DataError(
        "missing-file",
        f"this is not a data set in the {wanted.layout} layout.",
        where=wanted.where,
        received=", ".join(names[:3]) + (", …" if len(names) > 3 else ""),
        expected="corpus.parquet with training rows that name its pages, or `corpus` in the source"
        if wanted.layout == "negatives"
        else "corpus.parquet, queries.parquet and qrels.parquet, or folders of these names",
    )


def _of_split(names: Sequence[str], wanted: Wanted) -> list[str]:
    """Files whose name or folder says the split; all of them where none says any."""
    splits = {name: split_said_by(name, wanted.split) for name in names}
    asked = _SAME_SPLIT.get(wanted.split, wanted.split)
    chosen = [name for name in names if splits[name] == asked]
    if not chosen:
        said = sorted({split for split in splits.values() if split})
        if said or wanted.is_explicit:
            raise unknown_split(wanted, said, _say_split(wanted, said))
        chosen = list(names)
    _refuse_missing_shards(chosen, wanted)
    return chosen


def split_said_by(name: str, asked: str = "") -> str | None:
    """The split that a file belongs to by its name, or its folder's, or None.

    Args:
        name: Relative path.
        asked: A split that need not be one of the usual words.
    """
    path = PurePosixPath(name)
    stem = _SHARD.sub("", path.stem)
    for part in [stem, *reversed(path.parts[:-1])]:
        if asked and part == asked:
            return _SAME_SPLIT.get(asked, asked)
        for word in re.split(r"[^0-9a-z]+", part.casefold()):
            if word in _SAME_SPLIT:
                return _SAME_SPLIT[word]
    return None


def _refuse_missing_shards(names: Sequence[str], wanted: Wanted) -> None:
    series: dict[tuple[str, int], set[int]] = {}
    for name in names:
        shard = _SHARD.search(name.removesuffix(".parquet"))
        if shard:
            key = name.removesuffix(".parquet")[: shard.start()], int(shard[2])
            series.setdefault(key, set()).add(int(shard[1]))
    for (stem, count), there in series.items():
        missing = sorted(set(range(count)) - there)
        if missing:
            raise DataError(
                "missing-file",
                f"{len(missing)} of {count} files are not there.",
                where=wanted.where,
                received=f"{len(there)} files {stem}-*-of-{count:05d}.parquet",
                expected=f"also {stem}-{missing[0]:05d}-of-{count:05d}.parquet",
                suggestion="finish the download",
            )


def _say_split(wanted: Wanted, available: Sequence[str]) -> str | None:
    if not available:
        return f"leave out `split` of {wanted.where}"
    return f"{{path: {wanted.where.partition('@')[0]}, split: {available[0]}}}"


def unknown_split(
    wanted: Wanted, available: Sequence[str], suggestion: str | None = None
) -> DataError:
    """The error [unknown-split], with the splits that there are."""
    return DataError(
        "unknown-split",
        f"there is no split {wanted.split!r}.",
        where=wanted.where,
        received=wanted.split + ("" if wanted.is_explicit else " (the default here)"),
        expected=listed(available) if available else "no split: the data name none",
        suggestion=suggestion,
    )
