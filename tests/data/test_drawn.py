import hashlib
import json
from itertools import pairwise

import numpy as np
import pytest

from coltrain.data.drawn import drawn_collection
from coltrain.data.drawn import hardness as hardness_module
from coltrain.data.drawn.hardness import hardness
from coltrain.data.drawn.page import CELL, SIDE, draw, lay_out, text_length
from coltrain.data.drawn.text import (
    GRAM_LENGTH,
    STOP_WORDS,
    documents,
    grams,
    normalise,
    training_grams,
)
from coltrain.data.drawn.windows import drawn_pages
from coltrain.errors import DataError

# Of the words and queries, not of pixels, which another FreeType may draw otherwise. A change here
# changes every number that was ever measured on these pages.
GOLDEN = {
    "dev": (100, "cb5600c5f4177ff4"),
    "test": (240, "ec82735cda215e7f"),
    "train": (3937, "e7d7c98c90a4fbf2"),
}


def fingerprint(split: str) -> str:
    pages = [[page.query, [word.text for word in page.words]] for page in drawn_pages(split)]
    return hashlib.sha256(json.dumps(pages).encode()).hexdigest()[:16]


@pytest.mark.parametrize("split", ["dev", "test", pytest.param("train", marks=pytest.mark.slow)])
def test_the_words_and_queries_of_a_split_never_change(split):
    assert (len(drawn_pages(split)), fingerprint(split)) == GOLDEN[split]


def test_whole_documents_go_to_one_split_each():
    of_splits = {split: set(documents(split)) for split in ("train", "dev", "test")}
    sizes = {split: len(texts) for split, texts in of_splits.items()}
    assert sizes["train"] > 5 * sizes["test"] > 5 * sizes["dev"] > 0
    assert of_splits["train"].isdisjoint(of_splits["test"] | of_splits["dev"])
    assert of_splits["dev"].isdisjoint(of_splits["test"])


def words_of(split: str) -> list[list[str]]:
    return [[word.text for word in page.words] for page in drawn_pages(split)]


def plain_grams(words: list[str], length: int) -> set[str]:
    """Runs of words, compared in lower case with letters and digits only."""
    kept = ["".join(c for c in w.lower() if c.isalnum() or c in "'-") for w in words]
    kept = [word for word in kept if word]
    return {" ".join(kept[n : n + length]) for n in range(len(kept) - length + 1)}


def test_test_pages_are_many_and_full():
    pages = words_of("test")
    assert len(pages) >= 200
    assert min(map(len, pages)) >= 20


@pytest.mark.parametrize("split", ["dev", "test"])
def test_no_six_words_in_a_row_were_met_in_training(split):
    met = set().union(*(plain_grams(list(document), 6) for document in documents("train")))
    assert len(met) > 100_000
    assert not any(met & plain_grams(page, 6) for page in words_of(split))
    # The test can tell: shorter runs are shared, and training pages share theirs.
    some = list(documents("train")[0])
    assert met & plain_grams(some, 6)
    shorter = set().union(*(plain_grams(list(document), 3) for document in documents("train")))
    assert any(shorter & plain_grams(page, 3) for page in words_of(split))


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_words_of_a_query_stand_together_on_its_page_alone(split):
    bags = [{normalise(word) for word in page} for page in words_of(split)]
    for number, page in enumerate(drawn_pages(split)):
        words = page.query.split()
        assert 2 <= len(words) <= 4
        assert len(set(words)) == len(words)
        assert not STOP_WORDS & set(words)
        assert [n for n, bag in enumerate(bags) if set(words) <= bag] == [number]


def test_queries_of_every_length_are_asked():
    lengths = [len(page.query.split()) for page in drawn_pages("test")]
    assert {2, 3, 4} == set(lengths)
    assert min(lengths.count(length) for length in (2, 3, 4)) > 40


def test_the_hardness_that_the_demo_prints_is_counted_right():
    found = hardness("test")
    assert found.num_pages == len(drawn_pages("test"))
    assert found.fewest_words == min(map(len, words_of("test")))
    assert found.pages_sharing_training_text == 0
    assert found.query_lengths == (2, 4)
    assert found.queries_on_several_pages == 0


def test_the_hardness_sees_an_easy_split(monkeypatch):
    page = drawn_pages("test")[0]
    known = lay_out(documents("train")[0][:40])
    twice = [page, page, type(page)(tuple(known), page.query)]
    monkeypatch.setattr(hardness_module, "drawn_pages", lambda split: twice)
    found = hardness("test")
    assert found.pages_sharing_training_text == 1
    assert found.queries_on_several_pages >= 2


def test_grams_are_runs_of_six_normalised_words():
    words = ("One,", "two", "(three)", "--", "four!", "Five", "six", "Seven")
    assert GRAM_LENGTH == 6
    assert grams(words) == {
        ("one", "two", "three", "--", "four", "five"),
        ("two", "three", "--", "four", "five", "six"),
        ("three", "--", "four", "five", "six", "seven"),
    }
    assert next(iter(grams(documents("train")[0]))) in training_grams()


def test_words_stand_in_reading_order_at_squares_without_touching():
    words = documents("train")[3][:64]
    placed = lay_out(words)
    assert [word.text for word in placed] == list(words[: len(placed)])
    assert all(word.left % CELL == 0 for word in placed)
    for first, second in pairwise(placed):
        assert second.line in (first.line, first.line + 1)
        if second.line == first.line:
            assert second.left >= first.left + text_length(first.text)
        else:
            assert second.left == 0
    assert placed[-1].line == SIDE // CELL - 1


def test_a_page_is_drawn_where_its_words_stand():
    placed = lay_out(documents("train")[3][:64])
    page = np.asarray(draw(placed))
    assert page.shape == (SIDE, SIDE)
    for word in placed:
        square = page[word.line * CELL : (word.line + 1) * CELL, word.left : word.left + CELL]
        assert square.min() < 100, f"{word.text} cannot be seen"
    blank = np.asarray(draw([]))
    assert (blank == 255).all()
    without_last = np.asarray(draw(placed[:-1]))
    rows, columns = np.nonzero(page != without_last)
    last = placed[-1]
    assert rows.min() >= last.line * CELL
    assert columns.min() >= last.left


def test_a_drawn_page_is_the_same_each_time():
    collection = drawn_collection("dev")
    first, second = collection.page_image(5), drawn_collection("dev").page_image(5)
    assert first.mode == "RGB"
    assert first.size == (SIDE, SIDE)
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != collection.page_image(6).tobytes()


def test_drawn_pages_are_a_data_set_like_any_other():
    collection = drawn_collection("test")
    assert collection.name == "tiny:test"
    assert collection.page_ids[:2] == ["test-page-0000", "test-page-0001"]
    assert [query.text for query in collection.queries] == [p.query for p in drawn_pages("test")]
    assert collection.qrels["test-query-0007"] == {"test-page-0007": 1}
    assert [(row.query, row.page) for row in collection.rows] == [(n, n) for n in range(240)]
    assert collection.fingerprint()["rows_per_source"] == {"drawn": 240}


def test_a_split_that_is_not_drawn_is_refused():
    with pytest.raises(DataError) as caught:
        drawn_collection("validation")
    assert str(caught.value) == (
        "DataError [unknown-split]: there are no drawn pages of this name.\n"
        "  received  tiny:validation\n"
        "  expected  tiny:train, tiny:dev, tiny:test"
    )
