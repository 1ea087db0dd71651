"""Training from a recipe to a finished run, one visible path.

    set up     data, plan, model, optimiser; everything that can be wrong is found there
    events     evaluate, then for each step: chunks → cached gradients → clip → update →
               evaluate where it is due → checkpoint where it is due
    end        the model, the final evaluation and the facts are on disk

The loop yields what happens and prints nothing. Of several ranks each runs it, on its part of every
batch; rank 0 alone writes.
"""

import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import tee
from pathlib import Path

import torch

from coltrain.data.collection import Collection
from coltrain.data.hard_negatives import choose_negatives
from coltrain.errors import ColtrainError, RunError
from coltrain.evaluation.evaluate import Evaluation, evaluate
from coltrain.evaluation.illustrations import illustrate
from coltrain.evaluation.together import RankFailed, RanksApart
from coltrain.model.folder import save_model
from coltrain.model.retriever import Retriever
from coltrain.recipe import Recipe
from coltrain.training.batches import Batch, ChunkReader, ChunkStream
from coltrain.training.checkpoint import (
    Checkpoint,
    Progress,
    checkpoints,
    clean,
    forget_old,
    save_checkpoint,
)
from coltrain.training.collapse import CollapseWatch, embedding_spread
from coltrain.training.disk import system_errors
from coltrain.training.energy import EnergyMeter, energy_facts, energy_meter
from coltrain.training.evaluation_loss import evaluation_loss
from coltrain.training.events import (
    EvaluationResult,
    EvaluationStarts,
    Event,
    Notice,
    StepResult,
    StepSkipped,
    Stopped,
    event_line,
)
from coltrain.training.host_memory import refuse_too_little_memory
from coltrain.training.interruption import Interrupted, StopRequest
from coltrain.training.lock import run_lock
from coltrain.training.maxsim_kernel import with_kernel_settled
from coltrain.training.numerics import moment_types
from coltrain.training.out_of_memory import explained
from coltrain.training.page_cache import FULL_PAGES, open_page_cache
from coltrain.training.precision.choice import settled
from coltrain.training.ranks import SINGLE, Ranks
from coltrain.training.ranks.onlooker import Onlooker
from coltrain.training.ranks.ranks import failure_of
from coltrain.training.ranks.sameness import refuse_other_recipes
from coltrain.training.record import (
    facts_at_start,
    kept_in_float32,
    rows_of,
    scaling_facts,
)
from coltrain.training.run_folder import RunFolder, is_run, now
from coltrain.training.setup import notices_at_start, set_up
from coltrain.training.step import Stepper
from coltrain.training.vision_cache import (
    FULL,
    hear_of_other_ranks,
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
        ranks: Who trains together, each with these arguments.

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
        ranks: Ranks = SINGLE,
    ) -> None:
        recipe = with_kernel_settled(settled(recipe, device), device)
        refuse_other_recipes(recipe, ranks)
        self.ranks = ranks
        self.run = RunFolder(folder) if ranks.is_first else Onlooker(folder)
        with ranks.together():
            if ranks.is_first:
                self.run.check(replace=replace)  # before gigabytes are loaded
        self.setup = set_up(recipe, device, on_page=on_page, keep_float32=keep_float32, ranks=ranks)
        with ranks.together():
            refuse_too_little_memory(self.setup)
            self._vision = open_vision_cache(self.setup)
            self._pages = open_page_cache(self.setup)
        self.recipe = recipe
        self.device = device
        self.num_steps = self.setup.num_steps
        with ranks.together():
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
        ranks: Ranks = SINGLE,
    ) -> "Training":
        """A run that goes on from a checkpoint, or from its start without one.

        What was written after the checkpoint is dropped, when the events begin, and written again.
        The number of ranks may be another than before: the batches and negatives are the same.
        """
        training = cls.__new__(cls)
        training.ranks = ranks
        training.run = RunFolder(folder) if ranks.is_first else Onlooker(folder)
        training.setup = set_up(
            recipe,
            device,
            earlier=training.run.checks(),
            keep_float32=ranks.first(kept_in_float32(training.run.facts)),
            ranks=ranks,
        )
        with ranks.together():
            refuse_too_little_memory(training.setup)
            known = training.run.facts.get("vision_cache")
            training._vision = open_vision_cache(training.setup, known)
            known = training.run.facts.get("page_cache")
            training._pages = open_page_cache(training.setup, known)
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
        self._energy: EnergyMeter | str = "another rank records it"
        if not isinstance(self.run, Onlooker):
            self._energy = energy_meter(self.device, self.run.facts)

    def events(self) -> Iterator[Event]:
        """Train; yields steps, evaluations and notices as they happen.

        Raises:
            TrainingError: A loss or gradient is not finite; the run says so and keeps its metrics.
            RunError: Another process trains there, or the folder can no longer be written.
        """
        first_step = self.progress.step + 1
        return watched(self._events(), self.recipe.logging.watchers, self.run, first_step)

    def _events(self) -> Iterator[Event]:
        with self._locked() as word, self._stop.listen(self._stop_signals):
            if word is not None:
                yield Notice(word)
            try:
                with self.ranks.together():
                    if self._goes_on:  # only now is it sure that no other process trains there
                        progress = self.progress
                        self.run.go_back(progress.step, progress.is_evaluated, progress.num_lines)
                    if self.ranks.is_first:
                        clean(self.run.checkpoints, self.progress.step)
                    self._record_start()
                with explained(self.recipe, self.run.path):
                    yield from self._course()
            except RanksApart as broken:
                raise self._ended_by_another() from broken
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

    @contextmanager
    def _locked(self) -> Iterator[str | None]:
        """The folder is rank 0's; the others begin once it is."""
        with ExitStack() as stack:
            word = None
            with self.ranks.together():
                if self.ranks.is_first:
                    word = stack.enter_context(run_lock(self.run.path))
            if self.ranks.pulse is not None:
                self.ranks.pulse.on_stuck = self._record_stuck
            yield word

    def _record_start(self) -> None:
        """The run goes on; and who computes from here on, where these are others than before."""
        now_computing = {
            "size": self.ranks.size,
            "backend": self.ranks.backend,
            "hosts": list(self.ranks.hosts) or [socket.gethostname()],
        }
        known = self.run.facts.get("ranks", [])
        if not known or {**known[-1], **now_computing} != known[-1]:
            known = [*known, {"after_step": self.progress.step, **now_computing}]
        self.run.record(state="running", stopped_by=None, ranks=known)

    def _ended_by_another(self) -> ColtrainError:
        """Another rank is gone: keep what is whole, and say who it was."""
        error = self.ranks.apart()
        heir = self._heir()
        if heir is not None:
            with suppress(OSError):
                heir._save_checkpoint()
                heir._record_end("stopped", stopped_by=f"{error}\nkept up to {heir._kept()}")
        return error

    def _heir(self) -> "Training | None":
        """Who writes the end: rank 0, or the first that is left where rank 0 is gone."""
        if self.ranks.is_first:
            return self
        if not self.ranks.is_heir or not is_run(self.run.path):
            return None
        self.run = RunFolder(self.run.path)
        return self

    def _kept(self) -> str:
        whole = checkpoints(self.run.checkpoints)
        return f"step {int(whole[-1].name[5:])}" if whole else "its start: there is no checkpoint"

    def _record_stuck(self, error: ColtrainError) -> None:
        """Called from another thread where the main one waits for a rank that is gone."""
        heir = self._heir()
        if heir is not None:
            heir._record_end("stopped", stopped_by=f"{error}\nkept up to {heir._kept()}")

    def _course(self) -> Iterator[Event]:
        """From where the run stands to its end, or to where it is asked to stop."""
        try:
            if self.progress.step == 0:
                yield from map(Notice, self._notices)
            yield from self._measure_and_keep()
            yield from self._steps()
            hear_of_other_ranks(self._vision, self.ranks)
            with self.ranks.together():
                if self.ranks.is_first:
                    with system_errors():
                        save_model(self.setup.built, self.run.model)
        except Interrupted as request:
            hear_of_other_ranks(self._vision, self.ranks)
            with self.ranks.together():  # nobody leaves before all is saved
                self._save_checkpoint()
                self._record_end("interrupted", stopped_by=request.signal_name)
            yield Stopped(self.progress.step, self.num_steps, request.signal_name)
            return
        with self.ranks.together():
            if self.recipe.checkpoint.every is None:
                self.run.forget_checkpoints()  # one that a signal asked for has served
            self._record_end("finished")

    def _steps(self) -> Iterator[Event]:
        data, preparer = self.setup.collection, self.setup.built.preparer
        lookup = lookup_of(self.setup, self._vision, data)
        reader = ChunkReader(data, preparer, lookup, self._pages)
        # What is not finite is looked for in the vision tower, too: by a reader without the cache.
        pixels = ChunkReader(data, preparer)
        scaling = self.progress.scaling
        stepper = Stepper(self.setup, self.run, pixels, self._stop.check, scaling)
        steps = range(self.progress.step + 1, self.num_steps + 1)
        batches, ahead = tee(map(self._batch, steps))
        stream = ChunkStream(
            reader,
            (batch.part(self.ranks.part(len(batch.rows))) for batch in ahead),
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
                if isinstance(result, StepResult):
                    result = replace(result, batch=batch.digest)
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
                for rank, shortage in stepper.shortages.new:
                    on_rank = rank if self.ranks.are_many else None
                    yield self._notice(shortage.sentence(step, on_rank))
                if was_skipped:
                    stepper.stop_if_useless(result, batch)
                if collapsed is not None:
                    yield self._notice(collapsed)
                if self._vision is not None and self._vision.all_counts.not_stored:
                    yield from self._once(FULL)
                if self._pages is not None and self._pages.counts.not_stored:
                    yield from self._once(FULL_PAGES)
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
        yield EvaluationStarts(step, -(-num_items // self.ranks.size))
        retriever = Retriever(self.setup.built)
        results, illustrations, spreads = [], [], {}
        for data in data_sets:
            started = time.perf_counter()
            evaluation = self._evaluated(retriever, data)
            loss = None
            if self.ranks.is_first:
                loss = evaluation_loss(
                    evaluation,
                    data,
                    self.recipe.loss,
                    self.recipe.batch.global_size,
                    self.setup.group_size,
                )
            seconds = time.perf_counter() - started
            results.append(EvaluationResult(step, evaluation.result, loss, seconds))
            if name == "final" and self.ranks.is_first:
                spreads[data.name] = embedding_spread(evaluation.pages, evaluation.scores)
            if name in ("before", "final") and self.ranks.is_first:
                illustrations.append(illustrate(evaluation, data))
        hear_of_other_ranks(self._vision, self.ranks)
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

    def _evaluated(self, retriever: Retriever, data: Collection) -> Evaluation:
        """The ranks share pages and queries, and all get the whole, equal to one process's."""
        decoding = self.recipe.data.decoding
        vision = self._vision if serves_evaluations(self._vision, decoding) else None
        over_ranks = self.ranks.are_many
        try:
            return evaluate(retriever, data, self._item_done, vision=vision, over_ranks=over_ranks)
        except RankFailed as failure:
            raise failure_of(failure) from failure

    def _item_done(self) -> None:
        self._stop.check()
        if self.on_item is not None:
            self.on_item()

    def _save_checkpoint(self) -> None:
        if isinstance(self.run, Onlooker):
            return
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
        notices = notices_at_start(self.setup)
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
        if isinstance(self.run, Onlooker):
            return
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
        if self._pages is not None:
            facts["page_cache"] = self._pages.record()
        if self.device.type == "cuda":
            facts["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
        if self.progress.scaling is not None and self.setup.scales_gradients:
            precision = self.run.facts["precision"] | scaling_facts(self.progress.scaling)
            facts["precision"] = precision
        facts |= energy_facts(self._energy)
        seconds = self._seconds_before + time.perf_counter() - self._started
        self.run.record(state=state, finished=now(), seconds=round(seconds, 3), **facts)
