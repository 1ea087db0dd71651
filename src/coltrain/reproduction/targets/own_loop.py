"""Facts of a training loop that a script writes itself, with accelerate, Lightning or plain torch."""

import re
from collections.abc import Sequence

from coltrain.reproduction.targets.calls import Call
from coltrain.reproduction.targets.facts import Facts
from coltrain.reproduction.targets.huggingface import datasets_of, find, number, truth
from coltrain.reproduction.targets.target import Mention

_STEPS = ("backward", "manual_backward", "fit")
_GATHERS = ("all_gather", "all_gather_into_tensor", "GatherLayer", "all_gather_single")
_GATHERERS = re.compile(
    r"accelerat|dist|fabric|comm"
)  # scores.gather(1, …) picks, and shares nothing
_PRECISIONS = {"fp16": "float16", "bf16": "bfloat16", "16": "float16", "bf": "bfloat16"}


def put_own_loop(calls: Sequence[Call], facts: Facts, mentions: Sequence[Mention]) -> None:
    """Add what a script's own loop says, where it has one.

    Without a call that gathers, each process compares its queries with its own pages only.
    """
    called = {one.name for one in mentions}
    if not called & set(_STEPS):
        return
    for call in find(calls, "manual accumulation"):  # surer than what accelerate is told beside it
        facts.put("batch.accumulation", number(call.args[0]), call.where, "told")
    for call in find(calls, "Accelerator"):
        accumulated = call.argument("gradient_accumulation_steps", default=None)
        if accumulated is not None:
            facts.put("batch.accumulation", number(accumulated), call.where)
        kind = str(call.argument("mixed_precision", default="no"))
        if kind in _PRECISIONS:
            facts.put("precision.compute", _PRECISIONS[kind], f"{call.where}, mixed_precision")
            facts.put("precision.scaler", kind == "fp16", call.where, "derived")
        if truth(call.argument("cpu", default=False)) is True:
            facts.put("launch.backend", "cpu", f"{call.where}, cpu")
    for call in find(calls, "Trainer"):
        if call.has("accumulate_grad_batches"):
            accumulated = number(call.argument("accumulate_grad_batches"))
            facts.put("batch.accumulation", accumulated, f"{call.where}, accumulate_grad_batches")
        if call.has("max_epochs"):
            facts.put("train.epochs", number(call.argument("max_epochs")), call.where)
        kind = str(call.argument("precision", default="")).partition("-")[0]
        if kind in _PRECISIONS:
            facts.put("precision.compute", _PRECISIONS[kind], f"{call.where}, precision")
            facts.put("precision.scaler", kind == "16", call.where, "derived")
        devices = call.argument("devices", default=None)
        if isinstance(devices, int) and devices > 0:
            facts.put("launch.world_size", devices, f"{call.where}, devices")
    for call in find(calls, "DataLoader"):
        size = number(call.argument("batch_size", 1))
        if call.has("batch_size") or len(call.args) > 1:
            facts.put("batch.per_device", size, f"{call.where}, batch_size")
    _optimiser(calls, facts)
    for call in find(calls, "for epoch in"):
        facts.put("train.epochs", call.args[0], call.where)
    gathers = any(
        one.name in _GATHERS or (one.name == "gather" and _GATHERERS.search(one.on))
        for one in mentions
    )
    where = "the script's own loop" + ("" if gathers else ", which gathers nothing")
    facts.put("batch.shared", gathers, where, "derived")
    _order(calls, facts, called)
    names = [name for call in find(calls, "load_dataset") for name in datasets_of(call)]
    if names:
        facts.put("data.train", names[:1], find(calls, "load_dataset")[0].where, "derived")


_OPTIMISERS = {"AdamW": "adamw", "AdamW8bit": "adamw_8bit", "PagedAdamW8bit": "paged_adamw_8bit"}
_SCHEDULES = {
    "get_linear_schedule_with_warmup": "linear",
    "get_cosine_schedule_with_warmup": "cosine",
    "get_constant_schedule_with_warmup": "constant",
}


def _optimiser(calls: Sequence[Call], facts: Facts) -> None:
    for call in find(calls, *_OPTIMISERS):
        facts.put("optimizer.name", _OPTIMISERS[call.last], call.where)
        facts.put("optimizer.learning_rate", number(call.argument("lr", 1)), f"{call.where}, lr")
    for call in find(calls, *_SCHEDULES):
        facts.put("optimizer.schedule", _SCHEDULES[call.last], call.where)
        warmup = number(call.argument("num_warmup_steps", 1))
        facts.put("optimizer.warmup_steps", warmup, f"{call.where}, num_warmup_steps")


def _order(calls: Sequence[Call], facts: Facts, called: set[str]) -> None:
    """A data loader whose order no epoch changes."""
    if "backward" not in called:
        return  # Lightning tells its sampler the epoch
    loaders = find(calls, "DataLoader")
    samplers = find(calls, "DistributedSampler")
    if samplers and "set_epoch" not in called and "prepare" not in called:
        facts.put("batch.sampler", "DISTRIBUTEDSAMPLER", samplers[-1].where)
    if len(loaders) != 1 or loaders[0].is_open:
        return
    is_sampled = any(loaders[0].has(key) for key in ("sampler", "batch_sampler"))
    if not is_sampled and truth(loaders[0].argument("shuffle", 2, default=False)) is False:
        facts.put("batch.sampler", "SHUFFLE=FALSE", loaders[0].where)
