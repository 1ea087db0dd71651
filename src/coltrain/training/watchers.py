"""Where else a run can be watched: TensorBoard, Weights & Biases, trackio.

They show what metrics.jsonl holds; none is needed, and each is imported only when a recipe names it.
A watcher that fails is left out with a word, and training goes on.
"""

import contextlib
import hashlib
import importlib
import io
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from coltrain.errors import RunError
from coltrain.training.events import EvaluationResult, Event, Notice, StepResult
from coltrain.training.run_folder import RunFolder

PROJECT = "coltrain"
FOLDER = "watch"
"""Folder within a run where watchers keep their files."""


@runtime_checkable  # so that tests can check it in signatures
class Watcher(Protocol):
    """What a run tells while it goes; all calls come from one thread, in order."""

    def start(self, facts: Mapping[str, Any]) -> str | None:
        """The run begins or goes on; returns where to look, if there is a place.

        Args:
            facts: What run.json says.
        """

    def step(self, result: StepResult) -> None:
        """An optimiser step was taken."""

    def evaluation(self, event: EvaluationResult) -> None:
        """A data set was evaluated."""

    def notice(self, text: str) -> None:
        """A person was told something."""

    def end(self, state: str) -> None:
        """Nothing more comes; the state is that of run.json."""


class TensorBoard:
    """Event files in the run's folder.

    Args:
        run: The run's folder.
        first_step: The first step that will be taken; what an earlier attempt wrote of it and of
            later ones is hidden.
    """

    def __init__(self, run: Path, first_step: int) -> None:
        self._folder = run / FOLDER / "tensorboard"
        self._first_step = first_step
        self._step = first_step - 1

    def start(self, facts: Mapping[str, Any]) -> str | None:
        tensorboard = _module("tensorboard")
        self._writer = tensorboard.SummaryWriter(str(self._folder), purge_step=self._first_step)
        self._writer.add_text("recipe", f"```yaml\n{facts['recipe_yaml']}```")
        return f"tensorboard --logdir {self._folder}"

    def step(self, result: StepResult) -> None:
        self._step = result.step
        self._add(step_figures(result))

    def evaluation(self, event: EvaluationResult) -> None:
        self._step = event.step
        self._add(evaluation_figures(event))
        self._writer.flush()

    def notice(self, text: str) -> None:
        self._writer.add_text("notice", text, self._step)

    def end(self, state: str) -> None:
        self._writer.add_text("state", state, self._step)
        self._writer.close()

    def _add(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, self._step)


class WeightsAndBiases:
    """A run of Weights & Biases; offline or switched off where WANDB_MODE says so.

    A run that is resumed goes on in the same place: its id follows from run.json.

    Args:
        run: The run's folder.
        first_step: Not needed: steps that were logged before are the same, and kept.
    """

    def __init__(self, run: Path, first_step: int) -> None:
        self._run = run
        self._notices: list[str] = []

    def start(self, facts: Mapping[str, Any]) -> str | None:
        wandb = _module("wandb")
        # Silent before all else: nobody answers a question that waits under a progress bar.
        wandb.setup(settings=wandb.Settings(silent=True))
        folder = self._run / FOLDER
        folder.mkdir(exist_ok=True)
        self._watched = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", self._run.name),
            id=os.environ.get("WANDB_RUN_ID") or run_id(self._run, facts),
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(folder)),
            config=dict(facts["recipe"]) | {"result_hash": facts["result_hash"]},
            settings=wandb.Settings(silent=True, console="off"),  # stdout is not its to capture
        )
        if self._watched.offline:
            return f"wandb sync {Path(self._watched.dir).parent}"
        return self._watched.url

    def step(self, result: StepResult) -> None:
        self._watched.log(step_figures(result), step=result.step)

    def evaluation(self, event: EvaluationResult) -> None:
        self._watched.log(evaluation_figures(event), step=event.step)

    def notice(self, text: str) -> None:
        self._notices.append(text)
        self._watched.summary["notices"] = list(self._notices)

    def end(self, state: str) -> None:
        self._watched.summary["state"] = state
        self._watched.finish(exit_code=1 if state == "stopped" else 0)


