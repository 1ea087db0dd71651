"""What the batches were made of: queries, candidates, duplicates, rows seen and seen again."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import numpy as np

from coltrain.data.plan import BatchPlan
from coltrain.errors import ColtrainError
from coltrain.reproduction.report import figures
from coltrain.reproduction.report.reading import RunRecord
from coltrain.reproduction.report.table import Table


@dataclass(frozen=True)
class Presented:
    """Which rows the run has met, known from its plan.

    Attributes:
        plan: The run's; None where the record does not fit the plan that this version makes.
        global_size: Queries of a full step.
    """

    plan: BatchPlan | None
    global_size: int

    @classmethod
    def of(cls, record: RunRecord) -> "Presented":
        """From the facts that decide a plan, checked against what the run says of it."""
        size = record.fact("recipe.batch.global_size", 0)
        num_rows = sum(source.get("rows", 0) for source in record.fact("data.train", []))
        drop_last = record.fact("recipe.batch.drop_last", True)
        if _is_a_mixture(record):
            return cls(None, size)
        try:
            plan = BatchPlan(num_rows, size, record.fact("recipe.train.seed", 0), drop_last)
            is_the_same = plan.batches_per_epoch == record.fact("plan.batches_per_epoch")
        except (ColtrainError, ValueError, TypeError):
            return cls(None, size)
        return cls(plan if is_the_same else None, size)

    def pages(self, step: int) -> int:
        """Pages trained on up to a step, a page met twice counted twice."""
        if self.plan is None:
            return step * self.global_size
        per_epoch = self.plan.batches_per_epoch
        epochs, rest = divmod(step, per_epoch)
        whole = per_epoch * self.global_size if self.plan.drop_last else self.plan.num_rows
        return epochs * whole + rest * self.global_size

    def size(self, step: int) -> int:
        """Queries of one step, from 1."""
        return self.pages(step) - self.pages(step - 1)


def _is_a_mixture(record: RunRecord) -> bool:
    """Whether weights or batches of one source decide the rows; `BatchPlan` knows neither."""
    is_weighted = any(
        isinstance(source, dict) and source.get("weight") is not None
        for source in record.fact("recipe.data.train", [])
    )
    return is_weighted or record.fact("recipe.data.batches", "mixed") != "mixed"


@dataclass(frozen=True)
class Ledger:
    """The account of a run's batches.

    Attributes:
        table: One fact a row, with what it means.
        epochs: One epoch a row; None where the rows of the batches are not known.
    """

    table: Table
    epochs: Table | None


def ledger_of(record: RunRecord, presented: Presented) -> Ledger:
    """The account of a run's batches."""
    return _Account(record, presented).ledger


class _Account:
    def __init__(self, record: RunRecord, presented: Presented) -> None:
        self._record = record
        self._presented = presented
        self._numbers = [line["step"] for line in record.steps]

    @cached_property
    def ledger(self) -> Ledger:
        rows = [*self._steps(), *self._candidates(), *self._masked(), *self._rows()]
        table = Table(
            headings=("", "", "what it is"),
            rows=tuple(rows),
            caption="What the batches were made of",
            text_columns=(0, 2),
        )
        return Ledger(table, self._epochs())

    def _steps(self):
        planned = self._record.num_steps
        taken = figures.count(self._record.step)
        yield (
            "steps taken",
            taken if planned is None else f"{taken} of {figures.count(planned)}",
            "optimiser updates",
        )
        if self._numbers:
            sizes = [self._presented.size(step) for step in self._numbers]
            yield _spread("queries a step", sizes, "the global batch, each with its page")
            pages = figures.count(self._presented.pages(self._record.step))
            yield ("pages trained on", pages, "a page met twice counts twice")

    def _candidates(self):
        candidates = self._of_steps("candidates_per_query")
        if not candidates:
            return
        negatives = self._record.fact("recipe.batch.negatives", "global")
        among = "the whole global batch" if negatives == "global" else f"groups of {negatives}"
        yield _spread(
            "candidates per query",
            candidates,
            f"its own page and the negatives left to it, among {among}; means of steps",
        )

    def _masked(self):
        masked = self._of_steps("masked_duplicates")
        if masked:
            steps = sum(number > 0 for number in masked)
            yield (
                "masked duplicates",
                figures.count(sum(masked)),
                "pairs in which another row's page answers the query too, so was no negative; "
                f"in {figures.number_of(steps, 'step')}, {figures.count(max(masked))} at most",
            )

    def _rows(self):
        sources = self._record.fact("data.train", [])
        if sources:
            total = sum(source.get("rows", 0) for source in sources)
            yield ("rows of the training data", figures.count(total), "pairs of query and page")
        counts = self._times_met
        if counts is not None:
            again = int(np.maximum(counts - 1, 0).sum())
            yield (
                "rows met",
                figures.count(int((counts > 0).sum())),
                f"at least once; {figures.count(int((counts == 0).sum()))} never",
            )
            yield ("repeats", figures.count(again), "rows met in an earlier epoch already")
        left_out: dict[str, int] = {}
        for source in sources:
            for reason, number in source.get("left_out", {}).items():
                left_out[reason] = left_out.get(reason, 0) + number
        reasons = "; ".join(f"{reason}: {figures.count(n)}" for reason, n in left_out.items())
        yield ("rows left out", figures.count(sum(left_out.values())), reasons or "none was")

    @cached_property
    def _per_epoch(self) -> list[tuple[int, np.ndarray]]:
        """For each epoch begun: steps taken, and rows met in them."""
        plan, last = self._presented.plan, self._record.step
        if plan is None:
            return []
        epochs = []
        for first in range(1, last + 1, plan.batches_per_epoch):
            steps = range(first, min(first + plan.batches_per_epoch, last + 1))
            rows = np.concatenate([plan.batch_at(step)[1] for step in steps])
            epochs.append((len(steps), rows))
        return epochs

    @cached_property
    def _times_met(self) -> np.ndarray | None:
        if self._presented.plan is None:
            return None
        counts = np.zeros(self._presented.plan.num_rows, dtype=np.int64)
        for _, rows in self._per_epoch:
            counts[rows] += 1
        return counts

    def _epochs(self) -> Table | None:
        if not self._per_epoch:
            return None
        met = np.zeros(self._presented.plan.num_rows, dtype=bool)
        lines = []
        for epoch, (num_steps, rows) in enumerate(self._per_epoch):
            again = int(met[rows].sum())
            met[rows] = True
            line = (epoch + 1, num_steps, len(rows), len(rows) - again, again)
            lines.append(tuple(figures.count(number) for number in line))
        return Table(
            headings=("epoch", "steps", "rows", "met first", "met again"),
            rows=tuple(lines),
            caption="Rows met in each epoch",
        )

    def _of_steps(self, key: str) -> list[float]:
        return [line[key] for line in self._record.steps if line.get(key) is not None]


def _spread(name: str, values: Sequence[float], meaning: str) -> tuple[str, str, str]:
    """Smallest, median and largest; one number where they are the same."""
    low, middle, high = min(values), median(values), max(values)
    if low == high:
        return name, figures.count(low), meaning
    numbers = " / ".join(figures.count(round(value, 1)) for value in (low, middle, high))
    return f"{name}, min / median / max", numbers, meaning
