"""Thirty bad rows of every kind among good ones."""

import json
import pickle

import broken_pages
import pytest

from coltrain.data import check_collection, concatenate, load_collection
from coltrain.data.drawn import drawn_collection
from coltrain.errors import DataError
from coltrain.recipe.source import Source

LONG = " ".join(f"word{i}" for i in range(10_000))
PLANTED = {
    "truncated": 3,
    "not-an-image": 3,
    "decompression-bomb": 2,
    "zero-sized": 3,
    "extremely-wide": 2,
    "empty-query": 3,
    "duplicate-id": 2,
    "cmyk": 2,
    "16-bit": 2,
    "animated": 3,
    "transparent": 3,
    "long-query": 2,
}


@pytest.fixture
def planted(tmp_path, write_table):
    """A corpus of 60 rows, 30 of them bad in one of twelve ways; the last page has no row."""
    pages, texts = [], []
    for kind, number in PLANTED.items():
        files = broken_pages.BROKEN.get(kind) or broken_pages.CONVERTED.get(kind) or []
        for place in range(number):
            pages.append(files[place] if files else broken_pages.encoded(broken_pages.noise(99)))
            text = {"empty-query": [None, "", " \n"], "long-query": [LONG, LONG + "!"]}.get(kind)
            texts.append(text[place] if text else f"about {kind} {place}")
    num_bad = len(pages)
    assert num_bad == 30
    for place in range(30):
        pages.append(broken_pages.encoded(broken_pages.noise(200 + place)))
        texts.append(f"good {place}")
    pages.append(broken_pages.BROKEN["truncated"][4])
    page_ids = [f"p{place}" for place in range(len(pages))]
    query_ids = [f"q{place}" for place in range(len(texts))]
    first_duplicate = texts.index("about duplicate-id 0")
    page_ids[first_duplicate] = "p0"
    query_ids[first_duplicate + 1] = "q1"
    write_table(tmp_path / "corpus.parquet", doc_id=page_ids, image=pages)
    write_table(tmp_path / "queries.parquet", query_id=query_ids, text=texts)
    write_table(
        tmp_path / "qrels.parquet",
        query_id=[*query_ids, "q40", "q41"],
        doc_id=[*page_ids[:-1], "p60", "p41"],
        score=[1] * 60 + [0, 1],
    )
    return load_collection(Source(path=str(tmp_path)), "train")


def test_thirty_planted_rows_are_found_under_their_kinds(planted):
    checked = check_collection(planted, max_broken_share=1.0)
    record = checked.record
    # The row whose page has the id p0 once more asks the truncated p0; the judgement of the query
    # that has the id q1 once more is q1's. One more truncated page has no row.
    assert record["left_out"] == {
        "truncated": 3 + 1 + 1,
        "not-an-image": 3,
        "decompression-bomb": 2,
        "zero-sized": 3,
        "extremely-wide": 2,
        "empty-query": 3,
        "duplicate-id": 2,
    }
    assert record["converted"] == {
        kind: PLANTED[kind] for kind in ("16-bit", "animated", "cmyk", "long-query", "transparent")
    }
    assert record["pages_read"] == len(planted.page_ids) == 60
    assert sum(record["left_out"].values()) == len(record["rows"])
    assert json.loads(json.dumps(record)) == record


def test_what_is_left_is_whole(planted):
    used = check_collection(planted, max_broken_share=1.0).collection
    assert not any(query.text.strip() == "" for query in used.queries)
    assert {len(query.text.split()) for query in used.queries} >= {512}
    for index in range(len(used.page_ids)):
        assert used.page_image(index).mode == "RGB"
    assert {query.text for query in used.queries} >= {f"good {i}" for i in range(30)}
    for row in used.rows:
        page_id, query = used.page_ids[row.page], used.queries[row.query]
        assert used.qrels[query.id][page_id] >= 1
        # The page is still the one that stood behind the id before.
        before = planted.page_image(planted.page_ids.index(page_id))
        assert used.page_image(row.page).tobytes() == before.tobytes()
    assert all(page in used.page_ids for judged in used.qrels.values() for page in judged)
    assert check_collection(used).collection is used
    assert pickle.loads(pickle.dumps(used)).fingerprint() == used.fingerprint()


def test_each_row_that_is_left_out_is_listed(planted):
    rows = check_collection(planted).record["rows"]
    assert {
        "row": 3,
        "page": "p3",
        "query": "q3",
        "kind": "not-an-image",
        "message": "5 bytes that Pillow cannot decode",
    } in rows
    lone = [found for found in rows if found["page"] == "p60"]
    assert [(found["row"], found["query"], found["kind"]) for found in lone] == [
        (None, None, "truncated")
    ]


def test_judgements_on_broken_pages_go_and_are_counted(planted):
    checked = check_collection(planted)
    assert "p60" in planted.qrels["q40"]
    assert "p60" not in checked.collection.qrels["q40"]
    broken = set(planted.page_ids) - set(checked.collection.page_ids)
    judged = [page for judged in planted.qrels.values() for page in judged if page in broken]
    assert checked.record["judgements_left_out"] == len(judged) > len(broken) - 1


