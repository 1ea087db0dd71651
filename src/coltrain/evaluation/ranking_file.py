"""TREC ranking files: what trec_eval, pytrec_eval and ir_measures read."""

import re
from pathlib import Path

import numpy as np
from torch import Tensor

from coltrain.data.collection import Collection
from coltrain.errors import DataError, UsageError
from coltrain.evaluation.results import tie_order

TAG = "coltrain"


def refuse_spaces(collection: Collection) -> None:
    """Say before an hour of encoding that the ids do not fit a ranking file.

    Raises:
        DataError: `[id-with-space]`: columns are separated by white space, so no id may hold any.
    """
    ids = [("page", page) for page in collection.page_ids]
    ids += [("query", query.id) for query in collection.queries]
    for kind, some_id in ids:
        if not some_id or re.search(r"\s", some_id):
            raise DataError(
                "id-with-space",
                "an id does not fit into a ranking file, whose columns are separated by spaces.",
                where=collection.name,
                received=f"{kind} id {some_id!r}",
                expected="ids without white space",
                suggestion="--json or --out, whose rankings take any id",
            )


def prepare_output(path: Path) -> None:
    """Say before an hour of encoding that a file could not be written.

    Raises:
        UsageError: `[cannot-write]`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "Is a directory")
        partial = path.with_name(path.name + ".partial")
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise UsageError(
            "cannot-write",
            "the file cannot be written.",
            where=str(path),
            received=error.strerror or str(error),
            expected="a file in a folder that can be written",
        ) from error


def write_ranking(
    path: Path, collection: Collection, scores: Tensor, top_k: int | None = None
) -> None:
    """Write a ranking file, whole or not at all: qid Q0 docid rank score tag.

    Ranks start at 1 and follow the measures' rule: scores in float32, ties to the larger page id.
    A score has 9 significant digits, which tell any two float32 numbers apart.

    Args:
        path: The file.
        collection: Pages and queries; unjudged queries are written as well, as evaluators expect.
        scores: queries x pages.
        top_k: Pages of a query at most; None for all, without which MAP cannot be computed again.

    Raises:
        DataError: `[id-with-space]`.
        UsageError: `[cannot-write]`.
    """
    refuse_spaces(collection)
    prepare_output(path)
    rows = scores.cpu().numpy().astype(np.float32)
    by_id = tie_order(collection.page_ids)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for query, row in zip(collection.queries, rows, strict=True):
            order = np.lexsort((-by_id, -row))[:top_k]
            file.writelines(
                f"{query.id} Q0 {collection.page_ids[place]} {rank} {row[place]:.9g} {TAG}\n"
                for rank, place in enumerate(order, start=1)
            )
    partial.replace(path)
