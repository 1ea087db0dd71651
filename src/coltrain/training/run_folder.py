"""A run on disk, as docs/reference/run-folder.md describes it."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coltrain.data.row_contents import write_row_contents
from coltrain.errors import RunError
from coltrain.evaluation.results import Result, write_results
from coltrain.training.disk import flush
from coltrain.training.fingerprints import TensorFingerprint
from coltrain.training.lock import run_lock

FORMAT = 1
ROW_CONTENTS = "data_contents.jsonl.gz"
OWN_ENTRIES = frozenset(
    {
        "run.json",
        "run.json.part",
        "run.lock",
        "metrics.jsonl",
        "fingerprints.json",
        "data_check.json",
        ROW_CONTENTS,
        "evaluation",
        "model",
        "checkpoints",
        "report.html",
        "report.md",
        "watch",
    }
)


class RunFolder:
    """Writes a run, and nothing that is not its own.

    Args:
        path: The run's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: dict[str, Any] = {}
        if is_run(path):
            self.facts = json.loads((path / "run.json").read_text(encoding="utf-8"))

    @property
    def model(self) -> Path:
        """Where the trained model goes."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go."""
        return self.path / "checkpoints"

    def check(self, *, replace: bool) -> None:
        """Refuse what `create` would refuse, before a model is loaded for nothing; deletes nothing.

        Raises:
            RunError: The folder holds a run and `replace` is off, holds anything else, or cannot
                be looked into.
        """
        with _said_as_run_error(self.path):
            if not self.path.exists():
                return
            if not self.path.is_dir():
                raise RunError("not-a-folder", "--out names a file.", where=str(self.path))
            entries = sorted(entry.name for entry in self.path.iterdir())
        if entries in ([], ["run.json.part"]):  # new, or killed at its very start
            return
        foreign = [name for name in entries if name not in OWN_ENTRIES]
        if foreign or not is_run(self.path):
            raise RunError(
                "folder-not-empty",
                "the output folder holds something that is not a run of coltrain.",
                where=str(self.path),
                received=", ".join((foreign or entries)[:5]),
                expected="a new or empty folder",
                suggestion="another --out",
            )
        if not replace:
            raise RunError(
                "run-exists",
                "the output folder holds a run already.",
                where=str(self.path),
                suggestion=f"another --out, --replace to delete that run, or coltrain resume "
                f"{self.path} to go on with it",
            )

    def create(self, facts: dict[str, Any], *, replace: bool) -> None:
        """Make the folder: run.json first, so that a killed run is always known as one.

        Args:
            facts: For run.json.
            replace: Whether an earlier run may be deleted; never anything else.

        Raises:
            RunError: The folder holds a run and `replace` is off, holds anything else, or cannot
                be written.
        """
        self.check(replace=replace)
        with _said_as_run_error(self.path):
            self._clear()
            self.path.mkdir(parents=True, exist_ok=True)
            self.facts = {}
            self.record(**facts)
            (self.path / "evaluation").mkdir(exist_ok=True)
            (self.path / "metrics.jsonl").touch()

    def _clear(self) -> None:
        """Delete an earlier run; `check` has said that it is one."""
        if not self.path.exists():
            return
        # run.json goes last: a deletion cut short leaves what is still known as a run.
        entries = sorted(self.path.iterdir(), key=lambda entry: entry.name == "run.json")
        if not entries:
            return
        with run_lock(self.path):  # not under the hands of a living process
            for entry in entries:
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink(missing_ok=True)

    def go_back(self, step: int, is_evaluated: bool, num_lines: int) -> None:
        """Drop what was written after a checkpoint.

        Args:
            step: The checkpoint's.
            is_evaluated: Whether the evaluation after that step belongs to it.
            num_lines: Lines of metrics.jsonl then.
        """
        metrics = self.path / "metrics.jsonl"
        metrics.touch()
        kept = metrics.read_bytes().splitlines(keepends=True)[:num_lines]
        os.truncate(metrics, sum(map(len, kept)))
        (self.path / "evaluation").mkdir(exist_ok=True)
        for file in (self.path / "evaluation").rglob("*.json"):
            evaluated = json.loads(file.read_text(encoding="utf-8")).get("step", 0)
            if evaluated > step or (evaluated == step and not is_evaluated):
                file.unlink()
        shutil.rmtree(self.model, ignore_errors=True)

    def record(self, **facts: Any) -> None:
        """Add facts to run.json; written whole, never half."""
        self.facts |= facts
        write_json(self.path / "run.json", {"format": FORMAT, **self.facts})

    def flush(self) -> None:
        """Wait until the metrics are on the disk."""
        flush(self.path / "metrics.jsonl")

    def num_lines(self) -> int:
        """Whole lines of metrics.jsonl."""
        metrics = self.path / "metrics.jsonl"
        return metrics.read_bytes().count(b"\n") if metrics.is_file() else 0

    def forget_checkpoints(self) -> None:
        """Delete all checkpoints."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def append(self, lines: Sequence[dict[str, Any]]) -> None:
        """Add lines to metrics.jsonl, in one write."""
        with (self.path / "metrics.jsonl").open("ab") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl."""
        metrics = self.path / "metrics.jsonl"
        text = metrics.read_text(encoding="utf-8") if metrics.is_file() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def save_checks(self, checks: Mapping[str, list[dict[str, Any]]]) -> None:
        """Write data_check.json: what was found in the data, every row that was left out."""
        write_json(self.path / "data_check.json", checks)

    def save_row_contents(self, sets: Mapping[str, Iterable[tuple[str, Iterable[list]]]]) -> None:
        """Write data_contents.jsonl.gz: every row with its texts, and digests of its pages."""
        write_row_contents(self.path / ROW_CONTENTS, sets)

    def checks(self) -> dict[str, list[dict[str, Any]]] | None:
        """What `save_checks` wrote; None if the run was killed before."""
        file = self.path / "data_check.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def save_fingerprints(self, step: int, found: Mapping[str, TensorFingerprint]) -> None:
        """Add a step's tensors to fingerprints.json."""
        file = self.path / "fingerprints.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        known[str(step)] = {name: asdict(one) for name, one in found.items()}
        write_json(file, known)

    def save_evaluation(self, name: str, step: int, results: Sequence[Result]) -> None:
        """Write evaluation/NAME.json."""
        file = self.path / "evaluation" / f"{name}.json"
        write_results(file, results, step=step)
        flush(file)

    def save_illustrations(
        self, name: str, step: int, illustrations: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write evaluation/illustrations/NAME.json, beside the results, which have another form."""
        folder = self.path / "evaluation" / "illustrations"
        folder.mkdir(exist_ok=True)
        write_json(folder / f"{name}.json", {"step": step, "illustrations": illustrations})


@contextmanager
def _said_as_run_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            "cannot-write",
            "the run's folder cannot be written.",
            where=str(path),
            received=error.strerror or str(error),
            suggestion="another --out",
        ) from error


def is_run(path: Path) -> bool:
    """Whether a folder is a run of coltrain's."""
    try:
        facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and "result_hash" in facts


def write_json(path: Path, content: Any) -> None:
    """Write aside, flush, rename: a reader never meets half a file."""
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
