"""Which words stand on which drawn page, and what is asked about it."""

import random
from dataclasses import dataclass
from functools import cache

from coltrain.data.drawn.page import PlacedWord, lay_out
from coltrain.data.drawn.text import (
    STOP_WORDS,
    Split,
    documents,
    grams,
    normalise,
    training_grams,
)

MIN_WORDS = 20  # a page with fewer is left out
NUM_PAGES = {"train": 4000, "dev": 100, "test": 240}
SHORTEST_QUERY_WORD = 3  # letters
_LONGEST_PAGE = 64  # words: no page holds more than one for each cell


@dataclass(frozen=True)
class DrawnPage:
    """A page of text and the one query that is asked about it."""

    words: tuple[PlacedWord, ...]
    query: str


@cache
def drawn_pages(split: Split) -> tuple[DrawnPage, ...]:
    """The pages of a split, each with a query of two to four words.

    Pages are consecutive, non-overlapping stretches of the split's documents. The words of a query
    occur together on its page only, among all pages of the split. A page of dev or test shares no
    run of six words with any training document. A pure function of the split.
    """
    stretches = [tuple(stretch) for stretch in _stretches(split)]
    draws = random.Random(f"coltrain drawn pages, {split}")
    draws.shuffle(stretches)
    stretches = stretches[: NUM_PAGES[split]]
    words_of_pages = [_content_words(stretch) for stretch in stretches]
    pages_with: dict[str, set[int]] = {}
    for number, words in enumerate(words_of_pages):
        for word in words:
            pages_with.setdefault(word, set()).add(number)
    pages = []
    for stretch, words in zip(stretches, words_of_pages, strict=True):
        query = _query(draws, words, pages_with)
        if query is not None:
            pages.append(DrawnPage(stretch, query))
    return tuple(pages)


def _stretches(split: Split) -> list[list[PlacedWord]]:
    """Every page's worth of text in the split, in the order of the documents."""
    kept = []
    for document in documents(split):
        start = 0
        while start < len(document):
            placed = lay_out(document[start : start + _LONGEST_PAGE])
            start += len(placed)
            words = tuple(word.text for word in placed)
            is_new = split == "train" or training_grams().isdisjoint(grams(words))
            if len(placed) >= MIN_WORDS and is_new:
                kept.append(placed)
    return kept


def _content_words(stretch: tuple[PlacedWord, ...]) -> list[str]:
    words = (normalise(word.text) for word in stretch)
    return list(
        dict.fromkeys(
            word for word in words if len(word) >= SHORTEST_QUERY_WORD and word not in STOP_WORDS
        )
    )


def _query(
    draws: random.Random, candidates: list[str], pages_with: dict[str, set[int]]
) -> str | None:
    """Two to four of a page's words, in the page's order, that no other page has together."""
    for _ in range(20):
        size = draws.choice((2, 3, 4))
        if len(candidates) < size:
            continue
        chosen = [candidates[index] for index in sorted(draws.sample(range(len(candidates)), size))]
        if len(set.intersection(*(pages_with[word] for word in chosen))) == 1:
            return " ".join(chosen)
    return None
