"""LoRA dropout whose masks depend on what is dropped, not on how the batch was cut.

A mask is a function of (seed, step, sample, side, module, token position, feature) and of nothing
else. The chunk size, padding, the number of ranks and resuming therefore never change a run beyond
rounding, and both passes of gradient caching meet the same masks without saving generator states.

The price is a counter-based hash in place of a sequential generator: one 64-bit SplitMix hash gives
four 16-bit draws, so a probability is exact to 1/65,536.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

# SplitMix64 (Steele, Lea, Flood, 2014): the golden-ratio increment and the finaliser's constants,
# written as the signed numbers that torch's int64 holds.
_INCREMENT = 0x9E3779B97F4A7C15 - (1 << 64)
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MULTIPLIER_2 = 0x94D049BB133111EB - (1 << 64)
_DRAWS_PER_HASH = 4  # 16 bits each


def stable_key(*parts: str | int) -> int:
    """A signed 64-bit number from names and numbers, the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)


def _mix(z: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """SplitMix64's finaliser; `>>` on int64 keeps the sign, so each shift is masked."""
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * _MULTIPLIER_1
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * _MULTIPLIER_2
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


class SampleKeys:
    """What the dropout modules of one model share: the keys of the samples now being encoded."""

    def __init__(self) -> None:
        self.current: Int[Tensor, " samples"] | None = None

    @contextmanager
    def use(self, keys: Sequence[int], device: torch.device) -> Iterator[None]:
        """Drop with these keys (one for each sample of the forward pass); without, nothing drops.

        The backward pass has to run inside as well where activations are checkpointed, since the
        forward pass is then computed again.
        """
        self.current = torch.tensor(list(keys), dtype=torch.int64, device=device)
        try:
            yield
        finally:
            self.current = None


class KeyedDropout(nn.Module):
    """Dropout with a mask that is a pure function of sample, module and place.

    Args:
        p: Probability that a feature is dropped; the rest is scaled by 1 / (1 - p).
        name: Full name of the module whose input is dropped; part of the key.
        sample_keys: The holder that the model's step fills.
    """

    def __init__(self, p: float, name: str, sample_keys: SampleKeys) -> None:
        super().__init__()
        self.p = p
        self.module_key = stable_key("module", name)
        self.sample_keys = sample_keys

    def forward(
        self, features: Float[Tensor, "samples tokens dim"]
    ) -> Float[Tensor, "samples tokens dim"]:
        """Drop features while keys are set; the input itself otherwise (evaluation)."""
        keys = self.sample_keys.current
        if keys is None or self.p == 0:
            return features
        keep = keep_mask(keys ^ self.module_key, features.shape[1], features.shape[2], self.p)
        return torch.where(keep, features * (1 / (1 - self.p)), 0.0)


def keep_mask(keys: Int[Tensor, " samples"], num_tokens: int, dim: int, p: float) -> Tensor:
    """True where a feature is kept, samples x tokens x dim.

    A token's row of the mask depends on its sample's key and its position alone.
    """
    places = torch.arange(num_tokens, device=keys.device) * _INCREMENT
    tokens = _mix(keys[:, None] + places)
    num_hashes = -(-dim // _DRAWS_PER_HASH)
    lanes = torch.arange(1, num_hashes + 1, device=keys.device) * _INCREMENT
    draws = _mix(tokens[:, :, None] + lanes).view(torch.int16)[:, :, :dim]
    return draws >= round(p * 65536) - 32768


def use_keyed_dropout(model: nn.Module, sample_keys: SampleKeys) -> int:
    """Replace peft's dropout of every LoRA layer by the keyed one; returns how many."""
    from peft.tuners.lora import LoraLayer

    count = 0
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        for adapter, dropout in module.lora_dropout.items():
            if isinstance(dropout, nn.Dropout):
                module.lora_dropout[adapter] = KeyedDropout(dropout.p, name, sample_keys)
                count += 1
    return count
