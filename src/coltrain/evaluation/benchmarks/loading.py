"""A task's pages, queries and judgements, from the hub at the pinned revision or from a folder."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from coltrain.data.collection import Collection
from coltrain.data.corpus import PAGE_ID, QUERY_ID, collection_of_corpus
from coltrain.data.rows import collection_of_rows
from coltrain.data.tables import find_column, read_parquet, texts
from coltrain.errors import DataError, UsageError
from coltrain.evaluation.benchmarks.catalogue import EDITIONS, Edition, Layout, Task
from coltrain.evaluation.benchmarks.copies import copy_of, refuse_unreachable, revision_of_copy
from coltrain.evaluation.benchmarks.counts import differences, refuse_other_counts
from coltrain.evaluation.benchmarks.duplicates import ALL_PAGES, apply_rule
from coltrain.evaluation.benchmarks.files import TaskFiles, find_task_files
from coltrain.evaluation.benchmarks.translations import base_queries
from coltrain.hub import download, look_up

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


@dataclass(frozen=True)
class TaskData:
    """A task, loaded.

    Attributes:
        task: What it should be.
        edition: Where it came from; None for a folder that does not say.
        layout: How it was stored.
        collection: All pages, and the queries of all languages.
        language_of: Query id to language.
        base_of: Judged query id to that of the query which it is a translation of.
        duplicates: The rule for queries that occur more than once.
        differences: What differs from the published counts; empty, unless that was allowed.
        folder: The local copy that it was read from; None for the hub's.
    """

    task: Task
    edition: Edition | None
    layout: Layout
    collection: Collection
    language_of: dict[str, str]
    base_of: dict[str, str]
    duplicates: str
    differences: tuple[str, ...]
    folder: Path | None = None

    def provenance(self) -> dict[str, object]:
        """Where the data come from, for the record of a result."""
        return {
            "repository": self.edition.repository if self.edition else None,
            "revision": self.collection.revision,
            "edition": self.edition.name if self.edition else None,
            "layout": self.layout,
            "duplicates": self.duplicates,
            "other_counts": list(self.differences),
        }


def load_tasks(
    tasks: Sequence[Task],
    *,
    edition: str | None = None,
    data_dir: Path | None = None,
    duplicates: str | None = None,
    default_rule: str = ALL_PAGES,
    allow_other_counts: bool = False,
) -> list[TaskData]:
    """Load tasks; whatever cannot be reached is said of all of them together.

    Ids are mteb's: where a set numbers its queries and pages, `query-test-3` and `corpus-test-12`,
    as mteb names them, so that ties break as there and results of several editions compare.

    Args:
        tasks: Of the catalogue.
        edition: One of `EDITIONS`; None for the newest.
        data_dir: Folder with a folder for each task, instead of the hub.
        duplicates: Rule for a query that stands in several rows of the question-answer layout,
            `all-pages` or `last-row`; None for the default.
        default_rule: The rule where nobody asked for one.
        allow_other_counts: Do not refuse data whose counts are not those of the benchmark.

    Raises:
        UsageError: `[unknown-edition]`, `[no-such-edition]`, or `[rule-without-rows]`.
        DataError: `[benchmark-unreachable]`, `[other-revision]`, `[other-counts]`,
            `[page-without-image]`, `[nothing-judged]`, or what reading tables raises.
    """
    editions = [_edition(task, edition) for task in tasks]
    found: list[tuple[Task, Edition | None, TaskFiles, Path, str | None]] = []
    unreachable: list[tuple[Task, Edition, DataError | None]] = []
    for task, wanted in zip(tasks, editions, strict=True):
        try:
            place = (
                _from_hub(task, wanted)
                if data_dir is None
                else _from_folder(task, data_dir, is_alone=len(tasks) == 1)
            )
        except DataError as error:
            if error.code != "hub-offline":
                raise
            unreachable.append((task, wanted, error))
        else:
            found.append((task, *place)) if place else unreachable.append((task, wanted, None))
    refuse_unreachable(unreachable, data_dir)
    loaded = [_load(*place, duplicates, default_rule, allow_other_counts) for place in found]
    if data_dir is None:
        return loaded
    return [replace(data, folder=place[3]) for data, place in zip(loaded, found, strict=True)]


def _edition(task: Task, name: str | None) -> Edition:
    if name is None:
        return next(iter(task.editions.values()))
    if name not in EDITIONS:
        raise UsageError(
            "unknown-edition",
            "there is no such edition of the benchmarks.",
            where="--edition",
            received=name,
            expected=", ".join(EDITIONS),
        )
    if name not in task.editions:
        raise UsageError(
            "no-such-edition",
            f"{task.name} has no edition {name}.",
            where="--edition",
            received=name,
            expected=", ".join(task.editions),
            suggestion="leave it out: vidore-v2 and vidore-v3 have one edition",
        )
    return task.editions[name]


def _from_hub(task: Task, edition: Edition) -> tuple[Edition, TaskFiles, Path, str]:
    repository = look_up(edition.repository, edition.revision, "dataset")
    files = find_task_files(repository.files, task, edition.source)
    return edition, files, download(repository, files.files), repository.commit


def _from_folder(
    task: Task, data_dir: Path, is_alone: bool
) -> tuple[Edition | None, TaskFiles, Path, str | None] | None:
    folder = copy_of(task, data_dir, is_alone)
    if folder is None:
        return None
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*.parquet")]
    files = find_task_files(names, task, str(folder))
    edition, revision = revision_of_copy(task, folder)
    return edition, files, folder, revision


def _load(
    task: Task,
    edition: Edition | None,
    files: TaskFiles,
    folder: Path,
    revision: str | None,
    duplicates: str | None,
    default_rule: str,
    allow_other_counts: bool,
) -> TaskData:
    tables = {
        table: read_parquet([folder / file for file in names], task.name)
        for table, names in files.tables.items()
    }
    where = edition.source if edition else str(folder)
    if files.layout == "question-answer":
        _refuse_missing_images(tables["rows"], where)
        collection = collection_of_rows(
            tables["rows"], name=task.name, folder=folder, revision=revision
        )
        language_of = {query.id: task.languages[0] for query in collection.queries}
    else:
        corpus = next(table for name, table in tables.items() if name.endswith("corpus"))
        _refuse_missing_images(corpus, where)
        queries, language_of = _queries(task, tables, where)
        qrels = _qrels(task, tables, queries, where)
        collection = collection_of_corpus(
            corpus, queries, qrels, name=task.name, folder=folder, revision=revision
        )
        collection, language_of = _with_ids_of_mteb(collection, language_of)
    collection, rule = apply_rule(collection, files.layout, duplicates or default_rule, duplicates)
    _refuse_unjudged(collection)
    found = differences(task, files.layout, collection, language_of)
    if not allow_other_counts:
        refuse_other_counts(task, where, found)
    return TaskData(
        task,
        edition,
        files.layout,
        collection,
        language_of,
        base_queries(language_of, collection.qrels),
        rule,
        tuple(found),
    )


def _queries(task: Task, tables: dict, where: str) -> tuple[Dataset, dict[str, str]]:
    """Ids and texts of all languages as one table, and each id's language."""
    from datasets import Dataset

    ids, asked, language_of = [], [], {}
    for name, table in tables.items():
        if not name.endswith("queries"):
            continue
        of_table = texts(table, find_column(table, QUERY_ID, "query ids", where))
        words = texts(table, find_column(table, ["text", "query"], "the text of queries", where))
        if name == "queries" and task.subsets:
            find_column(table, ["language"], "the language of queries", where)
            languages = texts(table, "language")
        else:
            language = name.removesuffix("-queries") if task.subsets else task.languages[0]
            languages = [language] * len(of_table)
        for query, text, language in zip(of_table, words, languages, strict=True):
            if task.subsets and language not in task.subsets:
                continue
            if str(query) in language_of:
                raise DataError(
                    "duplicate-id",
                    "a query id occurs more than once.",
                    where=where,
                    received=repr(query),
                    expected="every query with an id of its own, in all languages together",
                )
            language_of[str(query)] = language
            ids.append(str(query))
            asked.append(text)
    return Dataset.from_dict({"id": ids, "text": asked}), language_of


