"""A table as plain text cells, which page and twin lay out each in its way."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Headings and rows.

    Attributes:
        headings: One a column.
        rows: Cells, one a column.
        num_text_columns: Columns from the left that hold words; the others hold numbers.
        caption: What the table says, for whoever cannot see where it stands.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    num_text_columns: int = 1
