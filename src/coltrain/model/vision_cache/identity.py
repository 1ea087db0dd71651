"""What a page's visual tokens depend on beside the page: enough to know when they can be used again."""

import hashlib
import json
from typing import Any

import torch
import transformers

from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.inputs import Preparer
from coltrain.model.weights import tensor_bytes


def vision_identity(
    model: ColQwen2,
    preparer: Preparer,
    computed_in: torch.dtype,
    stored_as: torch.dtype,
    decoding: str = "exact",
) -> dict[str, Any]:
    """Tower, preprocessing, budget, arithmetic: all that decides what a page's visual tokens are.

    Template, language model, adapter and projection are no part of it, so that the runs of a study
    share what they have in common.

    Args:
        model: Its vision tower is hashed: seconds for the 665 million parameters of Qwen2-VL-2B.
        preparer: How pages become patches.
        computed_in: Type that the tower's visual tokens have.
        stored_as: Type that they are rounded to, or the same.
        decoding: How image files are read: `exact`, or `draft`.

    Returns:
        Values that JSON can hold, by name; hashes are the first 16 digits of a SHA-256.
    """
    settings = preparer.settings()
    return {
        "tower": _tower_hash(model),
        "computed_in": _name(computed_in),
        "stored_as": _name(stored_as),
        "attention": model.visual.config._attn_implementation,
        "device": _device(model.device),
        "max_visual_tokens": preparer.max_visual_tokens,
        "processor": processor_hash(preparer),
        **{name: settings[name] for name in ("image_backend", "image_library", "alpha")},
        # Their kernels and their code of the tower decide the last bits.
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        # Folders of visual tokens are older than this choice.
        **({} if decoding == "exact" else {"decoding": decoding}),
    }


def _device(device: torch.device) -> str:
    """Two kinds of card round differently."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _tower_hash(model: ColQwen2) -> str:
    digest = hashlib.sha256(model.visual.config.to_json_string().encode())
    for name, tensor in sorted(model.visual.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:16]


def processor_hash(preparer: Preparer) -> str:
    """Of the resolved settings: sizes, mean, deviation, filter."""
    settings = json.dumps(preparer.image_processor.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
