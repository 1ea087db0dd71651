"""An exported folder onto the hub."""

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from coltrain.errors import ModelError, UsageError
from coltrain.model.export.exporting import Exported
from coltrain.model.files import read_json


def refuse_without_token(name: str) -> None:
    """Check, before anything is written, that the hub would know who uploads.

    Raises:
        UsageError: There is no token, or the name is none of the hub's.
    """
    try:
        huggingface_hub.utils.validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(
            "not-a-hub-name",
            "this can be no name on the hub.",
            where="--push",
            received=name,
            expected="OWNER/NAME",
        ) from error
    if huggingface_hub.get_token() is None:
        raise UsageError(
            "no-hub-token",
            "the hub takes no upload without a token.",
            where=f"--push {name}",
            expected="a token with write access",
            suggestion="hf auth login, or the environment variable HF_TOKEN",
        )


def publish(exported: Exported, name: str) -> str:
    """Upload an exported folder as one commit; the repository is made where it is not there.

    Args:
        exported: What was written.
        name: OWNER/NAME on the hub.

    Returns:
        Address of the commit.

    Raises:
        ModelError: The adapter's base is on this machine only, or the hub refuses.
    """
    config = exported.folder / "adapter_config.json"
    base = read_json(config)["base_model_name_or_path"] if config.is_file() else ""
    if base and Path(base).expanduser().is_dir():
        raise ModelError(
            "base-not-on-hub",
            "the adapter's base is on this machine only, and nobody else could load the adapter.",
            where=f"--push {name}",
            received=f"base {base}",
            expected="a base with a hub name, or one merged network",
            suggestion="--merge",
        )
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(name, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            folder_path=Path(exported.folder),
            commit_message="coltrain export",
        )
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(
            "not-pushed",
            "the hub did not take the upload; the folder is whole.",
            where=f"--push {name}",
            received=str(error).strip().splitlines()[0] if str(error).strip() else repr(error),
            suggestion=f"hf upload {name} {exported.folder}",
        ) from error
    return str(commit.commit_url)
