"""Data sets of the hub, as files of one commit in the hub's own cache."""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coltrain.errors import DataError

_SECONDS = 15.0  # to wait for an answer before the cache is looked at


@dataclass(frozen=True)
class Snapshot:
    """Files of a hub data set, on this machine.

    Attributes:
        folder: Where they lie, under their names in the repository.
        names: Those that are there (offline) or that the repository has (online).
        commit: Of the repository.
    """

    folder: Path
    names: list[str]
    commit: str


def snapshot(name: str, revision: str | None, choose: Callable[[list[str]], list[str]]) -> Snapshot:
    """Download the files of a data set that are needed, or find them in the cache.

    Only what is chosen is downloaded: not the training pages when the test split is asked for.
    Without a connection the commit that was last seen under the revision is used.

    Args:
        name: `organisation/name`.
        revision: Commit, tag or branch; None for the main branch.
        choose: From all files of the repository to those that are needed.

    Raises:
        DataError: [unknown-dataset], [gated-dataset], [unknown-revision], [hub-offline], or what
            `choose` raises.
    """
    from huggingface_hub import HfApi, errors, snapshot_download

    shown = f"{name}@{revision}" if revision else name
    try:
        names = [
            str(file.rfilename)
            for file in HfApi().dataset_info(name, revision=revision, timeout=_SECONDS).siblings
            or []
        ]
    except errors.GatedRepoError as error:
        raise DataError(
            "gated-dataset",
            "the data set's owners ask for an agreement first.",
            where=shown,
            received="access denied",
            suggestion=f"accept the terms on the page of {name}, then `hf auth login`",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(
            "unknown-revision",
            "the data set has no such revision.",
            where=name,
            received=str(revision),
            expected="a commit, tag or branch of the data set",
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise DataError(
            "unknown-dataset",
            "there is neither a folder nor a public data set of the hub with this name.",
            where=shown,
            received=name,
            expected="a name as in vidore/colpali_train_set, or a folder as in ./pages",
            suggestion="check the spelling; a private data set needs `hf auth login`",
        ) from error
    except Exception as error:  # the hub's HTTP library, and with it its errors, has changed name
        return _from_cache(name, revision, choose, error)
    chosen = choose(names)
    wanted = [glob.escape(file) for file in chosen]
    try:
        folder = snapshot_download(
            name, repo_type="dataset", revision=revision, allow_patterns=wanted
        )
    except Exception as error:
        raise _offline(name, revision, error) from error
    return Snapshot(Path(folder), names, Path(folder).name)


def _from_cache(
    name: str,
    revision: str | None,
    choose: Callable[[list[str]], list[str]],
    reason: Exception,
) -> Snapshot:
    from huggingface_hub import snapshot_download

    try:
        # Nothing is allowed through, so this only looks up the folder of the revision; whether
        # it holds enough is then for `choose` to say.
        folder = Path(
            snapshot_download(
                name,
                repo_type="dataset",
                revision=revision,
                allow_patterns=[],
                local_files_only=True,
            )
        )
        names = sorted(
            file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()
        )
        choose(names)
    except (OSError, ValueError, DataError) as error:
        raise _offline(name, revision, reason) from error
    return Snapshot(folder, names, folder.name)


def _offline(name: str, revision: str | None, reason: Exception) -> DataError:
    at = f" --revision {revision}" if revision else ""
    text = str(reason).strip() or "no answer"
    return DataError(
        "hub-offline",
        "the hub cannot be reached, and the data set is not (wholly) in the cache.",
        where=f"{name}@{revision}" if revision else name,
        received=f"{type(reason).__name__}: {text.splitlines()[0]}",
        expected="a connection, an earlier download, or a folder",
        suggestion=f"where there is a connection: hf download {name} --repo-type dataset{at}\n"
        "then copy the hub's cache here, or use --local-dir and give that folder as the source",
    )
