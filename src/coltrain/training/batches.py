"""Global batches as chunks of model inputs, decoded and prepared ahead in worker processes."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, tee

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from coltrain.data.collection import Collection
from coltrain.data.whereabouts import LOST_WORKER, Whereabouts
from coltrain.errors import ColtrainError
from coltrain.model.inputs import Preparer
from coltrain.model.page_cache import PageCache
from coltrain.model.vision_cache import LookedUp, PageLookup, VisionFeatures
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

    @property
    def digest(self) -> str:
        """The same for batches of the same rows, in whatever order."""
        rows = np.sort(np.asarray(self.rows)).astype("<i8").tobytes()
        return hashlib.sha256(rows).hexdigest()[:8]

    def part(self, places: range) -> "Batch":
        """Neighbouring rows of it, with their negatives."""
        chosen = slice(places.start, places.stop)
        return Batch(self.rows[chosen], self.negatives[chosen])


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
        lookup: Into the cache of visual tokens; None without one.
        pages: The cache of resized pages; read where there is no `lookup`.
    """

    def __init__(
        self,
        collection: Collection,
        preparer: Preparer,
        lookup: PageLookup | None = None,
        pages: PageCache | None = None,
    ) -> None:
        self.collection = collection
        self.preparer = preparer
        self.lookup = lookup
        self.pages = pages
        self.whereabouts: Whereabouts | None = None

    def __getitem__(self, plan: ChunkPlan) -> Chunk | ColtrainError:
        """The chunk; an error is handed back, since a worker cannot raise it whole."""
        try:
            return self.read(plan)
        except ColtrainError as error:
            return error
        finally:
            self._at(None)

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
        pages, damaged = [], []
        for row, page in plan.samples:
            self._at(row)
            if self.lookup is None and self.pages is not None:
                pages.append(self.pages.page(page))
            elif self.lookup is None:
                pages.append(self.preparer.prepare_page(self.collection.page_pixels(page)))
            else:
                found, num_damaged = self.lookup.page(page)
                pages.append(found)
                damaged.append(num_damaged)
        names = tuple(
            str(row) if plan.side == "page" else f"{row}, page {page}" for row, page in plan.samples
        )
        looked_up = None
        if self.lookup is not None:
            hashes = tuple(self.lookup.hash(page) for _, page in plan.samples)
            looked_up = LookedUp(hashes, tuple(damaged))
        return Chunk(plan.side, names, self.preparer.collate_pages(pages), looked_up)

    def _at(self, row: int | None) -> None:
        if self.whereabouts is not None:
            self.whereabouts.at(row)


class ChunkStream:
    """The chunks of many global batches in order, prepared ahead of the training loop.

    Args:
        reader: Makes chunks.
        batches: In the order of steps.
        chunk_size: Samples that pass through the model together.
        num_workers: Worker processes; 0 prepares in this one.
        pin_memory: Whether copies to an accelerator may run beside its work.
        vision: Completes what the reader looked up in the cache of visual tokens.
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
        vision: VisionFeatures | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        # Planned as they are prepared: a run of a million steps has no list of them.
        plans, planned = tee(chunk_plans(batch, reader.collection, chunk_size) for batch in batches)
        self._reader = reader
        reader.whereabouts = Whereabouts(num_workers)
        self._chunks = iter(
            DataLoader(
                reader,
                batch_size=None,
                sampler=chain.from_iterable(plans),
                num_workers=num_workers,
                pin_memory=pin_memory,
                worker_init_fn=_single_thread,
            )
        )
        self._check = check
        self._vision = vision
        self._batches = planned
        self._waited = 0.0

    def batch(self) -> Iterator[Chunk]:
        """The chunks of the next global batch.

        Raises:
            DataError: A worker could not read a page, or died.
        """
        for _ in next(self._batches):
            self._check()
            started = time.perf_counter()
            with self.watched():
                chunk = next(self._chunks)
            self._waited += time.perf_counter() - started
            if isinstance(chunk, ColtrainError):
                try:
                    raise chunk
                finally:
                    # Its traceback holds this frame; as garbage in a cycle, workers end slowly.
                    del chunk
            if self._vision is not None and chunk.looked_up is not None:
                inputs = self._vision.complete(chunk.inputs, chunk.looked_up)
                chunk = replace(chunk, inputs=inputs)
            yield chunk

    def waited(self) -> float:
        """Seconds that the training loop has waited for chunks since it last asked.

        Without workers that is all the time of decoding and preparing.
        """
        seconds, self._waited = self._waited, 0.0
        return seconds

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around whatever runs while workers do: one that dies interrupts it.

        Raises:
            DataError: [worker-died] With the row that it was on.
        """
        assert self._reader.whereabouts is not None
        collection = self._reader.collection
        name = partial(_row_name, collection)
        with self._reader.whereabouts.watched(self._chunks, name, collection.name):
            try:
                yield
            except (RuntimeError, *LOST_WORKER):
                self._check()  # a signal to the whole process group ends the workers, too
                raise


def _row_name(collection: Collection, number: int) -> str:
    row = collection.rows[number]
    place = "" if row.place is None else f" (row {row.place} of its table)"
    return f"row {number}{place}, page {collection.page_ids[row.page]!r}"


def _single_thread(worker: int) -> None:
    torch.set_num_threads(1)  # workers share the cores with the training loop
