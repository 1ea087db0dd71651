"""Which files of a folder, or of a hub repository, hold a split.

File names alone decide, so a hub repository is looked at before anything of it is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

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
    """

    split: str
    is_explicit: bool
    layout: str
    where: str


@dataclass(frozen=True)
class Found:
    """The files of a split.

    Attributes:
        layout: rows, corpus or negatives.
        tables: `rows`; or `corpus`, `queries`, `qrels`, and `negatives` where there is one; or
            `corpus` and `rows` in the layout of negatives. Each with its files in order.
    """

    layout: str
    tables: dict[str, list[str]]

    @property
    def files(self) -> list[str]:
        """All of them."""
        return [name for names in self.tables.values() for name in names]


def find_files(names: Iterable[str], wanted: Wanted) -> Found | None:
    """The files of a split among the files of a data set.

    A folder named like the split is the data set's part for it. Inside, `corpus`, `queries` and
    `qrels` (files or folders) are the corpus layout, `negatives` beside them is its hard
    negatives; `corpus` with `queries`, or with other files, and without `qrels` are pages and
    training rows that name them. Any other parquet files are rows, and belong to the split that
    their name or folder says (`data/train-00000-of-00082.parquet`).

    Args:
        names: Relative paths with `/` between folders.
        wanted: Split and layout.

    Returns:
        None where there is no parquet file at all.

    Raises:
        DataError: [unknown-split], or [missing-file] where a table or a shard is not there.
    """
    parquet = sorted(name for name in names if name.endswith(".parquet"))
    if not parquet:
        return None
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
    return Found("corpus", chosen)


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
