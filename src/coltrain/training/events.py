"""What the training loop yields; the command line prints it, a test takes three with `islice`."""

from dataclasses import asdict, dataclass
from typing import Any

from coltrain.evaluation.results import Result


@dataclass(frozen=True)
class StepResult:
    """One optimiser step.

    Attributes:
        step: From 1.
        num_steps: Of the whole run.
        epoch: From 0.
        loss: Over the global batch.
        learning_rate: With which the step was taken.
        grad_norm: Before clipping.
        candidates_per_query: Pages that a query was compared with, its own included; the mean.
        masked_duplicates: Pairs in which a page was no negative, being relevant to the query.
        pages_per_second: Pages trained on in a second of this step.
        seconds: Wall time of the step, data included.
        wait_seconds: Of these, waiting for pages to be read and prepared.
        by_source: Of each source in the batch its rows and their loss, where there are several.
        gradient_scale: By which gradients were multiplied on their way, in float16.
        batch: A digest of which rows shared the batch, in whatever order.
        chunk_size: Samples that pass through the model together, where memory ran out; None where
            they are as many as the recipe says.
    """

    step: int
    num_steps: int
    epoch: int
    loss: float
    learning_rate: float
    grad_norm: float
    candidates_per_query: float
    masked_duplicates: int
    pages_per_second: float
    seconds: float
    wait_seconds: float = 0.0
    by_source: dict[str, dict[str, float | int]] | None = None
    chunk_size: int | None = None
    gradient_scale: float | None = None
    batch: str | None = None


@dataclass(frozen=True)
class StepSkipped:
    """An optimiser step that was left out: nothing moved, and the learning rate waits.

    Attributes:
        step: From 1; its batch is used up.
        num_steps: Of the whole run.
        epoch: From 0.
        reason: What was not finite.
        at_loss: Whether the loss itself was not finite, rather than a gradient only.
        scale: Of the gradients in this step.
        next_scale: Of the gradients in the next.
        num_skipped: Steps left out so far.
        in_a_row: The last so many.
        seconds: Wall time of the step.
        wait_seconds: Of these, waiting for pages to be read and prepared.
    """

    step: int
    num_steps: int
    epoch: int
    reason: str
    at_loss: bool
    scale: float
    next_scale: float
    num_skipped: int
    in_a_row: int
    seconds: float
    wait_seconds: float = 0.0

    @property
    def sentence(self) -> str:
        """For people."""
        scale = (
            "overflowing activations, which no gradient scale cures"
            if self.at_loss
            else f"gradient scale {self.scale:g} → {self.next_scale:g}"
        )
        return (
            f"step {self.step}/{self.num_steps} skipped: {self.reason}; {scale}; "
            f"{self.num_skipped} so far"
        )


@dataclass(frozen=True)
class EvaluationResult:
    """One evaluation of one data set.

    Attributes:
        step: Optimiser steps taken so far; 0 is before the first.
        result: Measures, overall and per query.
        loss: The recipe's loss over fixed batches of the data set; None where it has too few rows.
        seconds: Wall time.
    """

    step: int
    result: Result
    loss: float | None
    seconds: float


@dataclass(frozen=True)
class EvaluationStarts:
    """An evaluation begins; so many pages and queries will be encoded."""

    step: int
    num_items: int


@dataclass(frozen=True)
class Notice:
    """Something that a person should know; also recorded in run.json."""

    text: str


@dataclass(frozen=True)
class Stopped:
    """The run was asked to stop and can go on later.

    Attributes:
        step: The last whole step; its state is in a checkpoint.
        num_steps: Of the whole run.
        signal_name: Who asked.
    """

    step: int
    num_steps: int
    signal_name: str


Event = StepResult | StepSkipped | EvaluationStarts | EvaluationResult | Notice | Stopped

_KINDS: dict[type, str] = {
    StepResult: "step",
    StepSkipped: "skipped-step",
    EvaluationStarts: "evaluation-starts",
    EvaluationResult: "evaluation",
    Notice: "notice",
    Stopped: "stopped",
}


def event_line(event: Event) -> dict[str, Any]:
    """An event as plain values: a line for machines, and for metrics.jsonl.

    Every line says its `kind`: step, skipped-step, evaluation-starts, evaluation, notice or stopped. Numbers of
    steps and evaluations stand under the names that metrics.jsonl has.
    """
    line: dict[str, Any] = {"kind": _KINDS[type(event)]}
    if isinstance(event, EvaluationResult):
        return line | {
            "step": event.step,
            "dataset": event.result.dataset,
            "nDCG@5": event.result.measures["nDCG@5"],
            "loss": event.loss,
            "measures": event.result.measures,
            "seconds": round(event.seconds, 3),
        }
    line |= asdict(event)
    if isinstance(event, StepResult):
        line["lr"] = line.pop("learning_rate")
        for optional in ("by_source", "gradient_scale", "chunk_size", "batch"):
            if line[optional] is None:
                del line[optional]
        line["pages_per_second"] = round(event.pages_per_second, 3)
        line["seconds"] = round(event.seconds, 4)
        line["wait_seconds"] = round(event.wait_seconds, 4)
    elif isinstance(event, StepSkipped):
        line["seconds"] = round(event.seconds, 4)
        line["wait_seconds"] = round(event.wait_seconds, 4)
    elif isinstance(event, Stopped):
        line["signal"] = line.pop("signal_name")
    return line
