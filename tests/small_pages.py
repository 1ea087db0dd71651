"""Data sets of a dozen pages of 4 to 9 visual tokens, made in memory in no time."""

import numpy as np
from PIL import Image

from coltrain.data import Collection, Query, Row

WORDS = [
    "red",
    "green",
    "blue",
    "north",
    "south",
    "east",
    "west",
    "iron",
    "glass",
    "paper",
    "water",
    "stone",
    "light",
    "night",
]


def small_page(number: int) -> Image.Image:
    """A page of 4, 6 or 9 visual tokens, each with its own noise."""
    columns, rows = [(2, 2), (3, 2), (3, 3)][number % 3]
    noise = np.random.default_rng(number).integers(0, 256, (28 * rows, 28 * columns), np.uint8)
    return Image.fromarray(noise).convert("RGB")


def small_query(number: int) -> str:
    """One to five words."""
    words = np.random.default_rng(number).permutation(WORDS)
    return " ".join(words[: 1 + number % 5])


class SmallPages:
    """The pages of a small collection."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Image.Image:
        return small_page(self.numbers[index])


def small_collection(name: str, num_pages: int, first: int = 0, copies: int = 0) -> Collection:
    """One query for each page, and `copies` further queries of the first page.

    Args:
        name: Of the collection.
        num_pages: Pages.
        first: Number of the first page, so that collections differ.
        copies: Rows that share the first page.
    """
    pages = [*range(num_pages), *[0] * copies]
    queries = [Query(f"q{n}", small_query(first + n)) for n in range(len(pages))]
    return Collection(
        name=name,
        layout="rows",
        page_ids=[f"p{number}" for number in range(num_pages)],
        queries=queries,
        rows=[Row(number, page, name) for number, page in enumerate(pages)],
        qrels={q.id: {f"p{page}": 1} for q, page in zip(queries, pages, strict=True)},
        images=SmallPages([first + number for number in range(num_pages)]),
    )
