"""Ways of doing one thing, measured in turn in one process: what the benchmarks of a step share.

Other work on the same machine makes wall time meaningless: on a CPU it is processor time on one
thread, the ways one after another in every round, and figures are ratios within a run. On a GPU it
is wall time up to the end of the device's work.
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from coltrain.training.live_tensors import LiveTensors


def arguments(docstring: str, rounds: int = 5) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=docstring.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="timed runs of each way")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the result there as well")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


def measured(
    ways: dict[str, Callable[[], object]], rounds: int, device: str, *, warm: bool = False
) -> dict[str, dict]:
    """Seconds of each way: best, median, and spread (worst minus best, over the best).

    What a first call sets up is no part of a step: unless they are `warm`, each is called once before.
    """
    torch.set_num_threads(1)
    if not warm:
        for way in ways.values():
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            gc.collect()
            start = _now(device)
            way()
            seconds[name].append(_now(device) - start)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return {
        name: {
            "best_seconds": min(times),
            "median_seconds": statistics.median(times),
            "spread": (max(times) - min(times)) / min(times),
        }
        for name, times in seconds.items()
    }


def _now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def peaks_mib(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The most MiB that tensors made by one call of each held at once, on any device."""
    torch.set_num_threads(1)
    found = {}
    for name, way in ways.items():
        gc.collect()
        with LiveTensors() as watch:
            way()
        found[name] = round(watch.peak_bytes / 2**20, 1)
    return found


def finish(question: str, figures: dict, given: argparse.Namespace) -> None:
    """Print the result as JSON, and write it where asked."""
    device = given.device
    result = {
        "question": question,
        "figures": figures,
        "machine": {
            "device": platform.processor() or platform.machine()
            if device == "cpu"
            else torch.cuda.get_device_name(device),
            "threads": torch.get_num_threads(),
            "rounds": given.rounds,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n", encoding="utf-8")
