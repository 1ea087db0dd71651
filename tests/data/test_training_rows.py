"""Form (c): training rows that name the pages of a corpus, as the public sets have them."""

import pytest

from coltrain.data import load_collection
from coltrain.errors import DataError
from coltrain.recipe.source import Source


def load(split="train", **source):
    return load_collection(Source(**source), split)


@pytest.fixture
def folder(tmp_path, write_table, png):
    """A corpus of six pages and three training rows, in one folder."""
    write_table(
        tmp_path / "mined" / "corpus.parquet",
        doc_id=[f"p{i}" for i in range(6)],
        image=[png(i * 10) for i in range(6)],
        source=["a", "a", "b", "b", "c", "c"],
    )
    write_table(
        tmp_path / "mined" / "train.parquet",
        query=["how", "what", None],
        positive_passages=[["p0"], ["p1", "p2"], ["p3"]],
        negative_passages=[["p5", "p4"], ["p0", "p2", "p3"], ["p1"]],
        gold_in_top_100=[True, False, True],
    )
    return tmp_path / "mined"


def test_every_positive_is_a_row_with_the_negatives_of_its_query(folder):
    collection = load(path=str(folder))
    assert collection.layout == "negatives"
    assert [(query.id, query.text) for query in collection.queries] == [("0", "how"), ("1", "what")]
    assert [(row.query, row.page, row.source) for row in collection.rows] == [
        (0, 0, "a"),
        (1, 1, "a"),
        (1, 2, "b"),
    ]
    # p2 is a positive of its query, so it is no negative of it.
    assert [row.negatives for row in collection.rows] == [(5, 4), (0, 3), (0, 3)]
    assert collection.left_out == {"empty-query": 1, "false-negative": 2}
    assert collection.qrels == {"0": {"p0": 1}, "1": {"p1": 1, "p2": 1}}
    assert collection.page_image(5).getpixel((0, 0)) == (50, 0, 0)
    assert [row.place for row in collection.rows] == [0, 1, 1]


def test_the_filter_is_a_column_of_the_rows(folder):
    collection = load(path=str(folder), filter="gold_in_top_100")
    assert [query.text for query in collection.queries] == ["how"]
    assert collection.left_out == {"empty-query": 1, "filtered": 1}
    with pytest.raises(DataError, match=r"\[missing-column\]: there is no column for the filter"):
        load(path=str(folder), filter="gold_in_top_10")
    with pytest.raises(DataError, match=r"\[bad-filter\]") as caught:
        load(path=str(folder), filter="query")
    assert caught.value.received == "'how'"


def test_a_filter_for_other_layouts_is_refused(tmp_path, write_corpus):
    with pytest.raises(DataError, match=r"\[filter-not-read\]"):
        load(path=str(write_corpus(tmp_path / "a")), filter="gold_in_top_100")


@pytest.fixture
def published(tmp_path, write_table, png, monkeypatch):
    """Two folders with the names and columns of the public sets, 503 rows over four pages."""
    monkeypatch.chdir(tmp_path)
    write_table(
        tmp_path / "manu" / "colpali-data" / "data" / "train.parquet",
        image=[png(i) for i in range(4)],
    )
    write_table(
        tmp_path / "manu" / "colpali-data-ir" / "data" / "train.parquet",
        query=[f"query {i}" for i in range(503)],
        gold_index=[i % 4 for i in range(503)],
        negs=[[(i + 1) % 4, (i + 2) % 4] for i in range(503)],
        gold_in_top_100=[i != 0 for i in range(503)],
    )
    return "manu/colpali-data-ir"


def test_the_published_set_is_known_with_its_pages_and_its_split(published):
    train, test = (load(split, path=published) for split in ("train", "test"))
    # Row numbers are the ids, in both tables; the first 500 rows are held out.
    assert [query.text for query in train.queries] == ["query 500", "query 501", "query 502"]
    assert train.rows[0].page == 0
    assert train.rows[0].negatives == (1, 2)
    assert train.page_image(2).getpixel((0, 0)) == (2, 0, 0)
    assert len(test.rows) == 500
    assert test.queries[0].text == "query 0"
    with pytest.raises(DataError, match=r"\[unknown-split\]"):
        load(path=published, split="dev")


