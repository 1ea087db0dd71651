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
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

# SplitMix64 (Steele, Lea, Flood, 2014): the golden-ratio increment and the finaliser's constants,
# written as the signed numbers that torch's int64 holds.
_INCREMENT = 0x9E3779B97F4A7C15 - (1 << 64)
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MULTIPLIER_2 = 0x94D049BB133111EB - (1 << 64)
_DRAWS_PER_HASH = 4  # 16 bits each

# Hashes of one block: two tensors of 64-bit numbers in the cache of a core, or enough to fill a GPU.
CPU_HASHES = 2**15
ACCELERATOR_HASHES = 2**22


def stable_key(*parts: str | int) -> int:
    """A signed 64-bit number from names and numbers, the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)


def _mix(z: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """SplitMix64's finaliser, in place; `>>` on int64 keeps the sign, so each shift is masked."""
    shifted = z >> 30
    z ^= shifted.bitwise_and_(0x3FFFFFFFF)
    z *= _MULTIPLIER_1
    z ^= torch.bitwise_right_shift(z, 27, out=shifted).bitwise_and_(0x1FFFFFFFFF)
    z *= _MULTIPLIER_2
    z ^= torch.bitwise_right_shift(z, 31, out=shifted).bitwise_and_(0x1FFFFFFFF)
    return z


class SampleKeys:
    """What the dropout modules of one model share: the keys of the samples now being encoded.

    Attributes:
        current: One for each sample; None while nothing drops.
        lengths: Tokens of each sample where they stand end to end in one row.
        hashes_per_block: Scratch of a mask; None for what the device likes.
    """

    hashes_per_block: int | None = None

    def __init__(self) -> None:
        self.current: Int[Tensor, " samples"] | None = None
        self.lengths: tuple[int, ...] | None = None
        self._owner: Int[Tensor, " total"] | None = None
        self._steps: Int[Tensor, " total"] | None = None

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
            self.current = self.lengths = self._owner = self._steps = None

    def lay_out(self, lengths: tuple[int, ...]) -> None:
        """Say that the samples of the coming forward pass stand end to end in one row.

        Raises:
            ValueError: There is another number of samples than of keys, or the samples of this
                scope were laid out otherwise before, so that a second computation of the first
                forward pass would get the masks of the second.
        """
        if self.current is None:
            return
        if len(lengths) != len(self.current):
            raise ValueError(f"{len(lengths)} samples with {len(self.current)} keys for dropout")
        if self.lengths is not None:
            if lengths != self.lengths:
                raise ValueError(f"samples of {lengths} tokens in the scope of {self.lengths}")
            return
        device = self.current.device
        self.lengths = lengths
        counts = torch.tensor(lengths, device=device)
        self._owner = torch.arange(len(lengths), device=device).repeat_interleave(
            counts, output_size=sum(lengths)
        )
        places = torch.cat([torch.arange(length, device=device) for length in lengths])
        self._steps = places * _INCREMENT

    def starts(
        self, module_key: int, features: Float[Tensor, "samples tokens dim"]
    ) -> Int[Tensor, " rows"]:
        """What the hash of each row of features starts from, all samples one below another."""
        if self.lengths is None:  # samples side by side, each as long as the others
            self.lay_out((features.shape[1],) * features.shape[0])
        return (self.current ^ module_key)[self._owner] + self._steps


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
        starts = self.starts(features)
        if starts is None:
            return features
        limit = self.sample_keys.hashes_per_block
        keep = keep_rows(starts, features.shape[2], self.p, limit).view(features.shape)
        return torch.where(keep, features * (1 / (1 - self.p)), 0.0)

    def starts(self, features: Float[Tensor, "samples tokens dim"]) -> Int[Tensor, " rows"] | None:
        """What each row's hash starts from; None while nothing drops."""
        if self.sample_keys.current is None or self.p == 0:
            return None
        return self.sample_keys.starts(self.module_key, features)


def keep_rows(
    starts: Int[Tensor, " rows"],
    dim: int,
    p: float,
    hashes_per_block: int | None = None,
    dtype: torch.dtype = torch.bool,
) -> Shaped[Tensor, "rows dim"]:
    """True where a feature is kept, or one of another type; False or zero where not.

    Args:
        starts: Of each row: the key of its sample and module, plus its place.
        dim: Features of a row.
        p: Share that is dropped.
        hashes_per_block: Four features each; None for what the device likes.
        dtype: Of what comes back.
    """
    keep = torch.empty(len(starts), dim, dtype=dtype, device=starts.device)
    for block, draws, threshold in _draws(starts, dim, p, hashes_per_block):
        torch.ge(draws, threshold, out=keep[block])
    return keep


def kept_blocks(
    starts: Int[Tensor, " rows"],
    dim: int,
    p: float,
    dtype: torch.dtype,
    hashes_per_block: int | None = None,
) -> Iterator[tuple[slice, Float[Tensor, "block dim"]]]:
    """The same for neighbouring rows at a time, as ones and zeros of a type to multiply with.

    What is given is scratch: it may be written to, and the next block comes in the same place.

    Args:
        starts: Of each row: the key of its sample and module, plus its place.
        dim: Features of a row.
        p: Share that is dropped.
        dtype: Of the ones and zeros.
        hashes_per_block: Four features each; None for what the device likes.
    """
    scratch = None
    for block, draws, threshold in _draws(starts, dim, p, hashes_per_block):
        if scratch is None:
            scratch = torch.empty(draws.shape, dtype=dtype, device=starts.device)
        yield block, torch.ge(draws, threshold, out=scratch[: len(draws)])


def row_blocks(
    starts: Int[Tensor, " rows"], dim: int, hashes_per_block: int | None
) -> Iterator[slice]:
    """Neighbouring rows whose hashes are one block."""
    rows = max(1, _block_hashes(starts.device, hashes_per_block) // -(-dim // _DRAWS_PER_HASH))
    for start in range(0, len(starts), rows):
        yield slice(start, start + rows)


def are_masks_kept(device: torch.device, hashes_per_block: int | None) -> bool:
    """Whether a mask is better kept, a byte a feature, than made again for the backward pass.

    On an accelerator: a hash goes over fifty bytes a feature there, which no cache holds.
    """
    return _block_hashes(device, hashes_per_block) >= ACCELERATOR_HASHES


def _block_hashes(device: torch.device, given: int | None) -> int:
    if given is not None:
        return given
    return CPU_HASHES if device.type == "cpu" else ACCELERATOR_HASHES


def _draws(
    starts: Int[Tensor, " rows"], dim: int, p: float, hashes_per_block: int | None
) -> Iterator[tuple[slice, Int[Tensor, "block dim"], int]]:
    """16-bit numbers of neighbouring rows, and the least of those that are kept.

    Rows are hashed block by block in memory that stays in a core's cache: 64-bit numbers for all
    features at once would be eight times the size of what is dropped from in half precision.
    """
    num_hashes = -(-dim // _DRAWS_PER_HASH)
    lanes = torch.arange(1, num_hashes + 1, device=starts.device) * _INCREMENT
    tokens = _mix(starts.clone())
    threshold = round(p * 65536) - 32768
    for block in row_blocks(starts, dim, hashes_per_block):
        draws = _mix(tokens[block, None] + lanes).view(torch.int16)
        yield block, draws[:, :dim], threshold


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
