"""What a training printed: losses, what transformers says when it starts, what did not load."""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coltrain.reproduction.targets.facts import Facts
from coltrain.reproduction.targets.launch import read_gpu

_ENDINGS = (".log", ".out", ".err", ".stdout", ".stderr")
_LARGEST = 64 * 2**20
_LINE = re.compile(r"\{['\"](?:loss|train_loss|eval_loss|grad_norm)['\"].*?\}")
_DRAWN = re.compile(
    r"Some weights of (\w+) were not initialized from the model checkpoint at (.+?) "
    r"and are newly initialized: \[(.*?)\]"
)
_LOAD_REPORT = re.compile(r"^\s*([\w.{}*,\- ]+?)\s*\|\s*(MISSING|UNEXPECTED)\s*\|", re.MULTILINE)
_ADAPTER_KEYS = re.compile(r"[Ff]ound (missing|unexpected) adapter keys[^\[]*\[(.*?)\]", re.DOTALL)
_STARTS = {
    "per_device": re.compile(r"Instantaneous batch size per (?:device|GPU)\s*=\s*([\d,]+)"),
    "total": re.compile(r"Total train batch size \([^)]*\)\s*=\s*([\d,]+)"),
    "accumulation": re.compile(r"Gradient Accumulation steps\s*=\s*([\d,]+)"),
    "steps": re.compile(r"Total optimization steps\s*=\s*([\d,]+)"),
    "rows": re.compile(r"Num examples\s*=\s*([\d,]+)"),
}
_CARD = re.compile(r"tesla|nvidia|geforce|quadro|\bGPU\b|cuda", re.IGNORECASE)


@dataclass
class Printed:
    """A training's printed output, as far as it is understood.

    Attributes:
        log: Lines as a `log_history` has them.
        drawn: Tensors that were drawn anew when a model was loaded, each with its place.
        adapter: Adapter keys that found no module, or modules that found no key, each with its place.
        read: Whether anything was understood.
    """

    log: list[dict[str, Any]] = field(default_factory=list)
    drawn: list[tuple[str, str]] = field(default_factory=list)
    adapter: list[tuple[str, str]] = field(default_factory=list)
    read: bool = False


def is_printed(file: Path) -> bool:
    """Whether a file's name is that of a printed output."""
    return file.suffix in _ENDINGS or file.name.startswith(("nohup", "slurm-", "stdout", "stderr"))


def read_printed(file: Path, facts: Facts) -> Printed:
    """Read what a training printed; only lines of known form count.

    Args:
        file: Text; of one above 64 MiB nothing is read.
        facts: Gets batch, processes, rows and card, where transformers or nvidia-smi print them.

    Source:
        transformers' `Trainer.log` (a dict a line), `_inner_training_loop` (what it says when it
        starts), `modeling_utils` (weights that are newly initialized; since 5 a table with MISSING);
        peft's `PeftModel.from_pretrained` (missing adapter keys).
    """
    printed = Printed()
    if file.stat().st_size > _LARGEST:
        return printed
    text = file.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(re.split(r"[\r\n]", text), 1):
        for match in _LINE.finditer(line):
            values = _values(match[0])
            if values:
                printed.log.append(values)
        if _CARD.search(line):
            read_gpu(line, f"{file.name}, line {number}", facts)
    for match in _DRAWN.finditer(text):
        printed.drawn += [(name, _place(file, text, match.start())) for name in _names(match[3])]
    for match in _LOAD_REPORT.finditer(text):
        if match[2] == "MISSING":
            printed.drawn.append((match[1].strip(), _place(file, text, match.start(1))))
    for match in _ADAPTER_KEYS.finditer(text):
        printed.adapter += [(name, _place(file, text, match.start())) for name in _names(match[2])]
    started = _started(text, file.name, facts)
    printed.read = bool(printed.log or printed.drawn or printed.adapter or started)
    for place, line in enumerate(printed.log, 1):
        line.setdefault("step", place)
    return printed


def _values(text: str) -> dict[str, Any]:
    plain = re.sub(r"\b(nan|inf|NaN|Infinity)\b", r"'\1'", text)
    try:
        values = ast.literal_eval(re.sub(r"''(\w+)''", r"'\1'", plain))
    except (SyntaxError, ValueError):
        return {}
    values = {key: _number(value) for key, value in values.items()}
    return values if "loss" in values else {}


def _number(value: Any) -> Any:
    """transformers 5 prints its numbers as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _names(text: str) -> list[str]:
    return re.findall(r"['\"]([^'\"]+)['\"]", text)


def _place(file: Path, text: str, start: int) -> str:
    return f"{file.name}, line {text.count(chr(10), 0, start) + 1}"


def _devices(number: int, where: str, facts: Facts) -> None:
    """Devices that share a step: processes, or GPUs of one process, which only the launcher tells apart."""
    launcher = str(facts.value("launch.launcher", ""))
    if number == 1 or (launcher and not launcher.startswith("python")):
        facts.put("launch.world_size", number, where, "derived")
    elif launcher:
        facts.put("launch.world_size", 1, where, "derived")
        facts.put("launch.data_parallel", number, where, "derived")


def _started(text: str, name: str, facts: Facts) -> bool:
    """Batch and processes, which transformers prints before the first step."""
    found = {
        key: int(match[1].replace(",", ""))
        for key, pattern in _STARTS.items()
        if (match := pattern.search(text))
    }
    each, together = found.get("per_device"), found.get("total")
    accumulation = found.get("accumulation", 1)
    if "accumulation" in found:
        facts.put("batch.accumulation", accumulation, f"{name}, Gradient Accumulation steps")
    if each:
        facts.put("batch.per_device", each, f"{name}, Instantaneous batch size", "derived")
    if each and together and together % (each * accumulation) == 0:
        _devices(together // (each * accumulation), f"{name}, Total train batch size", facts)
    if "rows" in found:
        facts.put("data.rows", found["rows"], f"{name}, Num examples")
    if "steps" in found:
        facts.put("train.steps", found["steps"], f"{name}, Total optimization steps", "derived")
    return bool(found)
