"""A look at every page and query before training: what cannot be used is left out and listed.

The rules stand in docs/reference/broken-data.md.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from coltrain.data.collection import Collection, Query, Row
from coltrain.data.contents import contents, page_digest, pages_hash
from coltrain.data.findings import (
    BROKEN_PAGES,
    CONVERTED_PAGES,
    EMPTY_QUERY,
    LONG_QUERY,
    Finding,
)
from coltrain.data.hard_negatives import without_false_negatives
from coltrain.data.images import PageImages, SelectedImages, examine
from coltrain.errors import DataError

if TYPE_CHECKING:
    from coltrain.data.whereabouts import Whereabouts

MOST_WORDS = 512
"""A longer query is cut to its first words."""


@dataclass(frozen=True)
class Checked:
    """What a check gives.

    Attributes:
        collection: What can be used; the same object where nothing had to be changed.
        record: What was found, ready for JSON: `pages_read`, `left_out` and `converted` (kind to
            number), `rows` (each row, page and query that was left out: `row`, `page`, `query`,
            `kind`, `message`), `judgements_left_out` and `negatives_left_out` (of broken pages),
            `share_left_out` (of the rows or of the pages, whichever is more), and `hash` and
            `contents` (of the collection as it was before).
        page_digests: Page id to a digest of its stored file, of what was read; None where an
            earlier check was believed.
    """

    collection: Collection
    record: dict[str, Any]
    page_digests: dict[str, str] | None = None


@dataclass(frozen=True)
class _Page:
    """What was seen of a page."""

    broken: str | None = None
    message: str = ""
    converted: tuple[str, ...] = ()
    is_read: bool = True
    digest: str | None = None


def check_collection(
    collection: Collection,
    *,
    num_workers: int = 0,
    max_broken_share: float | None = None,
    on_item: Callable[[], None] | None = None,
    earlier: Mapping[str, Any] | None = None,
) -> Checked:
    """Decode every page once, and leave out what a run would stumble over.

    The result does not depend on the number of workers. It costs the time of decoding all pages;
    drawn pages need no look.

    Args:
        collection: A data set as it was loaded; what the loader had to leave out counts too.
        num_workers: Processes that decode; 0 decodes in this one.
        max_broken_share: The largest share of rows, and of pages, that may be left out; None for
            no limit, as for evaluation sets, where a page without a query is no mistake.
        on_item: Called for each page of the collection, in order.
        earlier: Record of an earlier check. If it is of this very collection, it is believed and
            no page is decoded.

    Raises:
        DataError: [too-many-broken-rows] More is left out than the share allows;
            [worker-died] a process that decodes was killed, or crashed on a page.
    """
    before = str(collection.fingerprint()["hash"])
    if earlier is not None and earlier.get("hash") == before:
        pages, num_read, page_kinds = _remembered(collection, earlier)
    else:
        pages = []
        for page in _examined(collection, num_workers):
            pages.append(page)
            if on_item:
                on_item()
        num_read = sum(page.is_read for page in pages)
        page_kinds = Counter(kind for page in pages for kind in page.converted)
    texts, query_kinds = _shortened(collection.queries)
    converted = page_kinds + query_kinds

    lost, judgements, negatives = _lost(collection, pages)
    used = _used(collection, pages, texts, lost) if lost or query_kinds else collection
    findings = [*collection.findings, *lost]
    num_rows = len(collection.rows) + sum(f.row is not None for f in collection.findings)
    rows_lost = sum(finding.row is not None for finding in findings)
    num_pages = len(collection.page_ids) + sum(_is_page(f) for f in collection.findings)
    pages_lost = num_pages - len(used.page_ids)
    share = max(rows_lost / max(1, num_rows), pages_lost / max(1, num_pages))
    left_out = Counter(finding.kind for finding in findings)
    record = {
        "pages_read": num_read,
        "left_out": dict(sorted(left_out.items())),
        "converted": dict(sorted(converted.items())),
        "rows": [
            {
                "row": finding.row,
                "page": finding.page,
                "query": finding.query,
                "kind": finding.kind,
                "message": finding.message,
            }
            for finding in findings
        ],
        "judgements_left_out": judgements,
        "negatives_left_out": negatives,
        "share_left_out": round(share, 6),
        "hash": before,
        "contents": contents(collection),
        "page_files": pages_hash(collection),
    }
    if max_broken_share is not None and share > max_broken_share:
        raise _too_many(
            collection, record, rows_lost, num_rows, pages_lost, num_pages, max_broken_share
        )
    digests = {
        page_id: page.digest
        for page_id, page in zip(collection.page_ids, pages, strict=True)
        if page.digest is not None
    }
    return Checked(used, record, digests or None)


def _is_page(finding: Finding) -> bool:
    return finding.row is None and finding.query is None


def _shortened(queries: list[Query]) -> tuple[list[Query], Counter[str]]:
    short = [_shorten(query) for query in queries]
    num_long = sum(new is not old for new, old in zip(short, queries, strict=True))
    return short, +Counter({LONG_QUERY: num_long})


def _shorten(query: Query) -> Query:
    words = query.text.split()
    return Query(query.id, " ".join(words[:MOST_WORDS])) if len(words) > MOST_WORDS else query


def _lost(collection: Collection, pages: list[_Page]) -> tuple[list[Finding], int, int]:
    """What has to go: rows and lone pages, the number of judgements, and of hard negatives."""
    is_broken = [page.broken is not None for page in pages]
    is_empty = [not query.text.strip() for query in collection.queries]
    lost, with_row = [], set()
    for number, row in enumerate(collection.rows):
        query, page = collection.queries[row.query], pages[row.page]
        place = number if row.place is None else row.place
        where = (place, collection.page_ids[row.page], query.id)
        if page.broken is not None:
            with_row.add(row.page)
            lost.append(Finding(page.broken, *where, page.message))
        elif is_empty[row.query]:
            lost.append(Finding(EMPTY_QUERY, *where, "the query has no text"))
    lost += [
        Finding(page.broken, None, collection.page_ids[index], None, page.message)
        for index, page in enumerate(pages)
        if page.broken is not None and index not in with_row
    ]
    asked = {row.query for row in collection.rows}
    lost += [
        Finding(EMPTY_QUERY, None, None, query.id, "the query has no text")
        for index, query in enumerate(collection.queries)
        if is_empty[index] and index not in asked
    ]
    broken_ids = {collection.page_ids[i] for i, broken in enumerate(is_broken) if broken}
    judgements = sum(page in broken_ids for judged in collection.qrels.values() for page in judged)
    negatives = sum(is_broken[page] for row in collection.rows for page in row.negatives)
    return lost, judgements, negatives


def _used(
    collection: Collection, pages: list[_Page], texts: list[Query], lost: list[Finding]
) -> Collection:
    """The collection without broken pages, empty queries, and what hangs on them.

    A query goes with the last of its rows and of its positive judgements.
    """
    kept_pages = [index for index, page in enumerate(pages) if page.broken is None]
    new_page = {old: new for new, old in enumerate(kept_pages)}
    page_ids = [collection.page_ids[index] for index in kept_pages]
    known = set(page_ids)
    rows = [
        row for row in collection.rows if row.page in new_page and texts[row.query].text.strip()
    ]
    asked, was_asked = {row.query for row in rows}, {row.query for row in collection.rows}
    qrels: dict[str, dict[str, int]] = {}
    queries: list[Query] = []
    new_query: dict[int, int] = {}
    for index, query in enumerate(texts):
        before = collection.qrels.get(query.id, {})
        judged = {page: score for page, score in before.items() if page in known}
        had_answer = index in was_asked or any(score > 0 for score in before.values())
        has_answer = index in asked or any(score > 0 for score in judged.values())
        if not query.text.strip() or (had_answer and not has_answer):
            continue
        new_query[index] = len(queries)
        queries.append(query)
        if judged or query.id in collection.qrels:
            qrels[query.id] = judged
    # The order of the judgements is that of the data, not of the queries.
    qrels = {query_id: qrels[query_id] for query_id in collection.qrels if query_id in qrels}
    is_whole = len(page_ids) == len(collection.page_ids)
    images: PageImages = (
        collection.images if is_whole else SelectedImages(collection.images, kept_pages)
    )
    left_out = Counter(collection.left_out)
    left_out.update(finding.kind for finding in lost)
    return without_false_negatives(
        replace(
            collection,
            page_ids=page_ids,
            queries=queries,
            rows=[
                Row(
                    new_query[row.query],
                    new_page[row.page],
                    row.source,
                    tuple(new_page[page] for page in row.negatives if page in new_page),
                    row.place,
                )
                for row in rows
            ],
            qrels=qrels,
            images=images,
            left_out=dict(left_out),
            findings=(*collection.findings, *lost),
        )
    )


def _examined(collection: Collection, num_workers: int) -> Iterator[_Page]:
    """Every page, in order."""
    images = collection.images
    num_workers = min(num_workers, len(images))
    if num_workers == 0 or multiprocessing.current_process().daemon:
        yield from (_examine(images, index) for index in range(len(images)))
        return
    from torch.utils.data import DataLoader

    from coltrain.data.whereabouts import Whereabouts

    whereabouts = Whereabouts(num_workers)
    loader = DataLoader(
        _Examination(images, whereabouts),
        batch_size=None,
        sampler=range(len(images)),
        num_workers=num_workers,
        worker_init_fn=_single_thread,
    )

    def name(index: int) -> str:
        return f"page {collection.page_ids[index]!r} (number {index} of the corpus)"

    pages = iter(loader)
    with whereabouts.watched(pages, name, collection.name):
        yield from pages


class _Examination:
    """Pages by index, as a map-style data set: what worker processes run."""

    def __init__(self, images: PageImages, whereabouts: Whereabouts) -> None:
        self._images = images
        self._whereabouts = whereabouts

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> _Page:
        self._whereabouts.at(index)
        page = _examine(self._images, index)
        self._whereabouts.at(None)
        return page


def _examine(images: PageImages, index: int) -> _Page:
    try:
        converted = examine(images, index)
    except DataError as error:
        if error.code not in BROKEN_PAGES:
            raise
        return _Page(error.code, error.received or error.message)
    return _Page(
        converted=converted or (),
        is_read=converted is not None,
        digest=page_digest(images, index),
    )


def _single_thread(worker: int) -> None:
    import torch

    torch.set_num_threads(1)


def _remembered(
    collection: Collection, earlier: Mapping[str, Any]
) -> tuple[list[_Page], int, Counter[str]]:
    broken = {
        found["page"]: _Page(found["kind"], found["message"])
        for found in earlier["rows"]
        if found["kind"] in BROKEN_PAGES
    }
    pages = [broken.get(page_id, _Page()) for page_id in collection.page_ids]
    converted = {k: n for k, n in earlier["converted"].items() if k in CONVERTED_PAGES}
    return pages, int(earlier["pages_read"]), Counter(converted)


def _too_many(
    collection: Collection,
    record: Mapping[str, Any],
    rows_lost: int,
    num_rows: int,
    pages_lost: int,
    num_pages: int,
    limit: float,
) -> DataError:
    kinds = sorted(record["left_out"].items(), key=lambda item: (-item[1], item[0]))
    first = record["rows"][0]
    named = ", ".join(
        f"{key} {first[key]!r}" for key in ("row", "page", "query") if first[key] is not None
    )
    return DataError(
        "too-many-broken-rows",
        "more of the data cannot be used than is allowed.",
        where=f"{collection.name}; the first is {named}: {first['message']}",
        received=f"{rows_lost} of {num_rows} rows and {pages_lost} of {num_pages} pages left out: "
        + ", ".join(f"{kind} {number}" for kind, number in kinds),
        expected=f"at most {limit:.4g} of them, data.max_broken_share",
        suggestion="mend the data, or raise data.max_broken_share",
    )
