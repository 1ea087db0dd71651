"""All that a run needs before its first step; what can be wrong is found here."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from coltrain.data.check import check_collection
from coltrain.data.collection import Collection, concatenate
from coltrain.data.contents import changes, contents, pages_hash
from coltrain.data.hard_negatives import require_negatives, without_false_negatives
from coltrain.data.mixture import MixturePlan
from coltrain.data.sources import load_collection
from coltrain.errors import RunError
from coltrain.evaluation.evaluate import refuse_clashing_ids, refuse_without_judgements
from coltrain.model.build import BuiltModel, build_for_training
from coltrain.model.patches import ResizedTo
from coltrain.model.varlen import refuse_varlen
from coltrain.recipe import Recipe, without_effect
from coltrain.recipe.schema import HARD_NEGATIVE_LOSSES
from coltrain.training.maxsim_kernel import refuse_kernel
from coltrain.training.optimizers import build_optimizer, refuse_missing_optimizer
from coltrain.training.precision.auto import overflow_of
from coltrain.training.precision.choice import refuse_half_trainables
from coltrain.training.precision.overflow import Overflow
from coltrain.training.ranks import SINGLE, Ranks
from coltrain.training.ranks.sameness import refuse_others
from coltrain.training.watchers import refuse_missing


@dataclass(frozen=True)
class Setup:
    """Data, plan, model and optimiser of a recipe.

    Attributes:
        recipe: What they are of.
        device: What computes.
        train_data: One collection for each source, without what cannot be used.
        eval_data: One collection for each source, likewise.
        checks: What was found in them, by "train" and "eval", one record a source.
        page_digests: Of their pages by id, likewise; None where an earlier check was believed.
        collection: The training sources as one.
        plan: Global batches of every epoch.
        num_steps: Optimiser steps of the whole run.
        built: The model with its adapter.
        trained: Trained parameters by name.
        optimizer: Over these.
        keep_float32: What a float16 model keeps in float32, as the recipe says or as was found.
        overflow: What was found where the recipe says `auto`; None if nothing was looked for.
        ranks: Who trains together; each rank holds all of this.
    """

    recipe: Recipe
    device: torch.device
    train_data: list[Collection]
    eval_data: list[Collection]
    checks: dict[str, list[dict[str, Any]]]
    page_digests: dict[str, list[dict[str, str] | None]]
    collection: Collection
    plan: MixturePlan
    num_steps: int
    built: BuiltModel
    trained: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    keep_float32: tuple[str, ...] = ()
    overflow: Overflow | None = None
    ranks: Ranks = SINGLE

    @property
    def group_size(self) -> int | None:
        """Queries that share their negatives; None for the whole global batch."""
        negatives = self.recipe.batch.negatives
        return None if negatives == "global" else negatives

    @property
    def wants_own_negatives(self) -> bool:
        """Whether the loss compares each query with hard negatives of its own."""
        return _wants_own_negatives(self.recipe)

    @property
    def uses_hard_negatives(self) -> bool:
        """Whether a step takes hard negatives of its rows."""
        return _uses_hard_negatives(self.recipe)

    @property
    def scales_gradients(self) -> bool:
        """Whether gradients go through float16, whose range they would leave."""
        return self.recipe.precision.compute == "float16"

    def compute_context(self) -> AbstractContextManager | None:
        """Autocast where the forward pass computes in less than its weights are stored in."""
        return compute_context(self.recipe, self.device)


def compute_context(recipe: Recipe, device: torch.device) -> AbstractContextManager | None:
    """The autocast of a recipe whose precision is settled; None where types are as stored."""
    if recipe.precision.compute == "bfloat16" and recipe.model.dtype == "float32":
        return torch.autocast(device.type, torch.bfloat16)
    return None


def set_up(
    recipe: Recipe,
    device: torch.device,
    *,
    on_page: Callable[[], None] | None = None,
    earlier: Mapping[str, list[dict[str, Any]]] | None = None,
    keep_float32: Sequence[str] | None = None,
    ranks: Ranks = SINGLE,
) -> Setup:
    """Load and check data, build the model.

    Args:
        recipe: What to do.
        device: What computes.
        on_page: Called for each page that the check of the data looks at.
        earlier: `checks` of the same recipe's earlier set-up; pages are then not decoded again.
        keep_float32: Modules kept in float32 that an earlier set-up of the same recipe found.
        ranks: Who sets up the same.

    Raises:
        ColtrainError: The recipe asks for what cannot be had, or the data is not what `earlier`
            saw, or not the same on all ranks.
    """
    _refuse_what_is_not_there(recipe)
    refuse_missing(recipe.logging.watchers)
    refuse_missing_optimizer(recipe.optimizer)
    refuse_kernel(recipe, device)
    if recipe.model.attention == "varlen":
        refuse_varlen(device, recipe.precision.compute)
    with ranks.together():
        loaded = {
            "train": [load_collection(source, "train") for source in recipe.data.train],
            "eval": [load_collection(source, "test") for source in recipe.eval.data],
        }
    _refuse_other_data_on_ranks(loaded, ranks)
    # Rank 0 decodes every page; the others believe its record.
    with ranks.together():
        if ranks.is_first:
            train_data, eval_data, checks, page_digests = _checked(recipe, loaded, earlier, on_page)
    if ranks.are_many:
        record = ranks.first(checks if ranks.is_first else None)
        with ranks.together():
            if not ranks.is_first:
                train_data, eval_data, checks, page_digests = _checked(
                    recipe, loaded, record, on_page
                )
    collection = concatenate(train_data)
    weights = [source.weight for source in recipe.data.train]
    _refuse_too_few_rows(recipe, len(collection.rows))
    plan = MixturePlan(
        tuple(len(data.rows) for data in train_data),
        recipe.batch.global_size,
        recipe.train.seed,
        recipe.batch.drop_last,
        weights=None if None in weights else tuple(weights),
        batches=recipe.data.batches,
        names=tuple(data.name for data in train_data),
    )
    if recipe.precision.compute == "float16":
        # Sums of a float16 product's parts are made in float16 on CUDA unless this is said.
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    overflow = None
    if keep_float32 is None:
        keep_float32 = recipe.precision.keep_float32
        if keep_float32 == "auto" and recipe.precision.compute == "float16":
            with ranks.together():
                overflow = overflow_of(recipe, collection, device)
            keep_float32 = tuple(overflow.keep_float32)
        elif keep_float32 == "auto":
            keep_float32 = ()
    with ranks.together():
        built = build_for_training(recipe, device, keep_float32)
    if recipe.data.decoding == "draft":
        preparer = built.preparer
        least = ResizedTo.by(preparer.image_processor, preparer.max_pixels)
        collection = collection.drafted(least)
    if ranks.are_many:
        hashes = {"base": built.weights_hash, "projection": built.projection_hash}
        hashes["keep_float32"] = ", ".join(keep_float32)
        refuse_others("model", hashes, ranks)
    trained = {
        name: parameter
        for name, parameter in built.model.named_parameters()
        if parameter.requires_grad
    }
    refuse_half_trainables(recipe, trained)
    return Setup(
        recipe=recipe,
        device=device,
        train_data=train_data,
        eval_data=eval_data,
        checks=checks,
        page_digests=page_digests,
        collection=collection,
        plan=plan,
        num_steps=recipe.train.steps or plan.num_steps(recipe.train.epochs),
        built=built,
        trained=trained,
        optimizer=build_optimizer(trained.values(), recipe.optimizer),
        keep_float32=tuple(keep_float32),
        overflow=overflow,
        ranks=ranks,
    )


def notices_at_start(setup: Setup) -> list[str]:
    """What a person should know before the first step."""
    said = without_effect(setup.recipe)
    start = setup.built.started_from
    if start is not None and start.sentence is not None:
        said = [*said, start.sentence]
    return said if setup.overflow is None else [*said, setup.overflow.sentence]


def _checked(
    recipe: Recipe,
    loaded: Mapping[str, list[Collection]],
    earlier: Mapping[str, list[dict[str, Any]]] | None,
    on_page: Callable[[], None] | None,
) -> tuple[
    list[Collection],
    list[Collection],
    dict[str, list[dict[str, Any]]],
    dict[str, list[dict[str, str] | None]],
]:
    """Training and evaluation data without what cannot be used, `checks` and `page_digests`."""
    checks: dict[str, list[dict[str, Any]]] = {"train": [], "eval": []}
    page_digests: dict[str, list[dict[str, str] | None]] = {"train": [], "eval": []}

    def checked(kind: str, collection: Collection, max_broken_share: float | None) -> Collection:
        known = (earlier or {}).get(kind, [])
        before = known[len(checks[kind])] if len(checks[kind]) < len(known) else None
        if before is not None:
            _refuse_other_data(kind, collection, before)
        done = check_collection(
            collection,
            num_workers=recipe.data.num_workers,
            max_broken_share=max_broken_share,
            on_item=on_page,
            earlier=before,
        )
        checks[kind].append(done.record)
        page_digests[kind].append(done.page_digests)
        return done.collection

    train_data = [
        checked("train", collection, recipe.data.max_broken_share) for collection in loaded["train"]
    ]
    eval_data = []
    for collection in loaded["eval"]:
        refuse_without_judgements(collection)
        refuse_clashing_ids(collection)
        # No limit here: a page without a query is no mistake in what is searched.
        usable = checked("eval", collection, None)
        refuse_without_judgements(usable)  # all of its pages may be broken
        eval_data.append(usable)
    if _uses_hard_negatives(recipe):
        for place, data in enumerate(train_data):
            settings = recipe.hard_negatives
            true = without_false_negatives(data)
            usable, counts = require_negatives(true, settings.per_query, settings.among_first)
            # Where they only serve as further in-batch negatives, a row without any is no loss.
            train_data[place] = usable if _wants_own_negatives(recipe) else true
            checks["train"][place]["hard_negatives"] = asdict(counts)
    return train_data, eval_data, checks, page_digests


def _refuse_other_data_on_ranks(loaded: Mapping[str, list[Collection]], ranks: Ranks) -> None:
    if not ranks.are_many:
        return
    hashes = {}
    with ranks.together():
        for kind, collections in loaded.items():
            for number, data in enumerate(collections):
                # Not by name: that is where a rank keeps it, which may be another place on each machine.
                name = f"{kind} data, source {number}"
                hashes[name] = data.fingerprint()["hash"]
                hashes[f"page files of {name}"] = pages_hash(data)
    refuse_others("data", hashes, ranks)


def deviations(recipe: Recipe) -> list[dict[str, str]]:
    """What of a recipe departs from the method that the published models used."""
    found = []
    if recipe.batch.negatives != "global":
        found.append(
            {
                "what": f"batch.negatives = {recipe.batch.negatives}",
                "why": f"each query met the pages of its group of {recipe.batch.negatives}, not the "
                f"{recipe.batch.global_size} of the global batch",
            }
        )
    if recipe.loss.maxsim_kernel != "none":
        found.append(
            {
                "what": f"loss.maxsim_kernel = {recipe.loss.maxsim_kernel}",
                "why": "the best match of a query token is found to half precision: of page tokens "
                "nearer than that another one may be taken for it",
            }
        )
    if recipe.data.decoding == "draft":
        found.append(
            {
                "what": "data.decoding = draft",
                "why": "JPEG files of training pages are decoded at a smaller size, which gives other "
                "pixels than the whole page made smaller",
            }
        )
    rounded_to = recipe.data.vision_cache.dtype
    if rounded_to not in ("exact", recipe.precision.compute):
        found.append(
            {
                "what": f"data.vision_cache.dtype = {rounded_to}",
                "why": f"visual tokens are rounded to {rounded_to}, and the vision tower computes "
                f"in {recipe.precision.compute}",
            }
        )
    return found


def _refuse_what_is_not_there(recipe: Recipe) -> None:
    if recipe.loss.symmetric and recipe.hard_negatives.shared:
        raise RunError(
            "symmetric-with-shared-negatives",
            "the symmetric loss needs a query for every page, and a shared hard negative has none.",
            where="loss.symmetric, hard_negatives.shared",
            received="true, true",
            expected="one of the two",
        )


def _refuse_other_data(kind: str, collection: Collection, before: Mapping[str, Any]) -> None:
    if before["hash"] == collection.fingerprint()["hash"]:
        # A run of an earlier version did not record the files.
        if before.get("page_files") in (None, pages_hash(collection)):
            return
        found = ["page files: other ones under the same ids"]
    elif known := before.get("contents"):
        found = changes(known, contents(collection))
    else:
        # Such a run recorded the hash alone: changed all the same, without the where.
        found = [f"hash {before['hash']} before"]
    raise RunError(
        "data-changed",
        "the data is no longer what the run was started with, so it cannot go on to the same "
        "result.",
        where=f"{kind} data, {collection.name}",
        received="\n".join(found),
        expected="the same page ids and files, queries, rows and judgements, in the same order",
        suggestion="put the data back as it was, or coltrain train with another --out",
    )


def _wants_own_negatives(recipe: Recipe) -> bool:
    return recipe.loss.name in HARD_NEGATIVE_LOSSES


def _uses_hard_negatives(recipe: Recipe) -> bool:
    return _wants_own_negatives(recipe) or recipe.hard_negatives.shared


def _refuse_too_few_rows(recipe: Recipe, num_rows: int) -> None:
    if num_rows < recipe.batch.global_size:
        raise RunError(
            "too-few-rows",
            "the training data has fewer rows than one global batch.",
            where="data.train",
            received=f"{num_rows} rows",
            expected=f"at least batch.global_size = {recipe.batch.global_size}",
            suggestion=f"batch.global_size={max(2, num_rows)}",
        )
