"""Facts that colpali-engine's and sentence-transformers' trainings share: transformers, peft, datasets."""

import re
from collections.abc import Iterable
from typing import Any

from coltrain.reproduction.targets.calls import OPEN, Call, Ref
from coltrain.reproduction.targets.facts import UNKNOWN, Facts

# transformers' TrainingArguments, 4.45 to 5.23.
_DEFAULTS = {
    "batch.per_device": 8,
    "batch.accumulation": 1,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 5e-5,
    "optimizer.schedule": "linear",
    "optimizer.weight_decay": 0.0,
    "optimizer.max_grad_norm": 1.0,
    "optimizer.eps": 1e-8,
    "train.epochs": 3.0,
    "train.seed": 42,
    "model.activation_checkpointing": False,
}
_NAMES = {
    "per_device_train_batch_size": "batch.per_device",
    "per_gpu_train_batch_size": "batch.per_device",
    "gradient_accumulation_steps": "batch.accumulation",
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "max_grad_norm": "optimizer.max_grad_norm",
    "adam_epsilon": "optimizer.eps",
    "num_train_epochs": "train.epochs",
    "warmup_ratio": "optimizer.warmup_ratio",
    "seed": "train.seed",
    "gradient_checkpointing": "model.activation_checkpointing",
}
_WHOLE = ("batch.per_device", "batch.accumulation", "train.seed")
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant"}
_PRECISIONS = {
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "half": "float16",
    "fp16": "float16",
    "float32": "float32",
    "float": "float32",
    "fp32": "float32",
    "auto": "auto",
}


def number(value: Any) -> Any:
    """A number, also where YAML or a command line has it as text; else `UNKNOWN`."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return UNKNOWN
    try:
        found = float(value)
    except ValueError:
        return UNKNOWN
    is_whole = found.is_integer() and not re.search(r"[.eE]", str(value))
    return int(found) if is_whole else found


def truth(value: Any) -> Any:
    """True or false, also as text; else `UNKNOWN`."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str | int):
        return {"true": True, "1": True, "false": False, "0": False}.get(
            str(value).lower(), UNKNOWN
        )
    return UNKNOWN


def precision(value: Any) -> Any:
    """The name of a dtype: `torch.bfloat16`, `"bfloat16"`, `!ext torch.float16`."""
    text = value.name if isinstance(value, Ref) else value
    if not isinstance(text, str):
        return UNKNOWN
    return _PRECISIONS.get(text.rpartition(".")[2].lower(), UNKNOWN)


def optimizer(value: Any) -> Any:
    """A recipe's word for an optimiser of transformers."""
    text = str(value.last if isinstance(value, Ref) else value).lower()
    if value is UNKNOWN:
        return UNKNOWN
    if "paged" in text and "8bit" in text:
        return "paged_adamw_8bit"
    if "8bit" in text:
        return "adamw_8bit"
    return "adamw" if text.startswith("adamw") else text


def training_arguments(call: Call, facts: Facts) -> None:
    """Facts of a `TrainingArguments`, with its defaults for what it leaves out."""
    for key, name in _NAMES.items():
        if not call.has(key):
            continue
        value = call.argument(key)
        if name == "model.activation_checkpointing":
            value = truth(value)
        else:
            value = number(value)
            if name in _WHOLE and isinstance(value, float):
                value = int(value)
        facts.put(name, value, f"{call.where}, {key}")
    _steps(call, facts)
    if call.has("optim"):
        facts.put("optimizer.name", optimizer(call.argument("optim")), f"{call.where}, optim")
    if call.has("lr_scheduler_type"):
        kind = call.argument("lr_scheduler_type")
        text = str(kind.last if isinstance(kind, Ref) else kind).lower()
        name = next((known for known in _SCHEDULES if text.startswith(known)), text)
        facts.put("optimizer.schedule", name, f"{call.where}, lr_scheduler_type")
    for key, kind in (("bf16", "bfloat16"), ("fp16", "float16")):
        if truth(call.argument(key, default=False)) is True:
            facts.put("precision.compute", kind, f"{call.where}, {key}")
            facts.put("precision.scaler", kind == "float16", f"{call.where}, {key}", "derived")
    for key in (
        "overwrite_output_dir",
        "evaluation_strategy",
        "per_gpu_train_batch_size",
        "no_cuda",
    ):
        if call.has(key):
            facts.put("train.removed_argument", key, f"{call.where}, {key}")
    if call.has("ddp_backend"):
        facts.put("launch.backend", call.argument("ddp_backend"), f"{call.where}, ddp_backend")
    for key in ("use_cpu", "no_cuda"):
        if truth(call.argument(key, default=False)) is True:
            facts.put("launch.backend", "cpu", f"{call.where}, {key}")
    if call.is_open:
        return
    given = {name for key, name in _NAMES.items() if call.has(key)}
    given |= {"optimizer.name"} if call.has("optim") else set()
    given |= {"optimizer.schedule"} if call.has("lr_scheduler_type") else set()
    for name, value in _DEFAULTS.items():
        if name not in given:  # what is given and not known is no default
            facts.put(name, value, f"{call.where} leaves it out", "default")
    if not call.has("warmup_ratio") and not call.has("warmup_steps"):
        facts.put("optimizer.warmup_steps", 0, f"{call.where} leaves it out", "default")


