"""How often do a study's intervals cover the true effects and shares?

Full designs of three factors, of which one matters much, one a little and one not, with chance on every
level on which runs have it: query, seed, cell and seed, cell and query, and all together.

    python benchmarks/coverage_of_study.py [--draws 400] [--json]
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from study_on_paper import all_cells, scores_of

from coltrain.reproduction.study.contrasts import estimate, share_interval
from coltrain.reproduction.study.shapley import shares

EFFECTS = {"a": -0.10, "b": -0.03, "c": 0.0}
CASES = {
    "3 seeds": {"num_seeds": 3, "num_queries": 240},
    "5 seeds": {"num_seeds": 5, "num_queries": 240},
    "5 seeds, few queries": {"num_seeds": 5, "num_queries": 40},
    "5 seeds far apart": {"num_seeds": 5, "num_queries": 240, "of_cell_and_seed": 0.03},
}


def coverage(case, num_draws, generator):
    cells = all_cells(len(EFFECTS))
    found = shares(cells[0], cells[-1], cells)
    gap = sum(EFFECTS.values())

    def true(cell):
        return 0.7 + sum(EFFECTS[name] for name, level in cell.levels if level == "new")

    hits = dict.fromkeys(["effect of a", "effect of c", "share of a", "gap is told"], 0)
    for _ in range(num_draws):
        scores = scores_of(cells, true, generator=generator, **case)
        for name in "ac":
            interval = estimate(scores, found.of[name]).interval
            hits[f"effect of {name}"] += interval.low <= EFFECTS[name] <= interval.high
        share = share_interval(scores, found.of["a"], found.gap)
        hits["gap is told"] += share is not None
        # Where no share is known, every share is left open.
        hits["share of a"] += share is None or share.low <= EFFECTS["a"] / gap <= share.high
    return {name: number / num_draws for name, number in hits.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    generator = np.random.default_rng(0)
    found = {name: coverage(case, given.draws, generator) for name, case in CASES.items()}
    if given.json:
        print(json.dumps({"draws": given.draws, "coverage": found}, indent=2))
        return
    for name, shares_ in found.items():
        print(f"{name:22}" + "".join(f"  {kind} {share:.3f}" for kind, share in shares_.items()))


if __name__ == "__main__":
    main()
