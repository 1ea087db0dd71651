"""How a run computes, beside its recipe: kernels, threads, the optimiser's moments.

None of it is asked for in a recipe, and each can move the last bits of a result or, as a bfloat16
moment does, more. So run.json has it, for `coltrain compare`.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from coltrain.model.build import BuiltModel
from coltrain.model.weights import tensor_bytes


def kernel_facts(built: BuiltModel, device: torch.device) -> dict[str, Any]:
    """Attention, what float32 products may be rounded to, and threads."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    facts: dict[str, Any] = {
        "attention": built.model.config.text_config._attn_implementation,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        facts |= {
            "cudnn": cudnn.version(),
            "cudnn_allow_tf32": cudnn.allow_tf32,
            "cudnn_benchmark": cudnn.benchmark,
            "float16_sums_in_float16": matmul.allow_fp16_reduced_precision_reduction,
            "bfloat16_sums_in_bfloat16": matmul.allow_bf16_reduced_precision_reduction,
            "attention_kernels": {
                "flash": torch.backends.cuda.flash_sdp_enabled(),
                "memory_efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
                "math": torch.backends.cuda.math_sdp_enabled(),
                "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
            },
        }
    return facts


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Of all tensors, with their names and types, in the order of the names: first 16 digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:16]


def moment_types(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, int]]:
    """In what types an optimiser keeps its state: tensor's name to type to number of elements.

    Known after the first step only. bitsandbytes keeps small tensors in 32 bits and the others in
    8, so that a name may have two types.
    """
    found: dict[str, Counter[str]] = {}
    for state in optimizer.state.values():
        for name, value in state.items():
            # A step counter is a scalar, and no moment.
            if isinstance(value, Tensor) and value.dim() > 0:
                kind = str(value.dtype).removeprefix("torch.")
                found.setdefault(name, Counter())[kind] += value.numel()
    return {name: dict(sorted(kinds.items())) for name, kinds in sorted(found.items())}
