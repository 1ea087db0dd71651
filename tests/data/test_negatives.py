import numpy as np
import pytest

from coltrain.data import negative_mask


def ignored_pairs(mask) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in np.argwhere(mask.ignore)}


def test_without_duplicates_every_other_page_is_a_negative(make_collection):
    mask = negative_mask(make_collection([("a", 0), ("b", 1), ("c", 2)]), [2, 0, 1])
    assert ignored_pairs(mask) == set()
    assert mask.candidates_per_query == [3, 3, 3]
    assert mask.masked_duplicates == 0


def test_two_queries_of_one_page_are_not_each_others_negatives(make_collection):
    mask = negative_mask(make_collection([("a", 0), ("b", 1), ("c", 0)]), [0, 1, 2])
    assert ignored_pairs(mask) == {(0, 2), (2, 0)}
    assert mask.candidates_per_query == [2, 3, 2]
    assert mask.masked_duplicates == 2


def test_the_same_question_twice_keeps_both_pages_from_being_negatives(make_collection):
    collection = make_collection([("How many?", 0), ("b", 1), ("  how  MANY? ", 2)])
    assert ignored_pairs(negative_mask(collection, [0, 1, 2])) == {(0, 2), (2, 0)}


def test_an_answer_judged_elsewhere_in_the_data_is_no_negative(make_collection):
    # Row 2 asks what row 0 asks, and is not in the batch: its page 2 comes with row 3.
    collection = make_collection([("a", 0), ("b", 1), ("a", 2), ("c", 2)])
    mask = negative_mask(collection, [0, 1, 3])
    assert ignored_pairs(mask) == {(0, 2)}
    assert mask.candidates_per_query == [2, 3, 3]


def test_a_judgement_without_a_row_counts_and_a_score_of_zero_does_not(make_collection):
    qrels = {"0": {"p0": 1, "p1": 1, "p2": 0}}
    collection = make_collection([("a", 0), ("b", 1), ("c", 2)], qrels=qrels)
    assert ignored_pairs(negative_mask(collection, [0, 1, 2])) == {(0, 1)}


def test_the_same_row_twice_is_masked_but_never_its_own_page(make_collection):
    mask = negative_mask(make_collection([("a", 0), ("b", 1)]), [0, 0, 1])
    assert ignored_pairs(mask) == {(0, 1), (1, 0)}
    assert not mask.ignore.diagonal().any()


def test_groups_meet_only_their_own_pages_and_count_their_own_duplicates(make_collection):
    pairs = [("a", 0), ("b", 0), ("c", 1), ("d", 0), ("e", 2)]
    mask = negative_mask(make_collection(pairs), range(5), group_size=2)
    # Groups {0, 1}, {2, 3}, {4}: inside, only 0 and 1 share a page; 3 shares theirs outside.
    assert ignored_pairs(mask) == {
        (i, j) for i in range(5) for j in range(5) if i // 2 != j // 2
    } | {(0, 1), (1, 0)}
    assert mask.candidates_per_query == [1, 1, 2, 2, 1]
    assert mask.masked_duplicates == 2


@pytest.mark.parametrize("group_size", [None, 2, 3, 7])
def test_the_mask_equals_a_slow_loop(make_collection, group_size):
    draws = np.random.default_rng(0)
    pairs = [(f"text {t}", int(p)) for t, p in draws.integers(0, 9, (40, 2))]
    collection = make_collection(pairs)
    rows = draws.permutation(40)[:16]
    expected = np.zeros((16, 16), dtype=bool)
    for i in range(16):
        for j in range(16):
            text, page = pairs[rows[i]][0], pairs[rows[j]][1]
            answers = (text, page) in pairs or page == pairs[rows[i]][1]
            other_group = group_size is not None and i // group_size != j // group_size
            expected[i, j] = i != j and (answers or other_group)
    mask = negative_mask(collection, rows, group_size)
    assert mask.masked_duplicates > 0
    assert np.array_equal(mask.ignore, expected)
    assert mask.candidates_per_query == (16 - expected.sum(axis=1)).tolist()
