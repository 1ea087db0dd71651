"""The gradients of a step's chunks, added up in float64.

In float32 the sum depends on its order: on how many ranks share a batch, and on how many chunks each
has. A difference in the last bit is enough for a token's best match to change some steps later, and
two runs of one recipe to part (docs/log.md). In float64 the order leaves nothing that float32 shows.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from coltrain.training.ranks import SINGLE, Ranks


class GradientSums:
    """Sums over chunks and ranks of what backward passes leave in `.grad`.

    A single chunk's gradient stays as it is, so that plain training needs no second copy.

    Args:
        parameters: The trained ones among them count.
        ranks: Who trains together.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], ranks: Ranks = SINGLE) -> None:
        self._parameters = [one for one in parameters if one.requires_grad]
        self._ranks = ranks
        # None in a training step, whose gradients are empty before.
        self._before = [one.grad for one in self._parameters]
        self._sums: list[Tensor | None] = []
        self.begin()

    def begin(self) -> None:
        """Forget what was added, also half of a chunk's."""
        self._sums = list(self._before)
        self._clear()

    def add(self) -> None:
        """Take what stands in `.grad`."""
        for place, parameter in enumerate(self._parameters):
            gradient, total = parameter.grad, self._sums[place]
            if gradient is None:
                continue
            if total is None:
                self._sums[place] = gradient
            elif total.dtype == exact_type(total):
                total += gradient
            else:
                self._sums[place] = total.to(exact_type(total)) + gradient
        self._clear()

    def finish(self) -> None:
        """Leave the sums over all ranks in `.grad`, rounded once."""
        sums = self._ranks.add_up(self._parameters, self._sums)
        for parameter, total in zip(self._parameters, sums, strict=True):
            parameter.grad = None if total is None else total.to(parameter.dtype)

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


def exact_type(tensor: Tensor) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which have no float64."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64
