"""Scores of runs that nobody trained, with effects that are known."""

from collections.abc import Callable
from itertools import product

import numpy as np

from coltrain.evaluation.statistics import Sample
from coltrain.reproduction.study.design import Cell
from coltrain.reproduction.study.scores import Scores


def all_cells(num_factors: int) -> list[Cell]:
    """Factors a, b, … with the levels old and new."""
    names = "abcdefgh"[:num_factors]
    return [
        Cell(tuple(zip(names, levels, strict=True)))
        for levels in product(("old", "new"), repeat=num_factors)
    ]


def scores_of(
    cells: list[Cell],
    true: Callable[[Cell], float],
    *,
    num_seeds: int,
    num_queries: int,
    generator: np.random.Generator,
    of_query: float = 0.3,
    of_seed: float = 0.01,
    of_cell_and_seed: float = 0.005,
    of_cell_and_query: float = 0.1,
    of_all: float = 0.15,
) -> Scores:
    """True means with chance on every level on which runs have it: query, seed, and with the cell."""
    query = of_query * generator.standard_normal(num_queries)
    seed = of_seed * generator.standard_normal(num_seeds)
    by_cell = {}
    for cell in cells:
        of_this = of_cell_and_query * generator.standard_normal(num_queries)
        by_cell[cell] = {}
        for number in range(num_seeds):
            values = true(cell) + query + of_this + seed[number]
            values = values + of_cell_and_seed * generator.standard_normal()
            values = values + of_all * generator.standard_normal(num_queries)
            by_cell[cell][number] = (Sample.of(values),)
    return Scores(by_cell)
