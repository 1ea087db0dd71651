"""Files of the hub: what a repository has, and those that are needed, whole, on this machine.

Models and data sets come the same way. `huggingface_hub` does the work (cache, token, `HF_ENDPOINT`,
`HF_HUB_OFFLINE`); what stands here is what it leaves open: that a file which is not whole never
stays in the cache, that no server keeps a command for ever, and what to say when something fails.
Nothing is run that comes from a repository.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import logging
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coltrain.errors import ColtrainError, DataError, ModelError

Kind = Literal["model", "dataset"]
OpenBar = Callable[[str, int, int], AbstractContextManager[Callable[[int], None]]]

_SECONDS = 15.0  # to wait for an answer before the cache is looked at
_MOST_RESTARTS = 5  # of a download that breaks off and starts anew, before it is given up
_BYTES_AT_ONCE = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_BROKEN_OFF = ("RemoteProtocolError", "ReadError", "IncompleteRead")  # by name: httpx has had two

_log = logging.getLogger(__name__)
_open_bar: OpenBar | None = None


@dataclass(frozen=True)
class RepositoryFile:
    """A file that a repository has.

    Attributes:
        size: In bytes; None where the hub does not say.
        sha256: Of its content; None for small files, which the hub knows by another hash.
    """

    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Repository:
    """A repository of the hub at one commit.

    Attributes:
        name: `organisation/name`.
        kind: model or dataset.
        revision: As it was asked for: commit, tag or branch; None for the main branch.
        commit: That the revision names.
        files: By name.
        is_offline: Whether this is what the cache remembers.
    """

    name: str
    kind: Kind
    revision: str | None
    commit: str
    files: dict[str, RepositoryFile]
    is_offline: bool = False

    @property
    def shown(self) -> str:
        """Name and revision, as one would type them."""
        return _shown(self.name, self.revision)


class _BrokenDownloadError(Exception):
    """A download that is not what the hub said it would be."""


def show_downloads(open_bar: OpenBar | None) -> None:
    """Show downloads in a way of one's own; without it, as `huggingface_hub` shows them.

    Args:
        open_bar: From a repository's name, the number of files and of bytes to a context, in which
            the function that it yields is called with the bytes that have come.
    """
    global _open_bar
    _open_bar = open_bar


def look_up(name: str, revision: str | None, kind: Kind) -> Repository:
    """Ask the hub what a repository has, or the cache where the hub cannot be reached.

    Without a connection, or while the hub answers with errors of its own, the commit that was last
    seen under the revision is used, and said.

    Args:
        name: `organisation/name`.
        revision: Commit, tag or branch; None for the main branch.
        kind: model or dataset.

    Raises:
        DataError, ModelError: [unknown-dataset] or [model-not-found], [gated-dataset] or
            [gated-model], [unknown-revision], [hub-refuses], [hub-error], [hub-offline].
    """
    from huggingface_hub import HfApi, constants, errors

    try:
        answer = HfApi().repo_info(
            name, repo_type=kind, revision=revision, files_metadata=True, timeout=_SECONDS
        )
    except errors.HFValidationError as error:
        raise _not_a_name(name, kind) from error
    except Exception as error:  # httpx's, whose package has changed its name, and huggingface_hub's
        if _is_for_good(error):
            raise _explained(error, name, revision, kind) from error
        found = _remembered(name, revision, kind)
        if found is None:
            raise _explained(error, name, revision, kind) from error
        if not constants.HF_HUB_OFFLINE:
            _log.warning(
                "the hub cannot be reached (%s): %s as it was at commit %s, from the cache",
                _said(error),
                _shown(name, revision),
                found.commit[:12],
            )
        return found
    files = {
        sibling.rfilename: RepositoryFile(
            sibling.size, sibling.lfs.sha256 if sibling.lfs is not None else None
        )
        for sibling in answer.siblings or []
    }
    return Repository(name, kind, revision, str(answer.sha), files)


def download(repository: Repository, names: Sequence[str]) -> Path:
    """The folder that holds these files, which are downloaded where the cache lacks them.

    Files in the cache whose size is not what the hub says are fetched again. What was downloaded is
    held against the hub's size and SHA-256, and taken out of the cache where it differs.

    Args:
        repository: As `look_up` gave it.
        names: Files of it.

    Raises:
        DataError, ModelError: [broken-download], [cannot-cache], or as `look_up`.
    """
    folder = _folder_of(repository)
    if repository.is_offline:
        lacking = [name for name in names if not _is_whole(folder / name, repository.files[name])]
        if lacking:
            raise _not_cached(repository.name, repository.revision, repository.kind, lacking)
        return folder
    missing = []
    for name in names:
        if not _is_whole(folder / name, repository.files[name]):
            _forget(folder / name)  # a link to nothing, or to a file of another size
            missing.append(name)
    _refuse_too_little_room(repository, missing, folder)
    try:
        found = _fetch(repository, names, missing)
        for name in missing:
            _refuse_other_content(found / name, name, repository.files[name])
    except Exception as error:  # of huggingface_hub, httpx and the file system
        raise _explained(error, repository.name, repository.revision, repository.kind) from error
    return found


def _fetch(repository: Repository, names: Sequence[str], missing: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    total = sum(repository.files[name].size or 0 for name in missing)
    bar = (
        _open_bar(repository.shown, len(missing), total)
        if missing and _open_bar is not None
        else nullcontext()
    )
    with bar as advance:
        # Also where nothing is missing: it notes which commit the revision names.
        return Path(
            snapshot_download(
                repository.name,
                repo_type=repository.kind,
                revision=repository.revision,
                # A name is not a pattern here, whatever signs it holds.
                allow_patterns=[glob.escape(name) for name in names],
                tqdm_class=_counting(advance, is_shown=bool(missing) and _open_bar is None),
            )
        )


def _counting(advance: Callable[[int], None] | None, *, is_shown: bool) -> type[Any]:
    """A bar for `huggingface_hub` that hands on bytes, and ends downloads that never end.

    huggingface_hub starts a file anew when the server closes early and cannot go on in the middle,
    and counts its attempts from the start each time something came: a server that always closes
    would hold it for ever. It takes back what the bar showed before it starts anew.
    """
    from huggingface_hub.utils import tqdm

    lock = threading.Lock()
    restarts = 0

    class Counting(tqdm):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            # Two bars run side by side: bytes received, and bytes written. The latter serves.
            self._counts = settings.get("unit") == "B" and "transfer" not in str(
                settings.get("name")
            )
            if not is_shown:
                settings["disable"] = True
            super().__init__(*arguments, **settings)

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal restarts
            if self._counts and n:
                with lock:
                    restarts += n < 0
                    if advance is not None:
                        advance(int(n))
                if restarts > _MOST_RESTARTS:
                    raise _BrokenDownloadError(
                        f"the connection was closed early {restarts} times, before the whole came"
                    )
            return super().update(n)

    return Counting


def _folder_of(repository: Repository) -> Path:
    """Where the hub's cache keeps a commit, whether it is there or not."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    home = repo_folder_name(repo_id=repository.name, repo_type=repository.kind)
    cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
    return cache / home / "snapshots" / repository.commit