class Trackio:
    """A run of trackio, in its local store or where TRACKIO_SPACE_ID says.

    Args:
        run: The run's folder.
        first_step: Not needed: steps that were logged before are the same.
    """

    def __init__(self, run: Path, first_step: int) -> None:
        self._run = run

    def start(self, facts: Mapping[str, Any]) -> str | None:
        self._trackio = trackio = _module("trackio")
        with _nothing_printed():
            self._watched = trackio.init(
                project=PROJECT,
                name=f"{self._run.name}-{run_id(self._run, facts)}",
                config=dict(facts["recipe"]) | {"result_hash": facts["result_hash"]},
                resume="allow",
                embed=False,
            )
        return f"trackio show --project {PROJECT}"

    def step(self, result: StepResult) -> None:
        self._watched.log(step_figures(result), step=result.step)

    def evaluation(self, event: EvaluationResult) -> None:
        self._watched.log(evaluation_figures(event), step=event.step)

    def notice(self, text: str) -> None:
        with _nothing_printed():
            self._watched.alert("notice", text, level=self._trackio.AlertLevel.INFO)

    def end(self, state: str) -> None:
        with _nothing_printed():
            # Not the run's own `finish`: trackio would finish it again, aloud, when Python ends.
            self._trackio.finish()


_WATCHERS: dict[str, type[Watcher]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}
_MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "trackio": "trackio"}


def refuse_missing(names: Sequence[str]) -> None:
    """Raise [missing-extra] if the recipe names a watcher that is not installed.

    Raises:
        RunError: One is not installed.
    """
    for name in names:
        _module(name)


def watched(
    events: Generator[Event, None, None], names: Sequence[str], run: RunFolder, first_step: int
) -> Iterator[Event]:
    """Pass a run's events on, and tell watchers of them.

    Watchers start with the first event: the folder is this process's own by then.

    Args:
        events: Of the loop.
        names: Watchers of the recipe.
        run: The run's folder.
        first_step: The first step that will be taken.

    Yields:
        All events, and a notice where a watcher says where to look, or fails.
    """
    watchers: dict[str, Watcher] = {
        name: _WATCHERS[name](run.path, first_step) for name in dict.fromkeys(names)
    }
    started: dict[str, Watcher] = {}
    try:
        for event in events:
            if watchers:
                for name, watcher in watchers.items():
                    try:
                        place = watcher.start(run.facts)
                    except Exception as error:
                        yield _left_out(name, error)
                        continue
                    started[name] = watcher
                    if place:
                        yield Notice(f"{name}: {place}")
                watchers = {}
            for name, watcher in list(started.items()):
                try:
                    _tell(watcher, event)
                except Exception as error:
                    del started[name]
                    yield _left_out(name, error)
            yield event
    finally:
        events.close()  # the loop says how the run ended before the watchers hear of it
        for watcher in started.values():
            with contextlib.suppress(Exception):
                watcher.end(run.facts["state"])


def _tell(watcher: Watcher, event: Event) -> None:
    if isinstance(event, StepResult):
        watcher.step(event)
    elif isinstance(event, EvaluationResult):
        watcher.evaluation(event)
    elif isinstance(event, Notice):
        watcher.notice(event.text)


def _left_out(name: str, error: Exception) -> Notice:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return Notice(f"{name} does not watch any longer: {reason}; metrics.jsonl has every number")


def step_figures(result: StepResult) -> dict[str, float]:
    """The numbers of a step under the names that watchers show, `train/loss` and so on."""
    figures = asdict(result)
    del figures["step"], figures["num_steps"]
    return dict(_numbers(figures, "train/"))


def evaluation_figures(event: EvaluationResult) -> dict[str, float]:
    """The numbers of an evaluation, `outline/test/nDCG@5` and so on."""
    figures = {**event.result.measures, "loss": event.loss, "seconds": event.seconds}
    return dict(_numbers(figures, f"{event.result.dataset}/"))


def _numbers(figures: Mapping[str, Any], start: str) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{start}{name}/")
        elif isinstance(value, int | float):
            yield f"{start}{name}", float(value)


def run_id(run: Path, facts: Mapping[str, Any]) -> str:
    """The same for a run and its continuations, another for every other run."""
    text = f"{run.name} {facts['started']} {facts['full_hash']}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _nothing_printed() -> contextlib.redirect_stdout:
    """trackio greets on stdout, where results go."""
    return contextlib.redirect_stdout(io.StringIO())


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(_MODULES[name])
    except ImportError as error:
        raise RunError(
            "missing-extra",
            f"watching with {name} needs a package that is not installed.",
            where="logging.watchers",
            received=name,
            suggestion=f"pip install 'coltrain[{name}]', or logging.watchers=[]",
        ) from error
