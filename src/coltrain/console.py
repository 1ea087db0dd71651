"""The one place that prints: results on stdout, progress on stderr."""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, Group
from rich.filesize import decimal
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from coltrain.evaluation.results import Result
    from coltrain.training.events import EvaluationResult, Event, StepResult

# Names of files and data sets may hold brackets and colons; they are no markup.
_AS_TYPED = {"highlight": False, "markup": False, "emoji": False}
_SECONDS_BETWEEN_LINES = 15.0  # of a download, where stderr is no terminal
MEASURES_SHOWN = ("nDCG@5", "nDCG@10", "Recall@1", "Recall@5", "MRR@10")


def stderr() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True, **_AS_TYPED)


def print_what_the_terminal_cannot_show() -> None:
    """Write letters that stdout or stderr has no bytes for as escapes, rather than fail at them."""
    for stream in (sys.stdout, sys.stderr):
        if not _has_all_letters(stream) and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _has_all_letters(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


def print_json(document: Any) -> None:
    """One JSON document, alone on stdout."""
    is_ascii = not _has_all_letters(sys.stdout)  # JSON has escapes of its own
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=is_ascii) + "\n")


def print_json_line(document: Any) -> None:
    """One JSON document on a line of stdout, there at once for who reads along."""
    is_ascii = not _has_all_letters(sys.stdout)
    sys.stdout.write(json.dumps(document, ensure_ascii=is_ascii) + "\n")
    sys.stdout.flush()


def print_text(text: str) -> None:
    """Text as it is, on stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def print_error(error: Exception) -> None:
    """An error's own words on stderr, nothing around them."""
    sys.stderr.write(f"{error}\n")


