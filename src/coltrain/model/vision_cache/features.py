"""Pages by what the cache knows of them: looked up where they are read, made where it knows nothing.

With a cache every page passes the vision tower alone. What it gets then depends on the page and the
tower and on nothing else, not on its neighbours in a chunk: a page that is found equals one that is
made, to the bit, and a run does not depend on what the cache held when it began.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from coltrain.data.collection import Collection
from coltrain.data.page_hashes import PageHashes
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.inputs import Inputs, PreparedPage, Preparer
from coltrain.model.vision_cache.store import FeatureStore, PageFeatures


@dataclass(frozen=True)
class LookedUp:
    """What a look into the cache gave for the pages of a chunk.

    Attributes:
        pages: Hash of each page's image file.
        num_damaged: Entries of each that were not what their line says.
    """

    pages: tuple[str, ...]
    num_damaged: tuple[int, ...]


@dataclass
class Counts:
    """What a cache did, for a record.

    Attributes:
        hits: Pages whose visual tokens were there, each time they were wanted.
        misses: Pages that went through the vision tower.
        repaired: Of these, the ones that had a damaged entry.
        not_stored: Of the misses, those that were not kept because the folder was full.
        bytes_read: Of visual tokens.
        bytes_written: Likewise.
    """

    hits: int = 0
    misses: int = 0
    repaired: int = 0
    not_stored: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        ours, theirs = asdict(self), asdict(other)
        return Counts(**{name: number + theirs[name] for name, number in ours.items()})


class PageLookup:
    """Reads a collection's pages: from the cache, or their pixels. Runs in worker processes.

    Args:
        store: The cache.
        collection: Whose pages.
        preparer: Makes patches of the pages that the cache does not have.
    """

    def __init__(self, store: FeatureStore, collection: Collection, preparer: Preparer) -> None:
        self._store = store
        self._collection = collection
        self._preparer = preparer
        self._hashes = PageHashes(collection)

    def hash(self, index: int) -> str:
        """Of a page's image file."""
        return self._hashes[index]

    def page(self, index: int) -> tuple[PreparedPage, int]:
        """A page with its visual tokens, or with its patches; and the damaged entries it had.

        Raises:
            DataError: The page cannot be decoded, where that is needed.
        """
        found, num_damaged = self._store.read(self.hash(index))
        if found is None:
            pixels = self._collection.page_pixels(index)
            return self._preparer.prepare_page(pixels), num_damaged
        page = PreparedPage(None, found.grid_height, found.grid_width, found.tokens)
        return page, num_damaged


class VisionFeatures:
    """Gives pages their visual tokens: what the look found, and for the others the tower's.

    Args:
        model: Its vision tower is frozen.
        store: Where visual tokens are kept.
        counts: Of a run that goes on; new ones otherwise.
        compute: Makes the autocast context of the tower.

    Attributes:
        elsewhere: What other processes of the same run counted, as far as this one was told.
    """

    def __init__(
        self,
        model: ColQwen2,
        store: FeatureStore,
        counts: Counts | None = None,
        compute: Callable[[], AbstractContextManager | None] = lambda: None,
    ) -> None:
        assert model.vision_is_frozen
        self.model = model
        self.store = store
        self.counts = counts or Counts()
        self.elsewhere = Counts()
        self._compute = compute

    @property
    def is_exact(self) -> bool:
        """Whether visual tokens are kept as an evaluation would compute them, to the bit."""
        return self._compute() is None and self.store.dtype == self.model.visual.dtype

    @property
    def all_counts(self) -> Counts:
        """Of all processes of the run."""
        return self.counts + self.elsewhere

    def complete(self, inputs: Inputs, looked_up: LookedUp) -> Inputs:
        """A chunk in which every page has its visual tokens and none its pixels.

        Args:
            inputs: As `PageLookup` and `Preparer.collate_pages` made them.
            looked_up: Likewise.
        """
        known = inputs.visual_tokens or (None,) * len(looked_up.pages)
        patches = iter(_patches(inputs, known))
        tokens = []
        for place, (page, found) in enumerate(zip(looked_up.pages, known, strict=True)):
            if found is not None:
                self._count_hit(found)
                tokens.append(found)
                continue
            grid = inputs.grid_thw[place]
            damaged = looked_up.num_damaged[place]
            tokens.append(self._missing(page, next(patches), grid, damaged > 0))
        return replace(inputs, pixel_values=None, visual_tokens=tuple(tokens))

    def page(self, lookup: PageLookup, index: int) -> PreparedPage:
        """One page with its visual tokens."""
        prepared, num_damaged = lookup.page(index)
        if prepared.visual_tokens is not None:
            self._count_hit(prepared.visual_tokens)
            return prepared
        grid = torch.tensor([1, prepared.grid_height, prepared.grid_width])
        tokens = self._missing(lookup.hash(index), prepared.pixel_values, grid, num_damaged > 0)
        return replace(prepared, pixel_values=None, visual_tokens=tokens)

    def record(self) -> dict[str, object]:
        """Counts and place, for run.json."""
        dtype = str(self.store.dtype).removeprefix("torch.")
        return {"folder": str(self.store.folder), "stored_as": dtype, **asdict(self.all_counts)}

    def _count_hit(self, tokens: Tensor) -> None:
        self.counts.hits += 1
        self.counts.bytes_read += tokens.nbytes

    def _missing(self, page: str, patches: Tensor, grid: Tensor, was_damaged: bool) -> Tensor:
        if not was_damaged and self.store.knows(page):
            # Added since the look, which may be some chunks ago: by an earlier chunk, or elsewhere.
            found, num_damaged = self.store.read(page)
            if found is not None:
                self._count_hit(found.tokens)
                return found.tokens
            was_damaged = num_damaged > 0
        device = self.model.device
        with torch.no_grad(), self._compute() or nullcontext():
            tokens = self.model.encode_vision(patches.to(device), grid[None].to(device))
        tokens = tokens.to(self.store.dtype).cpu()
        self.counts.misses += 1
        self.counts.repaired += was_damaged
        # What is no number must show in the loss, and never in another run.
        if torch.isfinite(tokens).all():
            features = PageFeatures(tokens, int(grid[1]), int(grid[2]))
            added = self.store.add(page, features, is_repair=was_damaged)
            self.counts.not_stored += added == "full"
            self.counts.bytes_written += tokens.nbytes * (added == "added")
        return tokens


def _patches(inputs: Inputs, known: Sequence[Tensor | None]) -> Sequence[Tensor]:
    """The patches of each page that is not known, in order."""
    if inputs.pixel_values is None:
        return ()
    numbers = [
        int(grid.prod())
        for grid, found in zip(inputs.grid_thw, known, strict=True)
        if found is None
    ]
    return inputs.pixel_values.split(numbers)
