"""The network from a folder in any published layout, every tensor accounted for.

Names are brought to the ones of `ColQwen2` (`names.py`), and then nothing may be missing but what
the recipe creates, nothing may be left over, and no value may be one that training cannot give.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import Qwen2VLConfig

from coltrain.errors import ModelError
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.files import broken_file, open_tensors, read_json
from coltrain.model.half import Half, is_under
from coltrain.model.weights.files import unread_files, weight_files
from coltrain.model.weights.hashes import tensor_bytes
from coltrain.model.weights.names import PROJECTION, map_names
from coltrain.model.weights.sentence_transformers import MODULES_FILE, Dense, read_modules
from coltrain.model.weights.values import is_constant

_PROJECTION_NAMES = (f"{PROJECTION}.weight", f"{PROJECTION}.bias")


@dataclass
class Found:
    """What was met while a network's tensors were read.

    Attributes:
        names: The files' way of naming tensors (`names.py`).
        files: That were read.
        unread: Names of weight files in the same folders that were not.
        types: Number of tensors by the type that the files hold them in.
        created: Tensors that no file has, with what they were filled with.
        left_out: Keys that ColQwen2 has no place for, and that a layout is known to have.
        constant: Biases and norms of one value throughout.
        hashes: sha256 of each tensor's bytes, first 16 digits.
    """

    names: str = ""
    files: list[Path] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    types: Counter[str] = field(default_factory=Counter)
    created: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedBackbone:
    """A model and how it came to be.

    Attributes:
        model: The network, without an adapter.
        weights_hash: sha256 over names, types and bytes of the files' tensors, first 16 digits;
            the same whatever the layout of names and however the tensors are spread over files.
        projection_from_file: Whether the file had a projection; otherwise it was drawn.
        found: What was met on the way.
        kept: Full names of modules whose weights stayed in float32.
    """

    model: ColQwen2
    weights_hash: str
    projection_from_file: bool
    found: Found
    kept: tuple[str, ...] = ()


def load_backbone(
    folder: Path,
    *,
    dim: int | None,
    dtype: torch.dtype,
    projection_std: float | None,
    seed: int,
    rounded_to: torch.dtype | None = None,
    half: Half | None = None,
    key_mapping: bool = True,
    allow_pickle: bool = False,
) -> LoadedBackbone:
    """Build ColQwen2 from a folder with config.json and the network's tensors.

    Args:
        folder: A snapshot of a hub model, or any folder of that form; of sentence-transformers too.
        dim: Size of the projection; None takes the configuration's, or 128.
        dtype: Type in which the backbone's and the projection's weights are kept.
        projection_std: Deviation of a projection drawn anew, where the file has none; None
            insists on the file's.
        seed: Of that drawing.
        rounded_to: Type to which weights are rounded before they are kept in `dtype`; None does not
            round further.
        half: Says which modules stay in float32, as their file has them; None keeps none apart.
        key_mapping: False insists that the tensors have ColQwen2's own names.
        allow_pickle: Read pickled weights where there are no safetensors.

    Raises:
        ModelError: A file is missing or broken; a tensor is missing, left over, of another shape, of
            no known name, or has values that no training gives.
    """
    dense = None
    if (folder / MODULES_FILE).is_file():
        modules = read_modules(folder)
        folder, dense = modules.transformer, modules.dense
    config = read_config(folder)
    if dense is not None:
        dim = dim or dense.dim
    with init_empty_weights(include_buffers=False):
        model = ColQwen2(config, dim or read_embedding_dim(folder))
    kept = () if half is None else half.kept(model)
    reader = _Reader(model, rounded_to or dtype, dtype, kept=kept)
    files = weight_files(folder, pickled_stem="pytorch_model", allow_pickle=allow_pickle)
    reader.read(files, _mapped(files, reader.found, key_mapping), skip_projection=dense is not None)
    reader.found.unread = unread_files(folder, files)
    if dense is not None:
        reader.read_dense(dense, allow_pickle)
    wanted, hashes = reader.wanted, reader.whole_hashes
    missing = set(wanted) - set(hashes) - set(reader.found.created)
    drawn = set(_PROJECTION_NAMES) & missing
    if missing - drawn or (drawn and projection_std is None):
        _raise_missing(missing if projection_std is None else missing - drawn, folder)
    if drawn:
        for name, tensor in draw_projection(wanted, projection_std, seed).items():
            reader.keep(name, tensor)
            reader.found.created[name] = f"drawn, seed {seed}"
    whole = hashlib.sha256("".join(f"{name} {hashes[name]}\n" for name in sorted(hashes)).encode())
    return LoadedBackbone(model.eval(), whole.hexdigest()[:16], not drawn, reader.found, kept)


def take_dense(
    loaded: LoadedBackbone,
    dense: Dense,
    *,
    dtype: torch.dtype,
    rounded_to: torch.dtype | None = None,
    allow_pickle: bool = False,
) -> None:
    """Put a projection of sentence-transformers' in the place of a base's, or of a drawn one.

    `weights_hash` stays that of the base.

    Raises:
        ModelError: As `load_backbone`.
    """
    for name in _PROJECTION_NAMES:
        loaded.found.created.pop(name, None)
        if loaded.found.hashes.pop(name, None) is not None:
            loaded.found.left_out.append(name)
    reader = _Reader(loaded.model, rounded_to or dtype, dtype, loaded.found, loaded.kept)
    reader.read_dense(dense, allow_pickle)


class _Reader:
    """Puts tensors into a model whose parameters are on the meta device."""

    def __init__(
        self,
        model: ColQwen2,
        rounded_to: torch.dtype,
        dtype: torch.dtype,
        found: Found | None = None,
        kept: tuple[str, ...] = (),
    ) -> None:
        self.model = model
        self.kept = kept
        self.rounded_to, self.dtype = rounded_to, dtype
        self.wanted = dict(model.named_parameters())
        self.whole_hashes: dict[str, str] = {}  # with type and shape
        self.found = found or Found()

    def read(self, files: list[Path], names: dict[str, str | None], skip_projection: bool) -> None:
        for file, key, tensor in _tensors(files):
            name = names[key]
            if name is None or (skip_projection and name in _PROJECTION_NAMES):
                self.found.left_out.append(key)
            else:
                self._put(name, key, tensor, file)
        self.found.files += files

    def read_dense(self, dense: Dense, allow_pickle: bool) -> None:
        files = weight_files(dense.folder, pickled_stem="pytorch_model", allow_pickle=allow_pickle)
        for file, key, tensor in _tensors(files):
            name = dense.names.get(key)
            self._put(f"{PROJECTION}.{name}" if name else key, key, tensor, file)
        self.found.files += files
        missing = [
            key
            for key in dense.names
            if f"{PROJECTION}.{dense.names[key]}" not in self.whole_hashes
        ]
        if missing:
            _raise_missing(missing, dense.folder)
        if not dense.has_bias:
            name = f"{PROJECTION}.bias"
            self.keep(name, torch.zeros(self.wanted[name].shape))
            self.found.created[name] = "zero, as the Dense layer has none"

    def _put(self, name: str, key: str, tensor: Tensor, file: Path) -> None:
        if name not in self.wanted or name in self.whole_hashes:
            raise ModelError(
                "unexpected-weight",
                "the file has a tensor that the model has no place for.",
                where=str(file),
                received=key if name not in self.whole_hashes else f"{key}, a second time",
            )
        if tensor.shape != self.wanted[name].shape:
            raise ModelError(
                "weight-shape",
                "a tensor has another shape than the model's configuration says.",
                where=f"{file}, {key}",
                received=str(tuple(tensor.shape)),
                expected=str(tuple(self.wanted[name].shape)),
            )
        # Rounded first and kept then: a value has to fit both types.
        narrower = min(self._types(name), key=lambda dtype: torch.finfo(dtype).max)
        if is_constant(key, tensor, str(file), narrower):
            self.found.constant.append(name)
        self.found.types[str(tensor.dtype).removeprefix("torch.")] += 1
        digest = hashlib.sha256(tensor_bytes(tensor)).hexdigest()
        self.found.hashes[name] = digest[:16]
        self.whole_hashes[name] = f"{digest} {tensor.dtype} {tuple(tensor.shape)}"
        self.keep(name, tensor)

    def keep(self, name: str, tensor: Tensor) -> None:
        rounded_to, dtype = self._types(name)
        set_parameter(self.model, name, tensor.to(rounded_to).to(dtype))

    def _types(self, name: str) -> tuple[torch.dtype, torch.dtype]:
        """To what a parameter is rounded, and in what it is kept."""
        if not is_under(name, self.kept):
            return self.rounded_to, self.dtype
        # Rounded to float16, a value beyond its range would be lost for good.
        is_float16 = self.rounded_to == torch.float16
        wide = torch.float32 if self.dtype == torch.float16 else self.dtype
        return torch.float32 if is_float16 else self.rounded_to, wide


def _mapped(files: list[Path], found: Found, key_mapping: bool) -> dict[str, str | None]:
    places: dict[str, str] = {}
    for file in files:
        with open_tensors(file) as tensors:
            places |= {key: str(file) for key in tensors.keys()}  # noqa: SIM118 - not a mapping
    names, mapped = map_names(places, key_mapping=key_mapping)
    found.names = names.name
    return mapped


def _tensors(files: list[Path]) -> Iterator[tuple[Path, str, Tensor]]:
    for file in files:
        with open_tensors(file) as tensors:
            for key in tensors.keys():  # noqa: SIM118 - not a mapping
                yield file, key, tensors.get_tensor(key)


def _raise_missing(missing: Iterable[str], folder: Path) -> None:
    names = sorted(missing)
    what = "one of the tensors is" if len(names) == 1 else f"{len(names)} of the tensors are"
    raise ModelError(
        "missing-weight",
        f"{what} not in the model's files.",
        where=str(folder),
        received=", ".join(names[:3]) + (", …" if len(names) > 3 else ""),
        expected="every tensor; only the projection may be drawn, with projection.start: normal",
    )


def draw_projection(wanted: dict[str, nn.Parameter], std: float, seed: int) -> dict[str, Tensor]:
    """A projection as transformers 5 starts one: normal weights, no bias; seeded."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.empty(wanted[f"{PROJECTION}.weight"].shape).normal_(std=std, generator=generator)
    return {
        f"{PROJECTION}.weight": weight,
        f"{PROJECTION}.bias": torch.zeros(wanted[f"{PROJECTION}.bias"].shape),
    }


