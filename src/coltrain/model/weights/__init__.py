"""Weights in every published layout, brought to `ColQwen2`'s names, every tensor accounted for.

layouts.py                what a folder is, from the files in it
names.py                  what each library calls the tensors
files.py                  which files hold them; pickles only where the user insists
sentence_transformers.py  the modules of its folders, and the Dense layer that is the projection
values.py                 a tensor that no training gives: NaN, infinite, constant
reading.py                the network from a folder, and what was found on the way
hashes.py                 recorded hashes of single tensors
"""

from coltrain.model.weights.hashes import (
    HASHES_FILE,
    projection_hash,
    read_hashes,
    refuse_other_tensors,
    tensor_bytes,
    tensor_hash,
    tensor_hashes,
    write_hashes,
)
from coltrain.model.weights.layouts import Checkpoint, Layout, recognise
from coltrain.model.weights.names import NAMES, PROJECTION, Names, map_names
from coltrain.model.weights.reading import (
    LoadedBackbone,
    draw_projection,
    load_backbone,
    read_config,
    set_parameter,
    take_dense,
)

__all__ = [
    "HASHES_FILE",
    "NAMES",
    "PROJECTION",
    "Checkpoint",
    "Layout",
    "LoadedBackbone",
    "Names",
    "draw_projection",
    "load_backbone",
    "map_names",
    "projection_hash",
    "read_config",
    "read_hashes",
    "recognise",
    "refuse_other_tensors",
    "set_parameter",
    "take_dense",
    "tensor_bytes",
    "tensor_hash",
    "tensor_hashes",
    "write_hashes",
]
