"""From a source in a recipe to a collection."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from coltrain.data import detailed_mix
from coltrain.data.collection import Collection
from coltrain.data.corpus import collection_of_corpus
from coltrain.data.files import (
    Found,
    Wanted,
    find_files,
    incomplete,
    split_said_by,
    unknown_split,
)
from coltrain.data.hub import configurations_of_folder, snapshot
from coltrain.data.known import check_known
from coltrain.data.rows import collection_of_rows
from coltrain.data.tables import read_parquet
from coltrain.data.training_rows import (
    POSITIVES,
    PUBLISHED,
    PublishedSet,
    collection_of_training_rows,
)
from coltrain.errors import DataError
from coltrain.recipe.wording import nearest

if TYPE_CHECKING:
    from datasets import Dataset

    from coltrain.recipe.source import Source

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_HOME_OF_SUBSETS = "vidore"
_DRAWN = "tiny"
_DRAWN_SPLITS = ("train", "dev", "test")


def load_collection(source: Source, default_split: str) -> Collection:
    """Find, read and check a data set; images stay encoded.

    A path is a folder if it looks like one (`./pages`, `/data/pages`) or exists, and a name of
    the hub otherwise. Tables are copied into the cache of `datasets` and memory-mapped from
    there.

    Args:
        source: As in `data.train` and `eval.data`.
        default_split: The split if the source names none: `train` or `test`.

    Raises:
        DataError: The data set cannot be found, read or used, or has other counts than are known of
            its name; the message says why.
    """
    is_drawn = source.is_builtin or source.path == _DRAWN
    is_mix = source.layout == "mix" or source.path == detailed_mix.NAME
    is_split = source.corpus is not None or source.path in PUBLISHED
    if source.language is not None and (is_drawn or is_mix or is_split):
        raise _has_no("language", source)
    if source.config is not None and (is_drawn or is_mix):
        raise _has_no("config", source)
    if is_drawn:
        return _drawn(source, default_split)
    if is_mix:
        collection = _mix(source, default_split)
    elif is_split:
        collection = _rows_and_corpus(source, default_split, PUBLISHED.get(source.path))
    else:
        collection = _load(source, default_split)
    if source.filter is None:
        check_known(collection, source.path, source.split or default_split, source.revision)
    return collection


def _has_no(key: str, source: Source) -> DataError:
    return DataError(
        "unknown-config" if key == "config" else "unknown-language",
        f"a data set of this kind has no {key}.",
        where=source.path,
        received=f"{key} {getattr(source, key)}",
        expected=f"no `{key}`",
    )


def _load(source: Source, default_split: str) -> Collection:
    wanted = Wanted(
        split=source.split or default_split,
        is_explicit=source.split is not None,
        layout=source.layout,
        where=f"{source.path}@{source.revision}" if source.revision else source.path,
        config=source.config,
        language=source.language,
    )
    folder = _folder(source)
    if folder is not None:
        return _from_folder(folder, wanted, source.filter)
    there = snapshot(source.path, source.revision, wanted)
    part = source.config or source.language
    name = f"{source.path}:{f'{part}:' if part else ''}{wanted.split}"
    return _collect(there.found, there.folder, name, wanted, source.filter, there.commit)


def _folder(source: Source) -> Path | None:
    """The source's folder, or None where it can only be a name of the hub."""
    path = Path(source.path).expanduser()
    if source.revision is None and path.is_dir():
        return path
    if source.is_folder or not _HUB_NAME.fullmatch(source.path):
        raise DataError(
            "data-not-found",
            "there is no such data folder." if not path.exists() else "this is not a folder.",
            where=source.path,
            received=str(path.absolute()),
            expected="a folder that holds parquet files",
            suggestion=_neighbour(path),
        )
    return None


def _neighbour(path: Path) -> str | None:
    """A folder beside the missing one that looks like it."""
    parent = path.absolute().parent
    if not parent.is_dir():
        return None
    folders = sorted(entry.name for entry in parent.iterdir() if entry.is_dir())
    close = nearest(path.name, folders)
    return str(path.parent / close) if close else None


