import pickle

import pytest

from coltrain.data import Collection, Query, Row, concatenate
from coltrain.data.collection import comparable
from coltrain.errors import DataError


def test_ids_must_tell_pages_and_queries_apart(make_collection):
    good = make_collection([("a", 0), ("b", 1)])
    with pytest.raises(DataError) as caught:
        Collection("scans", "rows", ["p", "p"], good.queries, good.rows, {}, good.images)
    assert str(caught.value) == (
        "DataError [duplicate-id]: a page id occurs more than once.\n"
        "  where     scans\n"
        "  received  'p'\n"
        "  expected  every page with an id of its own"
    )
    queries = [Query("q", "a"), Query("q", "b")]
    with pytest.raises(DataError, match=r"\[duplicate-id\]: a query id occurs"):
        Collection("scans", "rows", ["p0", "p1"], queries, good.rows, {}, good.images)


def test_a_fingerprint_says_what_a_data_set_is(make_collection):
    fingerprint = make_collection([("a", 0), ("b", 2), ("a", 2)], revision="1f").fingerprint()
    assert len(fingerprint.pop("hash")) == 64
    assert fingerprint == {
        "name": "pairs",
        "layout": "rows",
        "revision": "1f",
        "rows": 3,
        "rows_per_source": {"pairs": 3},
        "distinct_pages": 2,
        "distinct_queries": 2,
        "pages": 3,
        "left_out": {},
    }


def test_the_hash_sees_ids_texts_order_and_judgements(make_collection):
    pairs = [("a", 0), ("b", 1)]
    qrels = {"0": {"p0": 1}, "1": {"p1": 1}}
    collections = [
        make_collection(pairs, qrels=qrels),
        make_collection([("a", 0), ("b ", 1)], qrels=qrels),
        make_collection([("b", 1), ("a", 0)], qrels=qrels),
        make_collection(pairs, qrels={**qrels, "1": {"p1": 2}}),
        make_collection([("a", 0), ("b", 0), ("b", 1)], qrels=qrels),
    ]
    hashes = [collection.fingerprint()["hash"] for collection in collections]
    assert len(set(hashes)) == len(hashes)
    assert make_collection(pairs, qrels=qrels, name="pairs").fingerprint()["hash"] == hashes[0]


def test_the_hash_never_changes(make_collection):
    # Golden: recorded runs are compared by it.
    digest = make_collection([("é", 0), ("b", 1)]).fingerprint()["hash"]
    assert digest[:16] == "79457284b68e035d"


def test_a_collection_pickles_without_what_it_computed(make_collection):
    collection = make_collection([("a", 0), ("b", 1)])
    size = len(pickle.dumps(collection))
    assert collection.relevant_pages == {"a": frozenset({0}), "b": frozenset({1})}
    assert len(pickle.dumps(collection)) == size
    copy = pickle.loads(pickle.dumps(collection))
    assert copy.fingerprint() == collection.fingerprint()
    assert copy.relevant_pages == collection.relevant_pages
    assert copy.page_image(1).getpixel((0, 0)) == (1, 0, 0)


def test_texts_compare_without_case_and_white_space():
    assert comparable("  What\tIS \n this ") == comparable("what is this")
    assert comparable("STRASSE") == comparable("straße")
    assert comparable("what is") != comparable("whatis")


def test_ids_that_clash_get_their_collections_name(make_collection):
    left = make_collection([("a", 0), ("b", 1)], name="left")
    right = make_collection([("a", 0), ("c", 2)], name="right")
    both = concatenate([left, right])
    assert both.name == "left + right"
    assert both.page_ids == ["left/p0", "left/p1", "right/p0", "right/p1", "p2"]
    assert [query.id for query in both.queries] == ["left/0", "left/1", "right/0", "right/1"]
    assert both.rows == [
        Row(0, 0, "left"),
        Row(1, 1, "left"),
        Row(2, 2, "right"),
        Row(3, 4, "right"),
    ]
    assert both.qrels["right/1"] == {"p2": 1}
    assert both.fingerprint()["rows_per_source"] == {"left": 2, "right": 2}
    # The same question in both: neither's page may become the other's negative.
    assert both.relevant_pages["a"] == {0, 2}


def test_pages_of_a_concatenation_are_those_of_its_parts(make_collection):
    parts = [make_collection([("a", 1)], name=name) for name in ("one", "two", "three")]
    both = concatenate(parts)
    reds = [both.page_image(index).getpixel((0, 0))[0] for index in range(len(both.page_ids))]
    assert reds == [0, 1, 0, 1, 0, 1]
    with pytest.raises(IndexError):
        both.page_image(6)


def test_two_sources_of_one_name_stay_apart(make_collection):
    part = make_collection([("a", 0)], name="pages/train")
    assert concatenate([part, part]).page_ids == ["pages/train/p0", "pages/train#2/p0"]


def test_what_was_left_out_adds_up(make_collection):
    parts = [make_collection([("a", 0)], name=n, left_out={"why": 2}) for n in ("one", "two")]
    assert concatenate(parts).left_out == {"why": 4}


def test_one_collection_stays_as_it_is(make_collection):
    collection = make_collection([("a", 0)])
    assert concatenate([collection]) is collection
