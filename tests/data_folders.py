"""Data sets of small pages on disk, whole and broken ones, as a user would have them."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from small_pages import small_page, small_query


def png(number: int) -> dict[str, Any]:
    """A small page as the image column of a table holds it."""
    stream = io.BytesIO()
    small_page(number).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def write_corpus(folder: Path, numbers, **replaced) -> Path:
    """Small pages in the corpus layout; a table that is replaced by None is left out."""
    tables = {
        "corpus": {"doc_id": [f"p{n}" for n in numbers], "image": [png(n) for n in numbers]},
        "queries": {
            "query_id": [f"q{n}" for n in numbers],
            "text": [small_query(n) for n in numbers],
        },
        "qrels": {
            "query_id": [f"q{n}" for n in numbers],
            "doc_id": [f"p{n}" for n in numbers],
            "score": [1 for _ in numbers],
        },
    } | replaced
    folder.mkdir(parents=True)
    for name, columns in tables.items():
        if columns is not None:
            pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def write_rows(folder: Path, **columns) -> None:
    """A table of rows."""
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "rows.parquet")


def write_broken_data(root: Path) -> Path:
    """Folders that cannot be used, each in its own way."""
    (root / "empty").mkdir(parents=True)
    write_rows(root / "no-image", query=["red"], page=["a"])
    write_rows(root / "no-rows", query=pa.array([], pa.string()), image=pa.array([], pa.binary()))
    write_rows(root / "no-query", query=pa.array([None], pa.string()), image=[png(0)])
    write_corpus(root / "no-qrels", range(4), qrels=None)
    write_corpus(
        root / "unknown-id",
        range(4),
        qrels={"query_id": ["q0", "q1"], "doc_id": ["p0", "p77"], "score": [1, 1]},
    )
    write_corpus(root / "no-text", range(4), queries={"query_id": ["q0"], "words": ["red"]})
    write_corpus(root / "two-splits" / "train", range(4))
    write_rows(root / "not-images", query=["red"], image=[7])
    return root
