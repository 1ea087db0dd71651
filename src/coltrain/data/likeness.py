"""How alike two pages look, whatever their encoding and size.

Two pages of text look the same from far away, and two receipts of one shop differ in a few digits.
So likeness is the likeness of the *least* alike part: a re-encoded or resized page differs a little
everywhere, another page differs a lot somewhere. Where the numbers come from: docs/log.md.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coltrain.data.collection import Collection
from coltrain.errors import DataError

SIDE = 64
"""Pixels along a thumbnail's sides, whatever the page's proportions."""
ALIKE = 0.85
"""Two pages of this likeness are taken for one; docs/log.md has what that finds and misses."""
_BLOCK = 8  # pixels of the thumbnail along the side of a part
_COARSE = 16  # pixels along the side of what is compared first
_COARSE_ALIKE = 0.9  # re-encoded and resized copies of ordinary pages had 0.96 and more there
_FLOOR = 0.2  # of the page's variance, given to every part: one without print decides nothing
_BLANK = 2.0  # standard deviation of gray values below which a page shows nothing
_ROWS_AT_ONCE = 512  # with 118,000 pages on the other side: 240 MB


@dataclass(frozen=True)
class Looks:
    """What the pages of a collection look like.

    Attributes:
        pixels: Hash of each page's decoded RGB pixels and size; empty where it cannot be decoded.
        thumbnails: In gray.
        sizes: Width and height in pixels; zeros where the page cannot be decoded.
        broken: Pages that cannot be decoded, with the reason.
    """

    pixels: list[bytes]
    thumbnails: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    broken: dict[int, str]

    @property
    def blank(self) -> NDArray[np.bool_]:
        """Pages that show nothing: any two of them are alike, which says nothing."""
        parts = [
            part.std(axis=(1, 2), dtype=np.float32) < _BLANK for part in _in_parts(self.thumbnails)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, bool)


@dataclass(frozen=True)
class Alike:
    """Two pages that look the same.

    Attributes:
        left: Index of a page of the first collection.
        right: Index of a page of the second.
        is_exact: Whether their decoded pixels are the same.
        likeness: From 0.85 to 1.
    """

    left: int
    right: int
    is_exact: bool
    likeness: float


def look_at(
    collection: Collection,
    *,
    num_threads: int = 1,
    on_item: Callable[[], None] | None = None,
) -> Looks:
    """Decode every page once.

    It costs the time of decoding, and 4 kB of memory a page.

    Args:
        collection: Pages that cannot be decoded are listed, not refused.
        num_threads: That decode; Pillow lets them run side by side.
        on_item: Called after each page.
    """
    num_pages = len(collection.page_ids)
    pixels: list[bytes] = []
    thumbnails = np.zeros((num_pages, SIDE, SIDE), np.uint8)
    sizes = np.zeros((num_pages, 2), np.int64)
    broken: dict[int, str] = {}
    for place, seen in enumerate(_in_order(collection, num_threads)):
        if isinstance(seen, str):
            broken[place] = seen
            pixels.append(b"")
        else:
            digest, thumbnails[place], sizes[place] = seen
            pixels.append(digest)
        if on_item:
            on_item()
    return Looks(pixels, thumbnails, sizes, broken)


def _in_order(collection: Collection, num_threads: int) -> Iterator[str | tuple]:
    """Each page's look, or why there is none; a few pages ahead of who asks, not all of them."""
    with ThreadPoolExecutor(num_threads) as threads:
        waiting: deque[Future] = deque()
        for place in range(len(collection.page_ids)):
            waiting.append(threads.submit(_look, collection, place))
            if len(waiting) > 4 * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _look(collection: Collection, place: int) -> str | tuple:
    try:
        image = collection.page_image(place)
    except DataError as error:
        return f"{error.code}: {error.received or error.message}"
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{image.width}x{image.height}:".encode())
    digest.update(image.tobytes())
    return digest.digest(), thumbnail(image), image.size


def thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    """A page in gray on 64 x 64 pixels, each the mean of what it covers (with a soft edge)."""
    # Pillow's BILINEAR widens to a triangle over what is covered: of its filters the one under
    # which a page and its half-size copy agree best.
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, np.uint8)


