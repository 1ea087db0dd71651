"""Counts that a data set of some name must have."""

import pytest

from coltrain.data import load_collection
from coltrain.data.known import KNOWN, ExpectedCounts, check_counts, check_known, counts_of
from coltrain.errors import DataError
from coltrain.recipe.source import Source


@pytest.fixture
def pages(tmp_path, write_table, png):
    write_table(
        tmp_path / "some" / "pages" / "train.parquet",
        query=["how", None, "why", "how"],
        image=[png(i) for i in range(4)],
        image_filename=["a", "b", "c", "d"],
        source=["scan", "scan", "web", "web"],
    )
    return load_collection(Source.model_validate(str(tmp_path / "some" / "pages")), "train")


def test_rows_without_a_query_count_as_rows_of_their_source(pages):
    counts = counts_of(pages)
    assert (counts.rows, counts.pages, counts.queries) == (4, 4, 2)
    assert counts.per_source == {"scan": 2, "web": 2}
    check_counts(pages, ExpectedCounts(4, 4, 2, {"scan": 2}))


def test_every_difference_is_said(pages):
    expected = ExpectedCounts(5, 4, 3, {"scan": 2, "web": 3, "book": 1}, "the card")
    with pytest.raises(DataError) as caught:
        check_counts(pages, expected)
    assert str(caught.value) == (
        "DataError [other-counts]: this is not the data set that its name promises.\n"
        "  where     some/pages:train\n"
        "  received  4 rows (-1), 2 queries (-1), 2 rows of web (-1), 0 rows of book (-1)\n"
        "  expected  5 rows, 3 queries, 3 rows of web, 1 rows of book: the card\n"
        "  try       download it again; a folder by its path (./…) is not checked"
    )


def test_a_known_name_is_checked_and_a_pinned_one_is_not(tmp_path, monkeypatch, write_table, png):
    monkeypatch.chdir(tmp_path)
    write_table(
        tmp_path / "vidore" / "colpali_train_set" / "train.parquet",
        query=["how"],
        image=[png(1)],
        image_filename=["a"],
    )
    with pytest.raises(DataError, match=r"\[other-counts\]") as caught:
        load_collection(Source.model_validate("vidore/colpali_train_set"), "train")
    assert "1 rows (-118,194)" in caught.value.received
    collection = load_collection(Source.model_validate("./vidore/colpali_train_set"), "train")
    check_known(collection, "vidore/colpali_train_set", "train", "a" * 40)  # pinned


def test_the_way_out_names_the_revision(pages):
    import dataclasses

    there = dataclasses.replace(pages, revision="b" * 40)
    with pytest.raises(DataError) as caught:
        check_counts(there, ExpectedCounts(rows=5))
    assert caught.value.suggestion.startswith("some/pages@" + "b" * 40)
    assert "revision " + "b" * 40 in caught.value.where


def test_the_published_set_has_the_rows_of_the_paper():
    rows = [KNOWN["vidore/colpali_train_set", split].rows for split in ("train", "test")]
    assert rows == [118_195, 500]
    assert sum(rows) == 118_695
