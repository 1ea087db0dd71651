"""Hyper-parameters that a model card lists, as transformers and sentence-transformers write them."""

import re
from typing import Any

from coltrain.reproduction.targets.calls import Call
from coltrain.reproduction.targets.facts import Facts
from coltrain.reproduction.targets.huggingface import training_arguments

_LINE = re.compile(r"^\s*[-*]\s+[*`]*(\w+)[*`]*\s*:\s*(.+?)\s*$")
_ARGUMENTS = {
    "learning_rate": "learning_rate",
    "train_batch_size": "per_device_train_batch_size",
    "per_device_train_batch_size": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "lr_scheduler_type": "lr_scheduler_type",
    "lr_scheduler_warmup_steps": "warmup_steps",
    "warmup_steps": "warmup_steps",
    "num_epochs": "num_train_epochs",
    "num_train_epochs": "num_train_epochs",
    "seed": "seed",
}


def read_card(text: str, name: str, facts: Facts) -> bool:
    """Add what a card lists; False where it lists no batch, and so is no trainer's card.

    Args:
        text: Markdown. Only list items of the form `- name: value` count; prose speaks of much.
        name: Of the file, for the facts.
        facts: Gets the arguments, and the processes of a training on several devices.
    """
    listed = {match[1]: match[2] for match in map(_LINE.match, text.splitlines()) if match}
    given: dict[str, Any] = {
        argument: listed[key] for key, argument in _ARGUMENTS.items() if key in listed
    }
    if "per_device_train_batch_size" not in given:
        return False
    if "distributed_type" not in listed and listed.get("total_train_batch_size", "").isdigit():
        facts.put("launch.world_size", 1, f"{name}, no distributed_type", "derived")
    if listed.get("num_devices", "").isdigit():
        facts.put("launch.world_size", int(listed["num_devices"]), f"{name}, num_devices")
    if "8bit" in listed.get("optimizer", "").lower():
        kind = "paged_adamw_8bit" if "paged" in listed["optimizer"].lower() else "adamw_8bit"
        facts.put("optimizer.name", kind, f"{name}, optimizer")
    training_arguments(Call("TrainingArguments", [], given, name), facts)
    return True