def _remembered(name: str, revision: str | None, kind: Kind) -> Repository | None:
    """What the cache knows of a repository; None where it knows nothing."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        # Nothing is allowed through, so this looks up the folder of the revision alone.
        folder = Path(
            snapshot_download(
                name, repo_type=kind, revision=revision, allow_patterns=[], local_files_only=True
            )
        )
    except (OSError, ValueError):
        return None
    try:
        listed = get_cached_repo_tree(name, repo_type=kind, revision=folder.name)
        files = {file.path: RepositoryFile(file.size) for file in listed}
    except CachedRepoTreeNotFoundError:  # the cache was written by an older huggingface_hub
        files = {
            file.relative_to(folder).as_posix(): RepositoryFile()
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
    return Repository(name, kind, revision, folder.name, files, is_offline=True)


def _is_whole(path: Path, expected: RepositoryFile) -> bool:
    return path.is_file() and expected.size in (None, path.stat().st_size)


def _forget(path: Path) -> None:
    """Take a file out of the cache: its name in the snapshot, and the content that it points to."""
    content = path.resolve()
    path.unlink(missing_ok=True)
    if content != path and content.parent.name == "blobs":
        content.unlink(missing_ok=True)


def _refuse_other_content(path: Path, name: str, expected: RepositoryFile) -> None:
    if not _is_whole(path, expected):
        received = f"{path.stat().st_size} bytes" if path.is_file() else "nothing"
        _forget(path)
        raise _BrokenDownloadError(f"{name}: {received}, where the hub says {expected.size}")
    if expected.sha256 is not None:
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(_BYTES_AT_ONCE):
                digest.update(block)
        if digest.hexdigest() != expected.sha256:
            _forget(path)
            raise _BrokenDownloadError(f"{name}: a SHA-256 that is not the one the hub says")


def _refuse_too_little_room(repository: Repository, missing: Sequence[str], folder: Path) -> None:
    needed = sum(repository.files[name].size or 0 for name in missing)
    place = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise _cannot_cache(
            repository.kind, repository.shown, f"{_gib(needed)} to download, {_gib(free)} free"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status in an error's chain."""
    for one in _chain(error):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _is_for_good(error: Exception) -> bool:
    """Whether the hub has answered, and would answer so again: no copy in the cache stands in."""
    status = _status(error)
    return status is not None and 400 <= status < 500 and status not in (408, 429)


