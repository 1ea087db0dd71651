"""What is wrong with data, by kind: the words that records, reports and the reference page use."""

from __future__ import annotations

from dataclasses import dataclass

BROKEN_PAGES = (
    "truncated",
    "not-an-image",
    "decompression-bomb",
    "zero-sized",
    "extremely-wide",
)
"""The page cannot be used: rows with it are left out."""

CONVERTED_PAGES = ("cmyk", "16-bit", "animated", "transparent")
"""The page is used after a conversion."""

EMPTY_QUERY = "empty-query"
LONG_QUERY = "long-query"
DUPLICATE_ID = "duplicate-id"

REPEATED_JUDGEMENT = "repeated-judgement"
FALSE_NEGATIVE = "false-negative"
FILTERED = "filtered"
NO_NEGATIVES = "no-negatives"
NO_POSITIVE = "no-positive"


@dataclass(frozen=True, slots=True)
class Finding:
    """A row, a page or a query that was left out.

    Attributes:
        kind: One of the words above.
        row: Row of the table (of qrels in the corpus layout) that is lost; None where it is a page
            or a query without training rows.
        page: Page id.
        query: Query id; None where an empty query has none.
        message: What is wrong, for a person.
        source: Of the row, where the table says it.
    """

    kind: str
    row: int | None
    page: str | None
    query: str | None
    message: str
    source: str | None = None