def _qrels(task: Task, tables: dict, queries: Dataset, where: str) -> Dataset:
    """Judgements as one table, each pair once: mteb's layout repeats all of them per language.

    Queries of languages that are no subset of the task go; others that do not exist are for
    `collection_of_corpus` to refuse.
    """
    from datasets import Dataset

    known = set(texts(queries, "id"))
    left_out = set()
    if "queries" in tables and task.subsets:
        table = tables["queries"]
        column = find_column(table, QUERY_ID, "query ids", where)
        left_out = {str(query) for query in texts(table, column)} - known
    pairs: dict[tuple[str, str, object], None] = {}
    for name, table in tables.items():
        if not name.endswith("qrels"):
            continue
        of_query = texts(table, find_column(table, QUERY_ID[:2], "query ids", where))
        pages = texts(table, find_column(table, PAGE_ID[:5], "page ids", where))
        scores = texts(table, find_column(table, ["score"], "judgements", where))
        for query, page, score in zip(of_query, pages, scores, strict=True):
            if str(query) not in left_out:
                pairs[str(query), str(page), score] = None
    columns = list(zip(*pairs, strict=True)) or [(), (), ()]
    return Dataset.from_dict(dict(zip(("query-id", "corpus-id", "score"), columns, strict=True)))


def _with_ids_of_mteb(
    collection: Collection, language_of: dict[str, str]
) -> tuple[Collection, dict[str, str]]:
    """`query-test-3` for 3 and `corpus-test-12` for 12; other ids stay."""
    ids = [query.id for query in collection.queries] + collection.page_ids
    if not all(re.fullmatch(r"\d+", some_id) for some_id in ids):
        return collection, language_of
    renamed = replace(
        collection,
        page_ids=[f"corpus-test-{page}" for page in collection.page_ids],
        queries=[replace(query, id=f"query-test-{query.id}") for query in collection.queries],
        qrels={
            f"query-test-{query}": {f"corpus-test-{page}": score for page, score in judged.items()}
            for query, judged in collection.qrels.items()
        },
    )
    return renamed, {f"query-test-{query}": lang for query, lang in language_of.items()}


