"""Out of memory is not the end: what passes through the model together is halved.

Gradient caching gives the same gradient for every chunk size, and a sample's dropout depends on the
sample alone, so the result does not change. A chunk is an atom: its first pass leaves embeddings or
nothing, and the second passes of a batch add all their gradients or none.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch

from coltrain.errors import TrainingError
from coltrain.recipe import Recipe
from coltrain.training.ranks import Ranks

Pass = Literal["first", "second"]


@runtime_checkable  # the checks of shapes in tests ask
class Samples(Protocol):
    """What can be cut between samples: a chunk, before or between its passes."""

    def __len__(self) -> int: ...

    def part(self, start: int, stop: int) -> Any:
        """The samples from `start` to before `stop`, as another of the same kind."""
        ...


Cuttable = TypeVar("Cuttable", bound=Samples)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Shortage:
    """Memory ran out once, on one rank.

    Attributes:
        during: Which of gradient caching's passes.
        num_samples: That were passing together.
        chunk_size: That pass together at most, from then on.
        said: What torch said.
    """

    during: Pass
    num_samples: int
    chunk_size: int
    said: str

    def sentence(self, step: int, rank: int | None = None) -> str:
        """For a person, and for run.json.

        Args:
            step: In which it happened.
            rank: On which, where there are several.
        """
        where = "" if rank is None else f" on rank {rank}"
        return (
            f"memory ran out{where} in step {step}, in the {self.during} pass of {self.num_samples} "
            f"samples together: {self.chunk_size} at most from here on. The result stays what it is; "
            f"batch.chunk_size={self.chunk_size} spares the next run the trial"
        )


class ChunkLimit:
    """How many samples pass through the model together, at most; halved when memory runs out.

    Args:
        is_fixed: Whether to let every lack of memory through instead.

    Attributes:
        most: The limit; None before memory ran out.
        shortages: What happened, in order.
    """

    def __init__(self, *, is_fixed: bool = False) -> None:
        self.is_fixed = is_fixed
        self.most: int | None = None
        self.shortages: list[Shortage] = []

    def first_passes(
        self, chunks: Iterable[Cuttable], work: Callable[[Cuttable], Result]
    ) -> Iterator[Result]:
        """What `work` makes of each chunk, or of its parts; one that fails is cut and tried again.

        Args:
            chunks: Consumed one at a time; none is held while the next is made, nor while what was
                made of it is used.
            work: Leaves nothing behind if it fails.

        Raises:
            torch.OutOfMemoryError: A single sample is too much.
        """
        for chunk in chunks:
            start, num_samples = 0, len(chunk)
            while start < num_samples:
                part = self._next(chunk, start)
                made: list[Result] = []
                if not self._fits("first", part, lambda part, made=made: made.append(work(part))):
                    continue
                start += len(part)
                del part
                if start == num_samples:
                    del chunk
                yield made.pop()

    def second_passes(
        self,
        chunks: Iterable[Cuttable],
        work: Callable[[Cuttable], None],
        begin: Callable[[], None],
    ) -> None:
        """Call `work`, which adds to gradients, on each chunk; all again if memory runs out.

        A backward pass that fails may have added some parameters' gradients and not others'. Copies
        of all gradients before each pass would take memory in every step; beginning again takes a
        second pass once.

        Args:
            chunks: Stay alive, so that their passes can be repeated.
            work: Adds the gradient of its samples.
            begin: Takes back all that `work` added.

        Raises:
            torch.OutOfMemoryError: A single sample is too much.
        """
        chunks = list(chunks)
        while not all(self._fits("second", part, work) for part in self._parts(chunks)):
            begin()

    def _parts(self, chunks: Iterable[Cuttable]) -> Iterator[Cuttable]:
        for chunk in chunks:
            start = 0
            while start < len(chunk):
                part = self._next(chunk, start)
                start += len(part)
                yield part

    def _next(self, chunk: Cuttable, start: int) -> Cuttable:
        stop = len(chunk) if self.most is None else min(len(chunk), start + self.most)
        return chunk if stop - start == len(chunk) else chunk.part(start, stop)

    def _fits(self, during: Pass, part: Cuttable, work: Callable[[Cuttable], None]) -> bool:
        try:
            work(part)
        except torch.OutOfMemoryError as error:
            if self.is_fixed or len(part) == 1:
                raise
            said = str(error).splitlines()[0]
        else:
            return True
        # After the handler, with which the failed pass's frames and their tensors are gone.
        self.most = len(part) // 2
        self.shortages.append(Shortage(during, len(part), self.most, said))
        _free_caches()
        return False


class ShortagesOfRanks:
    """What every rank's limit went through, known to all of them.

    In each step ranks say how often memory ran out on them beside what they exchange anyhow; only
    where that grew do they exchange more.

    Args:
        limit: Of this rank.
        ranks: Who trains together.

    Attributes:
        chunk_size: What passes together at most, on the rank that has the least room; None before
            memory ran out anywhere.
        new: Of the step that was exchanged last: rank and what happened, in order.
    """

    def __init__(self, limit: ChunkLimit, ranks: Ranks) -> None:
        self.chunk_size: int | None = None
        self.new: list[tuple[int, Shortage]] = []
        self._limit = limit
        self._ranks = ranks
        self._known = [0] * ranks.size

    def agree(self, is_so: bool) -> bool:
        """Whether it is so on every rank: an exchange of which this makes use."""
        found = self._ranks.exchange_numbers(float(is_so), float(len(self._limit.shortages)))
        counts = [int(count) for _, count in found]
        self.new = []
        if counts != self._known:
            of_ranks = self._ranks.exchange_objects(self._limit.shortages)
            self.new = [
                (rank, one)
                for rank, (known, shortages) in enumerate(zip(self._known, of_ranks, strict=True))
                for one in shortages[known:]
            ]
            self._known = counts
            self.chunk_size = min(one.chunk_size for found in of_ranks for one in found)
        return all(is_so for is_so, _ in found)


def _free_caches() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextmanager
def explained(recipe: Recipe, run: Path) -> Iterator[None]:
    """Around all that a run computes: a lack of memory that no smaller chunk cures.

    Raises:
        TrainingError: [out-of-memory]
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        ways = [
            f"coltrain plan {recipe.name}, which says what this card holds and by which settings"
        ]
        if not recipe.model.activation_checkpointing:
            ways.insert(0, f"coltrain resume {run} model.activation_checkpointing=true")
        ways.append(
            f"(this moves the number) model.max_visual_tokens below {recipe.model.max_visual_tokens}"
        )
        raise TrainingError(
            "out-of-memory",
            "the device's memory is too small for what has to be there at once.",
            where=str(run),
            received=str(error).splitlines()[0],
            expected="room for one sample's pass, the optimiser's state and an evaluation's pages",
            suggestion="; ".join(ways),
        ) from error
