"""How often do the 95 % intervals cover the true mean?

Queries are drawn from populations with the mean and sd of each ViDoRe v1 task (and some nearer to the
ceiling), the interval that coltrain gives is asked, and beside it the plain percentile bootstrap.

    python benchmarks/coverage_of_intervals.py [--draws 2000] [--resamples 2000] [--json]
"""

import argparse
import json

import numpy as np
from simulated_scores import V1_TASKS, VALUES, population

from coltrain.evaluation.statistics import Sample, macro_interval, sample_interval
from coltrain.evaluation.statistics.intervals import BOUNDED
from coltrain.evaluation.statistics.resampling import resampled_means

CEILING = {
    "ceiling .970": (100, 0.97, 0.12),
    "ceiling .980": (100, 0.98, 0.10),
    "ceiling .995": (100, 0.995, 0.05),
    "v2-sized .600": (52, 0.6, 0.35),
}


def covered(tasks, num_draws, num_resamples, seed=0):
    """Shares of draws whose interval covers, for each task, and for the mean of the v1 tasks."""
    generator = np.random.default_rng(seed)
    populations = {name: population(*moments[1:]) for name, moments in tasks.items()}
    true = {name: float(p @ VALUES) for name, p in populations.items()}
    hits = {name: {"shipped": 0, "percentile": 0, "bounded": 0, "width": 0.0} for name in tasks}
    macro = 0
    v1 = [name for name in tasks if name in V1_TASKS]
    for draw in range(num_draws):
        samples = {}
        for name, (count, *_) in tasks.items():
            sample = Sample.of(generator.choice(VALUES, size=count, p=populations[name]))
            samples[name] = sample
            interval = sample_interval(sample, num_resamples=num_resamples, seed=draw)
            plain = np.quantile(resampled_means(sample, num_resamples, generator), [0.025, 0.975])
            hits[name]["shipped"] += covers(interval.low, interval.high, true[name])
            hits[name]["percentile"] += covers(*plain, true[name])
            hits[name]["bounded"] += interval.method == BOUNDED
            hits[name]["width"] += 100 * (interval.high - interval.low)
        mean = macro_interval(
            [samples[name] for name in v1], num_resamples=num_resamples, seed=draw
        )
        macro += covers(mean.low, mean.high, np.mean([true[name] for name in v1]))
    rows = [
        {
            "task": name,
            "queries": tasks[name][0],
            "mean": true[name],
            "sd": float(np.sqrt(populations[name] @ VALUES**2 - true[name] ** 2)),
        }
        | {key: value / num_draws for key, value in hits[name].items()}
        for name in tasks
    ]
    return {"draws": num_draws, "tasks": rows, "mean of v1 tasks": macro / num_draws}


def covers(low, high, true):
    return low - 1e-9 <= true <= high + 1e-9


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = covered(V1_TASKS | CEILING, given.draws, given.resamples)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"{'task':34}{'n':>5}{'mean':>7}{'sd':>6}  shipped  percentile  bounded used  width, points"
    )
    for row in found["tasks"]:
        print(
            f"{row['task']:34}{row['queries']:5}{row['mean']:7.3f}{row['sd']:6.2f}{row['shipped']:9.3f}"
            f"{row['percentile']:12.3f}{row['bounded']:14.2f}{row['width']:15.1f}"
        )
    print(f"mean of the ten v1 tasks: {found['mean of v1 tasks']:.3f}")


if __name__ == "__main__":
    main()
