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


def test_shared_negatives_stand_behind_the_pages_and_follow_the_rules(make_collection):
    # Pages 3 to 5 are hard negatives; page 4 answers "c" by a judgement.
    qrels = {"0": {"p0": 1}, "1": {"p1": 1}, "2": {"p2": 1, "p4": 1}}
    pairs = [("a", 0), ("b", 1), ("c", 2), ("d", 5)]
    collection = make_collection(pairs, qrels=qrels)
    mask = negative_mask(collection, [0, 1, 2], shared_negatives=[(3, 4), (3, 1), (5, 0)])
    expected = [
        # pages 0 1 2 | 3 4  3 1  5 0
        [0, 0, 0, 0, 0, 1, 1, 0, 1],  # 3 and 1 are candidates already, 0 is its own page
        [0, 0, 0, 0, 0, 1, 1, 0, 1],
        [0, 0, 0, 0, 1, 1, 1, 0, 1],  # 4 answers it
    ]
    assert mask.ignore.astype(int).tolist() == expected
    assert mask.candidates_per_query == [6, 6, 5]
    assert mask.masked_duplicates == 10


def test_a_planted_false_negative_is_masked_by_its_text(make_collection):
    collection = make_collection([("How many?", 0), ("b", 1), (" how MANY?", 2)])
    mask = negative_mask(collection, [0, 1], shared_negatives=[(), (2,)])
    assert mask.ignore[:, 2].tolist() == [True, False]


def test_shared_negatives_stay_in_their_group(make_collection):
    collection = make_collection([("a", 0), ("b", 1), ("c", 2), ("d", 3), ("e", 5)])
    mask = negative_mask(collection, range(4), 2, shared_negatives=[(4,), (), (4,), (5,)])
    assert mask.ignore[:, 4:].tolist() == [
        [False, True, True],
        [False, True, True],
        [True, False, False],
        [True, False, False],
    ]
    assert mask.masked_duplicates == 0
    with pytest.raises(ValueError, match="Hard negatives of 1 rows for a batch of 4"):
        negative_mask(collection, range(4), shared_negatives=[(4,)])


@pytest.mark.parametrize("group_size", [None, 3])
def test_the_mask_of_shared_negatives_equals_a_slow_loop(make_collection, group_size):
    draws = np.random.default_rng(1)
    pairs = [(f"text {t}", int(p)) for t, p in draws.integers(0, 12, (30, 2))] + [("last", 19)]
    collection = make_collection(pairs)
    rows = draws.permutation(30)[:9].tolist()
    shared = [tuple(draws.integers(0, 20, int(n)).tolist()) for n in draws.integers(0, 4, 9)]
    columns = [(place, pairs[row][1], False) for place, row in enumerate(rows)]
    columns += [(place, page, True) for place, pages in enumerate(shared) for page in pages]
    expected = np.zeros((9, len(columns)), dtype=bool)
    for i, row in enumerate(rows):
        text, own = pairs[row]
        candidates = set()
        for column, (owner, page, is_hard) in enumerate(columns):
            if not is_hard and owner == i:
                continue
            is_outside = group_size is not None and owner // group_size != i // group_size
            is_answer = page == own or (text, page) in pairs
            expected[i, column] = is_outside or is_answer or (is_hard and page in candidates)
            if not expected[i, column]:
                candidates.add(page)
    mask = negative_mask(collection, rows, group_size, shared)
    assert np.array_equal(mask.ignore, expected)
    assert mask.candidates_per_query == (len(columns) - expected.sum(axis=1)).tolist()
