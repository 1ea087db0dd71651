import pytest

from coltrain.data import Row, load_collection
from coltrain.errors import DataError
from coltrain.recipe.source import Source


def load(folder, split="train"):
    return load_collection(Source(path=str(folder)), split)


def test_every_positive_judgement_is_a_row(tmp_path, write_corpus):
    collection = load(write_corpus(tmp_path / "pages" / "train"))
    assert collection.name == "pages/train"
    assert collection.layout == "corpus"
    assert collection.page_ids == ["p0", "p1", "p2", "p3"]
    assert [(query.id, query.text) for query in collection.queries] == [
        ("q0", "how"),
        ("q1", "what"),
        ("q2", "why"),
    ]
    assert collection.rows == [Row(0, 1, "manual"), Row(1, 2, "scan"), Row(1, 3, "scan")]
    assert collection.qrels == {"q0": {"p1": 1}, "q1": {"p2": 2, "p3": 1}, "q2": {"p0": 0}}
    assert collection.page_image(3).getpixel((0, 0)) == (30, 0, 0)


def test_the_names_and_numbers_of_beir_are_read(tmp_path, write_corpus, write_table, png):
    named = write_corpus(tmp_path / "named")
    numbered = write_corpus(
        tmp_path / "numbered",
        corpus={"corpus__id": [7, 8], "image": [png(1), png(2)]},
        queries={"query__id": [3], "query": ["how"], "language": ["english"]},
        qrels={"query__id": [3], "corpus__id": [8], "score": [1.0]},
    )
    collection = load(numbered)
    assert collection.page_ids == ["7", "8"]
    assert collection.qrels == {"3": {"8": 1}}
    assert collection.rows == [Row(0, 1, collection.name)]
    assert load(named).page_ids != collection.page_ids


def test_folders_of_parquet_are_tables_too(tmp_path, write_table, png):
    write_table(tmp_path / "corpus" / "test-00000-of-00002.parquet", _id=["a"], image=[png(1)])
    write_table(tmp_path / "corpus" / "test-00001-of-00002.parquet", _id=["b"], image=[png(2)])
    write_table(tmp_path / "queries" / "test-00000-of-00001.parquet", _id=["q"], text=["how"])
    write_table(
        tmp_path / "qrels" / "test-00000-of-00001.parquet", query__id=["q"], corpus__id=["b"]
    )
    collection = load(tmp_path, "test")
    assert collection.page_ids == ["a", "b"]
    assert collection.qrels == {"q": {"b": 1}}  # without scores a judgement counts 1
    with pytest.raises(DataError, match=r"\[unknown-split\]: there is no split 'train'"):
        load(tmp_path, "train")


def test_the_split_chooses_among_sub_folders(tmp_path, write_corpus):
    write_corpus(tmp_path / "pages" / "train")
    write_corpus(
        tmp_path / "pages" / "test",
        qrels={"query_id": ["q0"], "doc_id": ["p0"], "score": [1]},
    )
    by_default = load(tmp_path / "pages", "test")
    assert by_default.name == "pages/test"
    assert len(by_default.rows) == 1
    assert by_default.fingerprint() == load(tmp_path / "pages" / "test").fingerprint()
    assert (
        len(load_collection(Source(path=str(tmp_path / "pages"), split="train"), "test").rows) == 3
    )


def test_a_missing_table_is_named(tmp_path, write_corpus):
    folder = write_corpus(tmp_path / "pages", qrels=None)
    with pytest.raises(DataError) as caught:
        load(folder)
    assert str(caught.value) == (
        "DataError [missing-file]: the data set is not complete.\n"
        f"  where     {folder}\n"
        "  received  corpus and queries only\n"
        "  expected  qrels.parquet, or folders of these names"
    )


@pytest.mark.parametrize(
    ("table", "columns", "expected"),
    [
        ("corpus", {"page": ["p0"], "image": [b"x"]}, "doc_id or corpus-id"),
        ("corpus", {"doc_id": ["p0"], "path": ["x"]}, "image"),
        ("queries", {"query_id": ["q0"], "question": ["how"]}, "text or query"),
        ("queries", {"number": ["q0"], "text": ["how"]}, "query_id or query-id"),
        ("qrels", {"query_id": ["q0"], "page": ["p0"]}, "doc_id or corpus-id"),
    ],
)
def test_a_missing_column_is_named(tmp_path, write_corpus, table, columns, expected):
    folder = write_corpus(tmp_path / "pages", **{table: columns})
    with pytest.raises(DataError) as caught:
        load(folder)
    assert caught.value.code == "missing-column"
    assert caught.value.where.endswith(f"/pages, {table}")
    assert caught.value.received == f"columns {', '.join(columns)}"
    assert caught.value.expected.startswith(expected)


@pytest.mark.parametrize("table", ["corpus", "queries", "qrels"])
def test_an_empty_table_is_an_empty_split(tmp_path, write_corpus, write_table, table):
    empty = {
        "corpus": {"doc_id": [], "image": []},
        "queries": {"query_id": [], "text": []},
        "qrels": {"query_id": [], "doc_id": [], "score": []},
    }
    with pytest.raises(DataError, match=r"\[empty-split\]: there are no rows") as caught:
        load(write_corpus(tmp_path / "pages", **{table: empty[table]}))
    assert caught.value.where.endswith(f"/{table}.parquet")


