"""Tables on disk, read through `datasets`.

`datasets` and pyarrow are imported where they are used: that takes about a second, and drawn pages
do without.
"""

from __future__ import annotations

import errno
import glob
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coltrain.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def read_parquet(files: Sequence[Path], where: str) -> Dataset:
    """Parquet files as one table, memory-mapped from the cache of `datasets`.

    Args:
        files: In the order of their rows.
        where: Data set, for messages.

    Raises:
        DataError: [broken-file] A file is not parquet, or the files have different columns;
            [empty-split] there are no rows; [cannot-cache] the disk is full.
    """
    import datasets
    from pyarrow import parquet

    try:
        # A file without rows may hold no row group, which `datasets` cannot read.
        filled = [file for file in files if parquet.read_metadata(file).num_rows]
        if not filled:
            raise _empty(f"{where}: {_listed(files)}")
        # A path is not a pattern here, whatever signs its folders have in their names.
        paths = [glob.escape(str(file)) for file in filled]
        with _quiet():
            return datasets.load_dataset("parquet", data_files=paths, split="train")
    except DataError:
        raise
    except Exception as error:  # datasets, pyarrow and fsspec each raise errors of their own
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(
                "cannot-cache",
                "the cache of `datasets`, where tables are copied, cannot be written.",
                where=f"{where}, in {datasets.config.HF_DATASETS_CACHE}",
                received=str(cause),
                expected="room for a copy of the tables",
                suggestion="HF_DATASETS_CACHE=/another/disk in the environment, or room on this one",
            ) from error
        raise DataError(
            "broken-file",
            "a table cannot be read.",
            where=f"{where}: {_listed(files)}",
            received=f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}",
            expected="parquet files with the same columns",
            suggestion="copy or download the files again",
        ) from error


def _listed(files: Sequence[Path]) -> str:
    return ", ".join(str(file) for file in files[:3]) + (", …" if len(files) > 3 else "")


def with_encoded_images(table: Dataset, where: str, column: str = "image") -> Dataset:
    """The same table, its images left as they are stored: bytes, or the path of a file.

    Raises:
        DataError: [not-an-image] The column holds something else.
    """
    import datasets

    try:
        return table.cast_column(column, datasets.Image(decode=False))
    except Exception as error:  # pyarrow's, by the kind of column
        raise DataError(
            "not-an-image",
            f"the column {column!r} does not hold images.",
            where=where,
            received=f"values of type {table.features[column]}",
            expected="encoded images: bytes, a path, or both as the Image feature stores them",
        ) from error


def texts(table: Dataset, column: str) -> list[Any]:
    """A column as a list, without reading the others."""
    return table.select_columns([column])[:][column]


def find_column(
    table: Dataset, names: Iterable[str], what: str, where: str, optional: bool = False
) -> str | None:
    """The first of several possible names that a table has as a column.

    Raises:
        DataError: [missing-column] It has none of them.
    """
    names = list(names)
    for name in names:
        if name in table.column_names:
            return name
    if optional:
        return None
    raise DataError(
        "missing-column",
        f"there is no column for {what}.",
        where=where,
        received=f"columns {', '.join(table.column_names)}",
        expected=" or ".join(names),
    )


def refuse_empty(table: Dataset, where: str) -> None:
    """Raise [empty-split] if a table has no row."""
    if not len(table):
        raise _empty(where)


def _empty(where: str) -> DataError:
    return DataError(
        "empty-split",
        "there are no rows.",
        where=where,
        received="0 rows",
        expected="at least one",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no log lines of `datasets` while it copies tables into its cache."""
    import datasets

    were_shown = not datasets.are_progress_bars_disabled()
    verbosity = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are raised as well
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if were_shown:
            datasets.enable_progress_bars()
