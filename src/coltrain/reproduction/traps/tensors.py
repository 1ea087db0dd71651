"""What lies in a folder of weights: names, types and, where they are small, values."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from coltrain.reproduction.targets import Target
from coltrain.reproduction.targets.model_folder import layout

# Above this, weights are read by their names and a few tensors alone.
SMALL = 200 * 2**20
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
_LORA = re.compile(r"^(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight$")
_PROJECTION = ("custom_text_proj", "embedding_proj_layer")


def weights_of(target: Target) -> "Weights | None":
    """The weights of a target's folder; None where it has none."""
    if "weights" not in target.loaded:
        found = None
        folder = target.folder
        if folder is not None and (
            any(folder.glob("*.safetensors")) or (folder / "adapter_config.json").is_file()
        ):
            found = Weights(folder, target.files)
        target.loaded["weights"] = found
    return target.loaded["weights"]


@dataclass
class Weights:
    """A folder's safetensors.

    Args:
        folder: Of the model.
        files: Its JSON files by name.
    """

    folder: Path
    files: dict[str, Any]
    layout: str = field(init=False)

    def __post_init__(self) -> None:
        self.layout = str(layout(self.files))

    @property
    def is_adapter(self) -> bool:
        """Whether it is an adapter over a base elsewhere."""
        return "adapter_config.json" in self.files

    @property
    def adapter_file(self) -> str:
        """Name of the adapter's file."""
        return "adapter_model.safetensors"

    @property
    def network_file(self) -> str:
        """Names of the network's files."""
        return ", ".join(sorted({file.name for file in self._network_files})) or self.folder.name

    @cached_property
    def adapter(self) -> dict[str, tuple[str, list[int]]]:
        """Adapter tensors: key to type and shape."""
        return dict(_headers([self.folder / self.adapter_file]))

    @cached_property
    def _network_files(self) -> list[Path]:
        names = (self.adapter_file, "projection.safetensors")
        return [f for f in sorted(self.folder.glob("*.safetensors")) if f.name not in names]

    @cached_property
    def network(self) -> dict[str, tuple[str, list[int]]]:
        """The network's tensors; of an adapter's folder, none."""
        return {} if self.is_adapter else dict(_headers(self._network_files))

    @cached_property
    def modules(self) -> list[str]:
        """Modules that the adapter has tensors for."""
        matches = filter(None, map(_LORA.match, self.adapter))
        return sorted({match[1] for match in matches})

    @cached_property
    def unknown_keys(self) -> list[str]:
        """Keys of the adapter's file that are neither LoRA nor a saved module."""
        known = (*_PROJECTION, "modules_to_save")
        return [
            key for key in self.adapter if not _LORA.match(key) and not any(k in key for k in known)
        ]

    @cached_property
    def lonely(self) -> list[str]:
        """Modules with one of the two matrices."""
        found: dict[str, set[str]] = {}
        for match in filter(None, map(_LORA.match, self.adapter)):
            found.setdefault(match[1], set()).add(match[2])
        return sorted(name for name, both in found.items() if len(both) == 1)

    @cached_property
    def zero_b(self) -> list[str]:
        """Modules whose B is zero throughout: the adapter does nothing there."""
        file = self.folder / self.adapter_file
        if not file.is_file():
            return []
        zero = []
        with safe_open(file, "pt") as handle:
            for key in handle.keys():  # noqa: SIM118 - the handle is no mapping
                match = _LORA.match(key)
                if match and match[2] == "B" and not handle.get_tensor(key).any():
                    zero.append(match[1])
        return zero

    @property
    def is_fresh(self) -> bool:
        """Whether a card of ours says that the adapter is before its first step."""
        card = self.files.get("coltrain.json") or {}
        return bool(card) and len(self.zero_b) == len(self.modules)

    @property
    def adapter_dtypes(self) -> set[str]:
        """Types of the adapter's tensors."""
        return {kind for kind, _ in self.adapter.values()}

    @property
    def names(self) -> str:
        """Era of the adapter's names."""
        if any(name.startswith("model.layers.") for name in self.modules):
            return "released"
        return "colqwen2"

    @cached_property
    def unadapted(self) -> list[str]:
        """Modules that a layer lacks while others of its kind are adapted."""
        layers: dict[str, set[str]] = {}
        prefix = ""
        for name in self.modules:
            match = re.match(r"^(.*layers\.)(\d+)\.(.+)$", name)
            if match and "visual" not in name:
                prefix = match[1]
                layers.setdefault(match[2], set()).add(match[3])
        if not layers:
            return []
        kinds = set().union(*layers.values())
        last = max(map(int, layers))
        return [
            f"{prefix}{layer}.{kind}"
            for layer in range(last + 1)
            for kind in sorted(kinds)
            if kind not in layers.get(str(layer), set())
        ]

    @property
    def saves_projection(self) -> bool:
        """Whether the folder holds the whole projection beside the adapter."""
        if (self.folder / "projection.safetensors").is_file():
            return True
        if (self.folder / "1_Dense" / "model.safetensors").is_file():
            return True
        whole = [
            key for key in self.adapter if any(p in key for p in _PROJECTION) and "lora_" not in key
        ]
        return bool(whole)

    @property
    def has_projection(self) -> bool:
        """Whether the network's tensors hold a projection, or a Dense layer stands for it."""
        if (self.folder / "1_Dense" / "model.safetensors").is_file():
            return True
        return any(part in key for key in self.network for part in _PROJECTION)

    @cached_property
    def _base(self) -> Path | None:
        name = (self.files.get("adapter_config.json") or {}).get("base_model_name_or_path") or ""
        for path in (Path(name), self.folder / name, self.folder / "base"):
            if name and path.is_dir() and path != self.folder:
                return path
        if name == "tiny":
            from coltrain.model.locate import tiny_folder

            return tiny_folder()
        return None

    @property
    def base_has_projection(self) -> bool | None:
        """Whether the base has one; None where the base is not here and its name does not tell."""
        if self._base is not None:
            keys = dict(_headers(sorted(self._base.glob("*.safetensors"))))
            return any(part in key for key in keys for part in _PROJECTION)
        return None

    @property
    def can_be_loaded(self) -> bool:
        """Whether the model is small and all of it lies here."""
        if self.is_adapter and self._base is None:
            return False
        folders = [self.folder] + ([self._base] if self.is_adapter and self._base else [])
        size = sum(f.stat().st_size for folder in folders for f in folder.rglob("*.safetensors"))
        return size < SMALL

    @cached_property
    def redrawn(self) -> str:
        """Final norm of ones, or token embeddings like a fresh draw: what damage looks like."""
        inner = (self.files.get("config.json") or {}).get("vlm_config") or self.files.get(
            "config.json"
        )
        text = (inner or {}).get("text_config") or inner or {}
        for file in self._network_files if not self.is_adapter else []:
            with safe_open(file, "pt") as handle:
                for key in handle.keys():  # noqa: SIM118 - the handle is no mapping
                    if key.endswith(("language_model.norm.weight", "model.norm.weight")):
                        norm = handle.get_tensor(key).float()
                        if (norm == norm[0]).all():
                            return f"{key} is {norm[0].item():g} throughout"
                    if key.endswith("embed_tokens.weight"):
                        found = _like_a_draw(
                            handle.get_tensor(key), text.get("initializer_range", 0.02)
                        )
                        if found:
                            return f"{key} {found}"
        return ""

    @cached_property
    def missing(self) -> list[str]:
        """Tensors without which no language model is whole."""
        if self.is_adapter or not self.network or self.layout == "unknown":
            return []
        return [
            one
            for one in ("embed_tokens.weight", "norm.weight")
            if not any(
                re.search(rf"(language_model|model)\.{re.escape(one)}$", k) for k in self.network
            )
        ]


def _like_a_draw(tensor: Any, deviation: float) -> str:
    """Whether values are a normal draw of the initial deviation: by their second and fourth moment."""
    sample = tensor[:: max(1, tensor.shape[0] // 4096)].double()
    spread = sample.std().item()
    fourth = ((sample - sample.mean()) ** 4).mean().item() / max(spread**4, 1e-30)
    if abs(spread / deviation - 1) < 0.02 and abs(fourth - 3) < 0.1:
        return (
            f"has deviation {spread:.4f} and kurtosis {fourth:.2f}: a fresh draw of {deviation:g}"
        )
    return ""


def _headers(files: list[Path]) -> Iterator[tuple[str, tuple[str, list[int]]]]:
    for file in files:
        if not file.is_file():
            continue
        try:
            with safe_open(file, "pt") as handle:
                for key in handle.keys():  # noqa: SIM118 - the handle is no mapping
                    piece = handle.get_slice(key)
                    kind = piece.get_dtype()
                    yield key, (_DTYPES.get(kind, kind), list(piece.get_shape()))
        except (SafetensorError, OSError):
            continue
