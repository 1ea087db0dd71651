"""What a recipe says: every setting that can move the number, with its type and range.

A recipe is strict (`true` is no number, `"3"` is no number, an unknown key is an error) and frozen.
Defaults live here alone. A setting that decides what is trained has none, so that a recipe spells
it out. The text below each key is its documentation.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from coltrain.recipe.source import Source
from coltrain.recipe.template import Template
from coltrain.recipe.wording import shown


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise PydanticCustomError(
            "pattern",
            "a regular expression does not compile.",
            {"expected": f"a regular expression; this one does not compile: {error}"},
        ) from None
    return pattern


def _from_list(value: Any) -> Any:
    # YAML has lists, a frozen recipe has tuples; nothing else passes for either.
    return tuple(value) if isinstance(value, list) else value


Name = Annotated[str, Field(min_length=1)]
Pattern = Annotated[str, Field(min_length=1), AfterValidator(_compiles)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
GroupSize = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
ModulePatterns = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_from_list)
]
Sources = Annotated[tuple[Source, ...], BeforeValidator(_from_list)]
Watchers = Annotated[
    tuple[Literal["tensorboard", "wandb", "trackio"], ...], BeforeValidator(_from_list)
]

HARD_NEGATIVE_LOSSES = ("pairwise_hard_negatives", "softmax_hard_negatives")


class Section(BaseModel):
    """A part of a recipe: strict, frozen, without unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class ModelSection(Section):
    """The network before training, and what it reads."""

    base: Name
    """Hub name or folder of the base model; `tiny` is the small base that ships here."""
    revision: Name | None = None
    """Commit, tag or branch of the base; null is its newest state, which can change."""
    start_from: Name | None = None
    """Hub name or folder of an adapter to continue from; null starts a new one."""
    start_from_revision: Name | None = None
    """Commit, tag or branch of `start_from`."""
    dtype: Literal["float32", "bfloat16", "float16"]
    """How the frozen weights are stored."""
    template: Template
    """Exact strings around a query and a page."""
    max_visual_tokens: Annotated[int, Field(ge=4, le=16384)]
    """A page is scaled down until it has at most this many visual tokens of 28 × 28 pixels."""
    attention: Literal["sdpa", "varlen"] = "sdpa"
    """Attention kernel; eager is unstable in float16 and is not offered. `varlen` attends once whatever
    the lengths of a chunk's samples: half precision, on NVIDIA GPUs of compute capability 8.0 or later."""
    activation_checkpointing: bool = False
    """Recompute the activations of the language model's layers, but for the last two (half of them at most),
    to save memory. Does not change the result."""


class ProjectionSection(Section):
    """The linear layer from hidden states to embeddings."""

    dim: Annotated[int, Field(ge=1, le=65536)] = 128
    """Size of an embedding."""
    start: Literal["from_base", "normal"] = "from_base"
    """Take the base's projection, or draw one with `train.seed`."""
    std: Positive = 0.02
    """Standard deviation of a drawn projection; read with `start: normal` only."""
    train: Literal["lora", "full", "frozen"] = "lora"
    """What learns: a LoRA over the frozen layer, the whole layer, or nothing."""


class LoraSection(Section):
    """The trained adapter."""

    r: Annotated[int, Field(ge=1, le=65536)]
    """Rank."""
    alpha: Positive
    """Scale: the adapter's output is multiplied by alpha / r."""
    dropout: Decay
    """Share of the adapter's inputs that are dropped while training."""
    init: Literal["gaussian", "kaiming"]
    """How the first matrix starts; the second one starts at zero."""
    target_modules: Pattern
    """Regular expression; a module is adapted when its whole name matches."""
    dtype: Literal["float32", "bfloat16"]
    """How the adapter and its optimiser state are stored."""


class LossSection(Section):
    """The loss, with every term spelled out."""

    name: Literal[
        "pairwise", "softmax", "sigmoid", "pairwise_hard_negatives", "softmax_hard_negatives"
    ]
    """Formula; see coltrain.losses."""
    temperature: Positive
    """Divisor of the scores."""
    normalize: bool
    """Divide a score by the number of query tokens. The published models did not."""
    in_batch_weight: Share = 0.5
    """Weight of the in-batch term beside the hard negatives; read by their losses only."""
    filter_threshold: Positive | None = None
    """A negative that scores above this share of the positive is taken for a false one."""
    filter_factor: Share = 0.5
    """Such a negative's score is multiplied by this; read with `filter_threshold` only."""
    symmetric: bool = False
    """Average with the loss of finding the query from the page."""
    padding: Literal["masked", "zero"] = "masked"
    """`zero` leaves a page's padding in the maximum as a zero vector, as colpali-engine does, so
    that a score depends on the longest page of the batch."""
    maxsim_kernel: Literal["none", "auto", "fused"] = "none"
    """What finds the best matches of a step: `fused` is a kernel for NVIDIA GPUs (extra `kernels`), which
    tells tokens apart to half precision. `auto` takes it where the card allows; a run records that."""


