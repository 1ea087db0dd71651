"""Facts about a training: each with its value, where it was found, and how sure it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Sure = Literal["told", "stated", "derived", "default", "unknown"]
_STRENGTH = {"unknown": 0, "default": 1, "derived": 2, "stated": 3, "told": 4}


class Unknown:
    """A value that cannot be known from what is there; it is false, and equal to itself alone."""

    def __repr__(self) -> str:
        return "unknown"

    def __bool__(self) -> bool:
        return False


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Fact:
    """One value.

    Attributes:
        value: In the units of its name in `NAMES`; `UNKNOWN` where it cannot be known.
        where: File and key or line; what is missing where it is not known.
        sure: "told" by the user, "stated" by a file, "derived" from other facts, "default" of the
            library where a file leaves it out, or "unknown".
    """

    value: Any
    where: str
    sure: Sure

    @property
    def is_known(self) -> bool:
        """Whether there is a value; None is one."""
        return not isinstance(self.value, Unknown)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        value = self.value
        if not isinstance(value, str | int | float | bool | list | dict | None):
            value = str(value)
        return {"value": value if self.is_known else None, "where": self.where, "sure": self.sure}


NAMES = {
    "launch.world_size": "processes that train; 1 also where one process drives several GPUs",
    "launch.data_parallel": "GPUs that one process drives with DataParallel",
    "launch.launcher": "python, torchrun, accelerate, deepspeed or srun",
    "launch.backend": "nccl, gloo or cpu, where it is said",
    "hardware.gpu": "name of the GPU",
    "hardware.capability": "its compute capability, such as 7.0",
    "batch.per_device": "queries in a forward pass of one process",
    "batch.accumulation": "forward passes that share an optimiser step",
    "batch.global_size": "queries per optimiser step, over all processes",
    "batch.candidates": "pages that a query is compared with, its own included, hard ones left out",
    "batch.shared": "whether in-batch negatives are shared over processes",
    "batch.cached": "whether the loss uses gradient caching",
    "batch.mini_batch": "rows of a forward pass under gradient caching",
    "batch.sampler": "a batch sampler that is not the library's default",
    "batch.num_sources": "training sets that are sampled one batch at a time",
    "batch.negatives": "negatives that each query meets: in-batch ones and its own hard ones",
    "loss.name": "pairwise, softmax, sigmoid, pairwise_hard_negatives, softmax_hard_negatives, …",
    "loss.class": "the class, or the formula's name, as it was written",
    "loss.temperature": "divisor of the scores",
    "loss.normalize": "whether a score is divided by the number of query tokens",
    "loss.in_batch_weight": "weight of the in-batch term beside hard negatives; 0 is none",
    "loss.smooth_max": "whether a smooth maximum takes the place of MaxSim's",
    "loss.filter": "whether high-scoring negatives are scaled down",
    "loss.symmetric": "whether the query is searched from the page as well",
    "loss.padding": "masked, or zero where padding stays in the maximum",
    "optimizer.name": "adamw, adamw_8bit, paged_adamw_8bit, …",
    "optimizer.learning_rate": "the highest",
    "optimizer.schedule": "linear, cosine, constant, …",
    "optimizer.warmup_steps": "steps",
    "optimizer.warmup_ratio": "share of all steps",
    "optimizer.weight_decay": "decoupled",
    "optimizer.max_grad_norm": "gradients are scaled down to it",
    "optimizer.eps": "in AdamW's denominator",
    "train.epochs": "passes over the data",
    "train.steps": "optimiser steps, where they are what ends the run",
    "train.seed": "seed",
    "train.removed_argument": "an argument that transformers 5 does not take any more",
    "precision.weights": "how frozen weights are stored",
    "precision.compute": "what the passes compute in",
    "precision.lora": "how the adapter is stored",
    "precision.moments": "how the optimiser's averages are stored",
    "precision.scaler": "whether gradients are scaled against underflow",
    "precision.cast_whole_model": "a call that casts every buffer, such as model.half()",
    "lora.r": "rank; None without an adapter",
    "lora.alpha": "scale: alpha / r",
    "lora.dropout": "share of inputs dropped",
    "lora.init": "gaussian or kaiming",
    "lora.target_modules": "regular expression or list",
    "lora.layers": "numbers of the layers that are adapted, where not all are",
    "lora.patterns": "ranks and scales of single modules",
    "lora.excluded": "modules that are left out of what target_modules matches",
    "lora.modules_to_save": "modules that are trained and saved whole",
    "model.base": "hub name or folder",
    "model.revision": "of the base",
    "model.class": "class or architecture that is trained",
    "model.layout": "which library's form a model folder has",
    "model.attention": "attention kernel",
    "model.activation_checkpointing": "whether activations are recomputed",
    "model.start_from": "an adapter, or an already trained retriever, that training goes on from",
    "projection.start": "from_base or drawn",
    "projection.std": "of a drawn projection",
    "projection.saved": "whether the folder holds the whole projection",
    "template.name": "registered name of the strings below",
    "template.query_prefix": "before a query",
    "template.query_suffix": "after a query",
    "template.page_prompt": "what is read around a page",
    "template.query_call": "the processor's function that queries pass through",
    "template.padding_side": "left or right",
    "pixels.max_visual_tokens": "tokens that a page may have",
    "pixels.longest_edge": "the image processor's own budget in pixels",
    "data.train": "data sets, by name",
    "data.split": "of the training data",
    "data.revision": "of the training data",
    "data.hard_negatives": "whether rows come with hard negatives",
    "data.rows": "rows of the training data",
    "data.left": "rows that are left of it after a slice, or their share below 1",
    "eval.data": "data sets",
    "eval.form": "`rows`, where the evaluation set is raw rows without `pos_target`",
    "eval.evaluator": "library and version, or protocol, of the scores",
    "versions.python": "of Python",
    "versions.colpali-engine": "a version or a range of versions",
    "versions.transformers": "likewise",
    "versions.torch": "likewise",
    "versions.peft": "likewise",
    "versions.accelerate": "likewise",
    "versions.sentence-transformers": "likewise",
    "versions.mteb": "likewise",
    "versions.pylate": "likewise",
    "versions.coltrain": "likewise",
}
"""What a fact may be called, and what it is. Names follow a recipe's keys where there are such."""