def set_parameter(model: nn.Module, name: str, value: Tensor) -> None:
    """Put a tensor in place of a parameter (which may be on the meta device)."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.Parameter(value, requires_grad=False))


def read_config(folder: Path) -> Qwen2VLConfig:
    """config.json as Qwen2-VL's configuration; of transformers' ColQwen2, the part within.

    Raises:
        ModelError: It is missing, broken, or of another model.
    """
    file = folder / "config.json"
    content = read_json(file)
    where, received = str(file), content.get("model_type")
    if received == "colqwen2":
        content = _part(file, content, "vlm_config")
        where, received = f"{file}, vlm_config", content.get("model_type")
    if received != "qwen2_vl":
        raise ModelError(
            "unknown-architecture",
            "the base is not a Qwen2-VL model.",
            where=where,
            received=f"model_type {received!r}",
            expected="'qwen2_vl'",
        )
    try:
        return Qwen2VLConfig.from_dict(content)
    except (TypeError, ValueError, KeyError, StrictDataclassError) as error:
        received = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise broken_file(file, received, "Qwen2-VL's configuration") from error


def read_embedding_dim(folder: Path) -> int:
    """Size of the projection: what transformers' ColQwen2 says, 128 as colpali-engine fixes it."""
    content = read_json(folder / "config.json")
    return int(content.get("embedding_dim", 128)) if content["model_type"] == "colqwen2" else 128


def _part(file: Path, content: dict[str, Any], key: str) -> dict[str, Any]:
    part = content.get(key)
    if not isinstance(part, dict):
        raise broken_file(file, f"no {key}", f"a model's configuration under {key}")
    return part
