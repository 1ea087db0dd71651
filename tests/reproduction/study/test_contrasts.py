"""Effects and shares with their intervals, on scores whose truth is known."""

import numpy as np
import pytest
from study_on_paper import all_cells, scores_of

from coltrain.evaluation.statistics import Sample
from coltrain.reproduction.study.contrasts import ONE_SEED, estimate, share_interval, together
from coltrain.reproduction.study.scores import Scores
from coltrain.reproduction.study.shapley import shares

EFFECTS = {"a": -0.10, "b": -0.04, "c": 0.0}


def true(cell):
    return 0.7 + sum(EFFECTS[name] for name, level in cell.levels if level == "new")


@pytest.fixture
def cells():
    return all_cells(3)


def made(cells, number, **settings):
    given = {"num_seeds": 5, "num_queries": 120, "generator": np.random.default_rng(number)}
    return scores_of(cells, true, **{**given, **settings})


def test_a_contrast_is_the_weighted_sum_of_the_cells_means(cells):
    scores = made(cells, 0)
    weights = shares(cells[0], cells[-1], cells).of["a"]
    by_hand = sum(
        weight * np.mean([scores.by_cell[cell][seed][0].mean for seed in range(5)])
        for cell, weight in weights.items()
    )
    found = estimate(scores, weights)
    assert found.value == pytest.approx(by_hand, abs=1e-12)
    assert found.seeds == (0, 1, 2, 3, 4)


def test_what_seeds_and_queries_share_cancels_in_an_effect(cells):
    nothing = {"of_cell_and_query": 0.0, "of_cell_and_seed": 0.0, "of_all": 0.0}
    scores = made(cells, 1, of_seed=0.2, **nothing)
    effect = estimate(scores, shares(cells[0], cells[-1], cells).of["a"])
    assert effect.value == pytest.approx(-0.10)
    assert effect.interval.high - effect.interval.low < 1e-9
    mean = estimate(scores, {cells[0]: 1.0})
    assert mean.interval.high - mean.interval.low > 0.1


def test_only_seeds_that_every_cell_has_are_used(cells):
    scores = made(cells, 2)
    del scores.by_cell[cells[3]][4]
    weights = together((1.0, {cells[3]: 1.0}), (-1.0, {cells[0]: 1.0}))
    assert estimate(scores, weights).seeds == (0, 1, 2, 3)
    scores.by_cell[cells[3]].clear()
    assert estimate(scores, weights) is None


def test_an_impossible_mean_is_not_within_an_interval(cells):
    scores = made(cells, 3, num_seeds=2, of_seed=0.2)
    found = estimate(scores, {cells[0]: 1.0}).interval
    assert found.low >= 0
    assert found.high <= 1


def test_one_seed_counts_queries_only_and_says_so(cells):
    scores = Scores({cell: {0: (Sample.of([0.0, 0.5, 1.0] * 20),)} for cell in cells})
    found = estimate(scores, {cells[0]: 1.0})
    assert found.parts is None
    assert found.interval.flag == ONE_SEED
    assert share_interval(scores, {cells[0]: 1.0}, {cells[1]: 1.0}) is None


def test_shares_hold_the_truth_and_are_not_known_of_no_gap(cells):
    scores = made(cells, 4)
    found = shares(cells[0], cells[-1], cells)
    share = share_interval(scores, found.of["a"], found.gap)
    assert share.low < 10 / 14 < share.high
    assert share.low < share.mean < share.high
    assert share.high - share.low < 0.6
    # At the ends of the interval the data just tell part and share of the gap apart.
    for end, inside in ((share.low, share.low + 0.01), (share.high, share.high - 0.01)):
        at = estimate(scores, together((1.0, found.of["a"]), (-inside, found.gap)))
        assert not at.is_told
        beyond = 2 * end - inside
        at = estimate(scores, together((1.0, found.of["a"]), (-beyond, found.gap)))
        assert at.is_told
    nothing = together((1.0, {cells[1]: 1.0}), (-1.0, {cells[0]: 1.0}))  # c alone
    assert share_interval(scores, found.of["a"], nothing) is None


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say(cells):
    # 300 draws: a true coverage of .95 gives at least .91 with a probability of 99.9 %.
    hits = {"effect": 0, "share": 0, "known": 0}
    found = shares(cells[0], cells[-1], cells)
    for number in range(300):
        scores = made(cells, 1000 + number, num_queries=40)
        interval = estimate(scores, found.of["a"]).interval
        hits["effect"] += interval.low <= -0.10 <= interval.high
        if number < 60:  # a share takes a hundred intervals
            share = share_interval(scores, found.of["a"], found.gap)
            hits["known"] += share is not None
            hits["share"] += share is None or share.low <= 10 / 14 <= share.high
    assert hits["effect"] >= 0.91 * 300
    assert hits["share"] >= 0.86 * 60
    assert hits["known"] >= 30
