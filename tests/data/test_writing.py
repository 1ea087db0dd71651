"""What is written is what was read."""

import datasets
import pytest

from coltrain.data import MinedNegative, check_collection, load_collection, write_collection
from coltrain.data.drawn import drawn_collection
from coltrain.data.images import encoded
from coltrain.errors import DataError
from coltrain.recipe.source import Source


def load(folder):
    return load_collection(Source(path=str(folder)), "train")


def test_a_collection_survives_being_written_and_read(tmp_path, write_corpus):
    before = load(write_corpus(tmp_path / "a" / "pages"))
    seen = []
    mined = {"q0": [MinedNegative("p3", 0.9), MinedNegative("p2", 0.5)], "q1": []}
    write_collection(tmp_path / "b" / "pages", before, mined, on_item=lambda: seen.append(1))
    after = load(tmp_path / "b" / "pages")
    assert len(seen) == 4
    assert after.page_ids == before.page_ids
    assert after.queries == before.queries
    assert after.qrels == before.qrels
    assert [(r.query, r.page, r.source) for r in after.rows] == [
        (r.query, r.page, r.source) for r in before.rows
    ]
    assert [row.negatives for row in after.rows] == [(3, 2), (), ()]
    for index in range(4):
        assert encoded(after.images, index) == encoded(before.images, index)
    table = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "b" / "pages" / "corpus.parquet"), split="train"
    )
    assert isinstance(table.features["image"], datasets.Image)
    assert sorted(file.name for file in (tmp_path / "b" / "pages").iterdir()) == [
        "corpus.parquet",
        "negatives.parquet",
        "qrels.parquet",
        "queries.parquet",
    ]


@pytest.mark.slow
def test_drawn_pages_are_written_without_loss(tmp_path):
    drawn = drawn_collection("dev")
    write_collection(tmp_path / "drawn", drawn)
    after = load(tmp_path / "drawn")
    assert len(after.page_ids) > 64  # more than one row group
    assert [(r.query, r.page) for r in after.rows] == [(r.query, r.page) for r in drawn.rows]
    assert after.page_image(70).tobytes() == drawn.page_image(70).tobytes()
    assert not (tmp_path / "drawn" / "negatives.parquet").exists()


def test_a_checked_collection_is_written_with_the_right_pages(tmp_path, write_table, png):
    write_table(
        tmp_path / "rows" / "rows.parquet",
        query=["how", "what", "why"],
        image=[b"x", png(1), png(2)],
        image_filename=list("abc"),
    )
    checked = check_collection(load(tmp_path / "rows")).collection
    write_collection(tmp_path / "out", checked)
    after = load(tmp_path / "out")
    assert after.page_ids == ["b", "c"]
    assert encoded(after.images, 0) == png(1)


def test_unknown_negatives_and_pages_without_a_file_are_refused(tmp_path, write_corpus):
    collection = load(write_corpus(tmp_path / "a"))
    with pytest.raises(DataError, match=r"\[unknown-id\]") as caught:
        write_collection(tmp_path / "b", collection, {"q0": [MinedNegative("p9", 1.0)]})
    assert caught.value.received == "'p9'"
    assert not (tmp_path / "b").exists()


def test_half_a_table_is_not_left_behind(tmp_path, write_corpus):
    collection = load(write_corpus(tmp_path / "a"))

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_collection(tmp_path / "b", collection, on_item=stop)
    assert list((tmp_path / "b").iterdir()) == []


def test_the_order_of_rows_is_kept(tmp_path, write_table, png):
    write_table(
        tmp_path / "rows" / "rows.parquet",
        query=["how", "what", "how"],
        image=[png(i) for i in range(3)],
        image_filename=list("abc"),
    )
    before = load(tmp_path / "rows")
    write_collection(tmp_path / "out", before)
    pairs = [(row.query, row.page) for row in load(tmp_path / "out").rows]
    assert pairs == [(row.query, row.page) for row in before.rows] == [(0, 0), (1, 1), (0, 2)]
