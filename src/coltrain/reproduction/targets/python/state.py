"""What a reader of a script knows up to now."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coltrain.reproduction.targets.calls import Call


class State:
    """Shared by the parts of a reader.

    Attributes:
        file: The script.
        options: `--name value` of the command that starts it; None where no command is known.
        environment: Variables that the command sets.
        calls: Of anything from outside, in the order in which they are met.
        not_read: What stopped the reading.
        scope: Module-level variables.
        entered: Functions whose body was read.
        depth: Of the call that is being followed.
        unsure: How many branches around it may not be taken.
    """

    def __init__(
        self, file: Path, options: Mapping[str, Any] | None, environment: Mapping[str, str]
    ) -> None:
        self.file = file
        self.options = options
        self.environment = dict(environment)
        self.calls: list[Call] = []
        self.not_read: list[str] = []
        self.scope: dict[str, Any] = {"__name__": "__main__"}
        self.entered: set[int] = set()
        self.depth = 0
        self.unsure = 0
