"""A table as plain text cells, which page and twin lay out each in its way."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Headings and rows.

    Attributes:
        headings: One a column.
        rows: Cells, one a column.
        caption: What the table says, for whoever cannot see where it stands.
        text_columns: Those that hold words; the others hold numbers.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    text_columns: tuple[int, ...] = (0,)