def print_table(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], *, is_text: bool = False
) -> None:
    """A table on stdout; numbers to the right, unless its cells are text."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, heading in enumerate(headings):
        is_left = number == 0 or is_text
        table.add_column(heading, justify="left" if is_left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    output = Console(**_AS_TYPED)
    if not output.is_terminal:
        output.width = 160  # a file or pipe has no width of its own; nothing is folded to fit 80
    output.print(table)


def print_results(results: Sequence["Result"]) -> None:
    """A row for each data set, scores x 100 as papers print them.

    nDCG@5 stands beside its 95 % interval where there is one.
    """
    has_intervals = any(result.intervals for result in results)
    first, *others = MEASURES_SHOWN
    print_table(
        "scores x 100",
        [
            *("data set", "queries", "pages", first),
            *(["95 % interval"] if has_intervals else []),
            *others,
        ],
        [
            [
                *(result.dataset, str(result.num_queries), str(result.num_pages)),
                f"{100 * result.measures[first]:.1f}",
                *([_interval(result, first)] if has_intervals else []),
                *(f"{100 * result.measures[name]:.1f}" for name in others),
            ]
            for result in results
        ],
    )


def _interval(result: "Result", name: str) -> str:
    found = (result.intervals or {}).get(name)
    return f"{100 * found['low']:.1f} – {100 * found['high']:.1f}" if found else "–"


@contextmanager
def item_progress(description: str, total: int | None) -> Iterator:
    """A bar with time left on stderr; yields the function to call after each item."""
    with _progress() as progress:
        task = progress.add_task(description, total=total)
        yield lambda: progress.advance(task)


@contextmanager
def counted_progress(description: str) -> Iterator:
    """The same for work that says itself how far it is: call with (done, in all)."""
    with _progress() as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def download_progress(name: str, num_files: int, num_bytes: int) -> Iterator:
    """What comes from the hub, on stderr: a bar on a terminal, a line now and then elsewhere.

    Yields the function to call with the bytes that have come; below 0 where a file starts anew.
    """
    output = stderr()
    size = decimal(num_bytes)
    what = f"{num_files} file" + ("s" if num_files > 1 else "")
    output.print(f"downloading {name}: {what}, {size}", soft_wrap=True)
    start = said = time.monotonic()
    done = 0
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=output,
        transient=True,
    )
    with progress if output.is_terminal else nullcontext():
        task = progress.add_task("downloading", total=num_bytes)

        def advance(num: int) -> None:
            nonlocal done, said
            done += num
            progress.advance(task, num)
            now = time.monotonic()
            if not output.is_terminal and now - said > _SECONDS_BETWEEN_LINES and done > 0:
                said = now
                left = timedelta(seconds=round((num_bytes - done) * (now - start) / done))
                output.print(f"downloading {name}: {decimal(done)} of {size}, {left} left")

        yield advance
    output.print(
        f"downloaded {name}: {size} in {timedelta(seconds=round(time.monotonic() - start))}",
        soft_wrap=True,
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=stderr(),
        transient=True,
    )


class TrainingView:
    """Shows a run as it happens: a live panel on a terminal, plain lines elsewhere.

    Args:
        every: Steps between plain lines where stderr is no terminal.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._console = stderr()
        self._bar = _progress()
        self._steps = self._items = None
        self._last: StepResult | None = None
        self._losses: list[float] = []
        self._seconds: list[float] = []  # of the steps so far
        self._scores: list[tuple[int, float]] = []  # (step, nDCG@5), the mean over data sets
        self._of_this_evaluation: list[float] = []
        self._live = Live(
            get_renderable=self._panel,
            console=self._console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,  # stdout is for results, and a pipe wants them as they are
        )

    def __enter__(self) -> "TrainingView":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def advance_item(self) -> None:
        """A page or query of an evaluation was encoded."""
        if self._items is not None:
            self._bar.advance(self._items)

    def show(self, event: "Event") -> None:
        """Take in what the loop yielded."""
        from coltrain.training.events import (
            EvaluationResult,
            EvaluationStarts,
            Notice,
            StepResult,
            StepSkipped,
            Stopped,
        )

        if isinstance(event, StepResult):
            self._show_step(event)
        elif isinstance(event, StepSkipped):
            self._say(event.sentence)
        elif isinstance(event, EvaluationStarts):
            self._of_this_evaluation = []
            self._items = self._bar.add_task("evaluating", total=event.num_items)
        elif isinstance(event, EvaluationResult):
            self._end_items()
            self._take_in(event)
            loss = "" if event.loss is None else f", loss {event.loss:.4f}"
            score = event.result.measures["nDCG@5"]
            self._say(f"step {event.step}: nDCG@5 {score:.4f}{loss} on {event.result.dataset}")
        elif isinstance(event, Notice):
            self._say(f"note: {event.text}")
        elif isinstance(event, Stopped):
            self._end_items()
            self._say(
                f"stopped by {event.signal_name} after step {event.step} of {event.num_steps}; "
                "nothing is lost"
            )

    def _take_in(self, event: "EvaluationResult") -> None:
        """Keep the mean over the data sets of one evaluation."""
        self._of_this_evaluation.append(event.result.measures["nDCG@5"])
        mean = sum(self._of_this_evaluation) / len(self._of_this_evaluation)
        earlier = self._scores[:-1] if len(self._of_this_evaluation) > 1 else self._scores
        self._scores = [*earlier, (event.step, mean)]

    def _end_items(self) -> None:
        if self._items is not None:
            self._bar.remove_task(self._items)
            self._items = None

    def _show_step(self, step: "StepResult") -> None:
        self._last = step
        self._losses.append(step.loss)
        self._seconds.append(step.seconds)
        if self._steps is None:
            first = step.step - 1  # a resumed run does not begin at 0
            self._steps = self._bar.add_task("training", total=step.num_steps, completed=first)
        self._bar.update(self._steps, completed=step.step)
        is_due = step.step % self._every == 0 or step.step == step.num_steps
        if not self._console.is_terminal and is_due:
            score = f"  nDCG@5 {self._scores[-1][1]:.3f}" if self._scores else ""
            mean = sum(self._seconds) / len(self._seconds)
            left = timedelta(seconds=round(mean * (step.num_steps - step.step)))
            self._say(
                f"step {step.step}/{step.num_steps}  loss {step.loss:.4f}  "
                f"{step.pages_per_second:.1f} pages/s{score}  left {left}"
            )

    def _panel(self) -> Group:
        """What stands at the foot of a terminal while a run goes on."""
        if self._last is None:
            return Group(self._bar)
        last = self._last
        figures = Table.grid(padding=(0, 2))
        figures.add_column(style="dim")
        figures.add_column()
        figures.add_row("loss", f"{last.loss:.4f}  {sparkline(self._losses, 32)}")
        figures.add_row("step", f"lr {last.learning_rate:.2e}   gradient norm {last.grad_norm:.3f}")
        masked = f", {last.masked_duplicates} masked" if last.masked_duplicates else ""
        figures.add_row(
            "batch",
            f"{last.candidates_per_query:g} candidates a query{masked}   "
            f"{last.pages_per_second:.1f} pages/s",
        )
        if self._scores:
            best_step, best = max(self._scores, key=lambda one: (one[1], -one[0]))
            figures.add_row(
                "nDCG@5", f"{self._scores[-1][1]:.3f}   best {best:.3f} after step {best_step}"
            )
        return Group(figures, self._bar)

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)  # a line in a log stays one line


_HEIGHTS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve in one line of text: means of neighbouring values, the lowest at the bottom."""
    if len(values) < 2:
        return ""
    width = min(width, len(values))
    cuts = [place * len(values) // width for place in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, high = min(means), max(means)
    if not math.isfinite(high - low) or high == low:
        return _HEIGHTS[0] * width
    top = len(_HEIGHTS) - 1
    return "".join(_HEIGHTS[round((mean - low) / (high - low) * top)] for mean in means)
