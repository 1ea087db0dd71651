"""Global batches as chunks of model inputs, decoded and prepared ahead in worker processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from coltrain.data.collection import Collection
from coltrain.errors import ColtrainError, DataError
from coltrain.model.inputs import Preparer
from coltrain.training.gradient_cache import Chunk, Side


@dataclass(frozen=True)
class ChunkPlan:
    """Which rows of the training set form a chunk, and which side of them."""

    side: Side
    rows: tuple[int, ...]


def chunk_plans(rows: np.ndarray, chunk_size: int) -> list[ChunkPlan]:
    """A global batch as chunks: all queries first, then all pages, each in the batch's order."""
    pieces = [
        tuple(int(row) for row in rows[start : start + chunk_size])
        for start in range(0, len(rows), chunk_size)
    ]
    return [ChunkPlan(side, piece) for side in ("query", "page") for piece in pieces]


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
        rows = [self.collection.rows[row] for row in plan.rows]
        samples = tuple(str(row) for row in plan.rows)
        if plan.side == "query":
            texts = [self.collection.queries[row.query].text for row in rows]
            return Chunk("query", samples, self.preparer.collate_queries(texts))
        pages = [self.preparer.prepare_page(self.collection.page_image(row.page)) for row in rows]
        return Chunk(plan.side, samples, self.preparer.collate_pages(pages))


class ChunkStream:
    """The chunks of many global batches in order, prepared ahead of the training loop.

    Args:
        reader: Makes chunks.
        batches: Rows of each global batch, in the order of steps.
        chunk_size: Rows that pass through the model together.
        num_workers: Worker processes; 0 prepares in this one.
        pin_memory: Whether copies to an accelerator may run beside its work.
        check: Called before each chunk; may raise to leave.
    """

    def __init__(
        self,
        reader: ChunkReader,
        batches: list[np.ndarray],
        *,
        chunk_size: int,
        num_workers: int,
        pin_memory: bool,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        plans = [plan for rows in batches for plan in chunk_plans(rows, chunk_size)]
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
        self._chunk_size = chunk_size
        self._check = check
        self._expected = iter(plans)

    def batch(self, num_rows: int) -> Iterator[Chunk]:
        """The chunks of the next global batch, which has this many rows.

        Raises:
            DataError: A worker could not read a page, or died.
        """
        for _ in range(2 * -(-num_rows // self._chunk_size)):
            self._check()
            plan = next(self._expected)
            try:
                chunk = next(self._chunks)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise DataError(
                    "worker-died",
                    "a worker process that prepares pages died; the usual cause is that the "
                    "machine's memory ran out.",
                    where=f"rows {plan.rows[0]} to {plan.rows[-1]} of the training data, or the "
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
