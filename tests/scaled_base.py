"""The tiny base with some of its weights multiplied: as a pretrained network that overflows."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file

from coltrain.model.locate import tiny_folder


def scaled_base(folder: Path, factors: Mapping[str, float]) -> Path:
    """Write the base to a folder, the named tensors multiplied; returns the folder."""
    shutil.copytree(tiny_folder(), folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, factor in factors.items():
        [key] = [key for key in tensors if key == name or key.endswith(f".{name}")]
        tensors[key] = tensors[key] * factor
    save_file(tensors, file, metadata={"format": "pt"})
    return folder
