"""What does it cost to import, to ask for help, and to have a model that can encode?

Processor seconds of a process of its own for each, which starts, does one thing and ends. The libraries are
asked for the classes that load a model: `import coltrain` alone loads nothing.
"""

import resource
import statistics
import subprocess
import sys
from importlib.util import find_spec

from alternating import arguments, finish

PYTHON = {
    "python alone": "pass",
    "import coltrain": "import coltrain",
    "coltrain, ready to load": "import coltrain; coltrain.load",
    "coltrain, tiny loaded and a query encoded": "import coltrain; "
    "coltrain.load('tiny').encode_queries(['iron'])",
    "colpali-engine, ready to load": "from colpali_engine.models import ColQwen2, ColQwen2Processor",
    "sentence-transformers, ready to load": "from sentence_transformers import MultiVectorEncoder",
}
NEEDS = {"colpali-engine": "colpali_engine", "sentence-transformers": "sentence_transformers"}


def main() -> None:
    given = arguments(__doc__).parse_args()
    commands = {
        name: [sys.executable, "-c", code]
        for name, code in PYTHON.items()
        if find_spec(NEEDS.get(name.partition(",")[0], "coltrain")) is not None
    }
    commands["coltrain --help"] = [sys.executable, "-m", "coltrain", "--help"]
    commands["coltrain recipes list"] = [sys.executable, "-m", "coltrain", "recipes", "list"]
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(given.rounds):
        for name, command in commands.items():
            taken[name].append(processor_seconds(command))
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
    seconds = {
        name: {
            "best_seconds": min(times),
            "median_seconds": statistics.median(times),
            "spread": (max(times) - min(times)) / min(times),
        }
        for name, times in taken.items()
    }
    ours = seconds["coltrain, ready to load"]["best_seconds"]
    figures = {
        "seconds": seconds,
        "times_as_fast_as": {
            name: seconds[name]["best_seconds"] / ours
            for name in commands
            if name.endswith("ready to load") and not name.startswith("coltrain")
        },
    }
    finish(__doc__.splitlines()[0], figures, given)


def processor_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
