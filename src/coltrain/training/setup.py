"""All that a run needs before its first step; what can be wrong is found here."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from coltrain.data.collection import Collection, concatenate
from coltrain.data.plan import BatchPlan
from coltrain.data.sources import load_collection
from coltrain.errors import RunError
from coltrain.evaluation.evaluate import refuse_without_judgements
from coltrain.model.build import BuiltModel, build_for_training
from coltrain.recipe import Recipe
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.training.optimizers import build_optimizer


@dataclass(frozen=True)
class Setup:
    """Data, plan, model and optimiser of a recipe.

    Attributes:
        recipe: What they are of.
        device: What computes.
        train_data: One collection for each source.
        eval_data: One collection for each source.
        collection: The training sources as one.
        plan: Global batches of every epoch.
        num_steps: Optimiser steps of the whole run.
        built: The model with its adapter.
        trained: Trained parameters by name.
        optimizer: Over these.
    """

    recipe: Recipe
    device: torch.device
    train_data: list[Collection]
    eval_data: list[Collection]
    collection: Collection
    plan: BatchPlan
    num_steps: int
    built: BuiltModel
    trained: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer

    @property
    def group_size(self) -> int | None:
        """Queries that share their negatives; None for the whole global batch."""
        negatives = self.recipe.batch.negatives
        return None if negatives == "global" else negatives

    def compute_context(self) -> AbstractContextManager | None:
        """Autocast where the forward pass computes in less than its weights are stored in."""
        if self.recipe.precision.compute == "bfloat16" and self.recipe.model.dtype == "float32":
            return torch.autocast(self.device.type, torch.bfloat16)
        return None


def set_up(recipe: Recipe, device: torch.device) -> Setup:
    """Load data and model.

    Raises:
        ColtrainError: The recipe asks for what cannot be had.
    """
    _refuse_what_is_not_there(recipe)
    train_data = [load_collection(source, "train") for source in recipe.data.train]
    eval_data = [load_collection(source, "test") for source in recipe.eval.data]
    for data in eval_data:
        refuse_without_judgements(data)
    collection = concatenate(train_data)
    plan = BatchPlan(
        len(collection.rows),
        recipe.batch.global_size,
        recipe.train.seed,
        recipe.batch.drop_last,
    )
    _refuse_too_few_rows(recipe, plan)
    built = build_for_training(recipe, device)
    trained = {
        name: parameter
        for name, parameter in built.model.named_parameters()
        if parameter.requires_grad
    }
    return Setup(
        recipe=recipe,
        device=device,
        train_data=train_data,
        eval_data=eval_data,
        collection=collection,
        plan=plan,
        num_steps=recipe.train.steps or plan.num_steps(recipe.train.epochs),
        built=built,
        trained=trained,
        optimizer=build_optimizer(trained.values(), recipe.optimizer),
    )


def deviations(recipe: Recipe) -> list[dict[str, str]]:
    """What of a recipe departs from the method that the published models used."""
    if recipe.batch.negatives == "global":
        return []
    return [
        {
            "what": f"batch.negatives = {recipe.batch.negatives}",
            "why": f"each query met the pages of its group of {recipe.batch.negatives}, not the "
            f"{recipe.batch.global_size} of the global batch",
        }
    ]


def _refuse_what_is_not_there(recipe: Recipe) -> None:
    if recipe.precision.compute == "float16":
        raise RunError(
            "float16-not-yet",
            "float16 training needs gradient scaling, which is not there yet: without it small "
            "gradients vanish unseen.",
            where="precision.compute",
            received="float16",
            expected="float32 or bfloat16",
            suggestion="precision.compute=bfloat16 where the card has it, else float32",
        )
    if recipe.loss.name in HARD_NEGATIVE_LOSSES:
        raise RunError(
            "no-hard-negatives",
            "the loss wants hard negatives, and the training data has none.",
            where="loss.name",
            received=recipe.loss.name,
            expected="pairwise, softmax or sigmoid; data with hard negatives cannot be read yet",
        )


def _refuse_too_few_rows(recipe: Recipe, plan: BatchPlan) -> None:
    if plan.num_rows < recipe.batch.global_size:
        raise RunError(
            "too-few-rows",
            "the training data has fewer rows than one global batch.",
            where="data.train",
            received=f"{plan.num_rows} rows",
            expected=f"at least batch.global_size = {recipe.batch.global_size}",
            suggestion=f"batch.global_size={max(2, plan.num_rows)}",
        )
