"""Every row of a data set, small enough to keep with a run: ids, texts, and digests of pages.

`Collection.fingerprint` sees ids, texts and their order, and no image. This sees a page that was
replaced under its id too, and can say which one. One line of JSON each:

    ["set", "train", 0, "receipts"]              a source of the recipe: what follows is its
    ["page", "p3", "9f86d081884c7d65"]           in the order of the collection
    ["query", "q1", "total of march"]
    ["row", "q1", "p3", "receipts", ["p9"]]      query, page, source, hard negatives
    ["judged", "q1", [["p3", 1]]]                where it says more than the rows
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coltrain.data.collection import Collection
from coltrain.errors import RunError

Line = list


def lines_of(collection: Collection, page_digests: Mapping[str, str] | None) -> Iterator[Line]:
    """A collection, line by line.

    Args:
        collection: As it is used.
        page_digests: Of its pages by id; None where nobody read them, which is then said as null.
    """
    known = page_digests or {}
    pages, queries = collection.page_ids, collection.queries
    for page_id in pages:
        yield ["page", page_id, known.get(page_id)]
    for query in queries:
        yield ["query", query.id, query.text]
    of_rows: dict[str, dict[str, int]] = {}
    for row in collection.rows:
        of_rows.setdefault(queries[row.query].id, {})[pages[row.page]] = 1
        negatives = [pages[page] for page in row.negatives]
        yield ["row", queries[row.query].id, pages[row.page], row.source, negatives]
    for query_id, judged in sorted(collection.qrels.items()):
        if judged != of_rows.get(query_id):
            yield ["judged", query_id, sorted(judged.items())]


def content_hash(lines: Iterable[Line]) -> str:
    """Of all lines in order: SHA-256, first 16 digits."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()[:16]


def write_row_contents(
    path: Path, sets: Mapping[str, Iterable[tuple[str, Iterable[Line]]]]
) -> None:
    """Write what `read_row_contents` reads; the same bytes for the same data.

    Args:
        path: Written aside and renamed.
        sets: By use ("train", "eval") the name and lines of each source.
    """
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as raw:
        # No name and no time of writing in the header: a run that is repeated has the same file.
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
            for use, sources in sets.items():
                for place, (name, lines) in enumerate(sources):
                    for line in (["set", use, place, name], *lines):
                        file.write(json.dumps(line).encode() + b"\n")
        raw.flush()
        os.fsync(raw.fileno())
    aside.replace(path)


@dataclass
class RowContents:
    """A source of a run's data, read back.

    Attributes:
        use: `train` or `eval`.
        name: Of the data set.
        pages: Page id to its digest, null where nobody read it.
        queries: Query id to its text.
        rows: Query id, page id, source and hard negatives.
        judged: Query id to page ids with scores, where it says more than the rows.
    """

    use: str
    name: str
    pages: dict[str, str | None] = field(default_factory=dict)
    queries: dict[str, str] = field(default_factory=dict)
    rows: list[tuple[str, str, str, tuple[str, ...]]] = field(default_factory=list)
    judged: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)


def read_row_contents(path: Path) -> list[RowContents]:
    """Every source of a run's data.

    Raises:
        RunError: [broken-run-file] The file is cut off, or is none of ours.
    """
    found: list[RowContents] = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                match json.loads(line):
                    case ["set", use, _, name]:
                        found.append(RowContents(use, name))
                    case ["page", page_id, digest]:
                        found[-1].pages[page_id] = digest
                    case ["query", query_id, text]:
                        found[-1].queries[query_id] = text
                    case ["row", query_id, page_id, source, negatives]:
                        found[-1].rows.append((query_id, page_id, source, tuple(negatives)))
                    case ["judged", query_id, judged]:
                        found[-1].judged[query_id] = tuple(map(tuple, judged))
                    case other:
                        raise ValueError(f"a line of no known kind: {other!r:.80}")
    except (OSError, EOFError, ValueError, IndexError, TypeError) as error:
        raise RunError(
            "broken-run-file",
            "a file of a run is cut off or changed.",
            where=str(path),
            received=str(error) or type(error).__name__,
            suggestion="coltrain train the recipe again, or delete the file: the rest still compares",
        ) from error
    return found