def test_rows_are_held_out_after_filtering(published):
    train = load(path=published, filter="gold_in_top_100")
    assert [query.text for query in train.queries] == ["query 501", "query 502"]
    assert train.left_out == {"filtered": 1}


def test_the_corpus_can_be_another_folder(tmp_path, write_table, png):
    write_table(
        tmp_path / "pages" / "all.parquet", image_filename=["x", "y"], image=[png(0), png(1)]
    )
    write_table(
        tmp_path / "rows" / "rows.parquet",
        query_id=["a", "b"],
        text=["how", "why"],
        pos_target=[0, 1],
        neg_target=[1, None],
    )
    collection = load(path=str(tmp_path / "rows"), corpus=str(tmp_path / "pages"))
    assert collection.page_ids == ["0", "1"]
    assert [query.id for query in collection.queries] == ["a", "b"]
    assert [row.negatives for row in collection.rows] == [(1,), ()]
    with pytest.raises(DataError, match=r"\[data-not-found\]"):
        load(path=str(tmp_path / "rows"), corpus=str(tmp_path / "missing"))


def test_ids_may_stand_in_mappings(tmp_path, write_table, png):
    write_table(tmp_path / "corpus.parquet", doc_id=["x", "y"], image=[png(0), png(1)])
    write_table(
        tmp_path / "rows.parquet",
        query=["how"],
        positive_passages=[[{"docid": "x", "title": ""}]],
        negative_passages=[[{"docid": "y", "title": ""}]],
    )
    assert load(path=str(tmp_path)).rows[0].negatives == (1,)


def test_a_row_that_names_an_unknown_page_is_refused(tmp_path, write_table, png):
    write_table(tmp_path / "corpus.parquet", doc_id=["x"], image=[png(0)])
    write_table(
        tmp_path / "rows.parquet", query=["how"], positive_ids=[["x"]], negative_ids=[["y", "z"]]
    )
    with pytest.raises(DataError) as caught:
        load(path=str(tmp_path))
    assert caught.value.message == "rows name 2 page ids that the corpus does not have."


def test_a_row_without_a_positive_is_left_out_and_listed(tmp_path, write_table, png):
    write_table(tmp_path / "corpus.parquet", doc_id=["x"], image=[png(0)])
    write_table(
        tmp_path / "rows.parquet",
        query=["how", "why"],
        positive_ids=[["x"], []],
        negative_ids=[["x"], ["x"]],
    )
    collection = load(path=str(tmp_path))
    assert collection.left_out == {"no-positive": 1, "false-negative": 1}
    assert collection.findings[0].row == 1


def test_doubled_ids_keep_the_first(tmp_path, write_table, png):
    write_table(tmp_path / "corpus.parquet", doc_id=["x", "x", "y"], image=[png(0), png(1), png(2)])
    write_table(
        tmp_path / "rows.parquet",
        query_id=["a", "a"],
        query=["how", "why"],
        positive_ids=["x", "y"],
        negative_ids=["y", "x"],
    )
    collection = load(path=str(tmp_path))
    assert collection.page_ids == ["x", "y"]
    assert [row.negatives for row in collection.rows] == [(1,)]
    assert collection.page_image(1).getpixel((0, 0)) == (2, 0, 0)
    assert collection.left_out == {"duplicate-id": 2}


def test_a_corpus_with_queries_but_neither_judgements_nor_positives_is_not_complete(
    tmp_path, write_corpus
):
    folder = write_corpus(tmp_path / "pages" / "train", qrels=None)
    with pytest.raises(DataError) as caught:
        load(path=str(tmp_path / "pages"))
    assert caught.value.received == "train/corpus and queries only"
    assert caught.value.expected == "train/qrels.parquet, or folders of these names"
    with pytest.raises(DataError, match=r"\[missing-column\]"):
        load(path=str(folder), layout="negatives")
