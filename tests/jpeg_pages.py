"""A data set of JPEG and PNG pages in a table, as training sets are."""

import io

import numpy as np
from datasets import Dataset
from PIL import Image

from coltrain.data import Collection, Query, Row
from coltrain.data.images import StoredImages


def jpeg_page(seed, size, mode="RGB", form="JPEG", **options) -> bytes:
    """Noise that is smooth enough for JPEG, with sharp lines on it."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3))
    page = Image.fromarray(noise.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(page).copy()
    pixels[::9] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form, **options)
    return file.getvalue()


def stored_pages(contents: list[bytes]) -> StoredImages:
    table = Dataset.from_dict({"image": [{"bytes": one, "path": None} for one in contents]})
    return StoredImages(table, range(len(contents)), folder=None)


def jpeg_collection(name: str, num_pages: int) -> Collection:
    """Pages of several times their budget, every third gray and every fifth as PNG."""
    contents = [
        jpeg_page(
            number,
            (470 + 19 * number, 700 - 25 * number),
            "L" if number % 3 == 2 else "RGB",
            "PNG" if number % 5 == 4 else "JPEG",
        )
        for number in range(num_pages)
    ]
    queries = [Query(f"q{n}", f"words of page {n}") for n in range(num_pages)]
    return Collection(
        name=name,
        layout="rows",
        page_ids=[f"p{number}" for number in range(num_pages)],
        queries=queries,
        rows=[Row(number, number, name) for number in range(num_pages)],
        qrels={query.id: {f"p{n}": 1} for n, query in enumerate(queries)},
        images=stored_pages(contents),
    )
