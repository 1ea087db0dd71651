"""Kill runs at random moments, resume them, and compare every file with an uninterrupted run.

    python scripts/kill_and_resume.py --kills 20 --terms 10 --truncate 2 --json

Two small recipes take turns on drawn pages: one with LoRA dropout, one with dropout, hard negatives
of each query and all of them shared. For each an uninterrupted run is the reference. Then:

    kill        SIGKILL at a random moment; of every four, one in an evaluation and one while a
                checkpoint is being written
    term        SIGTERM at a random moment; the run saves and leaves
    truncate    SIGKILL, and the newest checkpoint's largest file is cut to half, as a power cut does

Each is resumed by `coltrain resume` and must end with the bits of the reference: final weights,
losses and metrics without their times, evaluations, checkpoints, run.json without its times. The
script needs nothing but the command line. It exits with 1 if any run differs.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

COMMAND = [sys.executable, "-m", "coltrain"]
SHORT = ["train.steps=12", "eval.every=6", "checkpoint.every=2", "batch.chunk_size=6"]
RECIPES = {
    "dropout": ["batch.global_size=16"],
    "hard negatives, dropout": [
        "batch.global_size=12",
        "loss.name=softmax_hard_negatives",
        "hard_negatives.per_query=2",
        "hard_negatives.shared=true",
    ],
}
RUN_TIMES = {"started", "finished", "seconds"}
LINE_TIMES = {"seconds", "wait_seconds", "pages_per_second"}
REPORTS = {"report.html", "report.md"}  # made from the other files, and they show the times
PATIENCE = 600  # seconds until a run counts as hanging


@dataclass
class Case:
    """What was done to a run and what became of it.

    Attributes:
        how: kill, term or truncate.
        recipe: Which of the two.
        moment: When it was done.
        resumed: What `resume` said.
        differing: Files that are not those of the reference.
    """

    how: str
    recipe: str
    moment: str
    resumed: str
    differing: list[str]


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        cases = list(_cases(Path(folder), arguments))
    equal = sum(not case.differing for case in cases)
    if arguments.json:
        print(json.dumps({"equal": equal, "cases": [asdict(case) for case in cases]}, indent=2))
    else:
        _print_table(cases)
        print(f"{equal} of {len(cases)} runs equal the uninterrupted one to the last bit")
    sys.exit(equal < len(cases))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--terms", type=int, default=10)
    parser.add_argument("--truncate", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _cases(folder: Path, arguments: argparse.Namespace) -> Iterator[Case]:
    moments = random.Random(arguments.seed)
    data = folder / "data"
    # Every page may be a negative: what is compared is the bits, not the model.
    mining = ["--top-k", "30", "--per-query", "4", "--max-share", "1.0"]
    _finish([*COMMAND, "mine", "tiny:dev", "--with", "tiny", "--out", str(data), *mining])
    references = {}
    for number, (recipe, overrides) in enumerate(RECIPES.items()):
        references[recipe] = folder / f"reference-{number}"
        _finish(_train(data, overrides, references[recipe]))
    plan = (
        ["kill"] * arguments.kills + ["term"] * arguments.terms + ["truncate"] * arguments.truncate
    )
    run = folder / "run"
    for number, how in enumerate(plan):
        recipe = list(RECIPES)[number % 2]
        command = _train(data, RECIPES[recipe], run)
        while (moment := _interrupt(command, run, how, number // 2, moments)) is None:
            shutil.rmtree(run)  # it had ended, so nothing was shown
        if how == "truncate":
            moment += f", {_cut_newest(run)} cut to half"
        resumed = _finish([*COMMAND, "resume", str(run)])
        case = Case(how, recipe, moment, resumed, list(_differing(references[recipe], run)))
        verdict = "equal" if not case.differing else f"DIFFERS: {', '.join(case.differing)}"
        _say(f"{number + 1}/{len(plan)} {how}, {recipe}, {moment}: {resumed}; {verdict}")
        yield case
        shutil.rmtree(run)


def _train(data: Path, overrides: list[str], out: Path) -> list[str]:
    sources = [f"data.train=[{data}]", f"eval.data=[{data}]"]
    return [*COMMAND, "train", "tiny", *sources, *SHORT, *overrides, "--out", str(out)]


def _interrupt(
    command: list[str], run: Path, how: str, turn: int, moments: random.Random
) -> str | None:
    """Start a run and stop it; returns the moment in words, or None if it had ended before.

    Moments are drawn from the run's own progress, so that they are as random on a busy machine.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if how == "kill" and turn % 4 == 2:
        step = moments.choice([0, 6, 12])
        first = run / ("run.json" if step == 0 else "evaluation/before.json")
        _wait_for(process, lambda: first.exists() and _num_steps(run) >= step)
        time.sleep(moments.uniform(0, 1))
        moment = f"in the evaluation after step {step}"
    elif how == "kill" and turn % 4 == 3:
        for _ in range(moments.randrange(5)):  # let some be written
            _wait_for(process, lambda: _is_saving(run))
            _wait_for(process, lambda: not _is_saving(run))
        _wait_for(process, lambda: _is_saving(run))
        time.sleep(moments.uniform(0, 0.004))
        moment = "while saving"
    elif how == "truncate":
        step = moments.choice([4, 6, 8])  # there is one to cut, and one before it
        _wait_for(process, lambda: (run / "checkpoints" / f"step-{step:06d}").exists())
        moment = f"after the checkpoint of step {step}"
    else:
        step = moments.randrange(12)
        _wait_for(process, lambda: (run / "run.json").exists() and _num_steps(run) >= step)
        time.sleep(moments.uniform(0, 0.4))  # a step takes about 0.3 s
        moment = "at random"
    process.send_signal(signal.SIGTERM if how == "term" else signal.SIGKILL)
    process.wait(timeout=PATIENCE)
    return f"{moment}, at step {_num_steps(run)}" if process.returncode else None


