"""The backbone's weights from a file, every tensor accounted for.

Released Qwen2-VL checkpoints, those that current transformers saves, colqwen2-base and coltrain's
own differ in the names of the same tensors. Names are brought to the ones of `ColQwen2`, and then
nothing may be missing but what the recipe creates, and nothing may be left over.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import Qwen2VLConfig

from coltrain.errors import ModelError
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.files import open_tensors, read_json

PROJECTION = "custom_text_proj"

# (pattern, replacement), first match wins; the right-hand names are ColQwen2's.
_KEY_RULES = (
    # transformers >= 4.52 saves model.visual.* and model.language_model.*
    (r"^model\.(visual|language_model)\.", r"\1."),
    # released checkpoints and colqwen2-base: visual.*, model.layers.*
    (r"^model\.(embed_tokens|layers|norm)\b", r"language_model.\1"),
    (r"^(visual|language_model|custom_text_proj)\.", r"\1."),
)


@dataclass(frozen=True)
class LoadedBackbone:
    """A model and how it came to be.

    Attributes:
        model: The network, without an adapter.
        weights_hash: sha256 over names, types and bytes of the files' tensors, first 16 digits;
            the same whatever the layout of names and however the tensors are spread over files.
        projection_from_file: Whether the file had a projection; otherwise it was drawn.
    """

    model: ColQwen2
    weights_hash: str
    projection_from_file: bool


def canonical_name(key: str, where: str | None = None) -> str | None:
    """A checkpoint's key under ColQwen2's names; None for the output layer, which it drops.

    Args:
        key: Of a tensor.
        where: Its file, for the error.

    Raises:
        ModelError: No known layout has such a key.
    """
    if key == "lm_head.weight":
        return None
    for pattern, replacement in _KEY_RULES:
        renamed, count = re.subn(pattern, replacement, key)
        if count:
            return renamed
    raise ModelError(
        "unknown-weight",
        "a tensor's name belongs to no layout of Qwen2-VL or ColQwen2 that coltrain knows.",
        where=where,
        received=key,
        expected="visual.*, model.*, language_model.*, custom_text_proj.*",
    )


def load_backbone(
    folder: Path,
    *,
    dim: int,
    dtype: torch.dtype,
    projection_std: float | None,
    seed: int,
    rounded_to: torch.dtype | None = None,
) -> LoadedBackbone:
    """Build ColQwen2 from a folder with config.json and safetensors files.

    Args:
        folder: A snapshot of a hub model, or any folder of that form.
        dim: Size of the projection.
        dtype: Type in which the backbone's and the projection's weights are kept.
        projection_std: Deviation of a projection drawn anew, where the file has none; None
            insists on the file's.
        seed: Of that drawing.
        rounded_to: Type to which weights are rounded before they are kept in `dtype`; None does not
            round further.

    Raises:
        ModelError: A file is missing or broken; a tensor is missing, left over, or of another shape.
    """
    config = read_config(folder)
    with init_empty_weights(include_buffers=False):
        model = ColQwen2(config, dim)
    hashes: dict[str, str] = {}
    wanted = dict(model.named_parameters())
    for file in weight_files(folder):
        with open_tensors(file) as tensors:
            for key in tensors.keys():  # noqa: SIM118 - not a mapping
                name = canonical_name(key, str(file))
                if name is None:
                    continue
                tensor = tensors.get_tensor(key)
                if name not in wanted or name in hashes:
                    raise ModelError(
                        "unexpected-weight",
                        "the file has a tensor that the model has no place for.",
                        where=str(file),
                        received=key if name not in hashes else f"{key}, a second time",
                    )
                if tensor.shape != wanted[name].shape:
                    raise ModelError(
                        "weight-shape",
                        "a tensor has another shape than the model's configuration says.",
                        where=f"{file}, {key}",
                        received=str(tuple(tensor.shape)),
                        expected=str(tuple(wanted[name].shape)),
                    )
                hashes[name] = hashlib.sha256(tensor_bytes(tensor)).hexdigest()
                hashes[name] += f" {tensor.dtype} {tuple(tensor.shape)}"
                set_parameter(model, name, tensor.to(rounded_to or dtype).to(dtype))
    missing = set(wanted) - set(hashes)
    drawn = {f"{PROJECTION}.weight", f"{PROJECTION}.bias"} & missing
    if missing - drawn or (drawn and projection_std is None):
        _raise_missing(missing if projection_std is None else missing - drawn, folder)
    if drawn:
        for name, tensor in draw_projection(wanted, projection_std, seed).items():
            set_parameter(model, name, tensor.to(rounded_to or dtype).to(dtype))
    whole = hashlib.sha256("".join(f"{name} {hashes[name]}\n" for name in sorted(hashes)).encode())
    return LoadedBackbone(model.eval(), whole.hexdigest()[:16], not drawn)


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
    """config.json as Qwen2-VL's configuration.

    Raises:
        ModelError: It is missing, broken, or of another model.
    """
    file = folder / "config.json"
    content = read_json(file)
    if content.get("model_type") != "qwen2_vl":
        raise ModelError(
            "unknown-architecture",
            "the base is not a Qwen2-VL model.",
            where=str(file),
            received=f"model_type {content.get('model_type')!r}",
            expected="'qwen2_vl'",
        )
    return Qwen2VLConfig.from_dict(content)


def weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files, in order.

    Raises:
        ModelError: There is none, or one that the index names is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise ModelError(
            "missing-model-file",
            "the model's folder lacks weight files.",
            where=", ".join(missing),
            suggestion="only safetensors are read; convert pickled weights first",
        )
    return files


def tensor_bytes(tensor: Tensor) -> bytes:
    """The raw bytes of a tensor of any type."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def projection_hash(model: ColQwen2) -> str:
    """sha256 of the projection's base weight and bias, first 16 digits."""
    projection = model.custom_text_proj
    layer = getattr(projection, "base_layer", projection)
    digest = hashlib.sha256(tensor_bytes(layer.weight))
    digest.update(tensor_bytes(layer.bias))
    return digest.hexdigest()[:16]