def _refuse_missing_images(table: Dataset, where: str) -> None:
    """Say which page has no image, before a model is loaded."""
    if "image" not in table.column_names:
        return  # reading says so
    first = 0
    for images in table.data.column("image").chunks:
        place = _place_without_image(images)
        if place is not None:
            raise DataError(
                "page-without-image",
                "a page has no image, so it cannot be searched.",
                where=where,
                received=f"row {first + place} of the pages: {_named(table, first + place)}",
                expected="an image in every row",
                suggestion="download the data again",
            )
        first += len(images)


def _place_without_image(images: pa.Array) -> int | None:
    """Neither the whole, nor bytes, nor a path; nothing is copied, as the images may be gigabytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    is_missing = pc.is_null(images)
    if pa.types.is_struct(images.type):
        parts = [pc.is_null(images.field(field.name)) for field in images.type]
        is_missing = pc.or_(is_missing, functools.reduce(pc.and_, parts))
    place = pc.index(is_missing, True).as_py()
    return place if place >= 0 else None


def _named(table: Dataset, place: int) -> str:
    row = table.remove_columns(["image"])[place]
    return ", ".join(f"{name} {value!r}" for name, value in list(row.items())[:2])


def _refuse_unjudged(collection: Collection) -> None:
    if not any(score > 0 for judged in collection.qrels.values() for score in judged.values()):
        raise DataError(
            "nothing-judged",
            "no query of the data set has a relevant page, so there is nothing to measure.",
            where=collection.name,
            received=f"{len(collection.page_ids)} pages, {len(collection.queries)} queries",
            expected="at least one query with a relevant page",
        )
