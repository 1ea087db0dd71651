"""A run's files, as far as they are there: nothing here fails on a run that was cut short."""

import json
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from coltrain.errors import RunError
from coltrain.evaluation.results import Result, read_results
from coltrain.training.run_folder import is_run

T = TypeVar("T")

# What `coltrain.evaluation.illustrations` writes, and the pictures need.
_OF_A_QUERY = ("id", "rank", "winner", "relevant_score", "other_score", "num_tokens")
_ROLES = ("relevant", "winner")
_OF_THE_GALLERY = ("id", "text", "rank", *_ROLES, "relevant_score", "winner_score", "num_tokens")


@dataclass(frozen=True)
class EvaluationFile:
    """An evaluation with its measures per query.

    Attributes:
        step: Steps taken before it.
        results: One for each data set.
    """

    step: int
    results: list[Result]


@dataclass(frozen=True)
class RunRecord:
    """What a run has written so far.

    Attributes:
        folder: Where.
        facts: run.json.
        steps: Step lines of metrics.jsonl, in order, one a step.
        evaluations: Evaluation lines of metrics.jsonl, in order.
        before: The evaluation before the first step, if there is one.
        after: The last evaluation after it, if there is one.
        checks: data_check.json: what the check of the data found, by "train" and "eval".
        pictures_before: Data set to the document of `coltrain.evaluation.illustrations`.
        pictures_after: The same at the end of the run.
        last_sign: When metrics.jsonl was last written.
        problems: What could not be read, in sentences.
        skipped: Lines of metrics.jsonl about steps that were left out, in order.
    """

    folder: Path
    facts: dict[str, Any]
    steps: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    before: EvaluationFile | None
    after: EvaluationFile | None
    checks: dict[str, list[dict[str, Any]]]
    pictures_before: dict[str, dict[str, Any]]
    pictures_after: dict[str, dict[str, Any]]
    last_sign: str | None
    problems: list[str] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def fact(self, path: str, default: Any = None) -> Any:
        """A value of run.json by its dotted path; the default where it is missing or null."""
        value: Any = self.facts
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return default if value is None else value

    @property
    def num_steps(self) -> int | None:
        """Steps that the run is to take."""
        return self.fact("plan.num_steps")

    @property
    def num_ranks(self) -> int:
        """Processes that computed last; 1 where a run of an early version does not say."""
        ranks = self.fact("ranks")
        last = ranks[-1] if isinstance(ranks, list) and ranks else None
        return last["size"] if isinstance(last, dict) and isinstance(last.get("size"), int) else 1

    @property
    def step(self) -> int:
        """Steps so far, those that were skipped among them."""
        return max((line["step"] for line in (*self.steps[-1:], *self.skipped[-1:])), default=0)

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end."""
        return self.facts.get("state") == "finished"

    @property
    def state(self) -> str:
        """`finished`, `stopped`, `interrupted`, `running`, `killed`, or `running or killed`."""
        state = str(self.facts.get("state", "unknown"))
        return _whether_alive(self.folder / "run.lock") if state == "running" else state


def read_run(folder: Path) -> RunRecord:
    """Read what a run has written.

    Args:
        folder: The run's.

    Raises:
        RunError: [not-a-run] The folder has no run.json that coltrain wrote.
    """
    if not is_run(folder):
        raise RunError(
            "not-a-run",
            "this folder is not a run of coltrain.",
            received=str(folder),
            expected="a folder with a run.json that coltrain wrote",
            suggestion="coltrain train RECIPE --out FOLDER starts one",
        )
    problems: list[str] = []
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    lines, last_sign = _lines(folder / "metrics.jsonl", problems)
    # A step that stands there twice was taken again after resuming; the later line counts.
    steps = {line["step"]: line for line in lines if line.get("kind") == "step"}
    skipped = {line["step"]: line for line in lines if line.get("kind") == "skipped-step"}
    evaluations = {
        (line["step"], line.get("dataset")): line
        for line in lines
        if line.get("kind") == "evaluation"
    }
    before, after = _evaluations(folder / "evaluation", problems)
    pictures = folder / "evaluation" / "illustrations"
    return RunRecord(
        folder=folder,
        facts=facts,
        steps=[steps[step] for step in sorted(steps)],
        evaluations=sorted(evaluations.values(), key=lambda line: line["step"]),
        before=before,
        after=after,
        checks=_checks(folder / "data_check.json", problems),
        pictures_before=_pictures(pictures / "before.json", problems),
        pictures_after=_pictures(pictures / "final.json", problems),
        last_sign=last_sign,
        problems=problems,
        skipped=[skipped[step] for step in sorted(skipped)],
    )


def _lines(path: Path, problems: list[str]) -> tuple[list[dict[str, Any]], str | None]:
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except OSError as error:
        problems.append(f"metrics.jsonl cannot be read ({error.strerror}): no curves.")
        return [], None
    lines, broken = [], 0
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError:
            content = None
        if isinstance(content, dict) and isinstance(content.get("step"), int):
            lines.append(content)
        else:
            broken += 1
    if broken:
        cut_off = broken == 1 and not text.endswith("\n")
        problems.append(
            "The last line of metrics.jsonl is cut off; it is left out here."
            if cut_off
            else f"{broken} lines of metrics.jsonl cannot be read; they are left out here."
        )
    return lines, written


def _evaluations(
    folder: Path, problems: list[str]
) -> tuple[EvaluationFile | None, EvaluationFile | None]:
    """The first evaluation, and the last one after it."""
    later = [folder / "final.json", *sorted(folder.glob("step-*.json"), reverse=True)]
    found = []
    for choices in ([folder / "before.json"], later):
        results = (
            _attempt(lambda path=path: _evaluation(path), path, problems)
            for path in choices
            if path.is_file()
        )
        found.append(next((result for result in results if result is not None), None))
    return found[0], found[1]


def _evaluation(path: Path) -> EvaluationFile:
    results = read_results(path)
    return EvaluationFile(json.loads(path.read_text(encoding="utf-8")).get("step", 0), results)


def _checks(path: Path, problems: list[str]) -> dict[str, list[dict[str, Any]]]:
    def read() -> dict[str, list[dict[str, Any]]]:
        document = json.loads(path.read_text(encoding="utf-8"))
        for checks in document.values():
            _expect(checks, ("rows",))
        return document

    return (_attempt(read, path, problems) or {}) if path.is_file() else {}


def _pictures(path: Path, problems: list[str]) -> dict[str, dict[str, Any]]:
    def read() -> dict[str, dict[str, Any]]:
        documents = json.loads(path.read_text(encoding="utf-8"))["illustrations"]
        for document in documents:
            _expect(document["queries"], _OF_A_QUERY)
            _expect(document["gallery"], _OF_THE_GALLERY)
            _expect(document["pages"].values(), ("width", "height", "jpeg"))
            shown = {one[role] for one in document["gallery"] for role in _ROLES}
            if not shown <= set(document["pages"]):
                raise KeyError("A page of the gallery is not there.")
        return {document["dataset"]: document for document in documents}

    return (_attempt(read, path, problems) or {}) if path.is_file() else {}


def _expect(entries: Iterable[dict[str, Any]], keys: Iterable[str]) -> None:
    for entry in entries:
        for key in keys:
            entry[key]


def _attempt(read: Callable[[], T], path: Path, problems: list[str]) -> T | None:
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RunError):
        depth = {"evaluation": 2, "illustrations": 3}.get(path.parent.name, 1)
        place = "/".join(path.parts[-depth:])
        problems.append(f"{place} cannot be read; it is left out here.")
        return None


def _whether_alive(lock: Path) -> str:
    """What became of a run that says `running`: its lock names the process that trains."""
    try:
        holder = json.loads(lock.read_text(encoding="utf-8"))
        if holder["host"] != socket.gethostname():
            return "running or killed"
        os.kill(holder["pid"], 0)  # asks whether the process is there; sends nothing
    except PermissionError:
        return "running"  # there, and somebody else's
    except (FileNotFoundError, ProcessLookupError):
        return "killed"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "running or killed"
    return "running"