def test_workers_change_nothing_and_every_page_is_reported(planted):
    seen = []
    alone = check_collection(planted, on_item=lambda: seen.append(1))
    together = check_collection(planted, num_workers=2)
    assert len(seen) == len(planted.page_ids)
    assert together.record == alone.record
    assert together.collection.fingerprint() == alone.collection.fingerprint()


def test_the_fingerprint_is_that_of_what_is_used(planted):
    used = check_collection(planted).collection
    before, after = planted.fingerprint(), used.fingerprint()
    assert after["hash"] != before["hash"]
    assert after["rows"] == len(used.rows) < before["rows"]
    assert after["pages"] == len(used.page_ids)
    assert after["left_out"]["not-an-image"] == 3


def test_more_than_the_share_is_an_error_with_the_kinds(planted):
    with pytest.raises(DataError) as caught:
        check_collection(planted, max_broken_share=0.05)
    assert caught.value.code == "too-many-broken-rows"
    assert "truncated 5, empty-query 3, not-an-image 3, zero-sized 3" in caught.value.received
    assert caught.value.expected == "at most 0.05 of them, data.max_broken_share"
    share = check_collection(planted).record["share_left_out"]
    assert check_collection(planted, max_broken_share=share + 1e-6)
    with pytest.raises(DataError, match="too-many-broken-rows"):
        check_collection(planted, max_broken_share=share - 1e-6)


def test_a_record_saves_the_second_look(planted, monkeypatch):
    checked = check_collection(planted)
    monkeypatch.setattr("coltrain.data.check._examine", None)
    again = check_collection(planted, earlier=json.loads(json.dumps(checked.record)))
    assert again.record == checked.record
    assert again.collection.fingerprint() == checked.collection.fingerprint()
    with pytest.raises(TypeError):
        check_collection(planted, earlier=checked.record | {"hash": "of something else"})


def test_a_good_collection_stays_the_same_object(tmp_path, write_corpus):
    collection = load_collection(Source(path=str(write_corpus(tmp_path / "a"))), "train")
    checked = check_collection(collection, max_broken_share=0.0)
    assert checked.collection is collection
    assert checked.record["left_out"] == checked.record["converted"] == {}
    assert checked.record["share_left_out"] == 0


@pytest.mark.slow
def test_drawn_pages_are_not_looked_at(tmp_path, write_corpus):
    drawn = drawn_collection("dev")
    assert check_collection(drawn).record["pages_read"] == 0
    stored = load_collection(Source(path=str(write_corpus(tmp_path / "a"))), "train")
    both = concatenate([drawn, stored])
    assert check_collection(both).record["pages_read"] == len(stored.page_ids)


def test_broken_negatives_leave_their_rows(tmp_path, write_corpus, write_table, png):
    folder = write_corpus(
        tmp_path / "a",
        corpus={"doc_id": ["p0", "p1", "p2", "p3"], "image": [png(0), png(1), png(2), b"x"]},
        qrels={"query_id": ["q0", "q1"], "doc_id": ["p1", "p2"], "score": [1, 1]},
    )
    write_table(folder / "negatives.parquet", query_id=["q0", "q0"], page_id=["p3", "p2"])
    checked = check_collection(load_collection(Source(path=str(folder)), "train"))
    assert [row.negatives for row in checked.collection.rows] == [(2,), ()]
    assert checked.record["negatives_left_out"] == 1
    assert checked.record["share_left_out"] == 0.25  # a page of four; no row is lost


def test_rows_without_a_query_count_as_left_out(tmp_path, write_table, png):
    write_table(
        tmp_path / "rows.parquet",
        query=["how", None, "what", "why"],
        image=[png(i) for i in range(3)] + [b"hello"],
        image_filename=list("abcd"),
    )
    record = check_collection(load_collection(Source(path=str(tmp_path)), "train")).record
    assert record["left_out"] == {"empty-query": 1, "not-an-image": 1}
    assert [found["row"] for found in record["rows"]] == [1, 3]
    assert record["share_left_out"] == 0.5


def test_texts_that_become_equal_share_their_answers(tmp_path, write_table, png):
    write_table(
        tmp_path / "rows.parquet",
        query=[LONG, LONG + " more"],
        image=[png(0), png(1)],
        image_filename=["a", "b"],
    )
    used = check_collection(load_collection(Source(path=str(tmp_path)), "train")).collection
    assert set(used.relevant_pages.values()) == {frozenset({0, 1})}


def _die(self, index):
    import os

    os._exit(9)


@pytest.mark.slow
def test_a_worker_that_dies_is_named_with_its_page(tmp_path, write_corpus, monkeypatch):
    collection = load_collection(Source(path=str(write_corpus(tmp_path / "a"))), "train")
    monkeypatch.setattr("coltrain.data.images.StoredImages.examine", _die)
    with pytest.raises(DataError, match=r"\[worker-died\]") as caught:
        check_collection(collection, num_workers=1)
    assert "page 'p0' (number 0 of the corpus)" in caught.value.where
