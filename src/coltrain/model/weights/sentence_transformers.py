"""sentence-transformers' folders: a list of modules, of which two hold tensors.

Its multi-vector models are either a `ForRetrieval` model of transformers with a mask behind it, or a
bare backbone (or an adapter over one), a Dense layer that is the projection, a mask, and a norm.
What of these coltrain does not do is refused: it would give other embeddings, unseen.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coltrain.errors import ModelError
from coltrain.model.files import broken_file, read_json

MODULES_FILE = "modules.json"
_KNOWN = ("Transformer", "Dense", "MultiVectorMask", "Normalize")
_DENSE_WEIGHTS = {"linear.weight": "weight", "linear.bias": "bias"}


@dataclass(frozen=True)
class Dense:
    """A projection that is a module of its own.

    Attributes:
        folder: Of its config.json and tensors.
        dim: Size of its output.
        has_bias: Whether it has a bias; ColQwen2's projection has one, which is then zero.
    """

    folder: Path
    dim: int
    has_bias: bool

    @property
    def names(self) -> dict[str, str]:
        """Its tensors' names, and those of `nn.Linear`."""
        return {
            key: name for key, name in _DENSE_WEIGHTS.items() if self.has_bias or name == "weight"
        }


@dataclass(frozen=True)
class Modules:
    """The modules of a folder that hold tensors.

    Attributes:
        transformer: Folder of the backbone, or of its adapter.
        dense: The projection; None where the backbone has it.
    """

    transformer: Path
    dense: Dense | None


def read_modules(folder: Path) -> Modules:
    """Read modules.json and what it points to.

    Raises:
        ModelError: A file is missing or broken, or a module does what coltrain does not.

    Source:
        sentence-transformers 6.2.0, multi_vector_encoder/model.py, `_load_default_modules`, and
        base/modules/dense.py.
    """
    file = folder / MODULES_FILE
    modules = read_json(file, kind=list)
    found: dict[str, Path] = {}
    for module in modules:
        if not isinstance(module, dict) or not {"type", "path"} <= set(module):
            raise broken_file(file, str(module)[:80], "modules with a type and a path")
        kind = str(module["type"]).rpartition(".")[2]
        if kind not in _KNOWN or kind in found:
            _refuse(file, f"{module['type']}{', a second time' if kind in found else ''}")
        found[kind] = folder / str(module["path"])
    if "Transformer" not in found or "MultiVectorMask" not in found:
        _refuse(file, ", ".join(found) or "no module")
    if ("Dense" in found) != ("Normalize" in found):
        _refuse(file, ", ".join(found))
    _check_mask(found["MultiVectorMask"] / "config.json")
    _check_transformer(found["Transformer"] / "sentence_bert_config.json")
    if "Normalize" in found:
        _expect(found["Normalize"] / "config.json", {"module_input_name": "token_embeddings"})
    return Modules(found["Transformer"], _read_dense(found["Dense"]) if "Dense" in found else None)


def _read_dense(folder: Path) -> Dense:
    file = folder / "config.json"
    config = _expect(
        file,
        {
            "activation_function": "torch.nn.modules.linear.Identity",
            "module_input_name": "token_embeddings",
        },
    )
    if config.get("use_residual"):
        _refuse(file, "use_residual: true")
    return Dense(folder, int(config["out_features"]), bool(config.get("bias", True)))


def _check_mask(file: Path) -> None:
    for option, value in (read_json(file) if file.is_file() else {}).items():
        # The tasks of a list without words do nothing.
        if value and option != "skiplist_tasks":
            _refuse(file, f"{option}: {str(value)[:80]}")


def _check_transformer(file: Path) -> None:
    expansion = read_json(file).get("query_expansion") if file.is_file() else None
    if expansion:
        _refuse(file, f"query_expansion: {str(expansion)[:80]}")


def _expect(file: Path, values: dict[str, str]) -> dict[str, Any]:
    config = read_json(file)
    for key, value in values.items():
        if config.get(key) != value:
            _refuse(file, f"{key}: {config.get(key)}")
    return config


def _refuse(file: Path, received: str) -> None:
    raise ModelError(
        "unsupported-module",
        "sentence-transformers' modules do what coltrain does not, and would embed otherwise.",
        where=str(file),
        received=received,
        expected="Transformer and MultiVectorMask, with Dense (no activation) and Normalize where "
        "the backbone is bare; no skip list, no query expansion",
    )
