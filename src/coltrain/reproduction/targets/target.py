"""What `read_target` gives."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from coltrain.recipe import Recipe
from coltrain.reproduction.targets.calls import Call
from coltrain.reproduction.targets.facts import Facts
from coltrain.reproduction.targets.printed_log import Printed

if TYPE_CHECKING:
    from coltrain.reproduction.report.reading import RunRecord

Kind = Literal[
    "recipe", "run", "model", "colpali-engine", "sentence-transformers", "pylate", "transformers"
]


@dataclass(frozen=True)
class Mention:
    """A name that a script calls, whether or not the call was followed.

    Attributes:
        name: Last part: `process_texts`; or what the script does by hand (`python/by_hand.py`).
        where: File and line.
        text: Strings among its arguments.
        on: What it is a method of, as written: `dist`, `accelerator`.
    """

    name: str
    where: str
    text: str = ""
    on: str = ""


@dataclass
class Target:
    """A training, as far as what is left of it can be read.

    Attributes:
        kind: What it is, or which library's.
        path: As it was named.
        facts: What is known.
        read: Files, and what was taken from each.
        not_read: What was not understood, or cannot be read without running it.
        recipe: Of a recipe, and of a run that recorded one.
        run: Of a run of ours.
        folder: Where weights lie, of a model folder and of a run that has a model.
        calls: What a foreign configuration builds.
        mentions: Every name that a foreign script calls.
        commits: Commits of colpali-engine that are named: git_hash.txt, `git+…@commit`.
        log: `log_history` of a trainer_state.json, or the lines that a training printed.
        log_where: Which of them it is.
        printed: What it printed about weights.
        case: What a case.yaml in the folder says.
        files: JSON files of a model's folder, by name.
        loaded: What checks found out about its weights, kept between them.
    """

    kind: Kind
    path: str
    facts: Facts = field(default_factory=Facts)
    read: list[str] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)
    recipe: Recipe | None = None
    run: "RunRecord | None" = None
    folder: Path | None = None
    calls: list[Call] = field(default_factory=list)
    mentions: list[Mention] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    log_where: str = "trainer_state.json, log_history"
    printed: Printed = field(default_factory=Printed)
    files: dict[str, Any] = field(default_factory=dict)
    case: dict[str, Any] = field(default_factory=dict)
    loaded: dict[str, Any] = field(default_factory=dict)

    def mentioned(self, *names: str) -> str | None:
        """Where a script first calls one of these."""
        found = self.mention(*names)
        return None if found is None else found.where

    def mention(self, *names: str) -> Mention | None:
        """The first of these that a script calls."""
        return next((one for one in self.mentions if one.name in names), None)

    def to_json(self) -> dict[str, Any]:
        """What was read, without the files themselves."""
        return {
            "target": self.path,
            "kind": self.kind,
            "read": self.read,
            "not_read": self.not_read,
            "facts": self.facts.to_json(),
        }
