"""What the finished runs of a study reached, query by query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coltrain.errors import RunError
from coltrain.evaluation.statistics import Sample
from coltrain.reproduction.comparison.sides import read_side
from coltrain.reproduction.comparison.spread import sample_of
from coltrain.reproduction.study.design import Cell
from coltrain.reproduction.study.folder import StudyFolder
from coltrain.reproduction.study.plan import Plan

Tasks = tuple[Sample, ...]
"""A run's values on each data set, in the order of their names."""


@dataclass(frozen=True)
class Scores:
    """Every finished run of a study.

    Attributes:
        by_cell: For each cell that has a run, its seeds and what each reached.
        task_names: The data sets.
    """

    by_cell: Mapping[Cell, Mapping[int, Tasks]]
    task_names: tuple[str, ...] = field(default=("task",))

    def seeds(self, cells: Mapping[Cell, float] | list[Cell]) -> list[int]:
        """Seeds with a finished run in every one of these cells, in ascending order."""
        sets = [set(self.by_cell.get(cell, {})) for cell in cells]
        return sorted(set.intersection(*sets)) if sets else []


def read_scores(folder: StudyFolder, plan: Plan) -> Scores:
    """The scores of every run that finished.

    Raises:
        RunError: `[study-other-queries]`: two runs were not measured on the same queries.
    """
    measure = plan.study.evaluation.measure
    by_cell: dict[Cell, dict[int, Tasks]] = {}
    names: tuple[str, ...] = ()
    first: Tasks = ()
    for run in plan.runs:
        outcome = folder.outcome(run.identity)
        if outcome is None or not outcome.is_finished:
            continue
        tasks = read_side(str(folder.evaluation(run))).tasks
        mine = tuple(sorted(tasks))
        samples = tuple(sample_of(tasks[name], measure) for name in mine)
        names, first = names or mine, first or samples
        if mine != names or any(
            one.sizes.shape != other.sizes.shape or (one.sizes != other.sizes).any()
            for one, other in zip(samples, first, strict=True)
        ):
            raise RunError(
                "study-other-queries",
                "two runs of the study were not measured on the same queries.",
                where=str(folder.evaluation(run)),
                received=", ".join(mine),
                expected=", ".join(names) + ", with the same queries in each run",
                suggestion="the evaluation data back as it was, or another --out",
            )
        by_cell.setdefault(run.cell, {})[run.seed] = samples
    return Scores(by_cell, names)
