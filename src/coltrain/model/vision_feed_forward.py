"""The vision tower's feed-forward layer, in blocks of rows where nothing has to be kept.

Of a frozen tower only the output is wanted. What stands between its two products is four times as wide
as a patch's state, and goes through an activation of two operations: on a CPU, a quarter of the layer's
time is spent on writing it to memory and reading it again. Blocks that a core's cache holds spare that.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

CPU_NUMBERS = 2**19
"""Of one block: two MiB of float32."""


class VisionFeedForward(nn.Module):
    """transformers' `VisionMlp` with the same children, computing the same.

    Args:
        original: Whose layers are taken over.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.fc1 = original.fc1
        self.act = original.act
        self.fc2 = original.fc2

    def forward(self, states: Float[Tensor, "patches dim"]) -> Float[Tensor, "patches dim"]:
        """Project up, activate, project down."""
        rows = max(1, CPU_NUMBERS // self.fc1.out_features)
        if torch.is_grad_enabled() or states.device.type != "cpu" or len(states) <= rows:
            return self.fc2(self.act(self.fc1(states)))
        count = -(-len(states) // rows)
        # Blocks that differ by one row at most: a last one of one row would be summed otherwise.
        return torch.cat(
            [self.fc2(self.act(self.fc1(part))) for part in states.tensor_split(count)]
        )
