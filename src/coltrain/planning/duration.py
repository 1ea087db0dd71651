"""From counted operations and bytes to seconds: a range, since nobody ran it.

A pass takes the time of its matrix products at a share of the card's peak, plus that of moving
what its other operations read and write, nothing fused, at a share of its bandwidth; and no less
than it takes to launch its operations one after another.
"""

from dataclasses import dataclass

from coltrain.planning.footprint import Cost
from coltrain.planning.gpus import Gpu

# Shares of peak that such networks reach on such cards, and the time of a launch. Assumed: from
# the usual figures for transformers without fused layers, until `coltrain plan --measure` is run.
PRODUCTS = (0.35, 0.65)
MOVES = (0.6, 0.85)
LAUNCH_SECONDS = 6e-6


@dataclass(frozen=True)
class Seconds:
    """A span that the truth is expected in.

    Attributes:
        fast: With the higher shares of peak.
        slow: With the lower ones.
    """

    fast: float
    slow: float

    @property
    def middle(self) -> float:
        """Geometric mean of both."""
        return (self.fast * self.slow) ** 0.5

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.fast + other.fast, self.slow + other.slow)

    def __mul__(self, times: float) -> "Seconds":
        return Seconds(self.fast * times, self.slow * times)


def seconds(cost: Cost, gpu: Gpu, *, is_half: bool) -> Seconds | None:
    """How long a pass takes; None for a card whose speed is not known.

    Args:
        cost: Of the pass.
        gpu: The card.
        is_half: Whether its products are computed in half precision.
    """
    tflops = gpu.tflops if is_half else gpu.float32_tflops
    if tflops is None or gpu.bandwidth is None:
        return None
    launches = cost.num_operations * LAUNCH_SECONDS
    slow, fast = (
        max(
            cost.flops / (products * tflops * 1e12)
            + cost.moved_bytes / (moves * gpu.bandwidth * 1e9),
            launches,
        )
        for products, moves in zip(PRODUCTS, MOVES, strict=True)
    )
    return Seconds(fast, slow)
