"""What the trained tensors were after the first steps, small enough to keep with every run."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from coltrain.model.weights import tensor_bytes

RECORDED_STEPS = 3  # hashing a real adapter takes a few tenths of a second


@dataclass(frozen=True)
class TensorFingerprint:
    """One tensor: its bits, and a number to tell rounding from a real difference.

    Attributes:
        sha256: Of its bytes, first 16 digits.
        norm: Euclidean, computed in float64.
    """

    sha256: str
    norm: float


def fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, TensorFingerprint]:
    """One for each tensor, by name."""
    return {
        name: TensorFingerprint(
            hashlib.sha256(tensor_bytes(tensor)).hexdigest()[:16],
            tensor.detach().double().norm().item(),
        )
        for name, tensor in tensors.items()
    }
