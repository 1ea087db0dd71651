"""Samples end to end in one row, so that nothing is computed on padding.

A batch of uneven pages is a third padding or more, and all but attention treats every token alone:
linear layers, norms and LoRA take the real tokens of all samples as one row. Attention alone has to
know where a sample ends (`coltrain.model.attention`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Packing:
    """How many tokens each sample of a row has, in order.

    Attributes:
        lengths: Real tokens of each sample.
        width: Tokens of a sample with its padding.
    """

    lengths: tuple[int, ...]
    width: int

    @classmethod
    def of(cls, mask: Bool[Tensor, "samples tokens"]) -> "Packing":
        """The packing of samples that are padded on the right.

        Raises:
            ValueError: There is padding elsewhere, or a sample without a token.
        """
        width = mask.shape[1]
        places = torch.arange(1, width + 1, device=mask.device)
        # One look at the data: on an accelerator it waits for the device.
        ends = torch.stack([mask.sum(dim=1), (mask * places).amax(dim=1)]).tolist()
        counts, last = map(tuple, ends)
        if counts != last or 0 in counts:
            raise ValueError(
                f"samples have {counts} real tokens and end at {last}; expected padding on the "
                "right only, and one token at least"
            )
        return cls(counts, width)

    @cached_property
    def total(self) -> int:
        """Real tokens of all samples."""
        return sum(self.lengths)

    def pack(
        self, padded: Shaped[Tensor, "samples tokens *rest"]
    ) -> Shaped[Tensor, "1 total *rest"]:
        """The real tokens of all samples as one row."""
        rows = [row[:length] for row, length in zip(padded.unbind(), self.lengths, strict=True)]
        return torch.cat(rows).unsqueeze(0)

    def unpack(self, row: Float[Tensor, "1 total dim"]) -> Float[Tensor, "samples tokens dim"]:
        """Each sample's tokens apart again; zero where padded."""
        apart = pad_sequence(row.squeeze(0).split(self.lengths), batch_first=True)
        missing = self.width - apart.shape[1]
        return torch.nn.functional.pad(apart, (0, 0, 0, missing)) if missing else apart


@dataclass(frozen=True)
class Segment:
    """Neighbouring samples of a row that can attend in one call.

    Attributes:
        start: First token.
        lengths: Of its samples: all equal, or all short.
    """

    start: int
    lengths: tuple[int, ...]

    @property
    def stop(self) -> int:
        """First token behind it."""
        return self.start + sum(self.lengths)


SHORT = 128
"""Samples of at most so many tokens are padded to the longest of them for attention alone: a call
for each would cost more than the products on padding."""


def segments(lengths: Sequence[int]) -> list[Segment]:
    """Cut a row of samples into what attends in one call each."""
    starts = [0, *accumulate(lengths)]
    found = []
    number = 0
    for _, group in groupby(lengths, key=lambda length: 0 if length <= SHORT else length):
        own = tuple(group)
        found.append(Segment(starts[number], own))
        number += len(own)
    return found


def cut(counts: Sequence[int], limit: int) -> Iterator[slice]:
    """Neighbours together as long as they have at most `limit` of what is counted; one at least."""
    start = total = 0
    for number, count in enumerate(counts):
        if number > start and total + count > limit:
            yield slice(start, number)
            start, total = number, 0
        total += count
    if counts:
        yield slice(start, len(counts))
