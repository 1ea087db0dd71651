"""Base and adapter as one network: added in float32, cast once."""

import torch
from torch import Tensor

from coltrain.model.adapter import ADAPTER_NAME, lora_layers
from coltrain.model.colqwen2 import ColQwen2

MERGED_IN_FLOAT32 = 1e-5
"""How far an embedding may move by merging in float32: W x + s B A x sums in another order than
(W + s B A) x."""


def merged_tensors(model: ColQwen2, dtype: torch.dtype) -> dict[str, Tensor]:
    """The network's tensors under ColQwen2's names, an adapter added to what it adapts.

    Args:
        model: Kept in float32, so that its weights are those of training to the bit.
        dtype: Of the result. The sum is taken in float32 and cast once.
    """
    layers = lora_layers(model)
    merged = {}
    for name, parameter in model.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            continue
        name = name.replace(".base_layer.", ".")
        weight = parameter.detach().to(torch.float32)
        module, _, leaf = name.rpartition(".")
        if leaf == "weight" and module in layers:
            layer = layers[module]
            down = layer.lora_A[ADAPTER_NAME].weight.detach().to(torch.float32)
            up = layer.lora_B[ADAPTER_NAME].weight.detach().to(torch.float32)
            weight = weight + layer.scaling[ADAPTER_NAME] * (up @ down)
        merged[name] = weight.to(dtype).cpu().contiguous()
    return merged
