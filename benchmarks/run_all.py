"""Run every benchmark that answers a question of speed, and write the page that shows the results.

    make bench                  # two CPU cores, under a quarter of an hour
    make bench DEVICE=cuda      # the same questions on a GPU
    python benchmarks/run_all.py --only second_epoch.py
    python benchmarks/run_all.py --page    # the page alone, from the results that are there

Each script leaves its JSON in benchmarks/results/; docs/explanation/benchmarks.md and its pictures are made
from these files and from nothing else.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from page import PAGE, pictures, text_of

HERE = Path(__file__).parent
RESULTS = HERE / "results"
# In the order of the page. Sizes are such that all of it takes two cores a quarter of an hour.
SCRIPTS = {
    # The scripts alone take 16 pages and five rounds: of the step twenty minutes.
    "training_step.py": ["--batch", "8", "--rounds", "2"],
    "gradient_cached_step.py": ["--batch", "8", "--rounds", "2"],
    "memory_of_a_batch.py": [],
    "padding.py": [],
    "second_epoch.py": [],
    "data_path.py": [],
    "encode.py": [],
    "ranking.py": ["--pages", "64", "--queries", "60"],
    "start_up.py": ["--rounds", "3"],  # processes of half a minute a round
    "plan_against_count.py": [],
}
LIBRARIES = ("transformers", "colpali-engine", "sentence-transformers", "pillow", "torchvision")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each way")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    parser.add_argument("--page", action="store_true", help="write the page alone")
    given = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    started = time.monotonic()
    failed = [] if given.page else [name for name in given.only if not run(name, given)]
    write_page()
    print(f"{PAGE}, after {time.monotonic() - started:.0f} s", file=sys.stderr)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(name: str, given: argparse.Namespace) -> bool:
    """Run one script and keep its result; False where it failed, whose earlier result stays."""
    script, out = HERE / name, RESULTS / f"{Path(name).stem}_{given.device}.json"
    if not script.is_file():
        print(f"{name}: not there", file=sys.stderr)
        return False
    print(f"{name}", file=sys.stderr)
    options = ["--rounds", str(given.rounds), "--device", given.device]
    fresh = out.with_suffix(".new")
    command = [sys.executable, str(script), *options, "--json", str(fresh), *SCRIPTS[name]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=False)
    if done.returncode:
        fresh.unlink(missing_ok=True)
        return False
    result = json.loads(fresh.read_text(encoding="utf-8"))
    if given.device == "cpu":
        result["machine"]["device"] = "two CPU cores, no GPU"
    result["versions"] = versions()
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    fresh.unlink()
    return True


def versions() -> dict[str, str]:
    """Of the libraries that are compared."""
    found = {}
    for name in ("coltrain", *LIBRARIES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def results() -> dict[str, dict]:
    """Every result that is there by the name of its file, in the order of the page."""
    names = [f"{Path(name).stem}_{device}" for device in ("cpu", "cuda") for name in SCRIPTS]
    files = [RESULTS / f"{name}.json" for name in names]
    return {
        file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()
    }


def write_page() -> None:
    found = results()
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text_of(found, SCRIPTS), encoding="utf-8")
    for file, picture in pictures(found).items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
