"""Global batches as chunks of model inputs, decoded and prepared ahead in worker processes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from coltrain.data.collection import Collection
from coltrain.errors import ColtrainError, DataError
from coltrain.model.inputs import Preparer
from coltrain.training.gradient_cache import Chunk, Side


@dataclass(frozen=True)
class Batch:
    """A global batch, as indices.

    Attributes:
        rows: Of the training set.
        negatives: For each row the pages that serve as its hard negatives; empty where the loss
            uses none.
    """

    rows: np.ndarray
    negatives: Sequence[tuple[int, ...]] = ()


@dataclass(frozen=True)
class ChunkPlan:
    """Which samples form a chunk, and which side of the batch they are.

    Attributes:
        side: Queries, pages, or hard negatives.
        samples: (row, page) of each; what a sample is called depends on nothing else.
    """

    side: Side
    samples: tuple[tuple[int, int], ...]


def chunk_plans(batch: Batch, collection: Collection, chunk_size: int) -> list[ChunkPlan]:
    """A global batch as chunks: all queries, then all pages, then all negatives, each in order."""
    own = [(int(row), collection.rows[int(row)].page) for row in batch.rows]
    hard = [
        (int(row), page)
        for row, pages in zip(batch.rows, batch.negatives, strict=False)
        for page in pages
    ]
    sides: list[tuple[Side, list[tuple[int, int]]]] = [("query", own), ("page", own)]
    if hard:
        sides.append(("negative", hard))
    return [
        ChunkPlan(side, tuple(samples[start : start + chunk_size]))
        for side, samples in sides
        for start in range(0, len(samples), chunk_size)
    ]


class ChunkReader(Dataset):
    """Makes a chunk from its plan; what worker processes run.

    Args:
        collection: The training set.
        preparer: Template, tokenizer and image processor.
    """

    def __init__(self, collection: Collection, preparer: Preparer) -> None:
        self.collection = collection
        self.preparer = preparer

    def __getitem__(self, plan: ChunkPlan) -> Chunk | ColtrainError:
        """The chunk; an error is handed back, since a worker cannot raise it whole."""
        try:
            return self.read(plan)
        except ColtrainError as error:
            return error

    def read(self, plan: ChunkPlan) -> Chunk:
        """The chunk of a plan.

        Raises:
            DataError: A page cannot be read.
        """
        if plan.side == "query":
            queries = [
                self.collection.queries[self.collection.rows[row].query] for row, _ in plan.samples
            ]
            inputs = self.preparer.collate_queries([query.text for query in queries])
            return Chunk("query", tuple(str(row) for row, _ in plan.samples), inputs)
        pages = [
            self.preparer.prepare_page(self.collection.page_image(page)) for _, page in plan.samples
        ]
        names = tuple(
            str(row) if plan.side == "page" else f"{row}, page {page}" for row, page in plan.samples
        )
        return Chunk(plan.side, names, self.preparer.collate_pages(pages))


class ChunkStream:
    """The chunks of many global batches in order, prepared ahead of the training loop.

    Args:
        reader: Makes chunks.
        batches: In the order of steps.
        chunk_size: Samples that pass through the model together.
        num_workers: Worker processes; 0 prepares in this one.
        pin_memory: Whether copies to an accelerator may run beside its work.
        check: Called before each chunk; may raise to leave.
    """

    def __init__(
        self,
        reader: ChunkReader,
        batches: Iterable[Batch],
        *,
        chunk_size: int,
        num_workers: int,
        pin_memory: bool,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        by_batch = [chunk_plans(batch, reader.collection, chunk_size) for batch in batches]
        plans = [plan for plans in by_batch for plan in plans]
        self._chunks = iter(
            DataLoader(
                reader,
                batch_size=None,
                sampler=plans,
                num_workers=num_workers,
                pin_memory=pin_memory,
                worker_init_fn=_single_thread,
            )
        )
        self._check = check
        self._batches = iter(by_batch)

    def batch(self) -> Iterator[Chunk]:
        """The chunks of the next global batch.

        Raises:
            DataError: A worker could not read a page, or died.
        """
        for plan in next(self._batches):
            self._check()
            try:
                chunk = next(self._chunks)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise DataError(
                    "worker-died",
                    "a worker process that prepares pages died; the usual cause is that the "
                    "machine's memory ran out.",
                    where=f"rows {plan.samples[0][0]} to {plan.samples[-1][0]} of the training "
                    "data, or the "
                    "ones being prepared after them",
                    received=str(error),
                    suggestion="a smaller data.num_workers or batch.chunk_size",
                ) from error
            if isinstance(chunk, ColtrainError):
                try:
                    raise chunk
                finally:
                    # Its traceback holds this frame; as garbage in a cycle, workers end slowly.
                    del chunk
            yield chunk


def _single_thread(worker: int) -> None:
    torch.set_num_threads(1)  # workers share the cores with the training loop
