"""What the batches were made of: queries, candidates, duplicates, rows seen and seen again."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import numpy as np

from coltrain.data.mixture import MixturePlan
from coltrain.errors import ColtrainError
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.reproduction.report import figures
from coltrain.reproduction.report.reading import RunRecord
from coltrain.reproduction.report.table import Table

_SKIPPED_SHOWN = 8


@dataclass(frozen=True)
class Presented:
    """Which rows the run meets, known from its plan.

    Attributes:
        plan: The run's; None where the record does not fit the plan that this version makes.
        global_size: Queries of a full step.
        ends: Pages trained on after each step, from 0 to the last one planned; empty without plan.
        sources: Names of the training sources, in the plan's order.
    """

    plan: MixturePlan | None
    global_size: int
    ends: np.ndarray
    sources: tuple[str, ...]

    @classmethod
    def of(cls, record: RunRecord) -> "Presented":
        """From the facts that decide a plan, checked against what the run says of it."""
        size = record.fact("recipe.batch.global_size", 0)
        sources = record.fact("data.train", [])
        names = tuple(str(source.get("name")) for source in sources)
        plan = _plan(record, [source.get("rows", 0) for source in sources], size)
        if plan is None:
            return cls(None, size, np.zeros(0, dtype=np.int64), names)
        last = max(record.step, record.num_steps or 0)
        sizes = [len(plan.batch_at(step)[1]) for step in range(1, last + 1)]
        return cls(plan, size, np.cumsum([0, *sizes]), names)

    def pages(self, step: int) -> int:
        """Pages trained on up to a step, a page met twice counted twice."""
        return step * self.global_size if self.plan is None else int(self.ends[step])

    def size(self, step: int) -> int:
        """Queries of one step, from 1."""
        return self.pages(step) - self.pages(step - 1)


def _plan(record: RunRecord, sizes: Sequence[int], global_size: int) -> MixturePlan | None:
    named = record.fact("recipe.data.train", [])
    weights = [source.get("weight") if isinstance(source, dict) else None for source in named]
    try:
        plan = MixturePlan(
            sizes=tuple(sizes),
            global_size=global_size,
            seed=record.fact("recipe.train.seed", 0),
            drop_last=record.fact("recipe.batch.drop_last", True),
            weights=None if None in weights else tuple(weights),
            batches=record.fact("recipe.data.batches", "mixed"),
        )
    except (ColtrainError, ValueError, TypeError):
        return None
    is_the_same = plan.batches_per_epoch == record.fact("plan.batches_per_epoch")
    return plan if is_the_same else None


@dataclass(frozen=True)
class Ledger:
    """The account of a run's batches.

    Attributes:
        table: One fact a row, with what it means.
        epochs: One epoch a row; None where the rows of the batches are not known.
        sources: One training source a row, where there are several.
    """

    table: Table
    epochs: Table | None
    sources: Table | None


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
        rows = [
            *self._steps(),
            *self._candidates(),
            *self._hard_negatives(),
            *self._masked(),
            *self._rows(),
        ]
        table = Table(
            headings=("", "", "what it is"),
            rows=tuple(rows),
            caption="What the batches were made of",
            text_columns=(0, 2),
        )
        return Ledger(table, self._epochs(), self._sources())

    def _steps(self):
        planned = self._record.num_steps
        taken = figures.count(self._record.step)
        yield (
            "steps taken",
            taken if planned is None else f"{taken} of {figures.count(planned)}",
            "optimiser updates" if not self._record.skipped else "skipped ones among them",
        )
        skipped = self._record.skipped
        if skipped:
            numbers = ", ".join(str(line["step"]) for line in skipped[:_SKIPPED_SHOWN])
            more = "" if len(skipped) <= _SKIPPED_SHOWN else ", …"
            at_loss = sum(bool(line.get("at_loss")) for line in skipped)
            yield (
                "steps skipped",
                f"{figures.count(len(skipped))}: {numbers}{more}",
                f"float16: the loss was not finite in {at_loss}, a gradient in the others; nothing "
                "moved, and the learning rate waited",
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

    def _hard_negatives(self):
        settings = self._record.fact("recipe.hard_negatives", {})
        is_shared = bool(settings.get("shared"))
        loss = self._record.fact("recipe.loss.name")
        if loss not in HARD_NEGATIVE_LOSSES and not is_shared:
            return
        among = settings.get("among_first")
        yield (
            "hard negatives per query",
            figures.count(settings.get("per_query")),
            ("drawn from all that the data names" if among is None else f"of the hardest {among}")
            + (", serving all queries" if is_shared else ", serving their own query"),
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
            yield ("repeats", figures.count(again), "rows that had been met before")
        left_out: dict[str, int] = {}
        for source in sources:
            for reason, number in source.get("left_out", {}).items():
                left_out[reason] = left_out.get(reason, 0) + number
        reasons = "; ".join(f"{reason}: {figures.count(n)}" for reason, n in left_out.items())
        yield ("left out", figures.count(sum(left_out.values())), reasons or "nothing was")

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
            np.add.at(counts, rows, 1)  # a weighted source repeats rows within an epoch
        return counts

    def _epochs(self) -> Table | None:
        if not self._per_epoch:
            return None
        met = np.zeros(self._presented.plan.num_rows, dtype=bool)
        lines = []
        for epoch, (num_steps, rows) in enumerate(self._per_epoch):
            known = int(met.sum())
            met[rows] = True
            first = int(met.sum()) - known
            line = (epoch + 1, num_steps, len(rows), first, len(rows) - first)
            lines.append(tuple(figures.count(number) for number in line))
        return Table(
            headings=("epoch", "steps", "rows", "met first", "met again"),
            rows=tuple(lines),
            caption="Rows met in each epoch",
        )

    def _sources(self) -> Table | None:
        counts, plan = self._times_met, self._presented.plan
        if counts is None or len(plan.sizes) == 1:
            return None
        lines = []
        ends = np.cumsum(plan.sizes)
        for name, of_source in zip(
            self._presented.sources, np.split(counts, ends[:-1]), strict=True
        ):
            trained = int(of_source.sum())
            share = f"{100 * trained / max(1, counts.sum()):.1f}%"
            met = int((of_source > 0).sum())
            numbers = (len(of_source), trained, met, trained - met)
            rows, *more = map(figures.count, numbers)
            lines.append((name, rows, share, *more))
        return Table(
            headings=("source", "rows", "share", "trained on", "met at least once", "met again"),
            rows=tuple(lines),
            caption="Rows met of each source",
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
