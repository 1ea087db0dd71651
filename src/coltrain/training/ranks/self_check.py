"""`coltrain verify --self --ranks N`: do many ranks give the loss and gradient of one process?

The tiny model in float64 with LoRA weights that are not zero, pages and queries of uneven length.
One autograd graph over the whole batch, in this process, is the reference: no gradient caching, no
ranks. Each case is then done by ranks over gloo on this machine, in chunks of several sizes, and
their exchanges are counted: as many for one chunk as for many.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import wraps
from itertools import product

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from coltrain.losses import LOSSES
from coltrain.model.adapter import lora_layers
from coltrain.model.dropout import KeyedDropout
from coltrain.recipe import LossSection
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.training.gradient_cache import cached_gradients
from coltrain.training.objective import objective, part_of_objective
from coltrain.training.ranks.ranks import Ranks
from coltrain.training.ranks.starting import on_ranks
from coltrain.training.self_check import (
    SEED,
    TOLERANCE,
    flat_gradients,
    loss_settings,
    model_as_if_trained,
    plain_gradients,
    relative_difference,
    uneven_chunks,
)

GLOBAL_BATCH = 12
CHUNK_SIZES = (1, 2, None)
_DROPOUT = 0.1  # to build with: without any, the layers have no dropout to be changed


@dataclass(frozen=True)
class Case:
    """One step to be compared.

    Attributes:
        loss: Name of the loss.
        dropout: Of the LoRA layers.
        chunk_size: Samples that pass through the model together; None for all that a rank has.
        terms: Further settings of the loss, such as `symmetric`.
        group_size: Queries that share their negatives; None for the whole batch.
        is_shared: Whether hard negatives serve all queries; where the loss can take it, some queries
            have one of them and some two.
    """

    loss: str
    dropout: float
    chunk_size: int | None
    terms: tuple[tuple[str, object], ...] = ()
    group_size: int | None = None
    is_shared: bool = False

    @property
    def reference(self) -> "Case":
        """The same for all cases that must give the same."""
        return replace(self, chunk_size=None)

    @property
    def name(self) -> str:
        """The loss with what is said about it, for people."""
        said = [f"{key} = {value}" for key, value in self.terms]
        if self.group_size is not None:
            said.append(f"groups of {self.group_size}")
        if self.is_shared:
            said.append("shared negatives")
        return ", ".join([self.loss, *said])

    @property
    def settings(self) -> LossSection:
        """The loss."""
        return loss_settings(self.loss).model_copy(update=dict(self.terms))

    def negatives(self, global_batch: int) -> list[int]:
        """How many hard negatives each query has."""
        if self.loss in HARD_NEGATIVE_LOSSES:
            return [2 if self.is_shared else 1] * global_batch
        return [1 + row % 2 for row in range(global_batch)] if self.is_shared else []

    def ignore(self, global_batch: int) -> np.ndarray:
        """Pairs that are no negatives: other groups' pages, and some that answer the query too."""
        rows = np.arange(global_batch)
        owners = rows
        if self.is_shared:
            owners = np.concatenate([rows, np.repeat(rows, self.negatives(global_batch))])
        size = self.group_size or global_batch
        ignore = rows[:, None] // size != owners[None, :] // size
        for row in range(0, global_batch - 3, 4):
            ignore[row, row + 3] = ignore[row + 3, row] = True
        return ignore


def default_cases() -> list[Case]:
    """Every loss, without and with dropout, in three chunk sizes; each further term once."""
    plain = [Case(*one) for one in product(LOSSES, (0.0, 0.1), CHUNK_SIZES)]
    return [
        *plain,
        Case("softmax", 0.1, 2, (("symmetric", True),)),
        Case("pairwise", 0.1, 2, (("padding", "zero"),)),
        Case("softmax", 0.1, 2, (("filter_threshold", 0.95),)),
        Case("softmax", 0.1, 2, group_size=4),
        Case("softmax", 0.1, 2, is_shared=True),
        Case("pairwise_hard_negatives", 0.1, 2, is_shared=True),
    ]


@dataclass(frozen=True)
class RankComparison:
    """A case on so many ranks against one process.

    Attributes:
        num_ranks: How many.
        global_batch: Queries of all ranks together.
        case: What was done.
        num_chunks: Chunks of each rank.
        exchanges: How often each function of torch.distributed was called in the step, by rank 0.
        loss_difference: Relative.
        gradient_difference: Relative: norm of the difference over norm, all parameters together.
        gradient_norm: Of the reference, to see that the case bites.
        ranks_are_equal: Whether all ranks ended with the same gradient, to the bit.
    """

    num_ranks: int
    global_batch: int
    case: Case
    num_chunks: tuple[int, ...]
    exchanges: dict[str, int]
    loss_difference: float
    gradient_difference: float
    gradient_norm: float
    ranks_are_equal: bool

    @property
    def passed(self) -> bool:
        """Whether the ranks gave what one process gives."""
        return (
            self.loss_difference <= TOLERANCE
            and self.gradient_difference <= TOLERANCE
            and self.gradient_norm > 0
            and self.ranks_are_equal
        )


