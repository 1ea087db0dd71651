"""Which rows changed between the data of two runs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from coltrain.data.row_contents import RowContents

_SHOWN = 20


@dataclass(frozen=True)
class RowChanges:
    """What differs between two data sets.

    Attributes:
        num_rows: Of the first.
        num_changed: Rows whose query, page, source or hard negatives differ, or the pages' files.
        found: Each change as `where`, `a`, `b`: the first ones.
        is_order_only: The same rows, in another order.
    """

    num_rows: int
    num_changed: int
    found: tuple[tuple[str, str, str], ...]
    is_order_only: bool

    def __bool__(self) -> bool:
        return bool(self.found)


def row_changes(a: RowContents, b: RowContents) -> RowChanges:
    """Compare two data sets row by row, by what is in them and not by their ids alone.

    Args:
        a: A source of one run's data.
        b: The source at the same place of the other's.
    """
    found = [*_pages(a, b), *_queries(a, b)]
    left, right = _resolved(a), _resolved(b)
    is_order_only = left != right and Counter(left) == Counter(right)
    if is_order_only:
        found.append(("order", f"{len(left)} rows", "the same rows in another order"))
    else:
        found += _rows(a, b)
    found += _judgements(a, b)
    if not found and (list(a.pages), list(a.queries)) != (list(b.pages), list(b.queries)):
        found.append(("order", "pages and queries", "the same ones in another order"))
    changed = sum((Counter(left) - Counter(right)).values())
    changed = max(changed, sum((Counter(right) - Counter(left)).values()))
    return RowChanges(len(left), changed, tuple(found[:_SHOWN]), is_order_only)


def _resolved(data: RowContents) -> list[tuple]:
    """Each row as what the model sees of it."""
    return [
        (
            data.queries.get(query, query),
            page,
            data.pages.get(page),
            _source(data, source),
            tuple((one, data.pages.get(one)) for one in negatives),
        )
        for query, page, source, negatives in data.rows
    ]


def _source(data: RowContents, source: str) -> str:
    """A row's source; nothing where it is the data set's own name, which a moved folder changes."""
    return "" if source == data.name else source


def _plain(data: RowContents) -> list[tuple]:
    """Rows by their ids."""
    return [(query, page, _source(data, s), negatives) for query, page, s, negatives in data.rows]


def _pages(a: RowContents, b: RowContents) -> Iterator[tuple[str, str, str]]:
    rows = {page: number for number, (_, page, _, _) in reversed(list(enumerate(a.rows)))}
    for page, digest in a.pages.items():
        other = b.pages.get(page)
        if digest is not None and other is not None and digest != other:
            place = f"row {rows[page]}, " if page in rows else ""
            yield f"{place}page {page}", f"file {digest}", f"file {other}, under the same id"
    for page in sorted(a.pages.keys() - b.pages.keys()):
        yield f"page {page}", "there", "not there"
    for page in sorted(b.pages.keys() - a.pages.keys()):
        yield f"page {page}", "not there", "there"


def _queries(a: RowContents, b: RowContents) -> Iterator[tuple[str, str, str]]:
    rows = {query: number for number, (query, *_) in reversed(list(enumerate(a.rows)))}
    for query, text in a.queries.items():
        if query in b.queries and b.queries[query] != text:
            place = f"row {rows[query]}, " if query in rows else ""
            yield f"{place}query {query}", repr(text), repr(b.queries[query])
    for query in sorted(a.queries.keys() - b.queries.keys()):
        yield f"query {query}", repr(a.queries[query]), "not there"
    for query in sorted(b.queries.keys() - a.queries.keys()):
        yield f"query {query}", "not there", repr(b.queries[query])


def _rows(a: RowContents, b: RowContents) -> Iterator[tuple[str, str, str]]:
    """Rows that name something else, place by place; else those of one side alone."""
    left, right = _plain(a), _plain(b)
    if len(left) == len(right):
        for number, (one, other) in enumerate(zip(left, right, strict=True)):
            if one[:3] == other[:3] and one != other:
                yield f"row {number}, query {one[0]}, hard negatives", *_negatives(one[3], other[3])
            elif one != other:
                yield f"row {number}", _row_words(one), _row_words(other)
        return
    yield "rows", str(len(left)), str(len(right))
    for row, number in (Counter(left) - Counter(right)).items():
        yield f"{number} row" + "s" * (number > 1), _row_words(row), "not there"
    for row, number in (Counter(right) - Counter(left)).items():
        yield f"{number} row" + "s" * (number > 1), "not there", _row_words(row)


def _negatives(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, str]:
    """The hard negatives of a row that differ, each with its place."""
    texts = []
    for mine, theirs in ((one, other), (other, one)):
        differs = [
            f"{place + 1}: {page}"
            for place, page in enumerate(mine)
            if place >= len(theirs) or page != theirs[place]
        ]
        shown = ", ".join(differs[:5]) + (f" and {len(differs) - 5} more" if differs[5:] else "")
        texts.append(shown or f"{len(mine)} of them")
    return texts[0], texts[1]


def _row_words(row: tuple) -> str:
    query, page, source, negatives = row
    words = f"query {query} with page {page}" + (f" ({source})" if source else "")
    return words + (f", hard negatives {', '.join(negatives)}" if negatives else "")


def _judgements(a: RowContents, b: RowContents) -> Iterator[tuple[str, str, str]]:
    for query in sorted(a.judged.keys() | b.judged.keys()):
        one, other = a.judged.get(query), b.judged.get(query)
        if one != other:
            yield f"judgements of query {query}", _judged_words(one), _judged_words(other)


def _judged_words(judged: tuple | None) -> str:
    return "as its rows" if judged is None else ", ".join(f"{page}: {s}" for page, s in judged)
