"""Facts of transformers' trainer_state.json: what the training really did."""

import math
from typing import Any

from coltrain.reproduction.targets.facts import Facts

ROWS = {"colpali_train_set": 118_195, "load_train_set": 118_195, "load_train_set_detailed": 118_195}
"""Rows of the published training data: steps of a whole run at a known batch say the ranks."""


def put_trainer_state(state: dict[str, Any], where: str, facts: Facts) -> list[dict[str, Any]]:
    """Add facts; returns the lines of its log."""
    log = [line for line in state.get("log_history", []) if isinstance(line, dict)]
    rates = [
        (line["learning_rate"], line.get("step")) for line in log if _finite(line, "learning_rate")
    ]
    together = state.get("train_batch_size")
    each = facts.value("batch.per_device")
    if isinstance(together, int) and each and together > each and together % each == 0:
        # transformers counts the batch of all GPUs that one process drives.
        text = f"{where}, train_batch_size {together} of {each} on a device"
        facts.put("launch.data_parallel", together // each, text, "derived")
    if isinstance(together, int):
        facts.put(
            "batch.per_device", state["train_batch_size"], f"{where}, train_batch_size", "derived"
        )
    if isinstance(state.get("max_steps"), int):
        facts.put("train.steps", state["max_steps"], f"{where}, max_steps", "derived")
    if isinstance(state.get("num_train_epochs"), int | float):
        facts.put("train.epochs", float(state["num_train_epochs"]), f"{where}, num_train_epochs")
    if rates:
        highest, step = max(rates)
        facts.put("optimizer.learning_rate", highest, f"{where}, step {step}", "derived")
    return log


def put_ranks_from_steps(state: dict[str, Any], where: str, facts: Facts) -> None:
    """The ranks that steps, epochs, batch and rows of a whole run come from."""
    steps, each = state.get("max_steps"), facts.value("batch.per_device")
    epochs = state.get("num_train_epochs")
    rows = facts.value("data.rows")
    if rows is None:
        known = [ROWS[name] for name in facts.value("data.train", []) if name in ROWS]
        rows = known[0] if len(known) == 1 else None
    if not (rows and isinstance(steps, int) and steps > 0 and each and epochs):
        return
    together = state.get("train_batch_size")
    if not isinstance(together, int) or str(facts.value("launch.launcher", "")).startswith(
        "python"
    ):
        return  # several GPUs of one process and several processes take the same steps
    size = rows * epochs / steps
    ranks = size / together / facts.value("batch.accumulation", 1)
    nearest = round(ranks)
    if nearest >= 1 and math.isclose(ranks, nearest, rel_tol=0.02):
        text = (
            f"{where}: {rows:,} rows, {epochs:g} epochs and {steps:,} steps of {each} on a device"
        )
        facts.put("launch.world_size", nearest, text, "derived")


def _finite(line: dict[str, Any], key: str) -> bool:
    return isinstance(line.get(key), int | float) and math.isfinite(line[key])