def _wait_for(process: subprocess.Popen, is_there: Callable[[], bool]) -> None:
    """Wait without a pause worth the name: a checkpoint is written in milliseconds."""
    while process.poll() is None and not is_there():
        time.sleep(0.0005)


def _is_saving(run: Path) -> bool:
    return any((run / "checkpoints").glob(".step-*.part"))


def _checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"))


def _num_steps(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return metrics.read_text().count('"kind": "step"') if metrics.exists() else 0


def _cut_newest(run: Path) -> str:
    newest = _checkpoints(run)[-1]
    file = max(newest.iterdir(), key=lambda file: file.stat().st_size)
    os.truncate(file, file.stat().st_size // 2)
    return f"{newest.name}/{file.name}"


def _finish(command: list[str]) -> str:
    """Run a command to its end; returns how `resume` says that it goes on."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    words = ("going on after", "no checkpoint", "the run is finished")
    return "; ".join(
        line.partition(":")[0] for line in done.stderr.splitlines() if line.startswith(words)
    )


def _differing(reference: Path, run: Path) -> Iterator[str]:
    """Files of either run that the other does not have, or has with another content."""
    ours, theirs = _contents(run), _contents(reference)
    yield from sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )


def _contents(run: Path) -> dict[str, str]:
    files = (file for file in run.rglob("*") if file.is_file() and file.name not in REPORTS)
    return {str(file.relative_to(run)): _content(file) for file in files}


def _content(file: Path) -> str:
    """A hash of what a file says, without times."""
    content = file.read_bytes()
    if file.name == "run.json":
        content = _without(json.loads(content), RUN_TIMES)
    elif file.name == "metrics.jsonl":
        lines = [_without(json.loads(line), LINE_TIMES) for line in content.splitlines()]
        content = b"\n".join(lines)
    return hashlib.sha256(content).hexdigest()


def _without(mapping: dict, keys: set[str]) -> bytes:
    return json.dumps({key: value for key, value in mapping.items() if key not in keys}).encode()


def _print_table(cases: list[Case]) -> None:
    widths = (10, 25, 92, 26)
    for row in [
        ("what", "recipe", "moment", "resumed"),
        *((case.how, case.recipe, case.moment, case.resumed) for case in cases),
    ]:
        print("".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