class Facts:
    """All facts of a training, by the names in `NAMES`; one that nobody set is unknown."""

    def __init__(self) -> None:
        self._facts: dict[str, Fact] = {}
        self._others: dict[str, list[Fact]] = {}

    def __getitem__(self, name: str) -> Fact:
        _known_name(name)
        return self._facts.get(name, Fact(UNKNOWN, "nothing here says it", "unknown"))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._facts))

    def value(self, name: str, default: Any = None) -> Any:
        """A value, or the default where it is not known."""
        fact = self[name]
        return fact.value if fact.is_known else default

    def knows(self, *names: str) -> bool:
        """Whether all of these are known."""
        return all(self[name].is_known for name in names)

    def put(self, name: str, value: Any, where: str, sure: Sure = "stated") -> None:
        """Add a fact. The surer one counts, and the first of two that are equally sure."""
        _known_name(name)
        if not _is_plain(value):
            value = UNKNOWN  # what a script builds and nobody followed
        if isinstance(value, Unknown):
            sure = "unknown"
        fact = Fact(value, where, sure)
        before = self._facts.get(name)
        if before is not None and _STRENGTH[sure] <= _STRENGTH[before.sure]:
            fact, self._facts[name] = self._facts[name], before
            if fact.value != value:
                self._others.setdefault(name, []).append(Fact(value, where, sure))
            return
        if before is not None and before.value != value:
            self._others.setdefault(name, []).append(before)
        self._facts[name] = fact

    def others(self, name: str) -> list[Fact]:
        """Other values that were found for a name: less sure, or later."""
        return list(self._others.get(name, []))

    def to_json(self) -> dict[str, Any]:
        """Every fact that something was said about."""
        return {name: self._facts[name].to_json() for name in self}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return isinstance(value, str | int | float | bool | Unknown | None) or hasattr(
        value,
        "all_from",  # a range of versions
    )


def _known_name(name: str) -> None:
    assert name in NAMES, f"{name} is no fact; add it to NAMES"
