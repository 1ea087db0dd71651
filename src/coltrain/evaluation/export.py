"""Embeddings of a person's own pages and queries, in one file."""

import io
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import coltrain
from coltrain.data.images import decode
from coltrain.data.rgb import AlphaRule
from coltrain.errors import DataError, UsageError
from coltrain.model.retriever import Encoded, Retriever

FORMAT = 1
"""Of the file; docs/reference/embeddings-file.md."""


def read_pages(files: Sequence[Path], alpha: AlphaRule = "drop") -> list[Image.Image]:
    """Image files as pages of a data set are decoded: upright, in RGB.

    Args:
        files: In any format that Pillow reads.
        alpha: What becomes of transparency.

    Raises:
        DataError: A file is missing or not an image.
    """
    images = []
    for file in files:
        try:
            images.append(decode({"bytes": file.read_bytes()}, file.parent, alpha))
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
    *,
    model: str | None = None,
) -> None:
    """Write embeddings with all that is needed to check them against another library's.

    For page 0, and so on: `page_0` (float32, tokens x dim, unpadded), `page_0_ids` (tokens) and
    `page_0_positions` (3 x tokens: time, height, width); for query 0 `query_0` … likewise; and
    `settings`, a JSON document. See docs/reference/embeddings-file.md.

    Args:
        retriever: The model.
        images: Pages.
        texts: Queries.
        out: The file; numpy's .npz, whatever its name.
        on_item: Called after each page and query.
        model: As the user named it, for the record.

    Raises:
        UsageError: The file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    for number, page in enumerate(retriever.read_pages(images, on_item)):
        arrays |= _arrays(f"page_{number}", page)
    for number, query in enumerate(retriever.read_queries(texts, on_item)):
        arrays |= _arrays(f"query_{number}", query)
    arrays["settings"] = np.array(json.dumps(_settings(retriever, model)))
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


def _arrays(name: str, encoded: Encoded) -> dict[str, np.ndarray]:
    return {
        name: encoded.embedding.float().numpy(),
        f"{name}_ids": encoded.token_ids.numpy(),
        f"{name}_positions": encoded.position_ids.numpy(),
    }


def _settings(retriever: Retriever, model: str | None) -> dict[str, Any]:
    built = retriever.built
    return {
        "format": FORMAT,
        "model": model,
        "base": built.base,
        "base_revision": built.base_revision,
        "base_weights_hash": built.weights_hash,
        "projection_hash": built.projection_hash,
        "has_adapter": built.lora is not None,
        "dtype": str(built.model.dtype).removeprefix("torch."),
        "device": built.model.device.type,
        **built.preparer.settings(),
        "versions": {
            "coltrain": coltrain.__version__,
            **{name: version(name) for name in ("torch", "transformers")},
        },
    }