class BatchSection(Section):
    """What one optimiser step sees."""

    global_size: Annotated[int, Field(ge=2)]
    """Queries per optimiser step, over all ranks."""
    chunk_size: AtLeastOne
    """Queries per forward pass. Changes memory and time, not the result."""
    negatives: Literal["global"] | GroupSize
    """`global`: a query meets every page of the batch; a number: groups of that many queries."""
    drop_last: bool
    """Leave out the last, smaller batch of an epoch."""

    @model_validator(mode="after")
    def _groups_share_the_batch_evenly(self) -> BatchSection:
        if self.negatives != "global" and self.global_size % self.negatives:
            raise PydanticCustomError(
                "batch-not-divisible",
                "the global batch cannot be shared evenly by the groups of negatives.",
                {
                    "path": "batch.negatives",
                    "received": f"{self.negatives} with batch.global_size = {self.global_size}",
                    "expected": "a divisor of batch.global_size, so that every query meets the "
                    "same number of negatives",
                    "suggestion": _divisors_near(self.negatives, self.global_size),
                },
            )
        return self


def _divisors_near(group_size: int, global_size: int) -> str:
    divisors = [size for size in range(2, global_size + 1) if global_size % size == 0]
    below = [str(size) for size in divisors if size < group_size][-1:]
    above = [str(size) for size in divisors if size > group_size][:1]
    return " or ".join(below + above)


class HardNegativesSection(Section):
    """What a step takes of the hard negatives that the data names for a row.

    Read by the hard-negative losses, and by every loss where they are shared.
    """

    per_query: AtLeastOne = 1
    """Hard negatives of a query in a step, drawn anew each epoch; all losses average over them."""
    among_first: AtLeastOne | None = None
    """Draw from the hardest so many of a row; null draws from all that the data names."""
    shared: bool = False
    """Serve all queries (of the group) as further in-batch negatives, beside their own."""

    @model_validator(mode="after")
    def _draws_from_enough(self) -> HardNegativesSection:
        if self.among_first is not None and self.among_first < self.per_query:
            raise PydanticCustomError(
                "hard_negatives",
                "fewer to draw from than are drawn.",
                {
                    "received": f"among_first = {self.among_first} and per_query = "
                    f"{self.per_query}",
                    "expected": "among_first of at least per_query, or null",
                },
            )
        return self


class TrainSection(Section):
    """How long, and from which random state. Exactly one of `epochs` and `steps` is given."""

    epochs: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Passes over the training data."""
    steps: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Optimiser steps."""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """Order of the data, dropout and starting weights follow from it."""

    @model_validator(mode="after")
    def _has_one_length(self) -> TrainSection:
        if (self.epochs is None) == (self.steps is None):
            both = self.steps is not None
            raise PydanticCustomError(
                "steps-and-epochs",
                "a run has one length: steps or epochs.",
                {
                    "received": f"train.epochs = {shown(self.epochs)} and train.steps = "
                    f"{shown(self.steps)}"
                    if both
                    else "neither train.epochs nor train.steps",
                    "expected": "exactly one of the two",
                },
            )
        return self


class OptimizerSection(Section):
    """How weights move."""

    name: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]
    """AdamW, or its 8-bit forms from bitsandbytes."""
    learning_rate: Positive
    """Highest learning rate, reached after the warm-up."""
    warmup_steps: Count
    """Steps over which the learning rate rises from zero."""
    schedule: Literal["linear", "cosine", "constant"]
    """What follows the warm-up: decay to zero in a line or a half cosine, or none."""
    betas: Annotated[tuple[Decay, Decay], BeforeValidator(_from_list)]
    """Decay of the averages of gradients and of their squares."""
    eps: Positive
    """Added to the denominator of the update."""
    weight_decay: NotNegative
    """Decoupled weight decay."""
    max_grad_norm: Positive | None
    """Gradients are scaled down to this norm; null never clips."""


class PrecisionSection(Section):
    """In what the passes compute. Scores, losses and norms are float32 always."""

    compute: Literal["float32", "bfloat16", "float16", "auto"]
    """Precision of the forward and backward passes. `auto` takes bfloat16 where the device has it,
    else float16, and float32 on a CPU; a run records what it took."""
    keep_float32: Literal["auto"] | ModulePatterns = ()
    """Modules that stay in float32 in a float16 run: names, or patterns with `*`. `auto` looks for
    those that overflow before the first step, and records them."""


