"""Page images that stay encoded until somebody asks for one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from coltrain.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


class StoredImages:
    """Images in a column of a table, decoded one at a time.

    Args:
        table: With an image column whose values are left encoded.
        places: Row of the table for each image.
        folder: Where image files lie that the table names by relative paths.
        column: Name of the image column.
    """

    def __init__(
        self, table: Dataset, places: Sequence[int], folder: Path, column: str = "image"
    ) -> None:
        self._table = table.select_columns([column])
        self._places = np.asarray(places, dtype=np.int64)
        self._folder = folder
        self._column = column

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Image.Image:
        return decode(self._table[int(self._places[index])][self._column], self._folder)


def encoded_bytes(stored: dict[str, Any] | None, folder: Path) -> bytes:
    """The bytes of an image file, from the table or from beside it.

    Raises:
        DataError: [not-an-image] There are none.
    """
    content, path = (stored or {}).get("bytes"), (stored or {}).get("path")
    if content is None and path is not None:
        try:
            content = (folder / path).read_bytes()
        except OSError as error:
            raise _not_an_image(f"a path that cannot be read: {path} ({error.strerror})") from error
    if not content:
        raise _not_an_image("nothing: neither bytes nor a path")
    return content


def decode(stored: dict[str, Any] | None, folder: Path) -> Image.Image:
    """An image in RGB, upright.

    Raises:
        DataError: [not-an-image] The bytes cannot be decoded.
    """
    content = encoded_bytes(stored, folder)
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        # Cameras and scanners may store a rotation beside the pixels; `datasets` applies it too.
        return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # Pillow's decoders raise errors of a dozen kinds
        is_unknown = isinstance(
            error, UnidentifiedImageError
        )  # whose text names a buffer in memory
        reason = "" if is_unknown else f" ({error})"
        raise _not_an_image(f"{len(content)} bytes that Pillow cannot decode{reason}") from error


def _not_an_image(received: str) -> DataError:
    return DataError(
        "not-an-image",
        "a page's image cannot be read.",
        received=received,
        expected="an encoded image, such as PNG or JPEG",
        suggestion="check the file that the page came from, or leave the page out of the data",
    )
