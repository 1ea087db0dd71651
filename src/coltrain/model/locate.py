"""From what a user names to a folder on disk: a shipped base, a folder, or a hub model."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

from coltrain.errors import ModelError
from coltrain.hub import download, look_up

TINY = "tiny"
# Weights, and the small files beside them; never pickled weights.
FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")


def tiny_folder() -> Path:
    """The base that ships with the package."""
    return Path(str(resources.files("coltrain.model.tiny") / "base"))


def locate_model(
    name: str, revision: str | None = None, *, patterns: Sequence[str] = FILES
) -> Path:
    """The folder that holds a model's files; a hub model is downloaded, or found in the cache.

    All files that fit a pattern come, so all shards do.

    Args:
        name: `tiny`, a folder, or a hub name such as `vidore/colqwen2-base`.
        revision: Commit, tag or branch of a hub model.
        patterns: Which files of a hub model are downloaded, wherever they lie in it.

    Raises:
        ModelError: [model-not-found] There is no such folder or model; or the hub model cannot be
            had, as `coltrain.hub.look_up` and `coltrain.hub.download` say.
    """
    if name == TINY:
        return tiny_folder()
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(
            "model-not-found",
            "there is no such model.",
            received=name or "an empty name",
            expected="`tiny`, a folder, a run, or a hub name such as vidore/colqwen2-base",
        )
    repository = look_up(name, revision, "model")
    names = [file for file in repository.files if any(fnmatchcase(file, one) for one in patterns)]
    if not names:
        raise ModelError(
            "not-a-model",
            "the repository holds no file of a model.",
            where=repository.shown,
            received=", ".join(sorted(repository.files)[:5]) or "an empty repository",
            expected=", ".join(patterns),
        )
    return download(repository, names)
