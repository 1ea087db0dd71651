"""Reads a report as a browser would: elements, attributes, tables and text."""

import html
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "link"}


@dataclass
class Page:
    """What is on a page.

    Attributes:
        source: The HTML.
        elements: Name and attributes of each, in order.
        text: What a reader sees, in one line.
        tables: Caption to rows of cells, the first row being the headings.
        scripts: Contents of script elements.
        style: Contents of style elements.
        unclosed: Elements that were left open, or closed without being open.
    """

    source: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    scripts: list[str] = field(default_factory=list)
    style: str = ""
    unclosed: list[str] = field(default_factory=list)

    def all(self, name: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of a name."""
        return [attributes for element, attributes in self.elements if element == name]


class _Reader(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__(convert_charrefs=True)
        self.page = page
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.caption = ""

    def handle_starttag(self, tag, attributes):
        self.page.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows, self.caption = [], ""
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.page.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.page.unclosed.append(tag)
        if tag == "table":
            self.page.tables[self.caption] = self.rows

    def handle_data(self, data):
        if "script" in self.open:
            self.page.scripts.append(data)
        elif "style" in self.open:
            self.page.style += data
        elif "caption" in self.open:
            self.caption += data
        else:
            self.page.text += " " + data
            if {"th", "td"} & set(self.open) and "svg" not in self.open:
                self.rows[-1][-1] += data

    def close(self):
        super().close()
        self.page.unclosed += self.open
        self.page.text = " ".join(self.page.text.split())


def read_page(path: Path) -> Page:
    """Read a page from its file."""
    return read(path.read_text(encoding="utf-8"))


def read(source: str) -> Page:
    """Read a page."""
    page = Page(source)
    reader = _Reader(page)
    reader.feed(page.source)
    reader.close()
    return page


def markdown_tables(text: str) -> list[list[list[str]]]:
    """Rows of cells of each table, headings first, as a reader sees them."""
    tables: list[list[list[str]]] = [[]]
    in_code = False
    for line in text.splitlines():
        in_code ^= line.startswith("```")
        if line.startswith("|") and not in_code:
            cells = [_plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not all(re.fullmatch(r"-+:?", cell) for cell in cells):
                tables[-1].append(cells)
        elif tables[-1]:
            tables.append([])
    return [table for table in tables if table]


def _plain(cell: str) -> str:
    return html.unescape(re.sub(r"\\(.)", r"\1", cell.strip()))
