"""A run's folder as the ranks see it that do not write."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coltrain.evaluation.results import Result
from coltrain.training.fingerprints import TensorFingerprint
from coltrain.training.run_folder import RunFolder


class Onlooker(RunFolder):
    """Reads what rank 0 writes, and writes nothing."""

    def create(self, facts: dict[str, Any], *, replace: bool) -> None:
        self.facts = dict(facts)

    def record(self, **facts: Any) -> None:
        self.facts |= facts

    def go_back(self, step: int, is_evaluated: bool, num_lines: int) -> None:
        pass

    def flush(self) -> None:
        pass

    def forget_checkpoints(self) -> None:
        pass

    def append(self, lines: Sequence[dict[str, Any]]) -> None:
        pass

    def save_checks(self, checks: Mapping[str, list[dict[str, Any]]]) -> None:
        pass

    def save_row_contents(self, sets: Mapping[str, Iterable[tuple[str, Iterable[list]]]]) -> None:
        pass

    def save_fingerprints(self, step: int, found: Mapping[str, TensorFingerprint]) -> None:
        pass

    def save_evaluation(self, name: str, step: int, results: Sequence[Result]) -> None:
        pass

    def save_illustrations(
        self, name: str, step: int, illustrations: Sequence[Mapping[str, Any]]
    ) -> None:
        pass
