"""One optimiser step: chunks → cached gradients → clip → update."""

import math
import time
from collections.abc import Callable, Iterable

import torch

from coltrain.data.negatives import negative_mask
from coltrain.errors import TrainingError
from coltrain.training.batches import Batch, ChunkReader
from coltrain.training.events import StepResult
from coltrain.training.fingerprints import RECORDED_STEPS, fingerprints
from coltrain.training.gradient_cache import Chunk, cached_gradients
from coltrain.training.nonfinite import explain_non_finite
from coltrain.training.objective import objective
from coltrain.training.optimizers import learning_rate
from coltrain.training.out_of_memory import ChunkLimit
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

    Attributes:
        limit: How many samples pass together, once memory ran out.
    """

    def __init__(
        self, setup: Setup, run: RunFolder, reader: ChunkReader, check: Callable[[], None]
    ) -> None:
        self.setup = setup
        self.recipe = setup.recipe
        self._run = run
        self._reader = reader
        self._check = check
        self.limit = ChunkLimit()

    def take(self, step: int, batch: Batch, chunks: Iterable[Chunk]) -> StepResult:
        """Update the trained parameters from one global batch.

        Args:
            step: Its number, from 1.
            batch: Which rows and negatives.
            chunks: The same as model inputs.

        Raises:
            TrainingError: [not-finite] The loss or a gradient is not; nothing was updated.
        """
        started = time.perf_counter()
        setup = self.setup
        shared = batch.negatives if self.recipe.hard_negatives.shared else None
        mask = negative_mask(setup.collection, batch.rows, setup.group_size, shared)
        setup.optimizer.zero_grad(set_to_none=True)
        rate = learning_rate(step - 1, setup.num_steps, self.recipe.optimizer)
        for group in setup.optimizer.param_groups:
            group["lr"] = rate
        try:
            cached = cached_gradients(
                setup.built.model,
                chunks,
                objective(self.recipe.loss, mask.ignore),
                seed=self.recipe.train.seed,
                step=step,
                compute=setup.compute_context(),
                limit=self.limit,
            )
            norm = self._clip()
        except FloatingPointError as error:
            raise TrainingError(
                "not-finite",
                f"step {step} has no finite loss or gradient: {error}.",
                where=f"{self._run.path}, step {step}",
                received=explain_non_finite(
                    setup.built.model,
                    self._reader,
                    batch,
                    setup.collection,
                    setup.compute_context(),
                ),
                suggestion="a lower optimizer.learning_rate, or precision.compute=float32",
            ) from error
        by_source = loss_by_source(self.recipe.loss, mask.ignore, cached.embeddings, batch, setup)
        self._check()
        setup.optimizer.step()
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
            chunk_size=self.limit.most,
        )

    def _clip(self) -> float:
        """Clip the gradients; returns their norm before."""
        trained = self.setup.trained.values()
        norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if not math.isfinite(norm):
            # Before clipping, which would spread a NaN over all gradients and hide its origin.
            raise FloatingPointError(f"gradient norm = {norm.item()}")
        limit = self.recipe.optimizer.max_grad_norm or math.inf
        torch.nn.utils.clip_grads_with_norm_(trained, limit, norm)
        return norm.item()
