"""One side of a comparison: a training, with all that is known of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from coltrain.data.row_contents import RowContents


@dataclass(frozen=True)
class Value:
    """Something known of a training.

    Attributes:
        value: Plain: a number, text, truth value, list, mapping or None.
        where: File and key, or page, that says so.
    """

    value: Any
    where: str


@dataclass(frozen=True)
class StatedMean:
    """A mean over a benchmark that somebody stated, without the scores behind it."""

    benchmark: str
    measure: str
    value: float
    source: str


@dataclass
class Side:
    """A training, as far as what is left of it says.

    Attributes:
        label: As it was named.
        kind: `run`, `recipe`, `published`, `model`, or the library of a foreign configuration.
        values: What is known, by name: a recipe's keys, and names such as `versions.torch`.
        unknown: What is known to be missing, by name, and why.
        not_read: What of it was not understood, in sentences.
        notes: What a case says of a value, by name.
        means: Means that were stated for it.
        rows: Reads every row of a run's data; None where they were not recorded.
        first_steps: Step to a hash of all trained tensors after it, as far as recorded.
        recipe: Whether the values hold a whole recipe, so that all of its keys compare.
    """

    label: str
    kind: str
    values: dict[str, Value] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    not_read: list[str] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    means: list[StatedMean] = field(default_factory=list)
    rows: Callable[[], list[RowContents]] | None = None
    first_steps: dict[int, str] = field(default_factory=dict)
    recipe: bool = False

    def put(self, name: str, value: Any, where: str) -> None:
        """Add a value; what was recorded later of a name counts."""
        self.values[name] = Value(value, where)

    def value(self, name: str, default: Any = None) -> Any:
        """A value, or the default where nothing is known."""
        return self.values[name].value if name in self.values else default
