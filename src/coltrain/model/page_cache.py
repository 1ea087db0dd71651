"""Resized pages kept on disk as they are before any arithmetic: one byte a channel and pixel.

Decoding and resizing are nearly all that a page costs before the model. What follows, a table of 256
numbers for each channel and the cutting into patches, is done on every reading, so that a page from
the cache equals one from its file to the bit. The files are those of the cache of visual tokens
(`coltrain.model.vision_cache.store`), with its bound, its check on reading and its repair.
"""

import multiprocessing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from coltrain.data.collection import Collection
from coltrain.data.page_hashes import PageHashes
from coltrain.model.files import cache_folder
from coltrain.model.inputs import PreparedPage, Preparer
from coltrain.model.vision_cache import FeatureStore, processor_hash
from coltrain.model.vision_cache.store import PageFeatures


def default_pages_folder():
    """Where resized pages are kept if nobody says otherwise."""
    return cache_folder("pages")


@dataclass(frozen=True)
class PageCounts:
    """What a cache of pages did, for a record; by all processes of a run together.

    Attributes:
        hits: Pages that were there.
        misses: Pages that were decoded and resized.
        repaired: Of these, the ones that had a damaged entry.
        not_stored: Of the misses, those that were not kept because the folder was full.
    """

    hits: int = 0
    misses: int = 0
    repaired: int = 0
    not_stored: int = 0


def page_identity(preparer: Preparer, decoding: str) -> dict[str, Any]:
    """All that decides what a page's pixels are, beside its file.

    Args:
        preparer: How pages are resized.
        decoding: `exact` or `draft`.
    """
    settings = preparer.settings()
    return {
        "stored_as": "uint8",
        "computed_in": "pixels",
        "decoding": decoding,
        "max_visual_tokens": preparer.max_visual_tokens,
        "processor": processor_hash(preparer),
        **{name: settings[name] for name in ("image_backend", "image_library", "alpha")},
    }


class PageCache:
    """Reads a collection's pages: from the cache, or their files. Runs in worker processes.

    Args:
        store: Where pixels are kept.
        collection: Whose pages.
        preparer: With an image processor that `is_served`.
        counts: Of a run that goes on.
    """

    def __init__(
        self,
        store: FeatureStore,
        collection: Collection,
        preparer: Preparer,
        counts: PageCounts | None = None,
    ) -> None:
        self._store = store
        self._collection = collection
        self._preparer = preparer
        self._hashes = PageHashes(collection)
        # Of all workers: memory that a forked or spawned process shares.
        self._counts = multiprocessing.Array("q", list(asdict(counts or PageCounts()).values()))

    @property
    def counts(self) -> PageCounts:
        """Up to now."""
        return PageCounts(*self._counts)

    def page(self, index: int) -> PreparedPage:
        """A page as `Preparer.prepare_page` makes it.

        Raises:
            DataError: The page cannot be decoded or resized, where that is needed.
            ModelError: [cannot-write-vision-cache]
        """
        page = self._hashes[index]
        found, num_damaged = self._store.read(page)
        if found is not None:
            self._count(hits=1)
            return self._preparer.page_of_pixels(_as_pixels(found, self._preparer))
        pixels = self._preparer.resized_page(self._collection.page_pixels(index))
        added = self._store.add(page, _as_entry(pixels, self._preparer), is_repair=num_damaged > 0)
        self._count(misses=1, repaired=num_damaged > 0, not_stored=added == "full")
        return self._preparer.page_of_pixels(pixels)

    def record(self) -> dict[str, object]:
        """Counts and place, for run.json."""
        return {"folder": str(self._store.folder), **asdict(self.counts)}

    def _count(self, **more: int) -> None:
        with self._counts.get_lock():
            for place, name in enumerate(PageCounts.__dataclass_fields__):
                self._counts[place] += more.get(name, 0)


def _as_entry(pixels: UInt8[np.ndarray, "height width *channels"], preparer: Preparer):
    """A row of pixels after the other; colours of a pixel stay together."""
    size = preparer.image_processor.patch_size
    height, width = pixels.shape[:2]
    rows = torch.from_numpy(np.array(pixels).reshape(height, -1))  # a copy: torch wants to write
    return PageFeatures(rows, height // size, width // size)


def _as_pixels(
    found: PageFeatures, preparer: Preparer
) -> UInt8[np.ndarray, "height width *channels"]:
    width = found.grid_width * preparer.image_processor.patch_size
    return found.tokens.numpy().reshape(len(found.tokens), width, -1)
