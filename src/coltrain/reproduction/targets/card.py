"""Hyper-parameters that a model card lists, as transformers and sentence-transformers write them."""

import json
import re
from typing import Any

from coltrain.reproduction.targets.calls import Call, Ref
from coltrain.reproduction.targets.facts import Facts
from coltrain.reproduction.targets.huggingface import training_arguments
from coltrain.reproduction.targets.sentence import put_sentence

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


def read_sentence_card(text: str, name: str, facts: Facts) -> bool:
    """Add base, loss and sampler of a card that sentence-transformers wrote; False where it wrote none.

    Source:
        sentence-transformers, `base/model_card.py`: "Loss: … with these parameters" and their JSON.
    """
    if "sentence-transformers" not in text or "* Loss: [" not in text:
        return False
    match = _LOSS.search(text)
    base = re.search(r"^base_model:\s*(\S+)", text, re.MULTILINE)
    calls = []
    if base:
        calls.append(Call("MultiVectorEncoder", [base[1]], {}, f"{name}, base_model"))
    if match:
        try:
            parameters = json.loads(match[2]) if match[2] else {}
        except ValueError:
            parameters = {}
        parameters = {
            key: Ref(value) if key in ("similarity_fct", "score_metric") else value
            for key, value in parameters.items()
        }
        calls.append(Call(match[1], [], parameters, f"{name}, Loss"))
    sampler = re.search(r"^- `batch_sampler`: (\S+)", text, re.MULTILINE)
    if sampler:
        facts.put("batch.sampler", sampler[1].upper(), f"{name}, batch_sampler")
    put_sentence(calls, facts)
    return True


_LOSS = re.compile(
    r"\* Loss: \[<code>(\w+)</code>\][^\n]*(?:\n\s*```json\s*\n(.*?)```)?", re.DOTALL
)


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
