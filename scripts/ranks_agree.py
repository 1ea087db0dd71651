"""Train the tiny base on 1, 2 and 4 ranks, kill one rank of two and resume on one, and compare.

    python scripts/ranks_agree.py --steps 60 --ranks 1 2 4 --json

Every run has the same recipe, with dropout. One is killed by SIGKILL to a rank in the middle of its
steps, with two ranks, and `coltrain resume` goes on with one. Compared with one process are the loss
and the gradient norm of every step, and of every evaluation the first relevant page's rank of each
query. It needs nothing but the command line and torchrun, and exits with 1 if anything differs.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

TOLERANCE = 1e-4  # of a loss, relative
PATIENCE = 60  # seconds from a rank's death to the run's end
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@dataclass
class Compared:
    """A run against one process.

    Attributes:
        run: How it was computed.
        num_steps: That both have.
        largest_loss_difference: Relative, over steps and evaluations.
        largest_norm_difference: Relative, of gradient norms.
        num_queries: Over all evaluations.
        queries_differing: Queries whose measures differ in any evaluation.
        candidates_equal: Whether every step had the same candidates and masked pairs.
        seconds_to_end: From a rank's death to the end of the run; None where none was killed.
        stopped_by: What run.json said then.
    """

    run: str
    num_steps: int
    largest_loss_difference: float
    largest_norm_difference: float
    num_queries: int
    queries_differing: int
    candidates_equal: bool
    seconds_to_end: float | None = None
    stopped_by: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether it is the same run."""
        return (
            self.largest_loss_difference <= TOLERANCE
            and self.queries_differing <= 1
            and self.candidates_equal
            and (self.seconds_to_end or 0) <= PATIENCE
        )


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        found = list(_runs(Path(folder), arguments))
    is_same = all(one.agrees for one in found)
    if arguments.json:
        runs = [asdict(one) | {"agrees": one.agrees} for one in found]
        print(json.dumps({"agrees": is_same, "tolerance": TOLERANCE, "runs": runs}, indent=2))
    else:
        for one in found:
            print(
                f"{one.run}: {one.num_steps} steps, losses within "
                f"{one.largest_loss_difference:.1e}, gradient norms within "
                f"{one.largest_norm_difference:.1e}, {one.queries_differing} of "
                f"{one.num_queries} queries differ; {'the same' if one.agrees else 'ANOTHER'} run"
            )
    sys.exit(not is_same)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--kill-after", type=int, help="step; a third of the run otherwise")
    parser.add_argument("--set", nargs="*", default=[], help="further changes to the recipe")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _runs(folder: Path, arguments: argparse.Namespace):
    recipe = [
        "tiny",
        f"train.steps={arguments.steps}",
        f"eval.every={max(1, arguments.steps // 2)}",
        "lora.dropout=0.1",
        *arguments.set,
    ]
    alone = folder / "alone"
    _finish(_train(recipe, alone, 1))
    for number in arguments.ranks:
        if number == 1:
            continue
        run = folder / f"ranks-{number}"
        _finish(_train(recipe, run, number))
        yield _compare(f"{number} ranks", alone, run)
    run = folder / "killed"
    after = arguments.kill_after or max(1, arguments.steps // 3)
    seconds, stopped_by = _kill_a_rank(_train(recipe, run, 2), run, after)
    _finish([sys.executable, "-m", "coltrain", "resume", str(run)])
    compared = _compare(f"2 ranks, rank 1 killed after step {after}, resumed on 1", alone, run)
    compared.seconds_to_end, compared.stopped_by = seconds, stopped_by
    yield compared


def _train(recipe: list[str], out: Path, num_ranks: int) -> list[str]:
    command = ["-m", "coltrain", "train", *recipe, "--device", "cpu", "--out", str(out)]
    if num_ranks == 1:
        return [sys.executable, *command]
    return [*TORCHRUN, "--standalone", "--nproc-per-node", str(num_ranks), *command]


def _finish(command: list[str]) -> None:
    _say(" ".join(command[1:]))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")


def _kill_a_rank(command: list[str], run: Path, after: int) -> tuple[float, str]:
    """Kill rank 1 after a step; returns how long the run took to end, and what run.json says."""
    _say(f"{' '.join(command[1:])}; rank 1 is killed after step {after}")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while sum(line["kind"] == "step" for line in _lines(run)) < after:
            if process.poll() is not None:
                raise SystemExit("the run ended before its rank could be killed")
            time.sleep(0.05)
        os.kill(_process_of_rank(process.pid, 1), signal.SIGKILL)
        killed = time.monotonic()
        process.wait(timeout=10 * PATIENCE)
        seconds = time.monotonic() - killed
    finally:
        process.kill()
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return round(seconds, 1), facts["stopped_by"]


def _process_of_rank(launcher: int, rank: int) -> int:
    """The child of torchrun that has this RANK in its environment."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            return int(child)
    raise SystemExit(f"torchrun has no rank {rank}")


def _compare(name: str, alone: Path, run: Path) -> Compared:
    ours, theirs = (
        {(line["kind"], line["step"], line.get("dataset")): line for line in _lines(folder)}
        for folder in (alone, run)
    )
    if ours.keys() != theirs.keys():
        raise SystemExit(f"{name}: other steps or evaluations than one process has")
    steps = [key for key in ours if key[0] == "step"]
    same = ("candidates_per_query", "masked_duplicates", "lr", "epoch")
    num_queries, differing = 0, 0
    for file in sorted((alone / "evaluation").glob("*.json")):
        pairs = [_queries(folder / "evaluation" / file.name) for folder in (alone, run)]
        num_queries += len(pairs[0])
        differing += sum(pairs[0][query] != pairs[1].get(query) for query in pairs[0])
    return Compared(
        run=name,
        num_steps=len(steps),
        largest_loss_difference=max(_relative(ours[key]["loss"], theirs[key]["loss"])
                                    for key in ours),
        largest_norm_difference=max(_relative(ours[key]["grad_norm"], theirs[key]["grad_norm"])
                                    for key in steps),
        num_queries=num_queries,
        queries_differing=differing,
        candidates_equal=all(ours[key][field] == theirs[key][field]
                             for key in steps for field in same),
    )  # fmt: skip


def _queries(file: Path) -> dict[str, dict]:
    results = json.loads(file.read_text(encoding="utf-8"))["results"]
    return {
        f"{result['dataset']} {query}": measures
        for result in results
        for query, measures in result["per_query"].items()
    }


def _relative(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / max(abs(ours), 1e-30)


def _lines(run: Path) -> list[dict]:
    metrics = run / "metrics.jsonl"
    text = metrics.read_text(encoding="utf-8") if metrics.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
