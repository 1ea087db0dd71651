"""Training from a recipe to a finished run, one visible path.

    set up     data, plan, model, optimiser; everything that can be wrong is found there
    events     evaluate, then for each step: chunks → cached gradients → clip → update →
               evaluate where it is due → checkpoint where it is due
    end        the model, the final evaluation and the facts are on disk

The loop yields what happens and prints nothing.
"""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import tee
from pathlib import Path

import torch

from coltrain.data.hard_negatives import choose_negatives
from coltrain.errors import RunError
from coltrain.evaluation.evaluate import evaluate
from coltrain.evaluation.illustrations import illustrate
from coltrain.model.folder import save_model
from coltrain.model.retriever import Retriever
from coltrain.recipe import Recipe, without_effect
from coltrain.training.batches import Batch, ChunkReader, ChunkStream
from coltrain.training.checkpoint import Checkpoint, Progress, clean, forget_old, save_checkpoint
from coltrain.training.collapse import CollapseWatch, embedding_spread
from coltrain.training.disk import system_errors
from coltrain.training.evaluation_loss import evaluation_loss
from coltrain.training.events import (
    EvaluationResult,
    EvaluationStarts,
    Event,
    Notice,
    StepSkipped,
    Stopped,
    event_line,
)
from coltrain.training.host_memory import refuse_too_little_memory
from coltrain.training.interruption import Interrupted, StopRequest
from coltrain.training.lock import run_lock
from coltrain.training.numerics import moment_types
from coltrain.training.precision.choice import settled
from coltrain.training.record import (
    facts_at_start,
    kept_in_float32,
    precision_facts,
    rows_of,
)
from coltrain.training.run_folder import RunFolder, now
from coltrain.training.setup import set_up
from coltrain.training.step import Stepper
from coltrain.training.vision_cache import (
    FULL,
    lookup_of,
    open_vision_cache,
    room_notice,
    serves_evaluations,
)
from coltrain.training.watchers import watched


