"""The words of the drawn pages, split so that test text is never met in training."""

import gzip
import re
from functools import cache
from hashlib import blake2b
from importlib import resources
from typing import Literal

Split = Literal["train", "dev", "test"]
GRAM_LENGTH = 6

# Words that say nothing about a page: no query is made of them.
STOP_WORDS = frozenset(
    [
        "the",
        "a",
        "an",
        "of",
        "to",
        "in",
        "is",
        "and",
        "or",
        "for",
        "be",
        "that",
        "it",
        "as",
        "with",
        "this",
        "by",
        "on",
        "are",
        "if",
        "not",
        "from",
        "at",
        "which",
        "when",
        "can",
        "will",
        "was",
        "but",
        "has",
        "have",
        "its",
        "it's",
        "an's",
        "may",
        "any",
        "all",
        "one",
        "no",
        "so",
        "than",
        "then",
        "them",
        "they",
        "these",
        "there",
        "other",
        "only",
        "into",
        "also",
        "such",
        "do",
        "does",
        "e.g",
        "i.e",
        "you",
        "use",
        "used",
        "using",
        "between",
    ]
)


def normalise(word: str) -> str:
    """A word as queries have it: lower case, without punctuation around it."""
    return re.sub(r"[^a-z0-9'\-]", "", word.lower())


@cache
def documents(split: Split) -> tuple[tuple[str, ...], ...]:
    """Whole documents of a split, as words: about 7/8 train, 1/32 dev, 3/32 test.

    The split is by document, by a hash of its number; dev is there to choose settings on.
    """
    packed = resources.files("coltrain.data.drawn").joinpath("text.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("ascii").splitlines()
    return tuple(
        tuple(line.split(" ")) for number, line in enumerate(lines) if _split_of(number) == split
    )


def _split_of(number: int) -> Split:
    place = blake2b(f"document {number}".encode(), digest_size=4).digest()[0] % 32
    return "test" if place < 3 else "dev" if place == 3 else "train"


def grams(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    """All runs of six words, normalised."""
    normal = [normalised for word in words if (normalised := normalise(word))]
    return {
        tuple(normal[start : start + GRAM_LENGTH]) for start in range(len(normal) - GRAM_LENGTH + 1)
    }


@cache
def training_grams() -> frozenset[tuple[str, ...]]:
    """Every run of six words that training pages may show."""
    return frozenset().union(*(grams(document) for document in documents("train")))