def _explained(error: Exception, name: str, revision: str | None, kind: Kind) -> ColtrainError:
    """What went wrong, in our words."""
    from huggingface_hub import errors

    if isinstance(error, ColtrainError):
        return error
    shown, status, said = _shown(name, revision), _status(error), _said(error)
    links = list(_chain(error))
    numbers = {one.errno for one in links if isinstance(one, OSError)}
    if numbers & {*_FULL, *_FORBIDDEN}:
        return _cannot_cache(kind, shown, said)
    if isinstance(error, errors.GatedRepoError):
        return _gated(name, shown, kind)
    if isinstance(error, errors.RevisionNotFoundError):
        return _failed(
            kind,
            "unknown-revision",
            f"the {_word(kind)} has no such revision.",
            where=name,
            received=str(revision),
            expected=f"a commit, tag or branch of the {_word(kind)}",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return _unknown(name, shown, kind)
    if isinstance(error, errors.EntryNotFoundError) and status == 404:
        return _broken(kind, name, shown, f"a file that the hub lists is not there ({said})")
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return _failed(
            kind,
            "hub-refuses",
            f"the hub does not hand out the {_word(kind)}.",
            where=shown,
            received=f"HTTP {status}",
            expected=f"a {_word(kind)} that you may read",
            suggestion=_about_token(),
        )
    if status is not None and status >= 400:
        return _failed(
            kind,
            "hub-error",
            "the hub answers with an error of its own.",
            where=shown,
            received=f"HTTP {status}",
            expected=f"the files of the {_word(kind)}",
            suggestion="the same command again later: nothing half-written was kept, and whole "
            "files are not fetched again",
        )
    is_broken = any(
        isinstance(one, _BrokenDownloadError)
        or type(one).__name__ in _BROKEN_OFF
        or "Consistency check failed" in str(one)
        for one in links
    )
    if is_broken:
        return _broken(kind, name, shown, said)
    if any(isinstance(one, errors.OfflineModeIsEnabled) for one in links):
        said = "HF_HUB_OFFLINE is set in the environment"
    return _not_cached(name, revision, kind, [], said)


def _said(error: BaseException) -> str:
    """The first line of the reason, without what must not be seen."""
    from huggingface_hub import errors

    links = [one for one in _chain(error) if str(one).strip()]
    ours = [one for one in links if isinstance(one, _BrokenDownloadError)]
    if ours:
        return without_secrets(str(ours[0]))
    # What huggingface_hub says about its cache, where the reason is why it looked there.
    reasons = [one for one in links if not isinstance(one, errors.LocalEntryNotFoundError)]
    reason = (reasons or [error])[0]
    text = (str(reason).strip() or "no answer").splitlines()[0]
    return without_secrets(f"{type(reason).__name__}: {text}")


def without_secrets(text: str) -> str:
    """A text in which no access token, and no password of an address, can be read."""
    from huggingface_hub import get_token

    token = get_token()
    if token:
        text = text.replace(token, "***")
    text = re.sub(r"hf_[A-Za-z0-9]{4,}", "hf_***", text)
    text = re.sub(r"(?i)(bearer\s+)[^\s'\"\\]+", r"\1***", text)
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1***@", text)


def _about_token() -> str:
    from huggingface_hub import get_token

    if get_token():
        return "the access token of this machine does not allow it: `hf auth login` with another"
    return "a private one needs a token: `hf auth login`, or HF_TOKEN in the environment"


def _shown(name: str, revision: str | None) -> str:
    return f"{name}@{revision}" if revision else name


def _word(kind: Kind) -> str:
    return "data set" if kind == "dataset" else "model"


def _failed(kind: Kind, code: str, message: str, **details: Any) -> ColtrainError:
    if kind == "dataset":
        return DataError(code, message, **details)
    return ModelError(code, message, **details)


def _broken(kind: Kind, name: str, shown: str, received: str) -> ColtrainError:
    return _failed(
        kind,
        "broken-download",
        "a file did not come whole.",
        where=shown,
        received=received,
        expected="files as the hub lists them",
        suggestion="the same command again: what was not whole is not kept, and whole files are "
        f"not fetched again; or `{_by_hand(name, None, kind)}`",
    )


def _cannot_cache(kind: Kind, shown: str, received: str) -> ColtrainError:
    from huggingface_hub import constants

    return _failed(
        kind,
        "cannot-cache",
        "the hub's cache cannot be written.",
        where=f"{shown}, in {constants.HF_HUB_CACHE}",
        received=received,
        expected="room, and the right to write",
        suggestion="HF_HOME=/another/disk in the environment, or `hf cache prune` to make room",
    )


def _gated(name: str, shown: str, kind: Kind) -> ColtrainError:
    suggestion = f"accept the terms on the page of {name}, then `hf auth login`"
    if kind == "dataset":
        return DataError(
            "gated-dataset",
            "the data set's owners ask for an agreement first.",
            where=shown,
            received="access denied",
            suggestion=suggestion,
        )
    return ModelError(
        "gated-model",
        "the model's owners ask for an agreement first.",
        where=shown,
        received="access denied",
        suggestion=suggestion,
    )


def _unknown(name: str, shown: str, kind: Kind) -> ColtrainError:
    if kind == "dataset":
        return DataError(
            "unknown-dataset",
            "there is neither a folder nor a data set of the hub with this name that you may see.",
            where=shown,
            received=name,
            expected="a name as in vidore/colpali_train_set, or a folder as in ./pages",
            suggestion=f"check the spelling; {_about_token()}",
        )
    return ModelError(
        "model-not-found",
        "there is neither a folder nor a model of the hub with this name that you may see.",
        received=shown,
        expected="`tiny`, a folder, a run, or a hub name such as vidore/colqwen2-base",
        suggestion=f"check the spelling; {_about_token()}",
    )


def _not_a_name(name: str, kind: Kind) -> ColtrainError:
    if kind == "dataset":
        return DataError(
            "unknown-dataset",
            "this is neither a folder nor a possible hub name.",
            received=name,
            expected="a name as in vidore/colpali_train_set, or a folder as in ./pages",
        )
    return ModelError(
        "model-not-found",
        "this is neither a folder nor a possible hub name.",
        received=name,
        expected="`tiny`, a folder, a run, or a hub name such as vidore/colqwen2-base",
    )


def _not_cached(
    name: str,
    revision: str | None,
    kind: Kind,
    lacking: Sequence[str],
    said: str | None = None,
) -> ColtrainError:
    if lacking:
        more = ", …" if len(lacking) > 3 else ""
        said = f"{len(lacking)} files are not in the cache: {', '.join(lacking[:3])}{more}"
    return _failed(
        kind,
        "hub-offline",
        f"the hub cannot be reached, and the {_word(kind)} is not (wholly) in the cache.",
        where=_shown(name, revision),
        received=said,
        expected="a connection, an earlier download, or a folder",
        suggestion=f"where there is a connection: {_by_hand(name, revision, kind)}\n"
        "then copy the hub's cache here, or use --local-dir and give that folder in place of the "
        "name",
    )


def _by_hand(name: str, revision: str | None, kind: Kind) -> str:
    of_kind = " --repo-type dataset" if kind == "dataset" else ""
    return f"hf download {name}{of_kind}" + (f" --revision {revision}" if revision else "")
