"""What a folder is: which library wrote it, and where its parts lie.

Decided by the files that are there; what the tensors in them are called is decided later, by
`names.py`, since several libraries save the same network under different names.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from coltrain.errors import ModelError
from coltrain.model.files import read_json
from coltrain.model.weights.sentence_transformers import MODULES_FILE, Dense, read_modules

CARD = "coltrain.json"
ADAPTER_CONFIG = "adapter_config.json"


class Layout(StrEnum):
    """The published forms of a ColQwen2, as reports name them."""

    QWEN2_VL = "qwen2-vl"
    """Qwen2-VL as released, or as transformers saves it: a base without a projection."""
    COLQWEN2 = "colqwen2"
    """The same with `custom_text_proj`: colqwen2-base, a merged colpali-engine model."""
    ADAPTER = "adapter"
    """peft's two files, over a base that they name: colpali-engine's published models."""
    NATIVE = "transformers-native"
    """transformers' `ColQwen2ForRetrieval`."""
    SENTENCE_TRANSFORMERS = "sentence-transformers"
    """modules.json, a bare backbone or a `ForRetrieval` model at its root, perhaps a Dense layer."""
    SENTENCE_TRANSFORMERS_ADAPTER = "sentence-transformers-adapter"
    """The same with an adapter in the place of the backbone."""
    COLTRAIN = "coltrain"
    """Adapter, whole projection and card, over a base that the card names."""
    COLTRAIN_MERGED = "coltrain-merged"
    """The whole network under ColQwen2's names, and a card."""


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder and what it holds.

    Attributes:
        folder: As it was found.
        layout: Which library's form it has.
        network: Folder of config.json and the network's tensors; None where a base has them.
        adapter: Folder of the adapter's two files; None without one.
        dense: The projection, where it is a module of its own.
    """

    folder: Path
    layout: Layout
    network: Path | None = None
    adapter: Path | None = None
    dense: Dense | None = None


def recognise(folder: Path) -> Checkpoint:
    """Find out what a folder is.

    Raises:
        ModelError: It is no model, a file that decides it is broken, or sentence-transformers'
            modules do what coltrain does not.
    """
    # A folder of sentence-transformers' keeps its layout; its card says the template.
    if (folder / CARD).is_file() and not (folder / MODULES_FILE).is_file():
        if (folder / "config.json").is_file():
            return Checkpoint(folder, Layout.COLTRAIN_MERGED, network=folder)
        has_adapter = (folder / ADAPTER_CONFIG).is_file()
        return Checkpoint(folder, Layout.COLTRAIN, adapter=folder if has_adapter else None)
    if (folder / MODULES_FILE).is_file():
        modules = read_modules(folder)
        if (modules.transformer / ADAPTER_CONFIG).is_file():
            layout = Layout.SENTENCE_TRANSFORMERS_ADAPTER
            return Checkpoint(folder, layout, adapter=modules.transformer, dense=modules.dense)
        layout = Layout.SENTENCE_TRANSFORMERS
        return Checkpoint(folder, layout, network=modules.transformer, dense=modules.dense)
    if (folder / ADAPTER_CONFIG).is_file():
        return Checkpoint(folder, Layout.ADAPTER, adapter=folder)
    if (folder / "config.json").is_file():
        is_native = read_json(folder / "config.json").get("model_type") == "colqwen2"
        # Whether it has a projection is known once its tensors are read.
        layout = Layout.NATIVE if is_native else Layout.QWEN2_VL
        return Checkpoint(folder, layout, network=folder)
    raise ModelError(
        "not-a-model",
        "the folder holds no model.",
        where=str(folder),
        expected="config.json and safetensors, adapter_config.json, modules.json, or a run of "
        "coltrain's",
    )
