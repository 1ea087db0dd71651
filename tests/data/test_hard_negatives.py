"""Which hard negatives a row has, and which of them a step uses."""

import subprocess
import sys
from dataclasses import replace

import pytest

from coltrain.data import choose_negatives, concatenate, require_negatives
from coltrain.data.hard_negatives import without_false_negatives
from coltrain.errors import DataError


@pytest.fixture
def with_negatives(make_collection):
    """A collection whose rows have the given hard negatives."""

    def make(pairs, negatives, **more):
        collection = make_collection(pairs, **more)
        rows = [replace(r, negatives=n) for r, n in zip(collection.rows, negatives, strict=True)]
        return replace(collection, rows=rows)

    return make


def choose(collection, rows, per_query, seed=0, epoch=0, **more):
    return choose_negatives(collection, rows, per_query=per_query, seed=seed, epoch=epoch, **more)


def test_a_planted_false_negative_is_dropped_and_counted(with_negatives):
    qrels = {"0": {"p0": 1, "p3": 1, "p4": 0}, "1": {"p1": 1}, "2": {"p2": 1}}
    pairs = [("How many?", 0), ("b", 1), (" how MANY", 2), ("how many?", 4), ("z", 6)]
    collection = without_false_negatives(
        with_negatives(pairs, [(0, 3, 5, 4, 5), (0,), (), (), ()], qrels=qrels)
    )
    # 0 is its own page, 3 is judged, 4 answers the same text in another row, 5 is named twice.
    assert [row.negatives for row in collection.rows] == [(5,), (0,), (), (), ()]
    assert collection.left_out == {"false-negative": 3}
    assert without_false_negatives(collection) is collection


def test_the_choice_is_a_pure_function_of_seed_epoch_and_row(with_negatives):
    pool = tuple(range(1, 31))
    pairs = [("a", 0), ("b", 0), ("c", 30)]
    collection = with_negatives(pairs, [pool, pool, ()])
    together = choose(collection, [0, 1], 4)
    assert together == [choose(collection, [0], 4)[0], choose(collection, [1], 4)[0]]
    assert together[0] != together[1]
    assert together != choose(collection, [0, 1], 4, epoch=1)
    assert together != choose(collection, [0, 1], 4, seed=1)
    for chosen in together:
        assert len(set(chosen)) == 4
        assert list(chosen) == sorted(chosen)  # the hardest first
    # Golden: a choice that changed would change recorded runs.
    assert together == [(3, 4, 8, 24), (1, 8, 11, 21)]


@pytest.mark.slow
def test_no_random_state_is_read(with_negatives):
    script = (
        "import random, numpy, torch\n"
        "before = (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state())\n"
        "from coltrain.data.counter_hash import order\n"
        "order(9, 1, 2, 3)\n"
        "assert before[0] == random.getstate()\n"
        "assert before[1] == numpy.random.get_state()[1].tolist()\n"
        "assert torch.equal(before[2], torch.get_rng_state())\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_over_many_epochs_every_negative_comes_about_as_often(with_negatives):
    collection = with_negatives([("a", 0), ("z", 5)], [(1, 2, 3, 4, 5), ()])
    counts = dict.fromkeys(range(1, 6), 0)
    for epoch in range(500):
        for page in choose(collection, [0], 2, epoch=epoch)[0]:
            counts[page] += 1
    assert all(150 < count < 250 for count in counts.values())


def test_only_the_hardest_are_drawn_where_that_is_asked(with_negatives):
    collection = with_negatives([("a", 0), ("z", 9)], [(9, 8, 7, 6, 5, 4), ()])
    drawn = {
        page
        for epoch in range(50)
        for page in choose(collection, [0], 1, epoch=epoch, among_first=2)[0]
    }
    assert drawn == {9, 8}


def test_a_row_with_fewer_uses_its_own_again_or_gives_those_it_has(with_negatives):
    collection = with_negatives([("a", 0), ("b", 3), ("z", 3)], [(1, 2), (), (1,)])
    assert choose(collection, [0, 1], 3) == [(1, 2, 1), ()]
    assert choose(collection, [0, 1], 3, fill=False) == [(1, 2), ()]


def test_rows_without_negatives_are_left_out_and_those_with_few_counted(with_negatives):
    collection = with_negatives([("a", 0), ("b", 3), ("z", 3)], [(1, 2), (), (1,)])
    kept, counts = require_negatives(collection, 2)
    assert [kept.queries[row.query].text for row in kept.rows] == ["a", "z"]
    assert (counts.rows, counts.fewer, counts.none) == (2, 1, 1)
    assert kept.left_out == {"no-negatives": 1}
    assert kept.findings[-1].query == "1"
    assert require_negatives(collection, 2, among_first=1)[1].fewer == 2
    assert require_negatives(kept, 1)[0] is kept


def test_data_without_any_negative_are_refused(make_collection):
    with pytest.raises(DataError) as caught:
        require_negatives(make_collection([("a", 0), ("b", 1)], name="scans"), 1)
    assert str(caught.value) == (
        "DataError [no-hard-negatives]: the loss wants hard negatives, and the training data has "
        "none.\n"
        "  where     scans\n"
        "  received  2 rows without negatives\n"
        "  expected  rows with the ids of hard negatives, such as `coltrain mine` writes\n"
        "  try       coltrain mine DATA --with MODEL --out DATA2, or a loss without them"
    )


def test_negatives_move_with_their_pages_into_a_mixture(with_negatives):
    left = with_negatives([("a", 0), ("b", 1)], [(1,), ()], name="left")
    right = with_negatives([("c", 0), ("d", 2)], [(1, 2), ()], name="right")
    both = concatenate([left, right])
    assert [row.negatives for row in both.rows] == [(1,), (), (3, 4), ()]
    assert both.fingerprint()["hash"] != concatenate([left, without(right)]).fingerprint()["hash"]


def without(collection):
    return replace(collection, rows=[replace(row, negatives=()) for row in collection.rows])
