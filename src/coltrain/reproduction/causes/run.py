"""What a run of ours recorded beside its recipe."""

import json
from pathlib import Path
from typing import Any

from coltrain.data.row_contents import read_row_contents
from coltrain.reproduction.causes.side import Side
from coltrain.reproduction.report.reading import RunRecord
from coltrain.training.run_folder import ROW_CONTENTS

_HASHES = {
    "base_weights_hash": "weights.base",
    "projection_hash": "weights.projection",
    "trained_weights_hash": "weights.start",
}
_READING = ("positions", "max_visual_tokens", "image_backend", "image_library", "alpha")
_PROBE = ("query_ids", "page_ids", "visual_tokens")
_OF_DATA = ("name", "layout", "revision", "rows", "pages", "left_out", "hash", "content_hash")


def put_run(run: RunRecord, side: Side) -> None:
    """Add everything that run.json and the files beside it record of what can move a number."""

    def put(name: str, value: Any, key: str) -> None:
        if value is not None:
            side.put(name, value, f"run.json, {key}")

    for section in ("versions", "device", "kernels"):
        found = run.fact(section, {})
        for key, value in found.items():
            name = {"versions": "versions", "device": "hardware", "kernels": "kernels"}[section]
            put(f"{name}.{key}", value, f"{section}.{key}")
    for key, name in _HASHES.items():
        put(name, run.fact(key), key)
    for key in _READING:
        put(f"reading.{key}", run.fact(f"reading.{key}"), f"reading.{key}")
    put("template.hash", run.fact("template_hash"), "template_hash")
    for key in _PROBE:
        put(f"probe.{key}", run.fact(f"probe.{key}"), f"probe.{key}")
    types = run.fact("parameters.by_dtype", {})
    put("precision.lora", _names(types.get("trainable")), "parameters.by_dtype.trainable")
    put("precision.frozen", _names(types.get("frozen")), "parameters.by_dtype.frozen")
    for key in ("trainable", "frozen", "lora_modules", "lora_modules_in_vision_tower"):
        put(f"parameters.{key}", run.fact(f"parameters.{key}"), f"parameters.{key}")
    for key in ("keep_float32", "float32_modules", "skipped_steps"):
        put(f"precision.{key}", run.fact(f"precision.{key}"), f"precision.{key}")
    put("train.num_steps", run.fact("plan.num_steps"), "plan.num_steps")
    put("commit", run.fact("commit"), "commit")
    if run.steps:
        side.put("train.steps_taken", run.step, "metrics.jsonl")
    for use in ("train", "eval"):
        for place, source in enumerate(run.fact(f"data.{use}", [])):
            for key in _OF_DATA:
                if source.get(key) is not None:
                    put(f"data.{use}[{place}].{key}", source[key], f"data.{use}[{place}].{key}")
    _moments(run, side)
    _negatives_met(run, side)
    side.first_steps |= _first_steps(run.folder / "fingerprints.json")
    rows = run.folder / ROW_CONTENTS
    if rows.is_file():
        side.rows = lambda: read_row_contents(rows)


def _first_steps(path: Path) -> dict[int, str]:
    """A hash for each step whose tensors were recorded."""
    try:
        steps = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {
        int(step): " ".join(sorted(f"{name} {one['sha256']}" for name, one in tensors.items()))
        for step, tensors in steps.items()
    }


def _names(types: dict[str, int] | None) -> str | None:
    """`float32`, or `bfloat16 and float32` where there are several."""
    return " and ".join(sorted(types)) if types else None


def _moments(run: RunRecord, side: Side) -> None:
    """The types of the optimiser's averages: of the state itself, else of its last checkpoint."""
    recorded = run.fact("moments")
    if recorded:
        side.put("precision.moments", _moment_words(recorded), "run.json, moments")
    checkpoint = _types_in_checkpoint(run.folder)
    if checkpoint is None:
        return
    words, where = checkpoint
    if recorded and words != _moment_words(recorded):
        words += f" (in the checkpoint; {_moment_words(recorded)} in run.json)"
    side.put("precision.moments", words, where)


def _moment_words(moments: dict[str, dict[str, int]]) -> str:
    """`float32`, or what each has where they differ: 8-bit states have 32-bit scales beside them."""
    of_state = {
        name: _names(types)
        for name, types in moments.items()
        if "absmax" not in name and "qmap" not in name
    }
    if any("uint8" in str(kinds) for kinds in of_state.values()):
        return "8 bit"  # bitsandbytes keeps tensors of few elements in 32 bits beside them
    kinds = set(of_state.values())
    if len(kinds) == 1:
        return str(kinds.pop())
    return ", ".join(f"{name} {kind}" for name, kind in sorted(of_state.items()))


_SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "BF16": "bfloat16",
    "F16": "float16",
    "U8": "uint8",
}


def _types_in_checkpoint(folder: Path) -> tuple[str, str] | None:
    """What the newest checkpoint keeps the moments in, from the head of its file."""
    files = sorted(folder.glob("checkpoints/step-*/optimizer.safetensors"))
    if not files:
        return None
    try:
        with files[-1].open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            head = json.loads(file.read(size))
    except (OSError, ValueError):
        return None  # a checkpoint that is cut off; `coltrain resume` says so
    moments: dict[str, dict[str, int]] = {}
    for key, entry in head.items():
        if key == "__metadata__" or not entry.get("shape"):
            continue
        name = key.partition(".")[2]
        kind = _SAFETENSORS.get(entry["dtype"], entry["dtype"])
        moments.setdefault(name, {})[kind] = 1
    where = f"{files[-1].parent.name}/{files[-1].name}"
    return (_moment_words(moments), where) if moments else None


def _negatives_met(run: RunRecord, side: Side) -> None:
    """In-batch negatives that a query really met: what masks and a smaller last batch left."""
    met = sorted(
        line["candidates_per_query"]
        for line in run.steps
        if isinstance(line.get("candidates_per_query"), int | float)
    )
    if met:
        side.put("batch.candidates_met", met[len(met) // 2], "metrics.jsonl, candidates_per_query")