class Training:
    """A run that is ready to go: iterate over `events()`.

    Args:
        recipe: What to do.
        folder: Where the run is written.
        device: What computes.
        replace: Whether an earlier run in the folder may be deleted.
        stop_signals: Signals that end the run so that it can go on later.
        on_page: Called for each page that the check of the data looks at.
        keep_float32: Modules that a run of the same recipe found to overflow in float16; None lets
            the recipe say, or looks for them where it says `auto`.

    Raises:
        ColtrainError: The recipe asks for what cannot be had; nothing was written then.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        device: torch.device,
        *,
        replace: bool = False,
        stop_signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
        on_page: Callable[[], None] | None = None,
        keep_float32: Sequence[str] | None = None,
    ) -> None:
        self.run = RunFolder(folder)
        self.run.check(replace=replace)  # before gigabytes are loaded
        recipe = settled(recipe, device)
        self.setup = set_up(recipe, device, on_page=on_page, keep_float32=keep_float32)
        refuse_too_little_memory(self.setup)
        self._vision = open_vision_cache(self.setup)
        self.recipe = recipe
        self.device = device
        self.num_steps = self.setup.num_steps
        self.run.create(facts_at_start(self.setup), replace=replace)
        self.run.save_checks(self.setup.checks)
        self.run.save_row_contents(rows_of(self.setup))
        self._goes_on = False
        self._begin(Progress(step=0, is_evaluated=False, num_lines=0), stop_signals)

    @classmethod
    def resume(
        cls,
        recipe: Recipe,
        folder: Path,
        device: torch.device,
        checkpoint: Checkpoint | None,
        *,
        stop_signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
    ) -> "Training":
        """A run that goes on from a checkpoint, or from its start without one.

        What was written after the checkpoint is dropped, when the events begin, and written again.
        """
        training = cls.__new__(cls)
        training.run = RunFolder(folder)
        training.setup = set_up(
            recipe,
            device,
            earlier=training.run.checks(),
            keep_float32=kept_in_float32(training.run.facts),
        )
        refuse_too_little_memory(training.setup)
        training._vision = open_vision_cache(training.setup, training.run.facts.get("vision_cache"))
        training.recipe = recipe
        training.device = device
        training.num_steps = training.setup.num_steps
        progress = Progress(step=0, is_evaluated=False, num_lines=0)
        if checkpoint is not None:
            progress = checkpoint.progress
            with torch.no_grad():
                for name, parameter in training.setup.trained.items():
                    parameter.copy_(checkpoint.parameters[name])
            training.setup.optimizer.load_state_dict(checkpoint.optimizer)
        training._goes_on = True
        training._begin(progress, stop_signals)
        return training

    def _begin(self, progress: Progress, stop_signals: Sequence[signal.Signals]) -> None:
        self.progress = progress
        self.on_item: Callable[[], None] | None = None
        """Called after each page or query that an evaluation encodes."""
        self._stop = StopRequest()
        self._stop_signals = stop_signals
        self._notices = list(progress.notices) or self._notices_at_start()
        self._collapse = CollapseWatch(self.recipe.loss, progress.steps_collapsed)
        self._started = time.perf_counter()
        self._seconds_before = self.run.facts.get("seconds") or 0.0

    def events(self) -> Iterator[Event]:
        """Train; yields steps, evaluations and notices as they happen.

        Raises:
            TrainingError: A loss or gradient is not finite; the run says so and keeps its metrics.
            RunError: Another process trains there, or the folder can no longer be written.
        """
        first_step = self.progress.step + 1
        return watched(self._events(), self.recipe.logging.watchers, self.run, first_step)

    def _events(self) -> Iterator[Event]:
        with run_lock(self.run.path) as word, self._stop.listen(self._stop_signals):
            if word is not None:
                yield Notice(word)
            try:
                if self._goes_on:  # only now is it sure that no other process trains there
                    progress = self.progress
                    self.run.go_back(progress.step, progress.is_evaluated, progress.num_lines)
                clean(self.run.checkpoints, self.progress.step)
                self.run.record(state="running", stopped_by=None)
                yield from self._course()
            except OSError as error:
                with suppress(OSError):  # the disk that just failed
                    self._record_end("stopped", stopped_by=str(error))
                raise RunError(
                    "cannot-write",
                    "the run's folder can no longer be written; its last checkpoint is whole.",
                    where=str(self.run.path),
                    received=error.strerror or str(error),
                    suggestion=f"make room, then coltrain resume {self.run.path}",
                ) from error
            except BaseException as error:
                # Whatever ends the run early, its folder must not claim to be running.
                with suppress(OSError):
                    self._record_end("stopped", stopped_by=str(error) or type(error).__name__)
                raise

    def _course(self) -> Iterator[Event]:
        """From where the run stands to its end, or to where it is asked to stop."""
        try:
            if self.progress.step == 0:
                yield from map(Notice, self._notices)
            yield from self._measure_and_keep()
            yield from self._steps()
            with system_errors():
                save_model(self.setup.built, self.run.model)
        except Interrupted as request:
            self._save_checkpoint()
            self._record_end("interrupted", stopped_by=request.signal_name)
            yield Stopped(self.progress.step, self.num_steps, request.signal_name)
            return
        if self.recipe.checkpoint.every is None:
            self.run.forget_checkpoints()  # one that a signal asked for has served
        self._record_end("finished")

    def _steps(self) -> Iterator[Event]:
        data, preparer = self.setup.collection, self.setup.built.preparer
        reader = ChunkReader(data, preparer, lookup_of(self.setup, self._vision, data))
        # What is not finite is looked for in the vision tower, too: by a reader without the cache.
        pixels = ChunkReader(data, preparer)
        scaling = self.progress.scaling
        stepper = Stepper(self.setup, self.run, pixels, self._stop.check, scaling)
        steps = range(self.progress.step + 1, self.num_steps + 1)
        batches, ahead = tee(map(self._batch, steps))
        stream = ChunkStream(
            reader,
            ahead,
            chunk_size=self.recipe.batch.chunk_size,
            num_workers=self.recipe.data.num_workers,
            pin_memory=self.device.type == "cuda",
            vision=self._vision,
            check=self._stop.check,
        )
        with stream.watched():
            for step, batch in zip(steps, batches, strict=True):
                result = stepper.take(step, batch, stream.batch())
                result = replace(result, wait_seconds=stream.waited())
                self.run.append([event_line(result)])
                was_skipped = isinstance(result, StepSkipped)
                collapsed = None if was_skipped else self._collapse.see(result)
                self.progress = replace(
                    self.progress,
                    step=step,
                    is_evaluated=False,
                    num_lines=self.progress.num_lines + 1,
                    steps_collapsed=self._collapse.steps_in_a_row,
                    scaling=stepper.scaling,
                )
                if "moments" not in self.run.facts and not was_skipped:
                    self.run.record(moments=moment_types(self.setup.optimizer))
                yield result
                if was_skipped:
                    stepper.stop_if_useless(result, batch)
                if collapsed is not None:
                    yield self._notice(collapsed)
                if self._vision is not None and self._vision.counts.not_stored:
                    yield from self._once(FULL)
                yield from self._measure_and_keep()

    def _measure_and_keep(self) -> Iterator[Event]:
        """What follows a step: an evaluation and a checkpoint, where they are due."""
        is_best = yield from self._evaluate_where_due()
        if self.recipe.checkpoint.every is None or self.progress.step == 0:
            return
        if is_best or self._is_kept(self.progress.step):
            self._save_checkpoint()

    def _is_kept(self, step: int) -> bool:
        """Whether the recipe asks for a checkpoint after this step, whatever its score."""
        every = self.recipe.checkpoint.every
        return every is not None and (step % every == 0 or step == self.num_steps)

    def _batch(self, step: int) -> Batch:
        setup = self.setup
        epoch, rows = setup.plan.batch_at(step)
        if not setup.uses_hard_negatives:
            return Batch(rows)
        settings = self.recipe.hard_negatives
        negatives = choose_negatives(
            setup.collection,
            rows,
            per_query=settings.per_query,
            seed=self.recipe.train.seed,
            epoch=epoch,
            among_first=settings.among_first,
            fill=setup.wants_own_negatives,  # a hard-negative loss needs the same number for each
        )
        return Batch(rows, negatives)

    def _evaluate_where_due(self) -> Iterator[Event]:
        """Evaluate if this step asks for it; returns whether the score is the best so far."""
        step, every = self.progress.step, self.recipe.eval.every
        if self.progress.is_evaluated or not self.setup.eval_data:
            return False
        if step == 0:
            name = "before"
        elif step == self.num_steps:
            name = "final"
        elif every is not None and step % every == 0:
            name = f"step-{step:06d}"
        else:
            return False
        return (yield from self._evaluate(step, name))

    def _evaluate(self, step: int, name: str) -> Iterator[Event]:
        data_sets = self.setup.eval_data
        num_items = sum(len(data.page_ids) + len(data.queries) for data in data_sets)
        yield EvaluationStarts(step, num_items)
        retriever = Retriever(self.setup.built)
        results, illustrations, spreads = [], [], {}
        for data in data_sets:
            started = time.perf_counter()
            vision = self._vision if serves_evaluations(self._vision) else None
            evaluation = evaluate(retriever, data, self._item_done, vision=vision)
            loss = evaluation_loss(
                evaluation,
                data,
                self.recipe.loss,
                self.recipe.batch.global_size,
                self.setup.group_size,
            )
            seconds = time.perf_counter() - started
            results.append(EvaluationResult(step, evaluation.result, loss, seconds))
            if name == "final":
                spreads[data.name] = embedding_spread(evaluation.pages, evaluation.scores)
            if name in ("before", "final"):
                illustrations.append(illustrate(evaluation, data))
        # All on disk before anybody hears of it, and nothing of an evaluation that was cut short.
        self.run.save_evaluation(name, step, [event.result for event in results])
        if illustrations:
            self.run.save_illustrations(name, step, illustrations)
        if spreads:
            self.run.record(embeddings=spreads)
        self.run.append([event_line(event) for event in results])
        score = sum(event.result.measures["nDCG@5"] for event in results) / len(results)
        is_best = step > 0 and score > (self.progress.best_score or -1.0)
        num_lines = self.progress.num_lines + len(results)
        self.progress = replace(self.progress, is_evaluated=True, num_lines=num_lines)
        if is_best:
            self.progress = replace(self.progress, best_score=score, best_step=step)
        yield from results
        return is_best

    def _item_done(self) -> None:
        self._stop.check()
        if self.on_item is not None:
            self.on_item()

    def _save_checkpoint(self) -> None:
        self.progress = replace(self.progress, notices=tuple(self._notices))
        self.run.flush()  # a checkpoint must not outlive the lines that it counts
        save_checkpoint(
            self.run.checkpoints, self.progress, self.setup.trained, self.setup.optimizer
        )
        forget_old(
            self.run.checkpoints,
            self.recipe.checkpoint.keep,
            self.progress.best_step,
            self._is_kept,
        )

    def _notices_at_start(self) -> list[str]:
        notices = without_effect(self.recipe)
        if self._vision is not None:
            room = room_notice(self.setup, self._vision)
            notices += [] if room is None else [room]
        return notices

    def _once(self, text: str) -> Iterator[Notice]:
        """A notice that a run gives once, however often it is killed and goes on."""
        if text not in self._notices:
            yield self._notice(text)

    def _notice(self, text: str) -> Notice:
        self._notices.append(text)
        self.run.record(warnings=self._notices)
        return Notice(text)

    def _record_end(self, state: str, **facts: object) -> None:
        met = sorted(
            line["candidates_per_query"] for line in self.run.lines() if line["kind"] == "step"
        )
        if met:
            facts["candidates_per_query"] = {
                "min": met[0],
                "median": met[len(met) // 2],
                "max": met[-1],
            }
        if self._vision is not None:
            facts["vision_cache"] = self._vision.record()
        if self.device.type == "cuda":
            facts["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
        if self.setup.scales_gradients:
            facts["precision"] = precision_facts(self.setup, self.progress.scaling)
        seconds = self._seconds_before + time.perf_counter() - self._started
        self.run.record(state=state, finished=now(), seconds=round(seconds, 3), **facts)
