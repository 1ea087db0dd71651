"""Pages, queries and judgements: what a data set is, wherever it came from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from coltrain.data.findings import Finding
from coltrain.data.images import (
    JoinedImages,
    LeastSize,
    PageImages,
    drafted,
    pixels,
    with_alpha,
)
from coltrain.data.rgb import AlphaRule
from coltrain.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Query:
    """A question, as typed.

    Attributes:
        id: As in the data.
        text: As in the data, white space included.
    """

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """One training pair.

    Attributes:
        query: Index into the collection's queries.
        page: Index into the collection's pages.
        source: Part of a mix, or data set, that the page comes from.
        negatives: Hard negatives, as indices into the collection's pages, the hardest first.
        place: Row of the table that it was read from, to name it by; no part of what it is.
    """

    query: int
    page: int
    source: str
    negatives: tuple[int, ...] = ()
    place: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Collection:
    """A data set: pages in order, queries in order, training pairs, judgements.

    No image is decoded before it is asked for. A collection pickles (for spawned workers) as its
    texts and the places of its images, and holds no open file, so a forked worker shares it.

    Attributes:
        name: For messages, tables and results.
        layout: How it was stored: `rows`, `corpus`, `mix`, `drawn` or `several`.
        page_ids: One a page, without duplicates.
        queries: With ids without duplicates.
        rows: Training pairs, in the order of the data.
        qrels: Query id to page id to score; only judged pages are named.
        images: One a page.
        left_out: Kind to number, for what the data held and the collection does not.
        revision: Commit of a hub data set.
        findings: Each row, page and query that was left out because something is wrong with it.
    """

    name: str
    layout: str
    page_ids: list[str]
    queries: list[Query]
    rows: list[Row]
    qrels: dict[str, dict[str, int]]
    images: PageImages = field(repr=False)
    left_out: dict[str, int] = field(default_factory=dict)
    revision: str | None = None
    findings: tuple[Finding, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        _refuse_duplicates(self.page_ids, "page", self.name)
        _refuse_duplicates([query.id for query in self.queries], "query", self.name)
        assert len(self.images) == len(self.page_ids)

    def __repr__(self) -> str:
        return (
            f"Collection({self.name!r}, {len(self.page_ids)} pages, {len(self.queries)} queries, "
            f"{len(self.rows)} rows)"
        )

    def __getstate__(self) -> dict[str, object]:
        # Leave out what cached_property kept: it is quicker to make again than to send.
        names = self.__dataclass_fields__
        return {name: value for name, value in self.__dict__.items() if name in names}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)

    def with_alpha(self, alpha: AlphaRule) -> Collection:
        """The same, with pages that are decoded by another rule for transparency."""
        return replace(self, images=with_alpha(self.images, alpha))

    def drafted(self, least: LeastSize) -> Collection:
        """The same, with `page_pixels` of JPEG files decoded no larger than needed: see `drafted`."""
        return replace(self, images=drafted(self.images, least))

    def page_image(self, index: int) -> Image.Image:
        """Decode one page.

        Every page becomes RGB by one rule, `coltrain.data.rgb.to_rgb`: alpha is dropped (not
        blended with white), as in colpali-engine, unless `with_alpha` said otherwise.

        Args:
            index: Place of the page in `page_ids`.

        Raises:
            DataError: The page cannot be used; the code is one of `findings.BROKEN_PAGES`.
        """
        with self._naming_page(index):
            return self.images[index]

    def page_pixels(self, index: int) -> Image.Image:
        """As `page_image`, but a page that is stored gray stays so: for who resizes it next.

        Raises:
            DataError: As `page_image`.
        """
        with self._naming_page(index):
            return pixels(self.images, index)

    @contextmanager
    def _naming_page(self, index: int) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            raise DataError(
                error.code,
                error.message,
                where=f"{self.name}, page {self.page_ids[index]!r}",
                received=error.received,
                expected=error.expected,
                suggestion=error.suggestion,
            ) from error

    @cached_property
    def text_of_query(self) -> list[str]:
        """Each query's text as compared: case, and white space, make no difference."""
        return [comparable(query.text) for query in self.queries]

    @cached_property
    def relevant_pages(self) -> dict[str, frozenset[int]]:
        """Compared text to the pages that answer it, over all queries that ask the same."""
        page_index = {page_id: index for index, page_id in enumerate(self.page_ids)}
        texts = self.text_of_query
        relevant: dict[str, set[int]] = {text: set() for text in texts}
        for row in self.rows:
            relevant[texts[row.query]].add(row.page)
        for query, text in zip(self.queries, texts, strict=True):
            judged = self.qrels.get(query.id, {})
            relevant[text].update(page_index[page] for page, score in judged.items() if score > 0)
        return {text: frozenset(pages) for text, pages in relevant.items()}

    def fingerprint(self) -> dict[str, object]:
        """What the data set is, small enough for a run's record.

        Two data sets with the same hash have the same ids, texts, judgements and order of rows.
        Images are not read for it, so it does not see a page that changed under the same id.

        Returns:
            `name`, `layout`, `revision`, `rows`, `rows_per_source`, `distinct_pages` and
            `distinct_queries` (in the rows), `pages` (in the whole corpus), `left_out`, and
            `hash`, SHA-256 in hexadecimal.
        """
        digest = hashlib.sha256()
        for item in self._in_order():
            digest.update(json.dumps(item, ensure_ascii=True).encode() + b"\n")
        return {
            "name": self.name,
            "layout": self.layout,
            "revision": self.revision,
            "rows": len(self.rows),
            "rows_per_source": dict(sorted(Counter(row.source for row in self.rows).items())),
            "distinct_pages": len({row.page for row in self.rows}),
            "distinct_queries": len({self.queries[row.query].text for row in self.rows}),
            "pages": len(self.page_ids),
            "left_out": dict(sorted(self.left_out.items())),
            "hash": digest.hexdigest(),
        }

    def _in_order(self) -> Iterable[list[object]]:
        for page_id in self.page_ids:
            yield ["page", page_id]
        for query in self.queries:
            yield ["query", query.id, query.text]
        for row in self.rows:
            negatives = [self.page_ids[page] for page in row.negatives]
            pair = [self.queries[row.query].id, self.page_ids[row.page], row.source]
            yield ["row", *pair, negatives] if negatives else ["row", *pair]
        for query_id, judged in sorted(self.qrels.items()):
            yield ["judged", query_id, sorted(judged.items())]


