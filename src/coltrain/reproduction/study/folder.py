"""A study on disk.

study.json     what was asked for, and which runs it has
runs/ID        run folders, as `coltrain train` leaves them
claims/ID      who works on a run
outcomes/ID.json   how a run ended: finished, or failed and why
results.json, table.md, table.tex, report.html   what came out
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coltrain.errors import RunError
from coltrain.recipe import difference, recipe_from_mapping
from coltrain.recipe.wording import listed
from coltrain.recipe.writing import as_mapping
from coltrain.reproduction.study.plan import Plan, PlannedRun
from coltrain.training.run_folder import write_json

FORMAT = 1


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        is_finished: Else it failed.
        error: What went wrong; empty for a finished run.
        seconds: Of training and evaluation, over all attempts that are on record.
        token: Tells this outcome from an earlier one of the same run.
    """

    is_finished: bool
    error: str
    seconds: float
    token: str


class StudyFolder:
    """Where a study is kept.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, run: PlannedRun) -> Path:
        """The folder of a run."""
        return self.path / "runs" / run.training

    def evaluation(self, run: PlannedRun) -> Path:
        """The results of a run."""
        return self.path / "evaluations" / f"{run.identity}.json"

    def claim(self, run: PlannedRun) -> Path:
        """The folder of the claims on a run."""
        return self.path / "claims" / run.identity

    def begin(self, plan: Plan) -> list[str]:
        """Make the folder, or go on in it.

        Returns:
            What the study has more than when the folder was begun, in words.

        Raises:
            RunError: `[study-changed]`: runs of the folder are no longer runs of the study;
                `[folder-not-empty]`: it holds something else; `[cannot-write]`
        """
        file = self.path / "study.json"
        now = _document(plan)
        try:
            if not file.is_file():
                self._refuse_something_else()
                self.path.mkdir(parents=True, exist_ok=True)
                write_json(file, now)
                return []
            before = json.loads(file.read_text(encoding="utf-8"))
            added = self._added(before, now)
            if before != now:
                write_json(file, now)
            return added
        except OSError as error:
            raise RunError(
                "cannot-write",
                "the study's folder cannot be written.",
                where=str(self.path),
                received=error.strerror or str(error),
                suggestion="another --out",
            ) from error

    def _refuse_something_else(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise RunError("not-a-folder", "--out names a file.", where=str(self.path))
        entries = sorted(entry.name for entry in self.path.iterdir()) if self.path.exists() else []
        if [name for name in entries if name != "study.json.part"]:
            raise RunError(
                "folder-not-empty",
                "the output folder holds something that is not a study of coltrain.",
                where=str(self.path),
                received=", ".join(entries[:5]),
                expected="a new or empty folder, or that of this study",
                suggestion="another --out",
            )

    def _added(self, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
        lost = [run for identity, run in before["runs"].items() if identity not in now["runs"]]
        if lost:
            raise RunError(
                "study-changed",
                "the study is not the one that the folder was begun with.",
                where=str(self.path),
                received="\n".join(_changes(before, now)),
                expected=f"the same study, or one with more; {len(lost)} of {len(before['runs'])} "
                "runs there would no longer belong to it",
                suggestion="another --out; or put the study back as it was",
            )
        more = len(now["runs"]) - len(before["runs"])
        return [f"the study has {more} more runs than the folder was begun with"] if more else []

    def outcome(self, identity: str) -> Outcome | None:
        """How a run ended; None while it has not."""
        file = self.path / "outcomes" / f"{identity}.json"
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return Outcome(**document)

    def record(self, identity: str, *, error: str = "", seconds: float) -> Outcome:
        """Write down how a run ended."""
        outcome = Outcome(not error, error, round(seconds, 3), uuid.uuid4().hex)
        folder = self.path / "outcomes"
        folder.mkdir(exist_ok=True)
        write_json(folder / f"{identity}.json", vars(outcome))
        return outcome


def _document(plan: Plan) -> dict[str, Any]:
    study = plan.study.model_dump(mode="json", by_alias=True)
    return {
        "format": FORMAT,
        "study": study,
        "base": as_mapping(plan.runs[0].recipe),
        "data": plan.data,
        "runs": {run.identity: _place(run) for run in plan.runs},
    }


def _place(run: PlannedRun) -> dict[str, Any]:
    return {"levels": dict(run.cell.levels), "seed": run.seed}


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of a study is another, in words."""
    found = []
    for key, value in now["study"].items():
        earlier = before["study"].get(key)
        if earlier == value or key in ("name", "description", "margin"):
            continue
        if isinstance(value, dict) and isinstance(earlier, dict):
            names = [name for name in {**earlier, **value} if earlier.get(name) != value.get(name)]
            found.append(f"{key}: {listed(names, 'and')}")
        else:
            found.append(f"{key}: {value}, was {earlier}")
    for name, fingerprint in now["data"].items():
        if before["data"].get(name, fingerprint) != fingerprint:
            found.append(f"the data: {name}")
    if not found:  # the file is the same: what it names is not
        pair = [recipe_from_mapping(one["base"], "the base recipe") for one in (before, now)]
        found = [f"{one.path} = {one.right}, was {one.left}" for one in difference(*pair)]
    return found or [
        "nothing that the study says; another version of coltrain names runs otherwise"
    ]