class VisionCacheSection(Section):
    """Visual tokens of pages kept on disk, so that a frozen vision tower sees each page once.

    Read while the vision tower is frozen only, which it is in the published recipes.
    """

    path: Name | None = None
    """Folder, shared by runs and processes; `auto` is one in the user's cache; null keeps none."""
    dtype: Literal["exact", "bfloat16", "float16"] = "exact"
    """Type on disk: `exact` is that in which the vision tower computes; a narrower one rounds."""
    max_gib: Positive = 32.0
    """The most that the folder may hold. When it is full, what is there is used, and no page is added."""

    @model_validator(mode="after")
    def _rounds_only_what_is_kept(self) -> VisionCacheSection:
        if self.path is None and self.dtype != "exact":
            raise PydanticCustomError(
                "vision_cache",
                "visual tokens are to be rounded, and there is no cache that would do so.",
                {
                    "received": f"dtype = {self.dtype} and path = null",
                    "expected": "a path, or dtype = exact",
                },
            )
        return self


class PageCacheSection(Section):
    """Resized pages kept on disk as uint8, so that a page is decoded and resized once.

    Of training pages, and not read beside `data.vision_cache`, which needs no pixels of a page that
    it has. Does not change the result.
    """

    path: Name | None = None
    """Folder, shared by runs and processes; `auto` is one in the user's cache; null keeps none."""
    max_gib: Positive = 32.0
    """The most that the folder may hold. When it is full, what is there is used, and no page is added."""


class DataSection(Section):
    """What the model learns from."""

    train: Annotated[Sources, Field(min_length=1)]
    """Data sets, mixed in this order; with weights, in their shares."""
    batches: Literal["mixed", "one_source"] = "mixed"
    """What a global batch is made of: rows of all sources, or of one source at a time."""
    max_broken_share: Share = 0.05
    """Largest share of a source's rows, or pages, that may be left out as broken."""
    num_workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Worker processes that decode pages. Does not change the result."""
    vision_cache: VisionCacheSection = VisionCacheSection()
    """Visual tokens on disk over the epochs."""
    page_cache: PageCacheSection = PageCacheSection()
    """Resized pages on disk over the epochs."""
    decoding: Literal["exact", "draft"] = "exact"
    """`draft` decodes JPEG files of training pages no larger than the budget needs: quicker, and other
    pixels. Evaluations decode exactly."""

    @model_validator(mode="after")
    def _weighs_all_sources_or_none(self) -> DataSection:
        unweighted = [source.path for source in self.train if source.weight is None]
        if unweighted and len(unweighted) < len(self.train):
            raise PydanticCustomError(
                "data",
                "some sources have a weight and others none.",
                {
                    "path": "data.train",
                    "received": f"no weight for {', '.join(unweighted)}",
                    "expected": "a weight for every source, or for none",
                },
            )
        return self


class EvalSection(Section):
    """What the model is measured on while it trains."""

    data: Sources = ()
    """Data sets; an empty list evaluates nothing."""
    every: AtLeastOne | None = None
    """Steps between evaluations; null evaluates before the first step and at the end only."""


class CheckpointSection(Section):
    """What is kept to continue from. Does not change the result."""

    every: AtLeastOne | None = None
    """Steps between checkpoints; null writes none."""
    keep: AtLeastOne = 2
    """How many of the newest checkpoints stay on disk."""


class LoggingSection(Section):
    """What is written while training. Does not change the result."""

    every: AtLeastOne = 1
    """Steps between lines on a console that is no terminal; metrics.jsonl has every step."""
    watchers: Watchers = ()
    """Where else the run can be watched; each needs the extra of its name."""


class Recipe(Section):
    """All that a training run is, apart from the machine it runs on.

    Read one with `load_recipe`, which reports mistakes as a `RecipeError`; write one with
    `to_yaml`.
    """

    name: Name
    """Name of the recipe."""
    description: str = ""
    """One sentence for people."""
    model: ModelSection
    projection: ProjectionSection = ProjectionSection()
    lora: LoraSection
    loss: LossSection
    batch: BatchSection
    hard_negatives: HardNegativesSection = HardNegativesSection()
    train: TrainSection
    optimizer: OptimizerSection
    precision: PrecisionSection
    data: DataSection
    eval: EvalSection = EvalSection()
    checkpoint: CheckpointSection = CheckpointSection()
    logging: LoggingSection = LoggingSection()
    sources: dict[str, str] = {}
    """Where values come from, by key (`lora.r`) or by section (`lora`)."""

    @field_validator("sources")
    @classmethod
    def _names_keys_that_exist(cls, sources: dict[str, str]) -> dict[str, str]:
        from coltrain.recipe.keys import all_paths, nearest_path  # reads the schema above

        unknown = [path for path in sources if path not in all_paths()]
        if unknown:
            raise PydanticCustomError(
                "unknown-key",
                "`sources` explains keys that a recipe does not have.",
                {
                    "received": ", ".join(unknown),
                    "expected": "keys of a recipe such as lora.r, or sections such as lora",
                    "suggestion": ", ".join(
                        nearest_path(path) or "no near key" for path in unknown
                    ),
                },
            )
        return sources