def comparable(text: str) -> str:
    """A query's text without what makes no difference to its meaning: case and white space."""
    return " ".join(text.casefold().split())


def concatenate(collections: Sequence[Collection]) -> Collection:
    """One collection of several, each one's pages, queries and rows after the other's.

    An id that two of them use names two things, so it gets its collection's name as a prefix in
    both (`receipts/train/0`). The same query text in two collections stays one question: each
    one's relevant pages are kept from being the other's negatives.

    Args:
        collections: At least one; a single one is handed back as it is.
    """
    if not collections:
        raise ValueError("concatenate needs at least one collection.")
    if len(collections) == 1:
        return collections[0]
    names = _distinct_names([collection.name for collection in collections])
    shared_pages = _shared(collection.page_ids for collection in collections)
    shared_queries = _shared([q.id for q in collection.queries] for collection in collections)
    page_ids: list[str] = []
    queries: list[Query] = []
    rows: list[Row] = []
    qrels: dict[str, dict[str, int]] = {}
    left_out: Counter[str] = Counter()
    findings: list[Finding] = []
    for name, part in zip(names, collections, strict=True):

        def page_name(page_id: str, name: str = name) -> str:
            return f"{name}/{page_id}" if page_id in shared_pages else page_id

        def query_name(query_id: str, name: str = name) -> str:
            return f"{name}/{query_id}" if query_id in shared_queries else query_id

        rows += [_moved(row, len(queries), len(page_ids)) for row in part.rows]
        findings += part.findings
        page_ids += [page_name(page_id) for page_id in part.page_ids]
        queries += [Query(query_name(query.id), query.text) for query in part.queries]
        for query_id, judged in part.qrels.items():
            qrels[query_name(query_id)] = {page_name(page): s for page, s in judged.items()}
        left_out.update(part.left_out)
    images = JoinedImages([collection.images for collection in collections])
    return Collection(
        " + ".join(names),
        "several",
        page_ids,
        queries,
        rows,
        qrels,
        images,
        dict(left_out),
        findings=tuple(findings),
    )


def _moved(row: Row, num_queries: int, num_pages: int) -> Row:
    return Row(
        row.query + num_queries,
        row.page + num_pages,
        row.source,
        tuple(page + num_pages for page in row.negatives),
        row.place,
    )


def _refuse_duplicates(ids: Sequence[str], kind: str, name: str) -> None:
    repeated = [some_id for some_id, count in Counter(ids).items() if count > 1]
    if repeated:
        raise DataError(
            "duplicate-id",
            f"{len(repeated)} {kind} ids occur more than once."
            if len(repeated) > 1
            else f"a {kind} id occurs more than once.",
            where=name,
            received=", ".join(repr(some_id) for some_id in repeated[:3]),
            expected=f"every {kind} with an id of its own",
        )


def _distinct_names(names: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return distinct


def _shared(groups: Iterable[Sequence[str]]) -> set[str]:
    counts: Mapping[str, int] = Counter(some_id for group in groups for some_id in group)
    return {some_id for some_id, count in counts.items() if count > 1}
