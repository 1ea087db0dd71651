"""The eight-subset training mix of ColQwen2-v0.1.

It is not the merged `vidore/colpali_train_set`: the rows and their order differ, and arXivQA is
cut to 10,000 rows. The reference code made it while loading, so it exists as a rule alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from coltrain.data.tables import find_column, with_encoded_images
from coltrain.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

NAME = "colpali_train_set_detailed"
SUBSETS = (
    "infovqa_train",
    "docvqa_train",
    "arxivqa_train",
    "tatdqa_train",
    "syntheticDocQA_government_reports_train",
    "syntheticDocQA_healthcare_industry_train",
    "syntheticDocQA_artificial_intelligence_train",
    "syntheticDocQA_energy_train",
)
SPLITS = ("train", "test")
_SEED = 42


def detailed_mix(
    subsets: Mapping[str, Dataset], split: str, *, num_arxivqa: int = 10_000, num_test: int = 500
) -> Dataset:
    """Mix the subsets in the order of the reference code.

    arXivQA is shuffled (seed 42) and cut; the subsets are put one after the other and shuffled
    (seed 42); the first rows are the test split and the others the train split.

    Args:
        subsets: Name to rows, for every name in `SUBSETS`.
        split: train or test.
        num_arxivqa: Rows of arXivQA that are used.
        num_test: Rows held out.

    Returns:
        Columns `query`, `image`, `image_filename` and `source`, which is the subset's name.

    Raises:
        DataError: [too-few-rows] or [missing-column].

    Source:
        colpali-engine, `load_train_set_detailed` in `utils/dataset_transformation.py`, the same
        from 0.3.1 to 0.3.18.
    """
    import datasets

    parts = []
    for name in SUBSETS:
        rows = _same_columns(subsets[name], name)
        if "arxivqa" in name:
            _refuse_fewer(rows, num_arxivqa, f"{NAME}, {name}")
            rows = rows.shuffle(_SEED, keep_in_memory=True).select(range(num_arxivqa))
        parts.append(rows)
    mixed = datasets.concatenate_datasets(parts)
    _refuse_fewer(mixed, num_test + 1, NAME)
    mixed = mixed.shuffle(seed=_SEED, keep_in_memory=True)
    places = range(num_test) if split == "test" else range(num_test, len(mixed))
    return mixed.select(places)


def _same_columns(rows: Dataset, name: str) -> Dataset:
    """Only the columns that are used: the others differ between the subsets."""
    import datasets
    import pyarrow

    find_column(rows, ["query"], "queries", name)
    find_column(rows, ["image"], "images", name)
    columns = ["query", "image"]
    if "image_filename" in rows.column_names:
        columns.append("image_filename")
    rows = with_encoded_images(rows.select_columns(columns), name)
    rows = rows.cast_column("query", datasets.Value("string"))
    if "image_filename" in columns:
        rows = rows.cast_column("image_filename", datasets.Value("string"))
    else:
        nothing = pyarrow.nulls(len(rows), pyarrow.string())
        rows = rows.add_column("image_filename", nothing)
    source = pyarrow.array([name] * len(rows), pyarrow.string())
    return rows.add_column("source", source)


def _refuse_fewer(rows: Dataset, expected: int, where: str) -> None:
    if len(rows) < expected:
        raise DataError(
            "too-few-rows",
            "the mix cannot be made from so few rows.",
            where=where,
            received=f"{len(rows)} rows",
            expected=f"at least {expected}",
        )
