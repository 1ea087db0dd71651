"""Facts of what a script does by hand to its model, its data and its queries."""

import ast
import re
from typing import Any

from coltrain.reproduction.targets.calls import Call, nested
from coltrain.reproduction.targets.facts import Facts
from coltrain.reproduction.targets.huggingface import find, truth
from coltrain.reproduction.targets.target import Target

_AUGMENTATION = "<|endoftext|>"
_SLICE = re.compile(r"\[(\d*)(%?):(\d*)(%?)\]")
_WRAPS = ("get_peft_model", "from_pretrained", "add_adapter", "load_adapter")


def put_hand_work(target: Target) -> None:
    """Add what shows in a script's syntax tree, and what the calls on its data sets leave of them."""
    facts = target.facts
    if (sign := target.mention("smooth maximum")) is not None:
        facts.put("loss.smooth_max", True, sign.where)
    if (sign := target.mention("projection drawn")) is not None:
        facts.put("projection.start", "drawn", sign.where)
    if (sign := target.mention("adapter cast")) is not None:
        facts.put("precision.lora", sign.text, sign.where)
    for call in find(target.calls, *_WRAPS):
        if truth(call.argument("autocast_adapter_dtype", default=True)) is False:
            weights = facts["precision.weights"]
            where = f"{call.where}, autocast_adapter_dtype"
            facts.put("precision.lora", weights.value, where)
    if (sign := target.mention("suffix")) is not None:
        suffix = _suffix(sign.text)
        if suffix is not None:
            facts.put("template.query_suffix", suffix, f"{sign.where}, process_queries")
    _rows(target, facts)


def _suffix(expression: str) -> str | None:
    """The text of `""`, `"…" * 5` or `processor.query_augmentation_token * 5`; None where it is not known."""
    expression = re.sub(r"[\w.]*query_augmentation_token", repr(_AUGMENTATION), expression)
    match = re.fullmatch(r"(.+?)\s*\*\s*(\d+)|(\d+)\s*\*\s*(.+)", expression)
    text, times = (match[1] or match[4], int(match[2] or match[3])) if match else (expression, 1)
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return None
    return value * times if isinstance(value, str) else None


def _rows(target: Target, facts: Facts) -> None:
    """The share of a data set's rows that a slice of its split, `select`, `take` or `shard` leaves."""
    roots = [call.argument("train_dataset") for call in target.calls if call.has("train_dataset")]
    if not roots:
        roots = [call.argument("dataset", 0) for call in find(target.calls, "DataLoader")]
    for call in nested(roots):
        split = call.argument("split", default="") if call.last == "load_dataset" else ""
        if str(split).partition("[")[0] in ("test", "validation") and not call.is_unsure:
            facts.put("data.split", str(split), f"{call.where}, split")
        share = None if call.is_unsure else _left(call)
        if share is not None and _name(call):
            facts.put("data.left", share, call.where)


def _left(call: Call) -> Any:
    """Rows as a number, or as a share below 1."""
    if call.last == "load_dataset":
        match = _SLICE.search(str(call.argument("split", default="")))
        if match is None:
            return None
        first = int(match[1] or 0)
        if "%" in match[2] + match[4]:
            return (int(match[3] or 100) - first) / 100
        return int(match[3]) - first if match[3] else None
    if call.last == "select":
        over = call.argument("indices", 0)
        if isinstance(over, Call) and over.last == "range":
            ends = over.args
            if ends and all(isinstance(one, int) for one in ends):
                return ends[0] if len(ends) == 1 else ends[1] - ends[0]
        return len(over) if isinstance(over, list) and over else None
    if call.last == "take":
        number = call.argument("n", 0)
        return number if isinstance(number, int) else None
    if call.last == "shard":
        number = call.argument("num_shards", 0)
        return 1 / number if isinstance(number, int) and number > 1 else None
    return None


def _name(call: Call) -> str:
    """The published training set that a chain of calls begins with."""
    while isinstance(call.on, Call):
        call = call.on
    name = str(call.argument("path", 0, "")) if call.last == "load_dataset" else call.last
    split = str(call.argument("split", default=""))
    is_training = "colpali_train_set" in name or name.startswith("load_train_set")
    return name if is_training and not split.startswith(("test", "validation")) else ""