def likeness(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The likeness of the least alike part of two thumbnails, for pairs of them.

    Both are centred, and the second is fitted to the first by one factor, so brightness and
    contrast do not count. Each of the 64 parts then has the likeness `(2 cov + f) / (var + var + f)`
    with the constant f a fifth of the page's variance, which is the structural similarity of Wang et
    al. (2004, doi:10.1109/TIP.2003.819861) without its term for brightness.

    Args:
        left: pairs x 64 x 64.
        right: The same.

    Returns:
        One number a pair: 1 for the same picture, 0 and below where a part shows something else.
    """
    a = left.astype(np.float32)
    b = right.astype(np.float32)
    a -= a.mean(axis=(1, 2), keepdims=True)
    b -= b.mean(axis=(1, 2), keepdims=True)
    b *= ((a * b).sum((1, 2)) / np.maximum((b * b).sum((1, 2)), 1e-6))[:, None, None]
    floor = _FLOOR * np.maximum((a * a).mean((1, 2)), 1.0)[:, None]
    a, b = _parts(a), _parts(b)
    both = 2 * (a * b).mean(2) + floor
    return (both / ((a * a).mean(2) + (b * b).mean(2) + floor)).min(axis=1)


def _parts(thumbnails: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pages x parts x pixels, each part centred."""
    count = SIDE // _BLOCK
    cut = thumbnails.reshape(-1, count, _BLOCK, count, _BLOCK).transpose(0, 1, 3, 2, 4)
    parts = cut.reshape(-1, count * count, _BLOCK * _BLOCK)
    return parts - parts.mean(axis=2, keepdims=True)


def alike_pages(
    left: Looks, right: Looks | None = None, on_rows: Callable[[int], None] | None = None
) -> list[Alike]:
    """Every pair of pages that look the same, of two collections or within one.

    A product of matrices picks the few pairs that look the same from far away (16 x 16 pixels,
    without the page's broad light and dark), and `likeness` decides on them: 118,000 by 5,000 pages
    are 3e11 multiplications. No pair is left out by blocks or buckets.

    Args:
        left: Of the first collection.
        right: Of the second; None compares the first with itself, each pair once.
        on_rows: Called with the number of pages of the first that are done.

    Returns:
        In the order of the first collection, then of the second.
    """
    is_self = right is None
    right = left if right is None else right
    found: list[Alike] = []
    far_right = np.zeros((len(right.pixels), _COARSE * _COARSE), np.float32)
    for place, part in enumerate(_in_parts(right.thumbnails)):
        far_right[place * _ROWS_AT_ONCE :][: len(part)] = _from_far(part)
    is_blank, blank_left = right.blank, left.blank
    places_of: dict[bytes, list[int]] = {}
    for place, digest in enumerate(right.pixels):
        if digest:
            places_of.setdefault(digest, []).append(place)
    for start in range(0, len(left.pixels), _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, len(left.pixels))
        exact = {
            (place, other)
            for place in range(start, stop)
            if left.pixels[place]
            for other in places_of.get(left.pixels[place], ())
            if not is_self or other > place
        }
        far = _from_far(left.thumbnails[start:stop]) @ far_right.T
        far[blank_left[start:stop]] = 0
        far[:, is_blank] = 0
        rows, columns = np.nonzero(far >= _COARSE_ALIKE)
        rows = rows + start
        if is_self:
            rows, columns = rows[columns > rows], columns[columns > rows]
        values = dict.fromkeys(exact, 1.0)
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            some = slice(first, first + _ROWS_AT_ONCE)
            near = likeness(left.thumbnails[rows[some]], right.thumbnails[columns[some]])
            for place in np.flatnonzero(near >= ALIKE):
                pair = (int(rows[some][place]), int(columns[some][place]))
                values.setdefault(pair, float(near[place]))
        found += [Alike(*pair, pair in exact, value) for pair, value in sorted(values.items())]
        if on_rows:
            on_rows(stop - start)
    return found


def _in_parts(thumbnails: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Views of some pages each, so that no copy in floating point is of all pages."""
    return [
        thumbnails[start : start + _ROWS_AT_ONCE]
        for start in range(0, len(thumbnails), _ROWS_AT_ONCE)
    ]


def _from_far(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Each page as a unit vector of 256 numbers; zeros where it shows nothing."""
    scale = SIDE // _COARSE
    small = thumbnails.reshape(-1, _COARSE, scale, _COARSE, scale).mean(
        axis=(2, 4), dtype=np.float32
    )
    # Without what is lighter or darker over seven pixels: margins and columns are alike everywhere.
    padded = np.pad(small, ((0, 0), (4, 3), (4, 3)), mode="edge").cumsum(1).cumsum(2)
    around = padded[:, 7:, 7:] - padded[:, :-7, 7:] - padded[:, 7:, :-7] + padded[:, :-7, :-7]
    vectors = (small - around / 49).reshape(len(small), _COARSE * _COARSE)
    vectors -= vectors.mean(axis=1, keepdims=True)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-3)


def groups(pairs: list[Alike]) -> list[list[int]]:
    """Pages that are alike, directly or over others, from pairs within one collection."""
    home: dict[int, int] = {}

    def root(page: int) -> int:
        while home.setdefault(page, page) != page:
            home[page] = page = home[home[page]]
        return page

    for pair in pairs:
        first, second = root(pair.left), root(pair.right)
        home[max(first, second)] = min(first, second)
    together: dict[int, list[int]] = {}
    for page in sorted(home):
        together.setdefault(root(page), []).append(page)
    return list(together.values())
