"""What an embedding depends on beside its page: enough to know when one on disk can be used again."""

import hashlib
from typing import Any

from coltrain.model.adapter import adapter_tensors
from coltrain.model.attention import ATTENTION
from coltrain.model.build import BuiltModel
from coltrain.model.retriever import Retriever
from coltrain.model.weights import tensor_bytes

_KERNELS = {ATTENTION: "sdpa"}  # the same kernels, by the name that embeddings on disk know


def encoder_identity(retriever: Retriever, is_padded: bool = False) -> dict[str, Any]:
    """Weights, template, budget, arithmetic: all that decides what a page's embedding is.

    The kind of device is part of it, since a GPU rounds otherwise than a CPU, and so is whether
    pages were encoded in padded batches.

    Args:
        retriever: The model.
        is_padded: Whether it encodes pages in padded batches.

    Returns:
        Values that JSON can hold, by name; hashes are the first 16 digits of a SHA-256.
    """
    built = retriever.built
    attention = built.model.config._attn_implementation
    preparer = built.preparer
    settings = preparer.settings()
    switches = {
        name: str(settings[name])
        for name in ("positions", "image_backend", "image_library", "alpha")
    }
    return {
        "weights": built.weights_hash,
        "projection": built.projection_hash,
        "adapter": adapter_hash(retriever),
        "dtype": str(built.model.dtype).removeprefix("torch."),
        "attention": _KERNELS.get(attention, attention),
        "device": built.model.device.type,
        "is_padded": is_padded,
        "query_prefix": preparer.template.query_prefix,
        "query_suffix": preparer.template.query_suffix,
        "page_prompt": preparer.template.page_prompt,
        "max_visual_tokens": preparer.max_visual_tokens,
        **switches,
        **_float32_modules(built),
    }


def _float32_modules(built: BuiltModel) -> dict[str, Any]:
    """What a model in float16 keeps in float32; nothing where it has no such exceptions."""
    if built.model.computes_in is None:
        return {}
    return {"float32_modules": list(built.model.kept_in_float32)}


def adapter_hash(retriever: Retriever) -> str | None:
    """Of the adapter's tensors and scale; None without an adapter."""
    built = retriever.built
    if built.lora is None:
        return None
    digest = hashlib.sha256(f"{built.lora.r} {built.lora.alpha}".encode())
    for key, tensor in sorted(adapter_tensors(built.model).items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:16]
