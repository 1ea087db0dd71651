"""The keys of a recipe: which there are, what each expects, and which is nearest to a mistyped one."""

from __future__ import annotations

import re
import types
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from coltrain.recipe import source
from coltrain.recipe.schema import Recipe
from coltrain.recipe.template import Template
from coltrain.recipe.wording import listed, nearest

# What people who come from other trainers type.
_OTHER_NAMES = {
    "lr": "optimizer.learning_rate",
    "warmup": "optimizer.warmup_steps",
    "lr_scheduler_type": "optimizer.schedule",
    "optim": "optimizer.name",
    "adam_epsilon": "optimizer.eps",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "max_steps": "train.steps",
    "num_steps": "train.steps",
    "batch_size": "batch.global_size",
    "size": "batch.global_size",
    "train_batch_size": "batch.global_size",
    "global_batch_size": "batch.global_size",
    "per_device_train_batch_size": "batch.chunk_size",
    "mini_batch_size": "batch.chunk_size",
    "micro_batch_size": "batch.chunk_size",
    "gradient_accumulation_steps": "batch.chunk_size",
    "gradient_checkpointing": "model.activation_checkpointing",
    "attn_implementation": "model.attention",
    "max_num_visual_tokens": "model.max_visual_tokens",
    "num_image_tokens": "model.max_visual_tokens",
    "torch_dtype": "model.dtype",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "rank": "lora.r",
    "init_lora_weights": "lora.init",
    "normalize_scores": "loss.normalize",
    "loss_func": "loss.name",
    "in_batch_term_weight": "loss.in_batch_weight",
    "num_negatives": "hard_negatives.per_query",
    "num_hard_negatives": "hard_negatives.per_query",
    "dataloader_num_workers": "data.num_workers",
    "eval_steps": "eval.every",
    "save_steps": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
    "logging_steps": "logging.every",
    "report_to": "logging.watchers",
    "bf16": "precision.compute",
    "fp16": "precision.compute",
}

_BOUNDS = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}

_IN_SOURCE = re.compile(r"(?P<holder>.*\[\d+\]\.)(?P<key>[^.]+)")

_ACCUMULATION = re.compile(r"(^|_)accum")  # accumulation, grad_accum, gradient_accumulation_steps


@cache
def leaf_paths() -> dict[str, FieldInfo]:
    """Every key that holds a value, as `section.key`, in the order of the schema."""
    return dict(_walk(Recipe, ""))


@cache
def all_paths() -> tuple[str, ...]:
    """Every key and every section."""
    paths: list[str] = []
    for path in leaf_paths():
        parts = path.split(".")
        paths.extend(".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return tuple(dict.fromkeys(paths))


def _walk(section: type[BaseModel], prefix: str):
    for name, field in section.model_fields.items():
        inner = _section_of(field.annotation)
        if inner is not None:
            yield from _walk(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _section_of(annotation: Any) -> type[BaseModel] | None:
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_section and annotation is not source.Source else None


def locate(loc: tuple[str | int, ...]) -> tuple[str, str]:
    """The path of a validation error, and what was expected there.

    Args:
        loc: Keys and list indices, as pydantic gives them. What comes after a key that holds a
            value (the members of a union) is dropped.
    """
    path, annotation, metadata = "", Recipe, ()
    for part in loc:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(str(part))
            if field is None:
                break
            path = f"{path}.{part}" if path else str(part)
            annotation, metadata = field.annotation, tuple(field.metadata)
        elif isinstance(part, int) and get_origin(_plain(annotation)) is tuple:
            path = f"{path}[{part}]"
            members = get_args(_plain(annotation))
            annotation, metadata = members[0 if Ellipsis in members else part], ()
        else:
            break
    return path, expectation(annotation, metadata)


def _plain(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def expectation(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """What a key takes, in words: `a whole number of at least 2`."""
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [
            part
            for extra in members[1:]
            for part in (extra.metadata if isinstance(extra, FieldInfo) else [extra])
        ]
        return expectation(members[0], (*inner, *metadata))
    if origin in (Union, types.UnionType):
        texts = [expectation(member, metadata) for member in members]
        return ", or ".join(texts)
    if origin is Literal:
        return listed(str(member) for member in members)
    if origin is tuple:
        if Ellipsis in members:
            if members[0] is not source.Source:
                return f"a list of any number of these: {expectation(members[0])}"
            many = any(getattr(part, "min_length", 0) for part in metadata)
            return (
                f"a list of {'one or more' if many else 'any number of'} sources, such as [./pages]"
            )
        return f"a list of {len(members)} numbers, each {expectation(members[0])}"
    if origin is dict:
        return "a mapping from keys of the recipe to texts"
    if annotation is type(None):
        return "null"
    if annotation is source.Source:
        return source.EXPECTED
    if annotation is Template:
        return "the name of a template, or a mapping with " + listed(Template.model_fields, "and")
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a mapping with the keys " + ", ".join(annotation.model_fields)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return words[annotation] + _bounds(metadata)


def _bounds(metadata: tuple[Any, ...]) -> str:
    texts = []
    for part in metadata:
        for name, words in _BOUNDS.items():
            bound = getattr(part, name, None)
            if bound is not None:
                texts.append(f"{words} {bound}")
        if getattr(part, "min_length", None) == 1:
            texts.append("that is not empty")
    return " " + " and ".join(texts) if texts else ""


def siblings(path: str) -> list[str]:
    """The keys that stand beside a (mistyped) one."""
    if _IN_SOURCE.fullmatch(path):
        return list(source.Source.model_fields)
    section = path.rpartition(".")[0]
    if section and section not in all_paths():
        section = ""
    start = section + "." if section else ""
    names = [known[len(start) :] for known in all_paths() if known.startswith(start)]
    return [name for name in dict.fromkeys(names) if "." not in name]


def nearest_path(path: str) -> str | None:
    """The known key nearest to an unknown one, in its section first and then anywhere.

    Example:
        >>> nearest_path("optimiser.lr")
        'optimizer.learning_rate'
    """
    in_source = _IN_SOURCE.fullmatch(path)
    if in_source:
        name = nearest(in_source["key"], source.Source.model_fields)
        return name and in_source["holder"] + name
    path = path.casefold()
    *sections, last = path.split(".")
    for other in ("_".join([*sections, last]), last):
        if other in _OTHER_NAMES:
            return _OTHER_NAMES[other]
    section = ".".join(sections)
    if section:
        section = (
            nearest(section, [known for known in all_paths() if known not in leaf_paths()]) or ""
        )
    if section or not sections:
        start = section + "." if section else ""
        name = nearest(last, siblings(start + last))
        if name:
            return start + name
    elsewhere = [known for known in leaf_paths() if known.rpartition(".")[2] == last]
    if elsewhere:
        return elsewhere[0]
    return nearest(path, all_paths(), cutoff=0.7)


def advice(path: str) -> str | None:
    """A way out for an unknown key: the nearest known one, with a reason where that helps."""
    if any(_ACCUMULATION.search(key) for key in path.casefold().split(".")):
        return "batch.chunk_size: chunks keep every negative of the global batch, accumulation does not"
    return nearest_path(path)
