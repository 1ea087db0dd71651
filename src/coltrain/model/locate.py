"""From what a user names to a folder on disk: a shipped base, a folder, or a hub model."""

from importlib import resources
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from coltrain.errors import ModelError

TINY = "tiny"
# Weights, and the small files beside them; never pickled weights.
_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]


def tiny_folder() -> Path:
    """The base that ships with the package."""
    return Path(str(resources.files("coltrain.model.tiny") / "base"))


def locate_model(name: str, revision: str | None = None) -> Path:
    """The folder that holds a model's files; a hub model is downloaded, or found in the cache.

    Args:
        name: `tiny`, a folder, or a hub name such as `vidore/colqwen2-base`.
        revision: Commit, tag or branch of a hub model.

    Raises:
        ModelError: The folder is missing, or the hub model cannot be had.
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
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_PATTERNS))
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError) as error:
        raise ModelError(
            "model-not-found",
            "the hub has no such model or revision, or does not show it to you.",
            received=name + (f"@{revision}" if revision else ""),
            suggestion="check the name; for a gated or private model run `hf auth login`",
        ) from error
    except HFValidationError as error:
        raise ModelError(
            "model-not-found",
            "this is neither a folder nor a possible hub name.",
            received=name,
            expected="`tiny`, a folder, a run, or a hub name such as vidore/colqwen2-base",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        option = f" --revision {revision}" if revision else ""
        raise ModelError(
            "hub-offline",
            "the hub cannot be reached and the model is not in the local cache.",
            received=name + (f"@{revision}" if revision else ""),
            expected="a network connection, or the model's files on this machine",
            suggestion=f"`hf download {name}{option}` where there is a network, then copy the cache "
            "or name the folder in place of the hub name",
        ) from error
