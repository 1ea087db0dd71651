"""Drawn pages as a data set like any other."""

from typing import get_args

from PIL import Image

from coltrain.data.collection import Collection, Query, Row
from coltrain.data.drawn.page import draw
from coltrain.data.drawn.text import Split
from coltrain.data.drawn.windows import drawn_pages
from coltrain.errors import DataError


class DrawnImages:
    """The pages of a split, each drawn when asked for."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(drawn_pages(self.split))

    def __getitem__(self, index: int) -> Image.Image:
        return draw(list(drawn_pages(self.split)[index].words)).convert("RGB")

    def content(self, index: int) -> bytes:
        """The words that a page is drawn from, with their places: it need not be drawn for it."""
        return repr(drawn_pages(self.split)[index].words).encode()


def drawn_collection(split: str) -> Collection:
    """The drawn pages of a split and the one query of each.

    Raises:
        DataError: There is no such split.
    """
    if split not in get_args(Split):
        raise DataError(
            "unknown-split",
            "there are no drawn pages of this name.",
            received=f"tiny:{split}",
            expected=", ".join(f"tiny:{name}" for name in get_args(Split)),
        )
    pages = drawn_pages(split)
    page_ids = [f"{split}-page-{number:04d}" for number in range(len(pages))]
    queries = [
        Query(f"{split}-query-{number:04d}", page.query) for number, page in enumerate(pages)
    ]
    return Collection(
        name=f"tiny:{split}",
        layout="drawn",
        page_ids=page_ids,
        queries=queries,
        rows=[Row(number, number, "drawn") for number in range(len(pages))],
        qrels={query.id: {page: 1} for query, page in zip(queries, page_ids, strict=True)},
        images=DrawnImages(split),
    )
