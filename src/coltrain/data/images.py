"""Page images that stay encoded until somebody asks for one."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from coltrain.data.rgb import AlphaRule, to_gray_or_rgb, to_rgb
from coltrain.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

LONGEST_BY_SHORTEST = 200
"""Qwen2-VL takes no page that is more than so many times as long as it is wide."""

LeastSize = Callable[[int, int], tuple[int, int]]
"""Of a page's width and height those that its reader needs at least."""

_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")


class PageImages(Protocol):
    """Page images by index, in RGB, decoded when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image.Image: ...


class StoredImages:
    """Images in a column of a table, decoded one at a time.

    Args:
        table: With an image column whose values are left encoded.
        places: Row of the table for each image.
        folder: Where image files lie that the table names by relative paths.
        column: Name of the image column.
        alpha: What becomes of transparency.
        least: Lets `pixels` leave out what a page of that size does not show; see `drafted`.
    """

    def __init__(
        self,
        table: Dataset,
        places: Sequence[int],
        folder: Path,
        column: str = "image",
        alpha: AlphaRule = "drop",
        least: LeastSize | None = None,
    ) -> None:
        self._table = table.select_columns([column])
        self._alpha = alpha
        self._least = least
        self._places = np.asarray(places, dtype=np.int64)
        self._folder = folder
        self._column = column

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Image.Image:
        return decode(self._stored(index), self._folder, self._alpha)

    def pixels(self, index: int) -> Image.Image:
        """See `pixels`."""
        content = encoded_bytes(self._stored(index), self._folder)
        return _decode(content, self._alpha, to_gray_or_rgb, self._least)[0]

    def encoded(self, index: int) -> bytes:
        """The image file as it is stored."""
        return encoded_bytes(self._stored(index), self._folder)

    def examine(self, index: int) -> tuple[str, ...]:
        """Decode one page and say what it took: see `examine`."""
        return _decode(self.encoded(index))[1]

    def with_alpha(self, alpha: AlphaRule) -> StoredImages:
        """See `with_alpha`."""
        return self._changed(alpha, self._least)

    def drafted(self, least: LeastSize) -> StoredImages:
        """See `drafted`."""
        return self._changed(self._alpha, least)

    def _changed(self, alpha: AlphaRule, least: LeastSize | None) -> StoredImages:
        return StoredImages(self._table, self._places, self._folder, self._column, alpha, least)

    def _stored(self, index: int) -> dict[str, Any] | None:
        return self._table[int(self._places[index])][self._column]


class SelectedImages:
    """Some of the images of a collection.

    Args:
        images: All of them.
        places: Which are selected, in order.
    """

    def __init__(self, images: PageImages, places: Sequence[int]) -> None:
        self._images = images
        self._places = np.asarray(places, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Image.Image:
        return self._images[int(self._places[index])]

    def pixels(self, index: int) -> Image.Image:
        """See `pixels`."""
        return pixels(self._images, int(self._places[index]))

    def encoded(self, index: int) -> bytes:
        """The image file as it is stored."""
        return encoded(self._images, int(self._places[index]))

    def content(self, index: int) -> bytes:
        """See `content`."""
        return content(self._images, int(self._places[index]))

    def examine(self, index: int) -> tuple[str, ...] | None:
        """See `examine`."""
        return examine(self._images, int(self._places[index]))

    def with_alpha(self, alpha: AlphaRule) -> SelectedImages:
        """See `with_alpha`."""
        return SelectedImages(with_alpha(self._images, alpha), self._places)

    def drafted(self, least: LeastSize) -> SelectedImages:
        """See `drafted`."""
        return SelectedImages(drafted(self._images, least), self._places)


class JoinedImages:
    """The images of several collections, one collection after the other.

    Args:
        parts: In order.
    """

    def __init__(self, parts: Sequence[PageImages]) -> None:
        self._parts = list(parts)

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def __getitem__(self, index: int) -> Image.Image:
        part, place = self._part(index)
        return part[place]

    def pixels(self, index: int) -> Image.Image:
        """See `pixels`."""
        return pixels(*self._part(index))

    def encoded(self, index: int) -> bytes:
        """The image file as it is stored."""
        return encoded(*self._part(index))

    def content(self, index: int) -> bytes:
        """See `content`."""
        return content(*self._part(index))

    def examine(self, index: int) -> tuple[str, ...] | None:
        """See `examine`."""
        return examine(*self._part(index))

    def with_alpha(self, alpha: AlphaRule) -> JoinedImages:
        """See `with_alpha`."""
        return JoinedImages([with_alpha(part, alpha) for part in self._parts])

    def drafted(self, least: LeastSize) -> JoinedImages:
        """See `drafted`."""
        return JoinedImages([drafted(part, least) for part in self._parts])

    def _part(self, index: int) -> tuple[PageImages, int]:
        for part in self._parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError("There is no page of this index.")


def pixels(images: PageImages, index: int) -> Image.Image:
    """A page for who resizes it next: gray where it is stored so, in RGB otherwise.

    Raises:
        DataError: The page cannot be used; the code is one of `BROKEN_PAGES`.
    """
    return images.pixels(index) if hasattr(images, "pixels") else images[index]


def encoded(images: PageImages, index: int) -> bytes:
    """An image file: the stored bytes, or PNG where the page is drawn.

    Raises:
        DataError: [not-an-image] or [zero-sized] There is no image file.
    """
    if hasattr(images, "encoded"):
        return images.encoded(index)
    stream = io.BytesIO()
    images[index].save(stream, "PNG")
    return stream.getvalue()


def content(images: PageImages, index: int) -> bytes:
    """What makes a page the page it is: its stored file, or what it is drawn from.

    Raises:
        DataError: [not-an-image] or [zero-sized] There is no image file.
    """
    return images.content(index) if hasattr(images, "content") else encoded(images, index)


def examine(images: PageImages, index: int) -> tuple[str, ...] | None:
    """Decode one page and say what had to be converted: cmyk, 16-bit, animated or transparent.

    Returns:
        None for a page that is not stored but drawn, which needs no look.

    Raises:
        DataError: The page cannot be used; the code is one of `BROKEN_PAGES`.
    """
    return images.examine(index) if hasattr(images, "examine") else None


def with_alpha(images: PageImages, alpha: AlphaRule) -> PageImages:
    """The same pages, decoded by another rule for transparency; drawn pages have none."""
    return images.with_alpha(alpha) if hasattr(images, "with_alpha") else images


def drafted(images: PageImages, least: LeastSize) -> PageImages:
    """The same pages, whose `pixels` leave out what a smaller page does not show.

    A JPEG file is decoded at a half, a quarter or an eighth of its size, the smallest that is no
    smaller than `least` asks for, by leaving out the finest waves of its blocks: quicker, and not
    the same pixels as of the whole page made smaller. Other files are decoded whole.
    """
    return images.drafted(least) if hasattr(images, "drafted") else images


def encoded_bytes(stored: dict[str, Any] | None, folder: Path) -> bytes:
    """The bytes of an image file, from the table or from beside it.

    Raises:
        DataError: [not-an-image] or [zero-sized] There are none.
    """
    content, path = (stored or {}).get("bytes"), (stored or {}).get("path")
    if content is None and path is not None:
        try:
            content = (folder / path).read_bytes()
        except OSError as error:
            raise _unusable(
                "not-an-image", f"a path that cannot be read: {path} ({error.strerror})"
            ) from error
    if content is None:
        raise _unusable("not-an-image", "nothing: neither bytes nor a path")
    if not content:
        raise _unusable("zero-sized", "an image file of 0 bytes")
    return content


def decode(stored: dict[str, Any] | None, folder: Path, alpha: AlphaRule = "drop") -> Image.Image:
    """An image in RGB (see `to_rgb`), upright.

    Raises:
        DataError: The page cannot be used; the code is one of `BROKEN_PAGES`.
    """
    return _decode(encoded_bytes(stored, folder), alpha)[0]


def _decode(
    content: bytes,
    alpha: AlphaRule = "drop",
    convert: Callable[[Image.Image, AlphaRule], Image.Image] = to_rgb,
    least: LeastSize | None = None,
) -> tuple[Image.Image, tuple[str, ...]]:
    try:
        with warnings.catch_warnings():
            # Pillow warns at its limit and raises at twice as much; for a page the limit is it.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))  # reads the header; `load` reads the pixels
            _refuse_size(*image.size)
            conversions = _conversions(image)
        if least is not None:
            image.draft(image.mode, least(*image.size))
        image.load()
        # Cameras and scanners may store a rotation beside the pixels; `datasets` applies it too.
        return convert(ImageOps.exif_transpose(image), alpha), conversions
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _unusable("decompression-bomb", str(error)) from error
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:  # whose text names a buffer in memory
        size = _size_in_header(content)
        if size is not None and 0 in size:
            raise _unusable("zero-sized", f"an image of {size[0]} x {size[1]} pixels") from error
        kind = "truncated" if content.startswith(_SIGNATURES) else "not-an-image"
        raise _unusable(kind, f"{len(content)} bytes that Pillow cannot decode") from error
    except Exception as error:  # Pillow's decoders raise errors of a dozen kinds
        raise _unusable(
            "truncated", f"{len(content)} bytes that Pillow cannot decode ({error})"
        ) from error


def _refuse_size(width: int, height: int) -> None:
    if 0 in (width, height):
        raise _unusable("zero-sized", f"an image of {width} x {height} pixels")
    if max(width, height) > LONGEST_BY_SHORTEST * min(width, height):
        raise _unusable("extremely-wide", f"an image of {width} x {height} pixels")


def _conversions(image: Image.Image) -> tuple[str, ...]:
    """What it takes to make an opened image RGB, beside gray and palettes."""
    found = {
        "cmyk": image.mode == "CMYK",
        # Colours of 16 bits become 8 in Pillow's decoder; their mode says nothing of it.
        "16-bit": image.mode.startswith("I") or any(";16" in str(tile[3]) for tile in image.tile),
        "animated": getattr(image, "is_animated", False),
        "transparent": image.has_transparency_data,
    }
    return tuple(kind for kind, is_found in found.items() if is_found)


def _size_in_header(content: bytes) -> tuple[int, int] | None:
    """Width and height as a PNG, GIF or BMP file says them; Pillow opens none without pixels."""
    try:
        if content.startswith(b"\x89PNG"):
            return struct.unpack_from(">II", content, 16)
        if content.startswith(b"GIF8"):
            return struct.unpack_from("<HH", content, 6)
        if content.startswith(b"BM"):
            return struct.unpack_from("<ii", content, 18)
    except struct.error:
        pass
    return None


_SENTENCES = {
    "truncated": "a page's image is cut off or damaged.",
    "not-an-image": "a page's image cannot be read.",
    "decompression-bomb": "a page's image would take more memory than a page can need.",
    "zero-sized": "a page's image has no pixels.",
    "extremely-wide": "a page's image is too long for its width.",
}


def _unusable(kind: str, received: str) -> DataError:
    expected = {
        "extremely-wide": f"at most {LONGEST_BY_SHORTEST} times as long as wide",
        "decompression-bomb": f"at most {Image.MAX_IMAGE_PIXELS or 0:,} pixels",
    }
    return DataError(
        kind,
        _SENTENCES[kind],
        received=received,
        expected=expected.get(kind, "an encoded image, such as PNG or JPEG"),
        suggestion="check the file that the page came from, or leave the page out of the data",
    )
