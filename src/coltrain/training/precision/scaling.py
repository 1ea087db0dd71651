"""Gradient scaling: float16 holds nothing below 6e-8, and gradients go there.

The gradient of the embeddings is multiplied by a large power of two before it is pushed back, and
the parameters' gradients are divided by it before they are clipped: both exact. A scale that is too
large makes gradients overflow; the step is left out and the scale halved. After 2,000 good steps in
a row it is doubled.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

FIRST_SCALE = 2.0**10
"""torch starts at 65,536, which overflowed in the first steps of the tiny model and cost it two or
three batches. Gradients are as right from 1 to 32,768 there (docs/log.md), and it grows."""
_GROWTH_INTERVAL = 2000
NUM_LOSS_SKIPS = 4
"""Skipped steps in a row after which a run stops, the loss not being finite: the forward pass
overflows, and no scale will help."""
NUM_GRADIENT_SKIPS = 20
"""The same where only gradients are not finite: the scale fell from 1,024 below 0.001 meanwhile."""


@dataclass(frozen=True)
class Scaling:
    """Where gradient scaling stands; part of a checkpoint.

    Attributes:
        scale: Multiplies the gradient of the embeddings; 1 where nothing is scaled.
        good_steps: In a row, since the scale last changed.
        num_skipped: Steps left out so far.
        skipped_in_a_row: The last so many.
    """

    scale: float = 1.0
    good_steps: int = 0
    num_skipped: int = 0
    skipped_in_a_row: int = 0

    @classmethod
    def start(cls, compute: str) -> "Scaling":
        """At the start of a run: float16 scales, other types have the range of float32."""
        return cls(FIRST_SCALE if compute == "float16" else 1.0)

    def taken(self) -> "Scaling":
        """After a step whose gradients were finite.

        Source:
            torch.amp.GradScaler and its defaults; a test holds both side by side.
        """
        grows = self.good_steps + 1 == _GROWTH_INTERVAL
        return replace(
            self,
            scale=self.scale * 2 if grows else self.scale,
            good_steps=0 if grows else self.good_steps + 1,
            skipped_in_a_row=0,
        )

    def skipped(self, *, at_loss: bool) -> "Scaling":
        """After a step that was left out.

        Args:
            at_loss: The loss itself was not finite. The scale has no part in that, and stays.
        """
        return replace(
            self,
            scale=self.scale if at_loss else self.scale / 2,
            good_steps=0,
            num_skipped=self.num_skipped + 1,
            skipped_in_a_row=self.skipped_in_a_row + 1,
        )


def unscale(gradients: Iterable[Tensor], scale: float) -> None:
    """Divide gradients by the scale, in place; exact, since it is a power of two."""
    if scale != 1.0:
        torch._foreach_mul_(list(gradients), 1 / scale)