def _steps(call: Call, facts: Facts) -> None:
    warmup = number(call.argument("warmup_steps"))
    if call.has("warmup_steps"):
        is_share = isinstance(warmup, float) and 0 < warmup < 1
        name = "optimizer.warmup_ratio" if is_share else "optimizer.warmup_steps"
        facts.put(name, warmup, f"{call.where}, warmup_steps")
    steps = number(call.argument("max_steps"))
    if call.has("max_steps") and steps is not UNKNOWN and steps > 0:
        facts.put("train.steps", steps, f"{call.where}, max_steps")


def lora_config(content: dict[str, Any], where: str, facts: Facts) -> None:
    """Facts of a `LoraConfig` or an adapter_config.json."""
    defaults = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0}
    names = {"r": "lora.r", "lora_alpha": "lora.alpha", "lora_dropout": "lora.dropout"}
    for key, name in names.items():
        if key in content:
            facts.put(name, number(content[key]), f"{where}, {key}")
        elif OPEN not in content:
            facts.put(name, defaults[key], f"{where} leaves it out", "default")
    if OPEN in content and not {"init_lora_weights", "target_modules"} & set(content):
        return
    start = content.get("init_lora_weights", True)
    start = {True: "kaiming", "gaussian": "gaussian"}.get(start, str(start))
    facts.put("lora.init", start, f"{where}, init_lora_weights")
    if "target_modules" in content:
        facts.put("lora.target_modules", content["target_modules"], f"{where}, target_modules")
    else:
        facts.put("lora.target_modules", None, f"{where} leaves it out", "default")
    for key, name in (("layers_to_transform", "lora.layers"), ("exclude_modules", "lora.excluded")):
        if content.get(key) is not None:
            facts.put(name, content[key], f"{where}, {key}")
    patterns = {**(_plain(content.get("rank_pattern"))), **(_plain(content.get("alpha_pattern")))}
    if patterns:
        facts.put("lora.patterns", patterns, f"{where}, rank_pattern and alpha_pattern")
    saved = content.get("modules_to_save")
    facts.put("lora.modules_to_save", saved or [], f"{where}, modules_to_save")


def _plain(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def lora_call(call: Call, facts: Facts) -> None:
    """Facts of a `LoraConfig(…)`, whose first two places are the task and whether it infers."""
    lora_config({**call.kwargs, **call.later}, call.where, facts)


def find(calls: Iterable[Call], *names: str) -> list[Call]:
    """Calls whose last name is one of these."""
    return [call for call in calls if call.last in names]


def from_pretrained(calls: Iterable[Call]) -> list[tuple[str, Call]]:
    """Class and call of everything that is loaded, colpali-engine's wrapper included."""
    found = []
    for call in calls:
        if call.last == "from_pretrained":
            found.append((call.owner, call))
        elif call.last == "AllPurposeWrapper":
            kind = call.argument("class_to_instanciate", 0)
            found.append((kind.last if isinstance(kind, Ref) else str(kind), call))
    return found


def name_of(call: Call) -> Any:
    """Hub name or folder that a `from_pretrained` loads."""
    place = 1 if call.last == "AllPurposeWrapper" else 0
    return call.argument("pretrained_model_name_or_path", place)


def datasets_of(value: Any) -> list[str]:
    """Names of the data sets, or of the functions that load them, within a value."""
    if isinstance(value, Ref):
        return [value.last]
    if isinstance(value, Call):
        if value.last == "load_dataset":
            name = value.argument("path", 0)
            return [str(name)] if isinstance(name, str) else []
        inner = datasets_of(list(value.args)) + datasets_of(list(value.kwargs.values()))
        if value.last.startswith(("load_", "get_")) and value.last not in ("load_from_disk",):
            return [value.last]
        return (datasets_of(value.on) if value.on is not None else []) + inner
    if isinstance(value, dict):
        return datasets_of(list(value.values()))
    if isinstance(value, list):
        return [name for one in value for name in datasets_of(one)]
    return []