def test_judgements_of_unknown_ids_are_counted_and_named(tmp_path, write_corpus):
    folder = write_corpus(
        tmp_path / "pages",
        qrels={
            "query_id": ["q0", "q1", "q1", "q2", "q2"],
            "doc_id": ["x1", "x1", "x2", "x3", "x4"],
            "score": [1] * 5,
        },
    )
    with pytest.raises(DataError) as caught:
        load(folder)
    assert str(caught.value) == (
        "DataError [unknown-id]: qrels name 4 page ids that the corpus does not have.\n"
        f"  where     {tmp_path.name}/pages, qrels\n"
        "  received  'x1', 'x2', 'x3', …\n"
        "  expected  ids of the corpus, such as 'p0'"
    )
    folder = write_corpus(
        tmp_path / "others", qrels={"query_id": ["q9"], "doc_id": ["p0"], "score": [1]}
    )
    with pytest.raises(DataError, match="qrels name 1 query id that the queries do not have"):
        load(folder)


def test_of_ids_that_occur_twice_the_first_is_kept(tmp_path, write_corpus, png):
    collection = load(
        write_corpus(
            tmp_path / "pages",
            corpus={"doc_id": ["p0", "p1", "p0"], "image": [png(0), png(1), png(2)]},
            queries={"query_id": ["q0", "q0"], "text": ["how", "what"]},
            qrels={"query_id": ["q0"], "doc_id": ["p0"], "score": [1]},
        )
    )
    assert collection.page_ids == ["p0", "p1"]
    assert collection.page_image(0).getpixel((0, 0)) == (0, 0, 0)
    assert [query.text for query in collection.queries] == ["how"]
    assert collection.left_out == {"duplicate-id": 2}
    assert [found.message for found in collection.findings] == [
        "row 2 of corpus has the id of row 0",
        "row 1 of queries has the id of row 0",
    ]


def test_a_judgement_written_twice_counts_once(tmp_path, write_corpus):
    qrels = {"query_id": ["q0", "q0"], "doc_id": ["p1", "p1"], "score": [1, 1]}
    collection = load(write_corpus(tmp_path / "pages", qrels=qrels))
    assert len(collection.rows) == 1
    assert collection.left_out == {"repeated-judgement": 1}


def test_two_different_judgements_of_a_pair_are_refused(tmp_path, write_corpus):
    qrels = {"query_id": ["q0", "q0"], "doc_id": ["p1", "p1"], "score": [1, 0]}
    with pytest.raises(DataError, match=r"\[two-judgements\]") as caught:
        load(write_corpus(tmp_path / "pages", qrels=qrels))
    assert caught.value.received == "query 'q0', page 'p1': 1 and 0"


def test_a_score_must_be_a_whole_number(tmp_path, write_corpus):
    for name, score in (("half", 0.5), ("nan", float("nan")), ("text", "yes"), ("none", None)):
        qrels = {"query_id": ["q0"], "doc_id": ["p1"], "score": [score]}
        with pytest.raises(DataError, match=r"\[bad-score\]") as caught:
            load(write_corpus(tmp_path / name, qrels=qrels))
        assert caught.value.received == repr(score)


def test_a_query_without_text_is_left_out_with_its_judgements(tmp_path, write_corpus):
    queries = {"query_id": ["q0", "q1", "q2"], "text": ["how", " ", None]}
    collection = load(write_corpus(tmp_path / "pages", queries=queries))
    assert [query.id for query in collection.queries] == ["q0"]
    assert collection.qrels == {"q0": {"p1": 1}}
    # Two judgements of q1 are rows that are lost; q2 was judged, and answers nothing.
    assert collection.left_out == {"empty-query": 3}
    assert [(f.row, f.page, f.query) for f in collection.findings] == [
        (1, "p2", "q1"),
        (2, "p3", "q1"),
        (None, None, "q2"),
    ]


def test_negatives_beside_a_corpus_go_to_the_rows_of_their_query(
    tmp_path, write_corpus, write_table
):
    folder = write_corpus(tmp_path / "pages")
    write_table(
        folder / "negatives.parquet",
        query_id=["q1", "q0", "q1", "q1", "q1"],
        page_id=["p0", "p3", "p3", "p1", "p0"],
        rank=[3, 1, 1, 2, 4],
        score=[0.5, 0.9, 0.8, 0.7, 0.1],
    )
    collection = load(folder)
    assert collection.layout == "negatives"
    # p3 answers q1, so it is dropped; p0 is named twice and counts once.
    assert [row.negatives for row in collection.rows] == [(3,), (1, 0), (1, 0)]
    assert collection.left_out == {"false-negative": 2}
    plain = load(write_corpus(tmp_path / "plain" / "pages")).fingerprint()["hash"]
    assert collection.fingerprint()["hash"] != plain
    write_table(folder / "negatives.parquet", query_id=["q1"], page_id=["p9"])
    with pytest.raises(DataError, match="negatives name 1 page id that the corpus does not have"):
        load(folder)
