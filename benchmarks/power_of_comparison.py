"""Does `coltrain compare` find a difference that is there, and claim none that is not?

Two systems on the queries of ViDoRe v1: ten tasks with the sizes, means and standard deviations of the
published colqwen2-v1.0, values of one query correlated between the systems. The verdict on the v1
mean is that of `coltrain compare` with its default margin; the share of draws in which any task
is claimed is that after Holm's correction.

    python benchmarks/power_of_comparison.py [--draws 2000] [--resamples 2000] [--correlation 0.8] [--points 2.0] [--json]
"""

import argparse
import json
from collections import Counter

import numpy as np
from simulated_scores import V1_TASKS, VALUES, correlated_pair, latent_correlation, population

from coltrain.evaluation.published.names import tasks_of
from coltrain.reproduction.comparison.comparison import compare
from coltrain.reproduction.comparison.sides import Side, TaskScores

MEASURE = "nDCG@5"
TASKS = dict(zip((task.name for task in tasks_of("vidore-v1")), V1_TASKS.values(), strict=True))


def populations(points):
    """For each task the two systems, whose v1 means differ by so many points.

    A task near its ceiling has no room for as much as the others: each difference is in proportion to
    what the task leaves below 1.
    """
    room = {name: 1 - mean for name, (_, mean, _) in TASKS.items()}
    share = points / 100 * len(TASKS) / sum(room.values())
    found = {}
    for name, (_, mean, sd) in TASKS.items():
        found[name] = population(mean, sd), population(mean - share * room[name], sd)
    return found


def simulate(points, correlation, num_draws, num_resamples, seed=0, margin=1.0, num_latent=200_000):
    generator = np.random.default_rng(seed)
    systems = populations(points)
    latent = {
        name: latent_correlation(*pair, correlation, num_latent) for name, pair in systems.items()
    }
    verdicts, tasks_claimed, covered, significant = Counter(), 0, 0, 0
    true = np.mean([(first - second) @ VALUES for first, second in systems.values()])
    for draw in range(num_draws):
        sides = {}, {}
        for name, (count, *_) in TASKS.items():
            values = correlated_pair(*systems[name], latent[name], count, generator)
            for side, column in zip(sides, values, strict=True):
                side[name] = TaskScores(
                    name,
                    {MEASURE: float(column.mean())},
                    count,
                    {str(query): {MEASURE: value} for query, value in enumerate(column.tolist())},
                )
        found = compare(
            Side("first", False, sides[0]),
            Side("second", False, sides[1]),
            margin=margin,
            num_resamples=num_resamples,
            seed=draw,
        )
        mean = found.means[0]
        verdicts[mean.verdict] += 1
        significant += mean.difference.p <= 0.05
        interval = mean.difference.interval
        covered += interval.low <= true <= interval.high
        tasks_claimed += any(row.verdict in ("above", "below") for row in found.tasks)
    shares = {verdict: count / num_draws for verdict, count in sorted(verdicts.items())}
    return {
        "true_points": 100 * float(true),
        "correlation": correlation,
        "draws": num_draws,
        "verdicts_on_the_mean": shares,
        "claimed": shares.get("above", 0.0) + shares.get("below", 0.0),
        "found_above": shares.get("above", 0.0),
        "p_at_most_.05": significant / num_draws,
        "interval_covers": covered / num_draws,
        "any_task_claimed": tasks_claimed / num_draws,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--correlation", type=float, default=0.8)
    parser.add_argument("--points", type=float, default=2.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = [
        simulate(points, given.correlation, given.draws, given.resamples)
        for points in (0.0, given.points)
    ]
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for one in found:
        verdicts = ", ".join(
            f"{name} {share:.3f}" for name, share in one["verdicts_on_the_mean"].items()
        )
        print(
            f"true difference {one['true_points']:.2f} points, correlation {one['correlation']}, "
            f"{one['draws']} draws: {verdicts}; p <= .05 {one['p_at_most_.05']:.3f}; the interval covers {one['interval_covers']:.3f}; "
            f"some task claimed {one['any_task_claimed']:.3f}"
        )


if __name__ == "__main__":
    main()
