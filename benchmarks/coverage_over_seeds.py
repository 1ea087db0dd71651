"""How often does the two-level interval cover the mean over all seeds and queries?

Runs of a recipe on one task: a mean, plus an effect of the query, of the seed, and of both together.

    python benchmarks/coverage_over_seeds.py [--draws 4000] [--json]
"""

import argparse
import json

import numpy as np

from coltrain.evaluation.statistics import Sample, two_level_interval

# Seeds, queries, sd of: query, seed, both together. Scores are fractions.
CASES = {
    "3 seeds that matter": (3, 300, 0.30, 0.010, 0.15),
    "5 seeds that matter": (5, 300, 0.30, 0.010, 0.15),
    "3 seeds, few queries": (3, 60, 0.35, 0.005, 0.15),
    "3 seeds far apart": (3, 2000, 0.30, 0.030, 0.15),
    "3 seeds that do not matter": (3, 300, 0.30, 0.0, 0.15),
}


def coverage(seeds, queries, of_query, of_seed, of_both, num_draws, generator):
    hits = plain = 0
    for _ in range(num_draws):
        scores = (
            of_query * generator.standard_normal(queries)
            + of_seed * generator.standard_normal((seeds, 1))
            + of_both * generator.standard_normal((seeds, queries))
        )
        found = two_level_interval([[Sample.of(row)] for row in scores])
        hits += found.low <= 0 <= found.high
        half = 1.96 * scores.mean(0).std(ddof=1) / np.sqrt(queries)
        plain += abs(scores.mean()) <= half
    return {"two-level": hits / num_draws, "queries alone": plain / num_draws}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    generator = np.random.default_rng(0)
    found = {name: coverage(*case, given.draws, generator) for name, case in CASES.items()}
    if given.json:
        print(json.dumps({"draws": given.draws, "coverage": found}, indent=2))
        return
    for name, shares in found.items():
        print(f"{name:28}" + "".join(f"  {kind} {share:.3f}" for kind, share in shares.items()))


if __name__ == "__main__":
    main()
