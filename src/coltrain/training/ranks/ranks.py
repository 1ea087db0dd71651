"""Which rank this process is, and what ranks do with one another.

Every method is right for one process too, where there is nothing to exchange: the loop and the step
ask nowhere how many they are. Exchanges go over torch's default process group, in the same order on
every rank, and their number does not depend on how a rank cuts its samples into chunks.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from coltrain.errors import ColtrainError
from coltrain.evaluation.together import RankFailed, connected, together
from coltrain.training.interruption import Interrupted
from coltrain.training.ranks.gone import error_of, failed
from coltrain.training.ranks.pulse import Pulse


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those that train together.

    Attributes:
        rank: From 0; rank 0 alone writes the run's folder.
        size: Of all; 1 is a process by itself.
        local_rank: Among the ranks on this machine; the number of its GPU.
        hosts: For each rank the name of its machine.
        backend: What carries exchanges; None for one process.
        pulse: Who is alive; None where nobody has to know.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    hosts: tuple[str, ...] = ()
    backend: str | None = None
    pulse: Pulse | None = field(default=None, compare=False, repr=False)

    @property
    def are_many(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def part(self, num: int) -> range:
        """Places of a global batch that this rank encodes: neighbours, the same number if it can.

        A batch that is short, the last of an epoch, may leave a rank with one less, or with none.
        """
        return range(self.rank * num // self.size, (self.rank + 1) * num // self.size)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around this rank's own work, without exchanges in it: all leave it well, or none.

        Raises:
            Interrupted: A rank was asked to stop.
            ColtrainError: [rank-failed] Another rank met an error; its words are in this one.
        """
        try:
            with together(self.are_many):
                yield
        except RankFailed as failure:
            raise failure_of(failure) from failure

    def apart(self) -> ColtrainError:
        """The error to end with once a connection broke; takes seconds to learn who is gone."""
        if self.pulse is None:
            return error_of(None)
        return error_of(self.pulse.missing(), self.pulse.places)

    @property
    def is_heir(self) -> bool:
        """Whether this is the first of those that are still there."""
        return self.is_first or (self.pulse is not None and self.rank == min(self.pulse.living()))

    def agree(self, is_so: bool) -> bool:
        """Whether it is so on every rank."""
        return all(self.exchange(float(is_so)))

    def exchange(self, value: float) -> list[float]:
        """A number of each rank."""
        return [one for (one,) in self.exchange_numbers(value)]

    def exchange_numbers(self, *values: float) -> list[tuple[float, ...]]:
        """Some numbers of each rank, in one exchange."""
        if not self.are_many:
            return [values]
        found = [torch.empty(len(values), dtype=torch.float64) for _ in range(self.size)]
        with connected():
            dist.all_gather(found, torch.tensor(values, dtype=torch.float64))
        return [tuple(one.tolist()) for one in found]

    def first(self, value: Any) -> Any:
        """What rank 0 has."""
        if not self.are_many:
            return value
        found = [value if self.is_first else None]
        with connected():
            dist.broadcast_object_list(found, src=0)
        return found[0]

    def exchange_objects(self, value: Any) -> list[Any]:
        """Anything that pickles, of each rank."""
        if not self.are_many:
            return [value]
        found: list[Any] = [None] * self.size
        with connected():
            dist.all_gather_object(found, value)
        return found

    def add_up(
        self, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Each parameter's gradient, summed over ranks in one exchange.

        The sum is in float64, and the same to the bit on all ranks. A parameter that has a gradient on
        some rank has one on all, and one that has none anywhere stays without: an optimiser tells
        the two apart.

        Args:
            parameters: The same on all ranks.
            gradients: Of this rank, None where there is none.
        """
        if not self.are_many or not parameters:
            return list(gradients)
        # Apple's GPUs have no float64.
        device = parameters[0].device
        exact = torch.float32 if device.type == "mps" else torch.float64
        has_gradient = [float(gradient is not None) for gradient in gradients]
        flat = torch.cat(
            [
                torch.tensor(has_gradient, dtype=exact, device=device),
                *(
                    (torch.zeros_like(one) if gradient is None else gradient).flatten().to(exact)
                    for one, gradient in zip(parameters, gradients, strict=True)
                ),
            ]
        )
        with connected():
            dist.all_reduce(flat)
        counts, *sums = flat.split([len(parameters), *(one.numel() for one in parameters)])
        return [
            total.view_as(parameter) if count else None
            for parameter, count, total in zip(parameters, counts.tolist(), sums, strict=True)
        ]


SINGLE = Ranks()
"""A process by itself."""


def failure_of(failure: RankFailed) -> Interrupted | ColtrainError:
    """What this rank ends with: a request to stop is heard by all; an error is another's."""
    if isinstance(failure.error, Interrupted):
        return Interrupted(failure.error.signal_name)
    return failed(failure.rank, failure.error)