@dataclass(frozen=True)
class RankCheck:
    """All findings."""

    comparisons: list[RankComparison] = field(default_factory=list)

    @property
    def largest_difference(self) -> float:
        """Over all comparisons, loss and gradients."""
        found = [0.0]
        for one in self.comparisons:
            found += [one.loss_difference, one.gradient_difference]
        return math.nan if any(map(math.isnan, found)) else max(found)

    @property
    def exchanges_by_ranks(self) -> dict[int, list[dict[str, int]]]:
        """For each number of ranks the different counts of exchanges in a step: one, if exact."""
        found: dict[int, list[dict[str, int]]] = defaultdict(list)
        for one in self.comparisons:
            if one.exchanges not in found[one.num_ranks]:
                found[one.num_ranks].append(one.exchanges)
        return dict(found)

    @property
    def passed(self) -> bool:
        """Whether every comparison passed, and chunks did not change the number of exchanges."""
        return all(one.passed for one in self.comparisons) and all(
            len(counts) == 1 for counts in self.exchanges_by_ranks.values()
        )

    def as_document(self) -> dict:
        """For JSON."""
        return {
            "passed": self.passed,
            "tolerance": TOLERANCE,
            "largest_difference": self.largest_difference,
            "exchanges_by_ranks": {
                str(ranks): counts for ranks, counts in self.exchanges_by_ranks.items()
            },
            "comparisons": [{**asdict(one), "passed": one.passed} for one in self.comparisons],
        }


def check_ranks(
    num_ranks: Sequence[int],
    *,
    global_batch: int = GLOBAL_BATCH,
    cases: Sequence[Case] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> RankCheck:
    """Compare so many ranks with one process, case by case.

    A script calls this under `if __name__ == "__main__"`, as always with processes.

    Args:
        num_ranks: Numbers of ranks to try, one after the other; 1 is gradient caching alone.
        global_batch: Queries of a step; where ranks do not divide it, they have uneven parts.
        cases: What to compare; `default_cases()` otherwise.
        on_progress: Called with (cases done, cases in all).
    """
    cases = list(default_cases() if cases is None else cases)
    references = list(dict.fromkeys(case.reference for case in cases))
    total = len(references) + len(num_ranks) * len(cases)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    expected: dict[Case, tuple[float, Tensor]] = {}
    built = model_as_if_trained(_DROPOUT, torch.float64)
    for case in references:
        set_dropout(built.model, case.dropout)
        negatives = case.negatives(global_batch)
        whole = list(uneven_chunks(built, global_batch, 10**9, negatives))
        loss = objective(case.settings, case.ignore(global_batch))
        expected[case] = plain_gradients(built, whole, loss)
        advance()
    comparisons = []
    for number in num_ranks:
        if number == 1:
            found = [[]]
            for step in steps_of_a_rank(Ranks(), global_batch, cases):
                found[0].append(step)
                advance()
        else:
            found = on_ranks(number, steps_of_a_rank, global_batch, cases, on_item=advance)
        for case, *of_ranks in zip(cases, *found, strict=True):
            comparisons.append(_comparison(case, of_ranks, global_batch, *expected[case.reference]))
    return RankCheck(comparisons)


@dataclass(frozen=True)
class _Step:
    loss: float
    gradient: np.ndarray
    num_chunks: int
    exchanges: dict[str, int]


def steps_of_a_rank(ranks: Ranks, global_batch: int, cases: Sequence[Case]) -> Iterator[_Step]:
    """What one rank gets for each case."""
    built = model_as_if_trained(_DROPOUT, torch.float64)
    for case in cases:
        set_dropout(built.model, case.dropout)
        built.model.zero_grad()
        chunks = uneven_chunks(
            built,
            global_batch,
            case.chunk_size or 10**9,
            case.negatives(global_batch),
            ranks.part(global_batch),
        )
        with counted_exchanges() as counts:
            step = cached_gradients(
                built.model,
                chunks,
                part_of_objective(case.settings, case.ignore(global_batch), ranks),
                seed=SEED,
                step=0,
                ranks=ranks,
            )
        gradient = flat_gradients(built).numpy()
        yield _Step(step.loss, gradient, step.num_chunks, dict(counts))


def _comparison(
    case: Case, steps: Sequence[_Step], global_batch: int, loss: float, gradient: Tensor
) -> RankComparison:
    first = steps[0]
    return RankComparison(
        num_ranks=len(steps),
        global_batch=global_batch,
        case=case,
        num_chunks=tuple(step.num_chunks for step in steps),
        exchanges=first.exchanges,
        loss_difference=abs(first.loss - loss) / abs(loss),
        gradient_difference=relative_difference(torch.from_numpy(first.gradient), gradient),
        gradient_norm=gradient.norm().item(),
        ranks_are_equal=all(
            step.loss == first.loss and np.array_equal(step.gradient, first.gradient)
            for step in steps
        ),
    )


def set_dropout(model: torch.nn.Module, probability: float) -> None:
    """Change the dropout of every LoRA layer."""
    for layer in lora_layers(model).values():
        for dropout in layer.lora_dropout.values():
            assert isinstance(dropout, KeyedDropout)
            dropout.p = probability


EXCHANGES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "gather",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
    "send",
    "recv",
)
"""Functions of torch.distributed by which ranks talk to one another."""


@contextmanager
def counted_exchanges() -> Iterator[dict[str, int]]:
    """Count the calls of torch.distributed's exchanges while inside, by name."""
    counts: dict[str, int] = {}
    really = {name: getattr(dist, name) for name in EXCHANGES}

    def counting(name: str) -> Callable:
        @wraps(really[name])
        def call(*arguments, **options):
            counts[name] = counts.get(name, 0) + 1
            return really[name](*arguments, **options)

        return call

    try:
        for name in EXCHANGES:
            setattr(dist, name, counting(name))
        yield counts
    finally:
        for name, function in really.items():
            setattr(dist, name, function)
