"""Data sets of the hub: which of their files are needed, and where they lie in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coltrain.data.configs import Configuration, declared
from coltrain.data.files import Found, Wanted, find_files
from coltrain.errors import DataError
from coltrain.hub import Repository, download, look_up

README = "README.md"


@dataclass(frozen=True)
class Snapshot:
    """The files of a split, on this machine.

    Attributes:
        found: By table, under their names in the repository.
        folder: Where they lie.
        commit: Of the repository.
    """

    found: Found
    folder: Path
    commit: str


def snapshot(name: str, revision: str | None, wanted: Wanted) -> Snapshot:
    """Download the files of a split, or find them in the cache.

    Only what is needed is downloaded: README.md, which may say what the configurations are, and the
    split's tables; not the training pages when the test split is asked for.

    Args:
        name: `organisation/name`.
        revision: Commit, tag or branch; None for the main branch.
        wanted: Split, layout, configuration and language.

    Raises:
        DataError: [missing-file] There is no parquet file; or as `coltrain.hub.look_up`,
            `coltrain.hub.download` and `find_files`.
    """
    repository = look_up(name, revision, "dataset")
    found = find_files(repository.files, wanted, _configurations(repository, wanted))
    if found is None:
        raise DataError(
            "missing-file",
            "the data set holds no parquet file.",
            where=wanted.where,
            received=", ".join(sorted(repository.files)[:5]) or "an empty repository",
            expected="parquet files",
            suggestion="download it, write it as parquet with `datasets`, and give the folder",
        )
    return Snapshot(found, download(repository, found.files), repository.commit)


def _configurations(repository: Repository, wanted: Wanted) -> list[Configuration]:
    if README not in repository.files:
        return []
    text = (download(repository, [README]) / README).read_text(encoding="utf-8", errors="replace")
    return declared(text, repository.files, wanted.where)


def configurations_of_folder(folder: Path, names: list[str], where: str) -> list[Configuration]:
    """What the README.md of a folder declares."""
    readme = folder / README
    if not readme.is_file():
        return []
    return declared(readme.read_text(encoding="utf-8", errors="replace"), names, where)
