"""Facts of a training loop that a script writes itself, with accelerate, Lightning or plain torch."""

from collections.abc import Sequence

from coltrain.reproduction.targets.calls import Call
from coltrain.reproduction.targets.facts import Facts
from coltrain.reproduction.targets.huggingface import find, number
from coltrain.reproduction.targets.target import Mention

_STEPS = ("backward", "manual_backward", "fit")
_GATHERS = ("all_gather", "all_gather_into_tensor", "gather", "GatherLayer", "all_gather_single")
_PRECISIONS = {"fp16": "float16", "bf16": "bfloat16", "16": "float16", "bf": "bfloat16"}


def put_own_loop(calls: Sequence[Call], facts: Facts, mentions: Sequence[Mention]) -> None:
    """Add what a script's own loop says, where it has one.

    Without a call that gathers, each process compares its queries with its own pages only.
    """
    called = {one.name for one in mentions}
    if not called & set(_STEPS):
        return
    for call in find(calls, "Accelerator"):
        accumulated = call.argument("gradient_accumulation_steps", default=None)
        if accumulated is not None:
            facts.put("batch.accumulation", number(accumulated), call.where)
        kind = str(call.argument("mixed_precision", default="no"))
        if kind in _PRECISIONS:
            facts.put("precision.compute", _PRECISIONS[kind], f"{call.where}, mixed_precision")
            facts.put("precision.scaler", kind == "fp16", call.where, "derived")
    for call in find(calls, "Trainer"):
        if call.has("accumulate_grad_batches"):
            accumulated = number(call.argument("accumulate_grad_batches"))
            facts.put("batch.accumulation", accumulated, f"{call.where}, accumulate_grad_batches")
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
    facts.put(
        "batch.shared",
        bool(called & set(_GATHERS)),
        "the script's own loop" + ("" if called & set(_GATHERS) else ", which gathers nothing"),
        "derived",
    )