def _from_folder(folder: Path, wanted: Wanted, filter_column: str | None) -> Collection:
    for place in (folder, folder / wanted.split):
        if (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
            _refuse_filter(filter_column, "rows", wanted)
            _refuse_language(wanted, "rows")
            return _from_saved(place, folder, wanted)
    names = _parquet_names(folder)
    found = find_files(names, wanted, configurations_of_folder(folder, names, wanted.where))
    if found is None:
        raise DataError(
            "missing-file",
            "the folder holds no parquet file.",
            where=wanted.where,
            received=", ".join(sorted(e.name for e in folder.iterdir())[:5]) or "an empty folder",
            expected="corpus.parquet, queries.parquet and qrels.parquet; parquet files of rows; "
            "or a folder written by save_to_disk of `datasets`",
        )
    return _collect(found, folder, _folder_name(folder, found, wanted), wanted, filter_column)


def _parquet_names(folder: Path) -> list[str]:
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*.parquet")]
    return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


def _folder_name(folder: Path, found: Found, wanted: Wanted) -> str:
    """The last two parts of where the data lie: `outline/test`, or `scans/pages:test`."""
    if all(name.startswith(f"{wanted.split}/") for name in found.files):
        return _last_parts(folder / wanted.split)
    says_split = split_said_by(found.files[0], wanted.split) is not None
    return _last_parts(folder) + (f":{wanted.split}" if says_split else "")


def _last_parts(folder: Path) -> str:
    # abspath takes `..` out of the path, and leaves links their names.
    return "/".join(Path(os.path.abspath(folder)).parts[1:][-2:])


def _from_saved(place: Path, folder: Path, wanted: Wanted) -> Collection:
    import datasets

    try:
        saved = datasets.load_from_disk(str(place))
    except Exception as error:  # json, pyarrow and datasets each raise errors of their own
        raise DataError(
            "broken-file",
            "a folder of save_to_disk cannot be read.",
            where=wanted.where,
            received=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        ) from error
    if isinstance(saved, datasets.DatasetDict):
        if wanted.split not in saved:
            raise unknown_split(wanted, sorted(saved))
        saved = saved[wanted.split]
    elif wanted.is_explicit and place == folder and str(saved.split) != wanted.split:
        raise unknown_split(wanted, [str(saved.split)] if saved.split else [])
    name = f"{_last_parts(folder)}:{wanted.split}"
    return collection_of_rows(saved, name=name, folder=folder)


def _collect(
    found: Found,
    folder: Path,
    name: str,
    wanted: Wanted,
    filter_column: str | None,
    commit: str | None = None,
) -> Collection:
    tables: dict[str, Dataset] = {
        table: read_parquet([folder / file for file in files], name)
        for table, files in found.tables.items()
    }
    if found.layout == "negatives":
        _refuse_language(wanted, found.layout)
        columns = tables["rows"].column_names
        if wanted.layout == "auto" and not any(column in columns for column in POSITIVES):
            inside = all(name.startswith(f"{wanted.split}/") for name in found.files)
            has_queries = any("queries" in name for name in found.tables["rows"])
            raise incomplete(
                ["corpus", "queries"] if has_queries else ["corpus"],
                wanted,
                f"{wanted.split}/" if inside else "",
            )
        return collection_of_training_rows(
            tables["rows"],
            tables["corpus"],
            name=name,
            folder=folder,
            filter_column=filter_column,
            revision=commit,
        )
    _refuse_filter(filter_column, found.layout, wanted)
    if found.layout == "corpus":
        return collection_of_corpus(
            tables["corpus"],
            tables["queries"],
            tables["qrels"],
            tables.get("negatives"),
            name=name,
            folder=folder,
            revision=commit,
            language=found.language,
        )
    _refuse_language(wanted, found.layout)
    return collection_of_rows(tables["rows"], name=name, folder=folder, revision=commit)


def _refuse_filter(filter_column: str | None, layout: str, wanted: Wanted) -> None:
    if filter_column is not None:
        raise DataError(
            "filter-not-read",
            "`filter` is for training rows that name pages of a corpus.",
            where=wanted.where,
            received=f"filter {filter_column} on data in the {layout} layout",
            expected="no filter",
        )


def _refuse_language(wanted: Wanted, layout: str) -> None:
    if wanted.language is not None:
        raise DataError(
            "unknown-language",
            "`language` is for data in the corpus layout.",
            where=wanted.where,
            received=f"language {wanted.language} on data in the {layout} layout",
            expected="no language",
            suggestion="`config`, where the README declares a configuration for it",
        )


def _rows_and_corpus(
    source: Source, default_split: str, published: PublishedSet | None
) -> Collection:
    """Training rows of one data set that name pages of another."""
    split = source.split or default_split
    name = f"{source.path}:{split}"
    held_out = None
    if published is not None:
        if split not in ("train", "test"):
            wanted = Wanted(split, source.split is not None, "negatives", source.path)
            raise unknown_split(wanted, ["train", "test"])
        held_out = (published.num_test, split == "test")
        split = "train"  # the only one that the hub has
    corpus_path = source.corpus or (published and published.corpus)
    assert corpus_path is not None
    table, folder, commit = _table(source, split, source.split is not None and not published)
    corpus, corpus_folder, corpus_commit = _table(type(source).model_validate(corpus_path), "train")
    return collection_of_training_rows(
        table,
        corpus,
        name=name if commit else _last_parts(folder) + f":{split}",
        folder=folder,
        corpus_folder=corpus_folder,
        filter_column=source.filter,
        held_out=held_out,
        revision=" ".join(c for c in (commit, corpus_commit) if c) or None,
    )


def _table(
    source: Source, split: str, is_explicit: bool = False
) -> tuple[Dataset, Path, str | None]:
    """One table, of a folder or of the hub: its files, its folder, its commit."""
    wanted = Wanted(split, is_explicit, "rows", source.path, source.config)
    folder, commit = _folder(source), None
    if folder is not None:
        names = _parquet_names(folder)
        found = find_files(names, wanted, configurations_of_folder(folder, names, wanted.where))
        if found is None:
            raise DataError(
                "missing-file",
                "the folder holds no parquet file.",
                where=source.path,
                received=", ".join(sorted(e.name for e in folder.iterdir())[:5]) or "nothing",
                expected="parquet files",
            )
    else:
        there = snapshot(source.path, source.revision, wanted)
        found, folder, commit = there.found, there.folder, there.commit
    return read_parquet([folder / file for file in found.files], source.path), folder, commit


def _mix(source: Source, default_split: str) -> Collection:
    """The detailed mix, of subsets from the hub or from a folder that holds all eight."""
    split = source.split or default_split
    name = f"{source.path}:{split}"
    if split not in detailed_mix.SPLITS:
        wanted = Wanted(split, source.split is not None, "mix", source.path)
        raise unknown_split(wanted, list(detailed_mix.SPLITS))
    if source.revision is not None:
        raise DataError(
            "mix-with-revision",
            "the mix is made of eight data sets, so one revision cannot name it.",
            where=source.path,
            received=f"revision {source.revision}",
            expected="no revision",
            suggestion="download the subsets at the revisions you want into one folder, and give "
            "{path: ./folder, layout: mix}",
        )
    home = None if source.path == detailed_mix.NAME else _folder(source)
    if home is None and source.path != detailed_mix.NAME:
        raise DataError(
            "data-not-found",
            "this is no mix that is known by name.",
            where=source.path,
            received=source.path,
            expected=f"{detailed_mix.NAME}, or a folder that holds its eight subsets",
        )
    subsets: dict[str, Dataset] = {}
    commits = []
    for subset in detailed_mix.SUBSETS:
        path = f"{_HUB_HOME_OF_SUBSETS}/{subset}" if home is None else str(home / subset)
        wanted = Wanted("train", False, "rows", path)
        if home is None:
            there = snapshot(path, None, wanted)
            found, folder = there.found, there.folder
            commits.append(there.commit[:12])
        else:
            found, folder = _subset_files(home / subset, wanted), home / subset
        subsets[subset] = read_parquet([folder / file for file in found.files], path)
    mixed = detailed_mix.detailed_mix(subsets, split)
    return collection_of_rows(
        mixed,
        name=name,
        folder=home or Path(),
        layout="mix",
        revision=" ".join(commits) or None,
    )


def _subset_files(folder: Path, wanted: Wanted) -> Found:
    found = find_files(_parquet_names(folder), wanted)
    if found is None:
        raise DataError(
            "missing-file",
            "a subset of the mix is not there.",
            where=str(folder),
            received="no parquet file",
            expected=f"the eight folders {', '.join(detailed_mix.SUBSETS)}",
        )
    return found


def _drawn(source: Source, default_split: str) -> Collection:
    from coltrain.data.drawn import drawn_collection

    said = source.path.partition(":")[2] or None
    split = source.split or said or default_split
    if split not in _DRAWN_SPLITS or said not in (None, split):
        wanted = Wanted(split, source.split is not None or said is not None, "auto", source.path)
        raise unknown_split(wanted, [f"{_DRAWN}:{name}" for name in _DRAWN_SPLITS])
    return drawn_collection(split)
