"""Shapley values of the factors, against the definition over all orders."""

from itertools import permutations

import numpy as np
import pytest

from coltrain.reproduction.study.design import Cell
from coltrain.reproduction.study.shapley import interaction, mixed, shares

NAMES = ("a", "b", "c", "d")
START, END = (Cell(tuple((name, level) for name in NAMES)) for level in ("old", "new"))
MIXTURES = [
    mixed(START, END, [name for place, name in enumerate(NAMES) if number >> place & 1])
    for number in range(16)
]


def value(weights, worth):
    return sum(weight * worth[cell] for cell, weight in weights.items())


@pytest.fixture
def worth():
    generator = np.random.default_rng(4)
    return {cell: float(generator.standard_normal()) for cell in MIXTURES}


def test_exact_shares_are_means_over_all_orders_of_changing_the_factors(worth):
    found = shares(START, END, MIXTURES)
    assert found.method == "exact"
    brute = dict.fromkeys(NAMES, 0.0)
    orders = list(permutations(NAMES))
    for order in orders:
        changed = []
        for name in order:
            before = worth[mixed(START, END, changed)]
            changed.append(name)
            brute[name] += (worth[mixed(START, END, changed)] - before) / len(orders)
    for name in NAMES:
        assert value(found.of[name], worth) == pytest.approx(brute[name], abs=1e-12)
    first = worth[mixed(START, END, ["a"])] - worth[START]
    assert abs(brute["a"] - first) > 0.01  # the order matters here
    total = sum(value(weights, worth) for weights in found.of.values())
    assert total == pytest.approx(value(found.gap, worth), abs=1e-12)


def test_one_at_a_time_from_both_ends_is_the_mean_of_first_and_last(worth):
    design = [START, END]
    for name in NAMES:
        design += [
            mixed(START, END, [name]),
            mixed(START, END, [other for other in NAMES if other != name]),
        ]
    found = shares(START, END, design)
    assert found.method == "first and last"
    first = worth[mixed(START, END, ["b"])] - worth[START]
    last = worth[END] - worth[mixed(START, END, ["a", "c", "d"])]
    assert abs(first - last) > 0.01
    assert value(found.of["b"], worth) == pytest.approx((first + last) / 2)


def test_two_factors_from_both_ends_are_exact():
    start, end = (Cell((("a", level), ("b", level))) for level in ("old", "new"))
    design = [start, end, mixed(start, end, ["a"]), mixed(start, end, ["b"])]
    assert shares(start, end, design).method == "exact"


@pytest.mark.parametrize("method", ["first", "last"])
def test_from_one_end_only_one_of_the_two_is_known(worth, method):
    design = [START, END]
    for name in NAMES:
        others = [other for other in NAMES if other != name]
        design.append(mixed(START, END, [name] if method == "first" else others))
    found = shares(START, END, design)
    assert found.method == method
    known = mixed(START, END, ["a"]) if method == "first" else mixed(START, END, NAMES[1:])
    assert known in found.of["a"]


def test_without_interactions_every_method_says_the_same():
    effects = dict(zip(NAMES, (3.0, -1.0, 0.5, 0.0), strict=True))
    worth = {
        cell: sum(effects[name] for name, level in cell.levels if level == "new")
        for cell in MIXTURES
    }
    ends_only = [START, END, *(mixed(START, END, [name]) for name in NAMES)]
    for design in (MIXTURES, ends_only):
        for name, weights in shares(START, END, design).of.items():
            assert value(weights, worth) == pytest.approx(effects[name])


def test_an_interaction_is_what_two_do_beyond_each_alone():
    def level(cell):
        new = {name for name, level in cell.levels if level == "new"}
        return 2.0 * ("a" in new) + 1.0 * ("b" in new) + 0.7 * ({"a", "b"} <= new)

    worth = {cell: level(cell) for cell in MIXTURES}
    assert value(interaction(START, END, ("a", "b")), worth) == pytest.approx(0.7)
    assert value(interaction(START, END, ("a", "c")), worth) == pytest.approx(0.0)
