"""One optimiser step: chunks → cached gradients → clip → update."""

import math
import time
from collections.abc import Callable, Iterable

import torch

from coltrain.data.negatives import negative_mask
from coltrain.errors import TrainingError
from coltrain.training.batches import Batch, ChunkReader
from coltrain.training.events import StepResult, StepSkipped
from coltrain.training.fingerprints import RECORDED_STEPS, fingerprints
from coltrain.training.gradient_cache import Chunk, NonFiniteLossError, cached_gradients
from coltrain.training.nonfinite import explain_non_finite
from coltrain.training.objective import part_of_objective
from coltrain.training.optimizers import learning_rate
from coltrain.training.out_of_memory import ChunkLimit, ShortagesOfRanks
from coltrain.training.precision.scaling import (
    NUM_GRADIENT_SKIPS,
    NUM_LOSS_SKIPS,
    Scaling,
    unscale,
)
from coltrain.training.run_folder import RunFolder
from coltrain.training.setup import Setup
from coltrain.training.source_losses import loss_by_source


class Stepper:
    """Takes a run's steps.

    Args:
        setup: Data, plan, model and optimiser.
        run: Where the first steps leave their fingerprints.
        reader: Makes chunks; asked again for a batch that is not finite.
        check: Called at the last moment at which a step can be left out whole; may raise to leave.
        scaling: Where gradient scaling stood; None at the start of a run.

    Attributes:
        shortages: Of memory, on any rank.
    """

    def __init__(
        self,
        setup: Setup,
        run: RunFolder,
        reader: ChunkReader,
        check: Callable[[], None],
        scaling: Scaling | None = None,
    ) -> None:
        self.setup = setup
        self.recipe = setup.recipe
        self.scaling = scaling or Scaling.start(setup.recipe.precision.compute)
        self._run = run
        self._reader = reader
        self._check = check
        self._limit = ChunkLimit()
        self.shortages = ShortagesOfRanks(self._limit, setup.ranks)

    def take(self, step: int, batch: Batch, chunks: Iterable[Chunk]) -> StepResult | StepSkipped:
        """Update the trained parameters from one global batch.

        In float16 a step whose loss or gradient is not finite is left out, and the schedule of the
        learning rate counts the steps that were taken.

        Args:
            step: Its number, from 1.
            batch: Which rows and negatives.
            chunks: This rank's part of the same, as model inputs.

        Raises:
            TrainingError: [not-finite] The loss or a gradient is not, in a precision with the range
                of float32; nothing was updated.
        """
        started = time.perf_counter()
        setup = self.setup
        shared = batch.negatives if self.recipe.hard_negatives.shared else None
        mask = negative_mask(setup.collection, batch.rows, setup.group_size, shared)
        setup.optimizer.zero_grad(set_to_none=True)
        rate = learning_rate(
            step - 1 - self.scaling.num_skipped, setup.num_steps, self.recipe.optimizer
        )
        for group in setup.optimizer.param_groups:
            group["lr"] = rate
        try:
            cached = cached_gradients(
                setup.built.model,
                chunks,
                part_of_objective(self.recipe.loss, mask.ignore, setup.ranks),
                seed=self.recipe.train.seed,
                step=step,
                compute=setup.compute_context(),
                scale=self.scaling.scale,
                ranks=setup.ranks,
                limit=self._limit,
            )
            norm = self._clip()
        except FloatingPointError as error:
            if isinstance(
                error, NonFiniteLossError
            ):  # on all ranks, before they agreed on anything
                self.shortages.agree(False)
            if not setup.scales_gradients:
                raise self._not_finite(step, batch, str(error)) from error
            return self._skip(step, error, time.perf_counter() - started)
        by_source = loss_by_source(self.recipe.loss, mask.ignore, cached.embeddings, batch, setup)
        with setup.ranks.together():
            self._check()
        setup.optimizer.step()
        scale = self.scaling.scale if setup.scales_gradients else None
        if setup.scales_gradients:
            self.scaling = self.scaling.taken()
        if step <= RECORDED_STEPS:
            self._run.save_fingerprints(step, fingerprints(setup.trained))
        seconds = time.perf_counter() - started
        return StepResult(
            step=step,
            num_steps=setup.num_steps,
            epoch=setup.plan.batch_at(step)[0],
            loss=cached.loss,
            learning_rate=rate,
            grad_norm=norm,
            candidates_per_query=sum(mask.candidates_per_query) / len(mask.candidates_per_query),
            masked_duplicates=mask.masked_duplicates,
            pages_per_second=len(batch.rows) / seconds,
            by_source=by_source,
            seconds=seconds,
            gradient_scale=scale,
            chunk_size=self.shortages.chunk_size,
        )

    def stop_if_useless(self, skipped: StepSkipped, batch: Batch) -> None:
        """End a run that skips one step after another.

        Args:
            skipped: The last of them.
            batch: Its rows.

        Raises:
            TrainingError: [not-finite] Too many in a row; with the module that comes first.
        """
        limit = NUM_LOSS_SKIPS if skipped.at_loss else NUM_GRADIENT_SKIPS
        if skipped.in_a_row >= limit:
            reason = f"{skipped.reason}, {skipped.in_a_row} steps in a row"
            raise self._not_finite(skipped.step, batch, reason)

    def _skip(self, step: int, error: FloatingPointError, seconds: float) -> StepSkipped:
        before, at_loss = self.scaling, isinstance(error, NonFiniteLossError)
        self.scaling = before.skipped(at_loss=at_loss)
        return StepSkipped(
            step=step,
            num_steps=self.setup.num_steps,
            epoch=self.setup.plan.batch_at(step)[0],
            reason=str(error),
            at_loss=at_loss,
            scale=before.scale,
            next_scale=self.scaling.scale,
            num_skipped=self.scaling.num_skipped,
            in_a_row=self.scaling.skipped_in_a_row,
            seconds=seconds,
        )

    def _not_finite(self, step: int, batch: Batch, reason: str) -> TrainingError:
        setup = self.setup
        suggestion = "a lower optimizer.learning_rate, or precision.compute=float32"
        if setup.scales_gradients and self.recipe.precision.keep_float32 != "auto":
            suggestion = "precision.keep_float32=auto, which finds such modules and keeps them in "
            suggestion += "float32"
        return TrainingError(
            "not-finite",
            f"step {step} has no finite loss or gradient: {reason}.",
            where=f"{self._run.path}, step {step}",
            received=explain_non_finite(
                setup.built.model,
                self._reader,
                batch,
                setup.collection,
                setup.compute_context(),
                dropout=(self.recipe.train.seed, step),
            ),
            suggestion=suggestion,
        )

    def _clip(self) -> float:
        """Unscale and clip the gradients; returns their norm between the two."""
        trained = self.setup.trained.values()
        gradients = [p.grad for p in trained if p.grad is not None]
        unscale(gradients, self.scaling.scale)
        norm = torch.nn.utils.get_total_norm(gradients)
        if not self.shortages.agree(math.isfinite(norm)):
            # Before clipping, which would spread a NaN over all gradients and hide its origin.
            raise FloatingPointError(f"gradient norm = {norm.item()}")
        limit = self.recipe.optimizer.max_grad_norm or math.inf
        torch.nn.utils.clip_grads_with_norm_(trained, limit, norm)
        return norm.item()
