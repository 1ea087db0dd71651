"""Embeddings of a person's own pages and queries, in one file."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from coltrain.data.images import decode
from coltrain.errors import DataError, UsageError
from coltrain.model.retriever import Retriever


def read_pages(files: Sequence[Path]) -> list[Image.Image]:
    """Image files as pages of a data set are decoded: upright, in RGB.

    Raises:
        DataError: A file is missing or not an image.
    """
    images = []
    for file in files:
        try:
            images.append(decode({"bytes": file.read_bytes()}, file.parent))
        except FileNotFoundError as error:
            raise DataError(
                "file-not-found", "there is no such image file.", where=str(file)
            ) from error
        except (DataError, OSError) as error:
            raise DataError(
                "not-an-image",
                "this file cannot be read as an image.",
                where=str(file),
                received=error.received if isinstance(error, DataError) else error.strerror,
                expected="PNG, JPEG, TIFF, WebP or another format that Pillow reads",
            ) from error
    return images


def read_queries(file: Path) -> list[str]:
    """One query a line, kept as typed; only the line's end, and a byte-order mark, are cut off.

    Raises:
        DataError: The file is missing, empty, or not text in UTF-8.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError("file-not-found", "there is no such file.", where=str(file)) from error
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(
            "not-text",
            "the file of queries cannot be read as text.",
            where=str(file),
            received=str(error),
            expected="UTF-8, one query a line",
        ) from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise DataError(
            "no-queries", "the file of queries is empty.", where=str(file), expected="one a line"
        )
    return lines


def encode_to_file(
    retriever: Retriever,
    images: Sequence[Image.Image],
    texts: Sequence[str],
    out: Path,
    on_item: Callable[[], None] | None = None,
) -> None:
    """Write page_0 …, query_0 … (float32, tokens x dim, unpadded) and query_0_ids … to an .npz.

    Raises:
        UsageError: The file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    for number, embedding in enumerate(retriever.encode_pages(images, on_item)):
        arrays[f"page_{number}"] = embedding.float().numpy()
    for number, embedding in enumerate(retriever.encode_queries(texts, on_item)):
        arrays[f"query_{number}"] = embedding.float().numpy()
        arrays[f"query_{number}_ids"] = np.array(retriever.query_ids(texts[number]))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(buffer.getvalue())  # not by name: numpy would add .npz to it
    except OSError as error:
        raise UsageError(
            "cannot-write",
            "the file of embeddings cannot be written.",
            where=str(out),
            received=error.strerror or str(error),
        ) from error
