"""Traps of half precision."""

import math
from collections.abc import Mapping
from dataclasses import replace

from coltrain.reproduction.targets import Target
from coltrain.reproduction.targets.versions import Versions
from coltrain.reproduction.traps.finding import Outcome, failed, passed, unknown

_SKIPPED_SHARE = 0.05


def float16_without_scaling(target: Target) -> Outcome:
    """Trap 15: float16 that overflows or whose gradients vanish."""
    broken = _broken_steps(target)
    if broken is not None:
        return broken
    facts = target.facts
    weights, compute = facts["precision.weights"], facts["precision.compute"]
    if target.recipe is not None:
        recipe = target.recipe
        if recipe.model.dtype == "float16" and recipe.precision.compute == "bfloat16":
            return failed("weights in float16, passes in bfloat16", "one of the two", compute)
        if recipe.precision.compute == "float16" and recipe.lora.dtype == "bfloat16":
            outcome = failed(
                "float16 passes with an adapter in bfloat16",
                "lora.dtype float32",
                facts["precision.lora"],
            )
            return replace(outcome, blocks=False)
        return passed(f"weights {weights.value}, passes {compute.value}", weights.where)
    if target.kind == "model":
        return passed(f"weights {weights.value}", weights.where)
    if not weights.is_known and not compute.is_known:
        return unknown("in what the model is stored and computes")
    if weights.value == "float16" and compute.value == "float16" and _keeps_adapters(target):
        return passed("weights in float16, adapter in float32, autocast and scaling", compute.where)
    if weights.value == "float16":
        how = (
            "no gradient scaling"
            if compute.value != "float16" or target.facts.value("precision.scaler") is False
            else ("fp16=True, which refuses to unscale the gradients of float16 parameters")
        )
        return failed(
            f"weights in float16, {how}",
            "float32 adapter, autocast and GradScaler; or bfloat16",
            weights,
        )
    if compute.value == "float16" and weights.value == "bfloat16":
        return failed(
            "weights in bfloat16 under float16 autocast", "bfloat16, or float32 weights", compute
        )
    return passed(
        f"weights {weights.value}, passes {compute.value if compute.is_known else 'as the weights'}",
        weights.where,
    )


def _keeps_adapters(target: Target) -> bool:
    """Whether what is trained is an adapter that peft keeps in float32 over a base in half precision."""
    facts = target.facts
    has_adapter = facts["lora.r"].is_known and facts.value("lora.r") is not None
    if facts.value("precision.scaler") is False or facts["precision.cast_whole_model"].is_known:
        return False
    if facts["precision.lora"].is_known:
        return has_adapter and facts.value("precision.lora") == "float32"
    peft = facts.value("versions.peft", Versions())
    return has_adapter and peft.all_from(0, 12)


def _broken_steps(target: Target) -> Outcome | None:
    """Steps whose loss or gradient was not finite, or that were skipped."""
    lines = target.log
    if target.run is not None:
        lines = sorted((*target.run.steps, *target.run.skipped), key=lambda line: line["step"])
    where = "metrics.jsonl" if target.run is not None else target.log_where
    if not lines:
        return None
    bad = [
        line
        for line in lines
        if _was_skipped(line) or any(_not_finite(line.get(key)) for key in ("loss", "grad_norm"))
    ]
    zero = [
        line for line in lines if line.get("loss") == 0.0 and line.get("grad_norm", 0) in (0, 0.0)
    ]
    bad = bad or (zero if len(zero) > 2 else [])
    if not bad:
        return None
    share = len(bad) / len(lines)
    first = bad[0].get("step")
    if share > _SKIPPED_SHARE or not all(map(_was_skipped, bad)):
        return failed(
            f"{len(bad)} of {len(lines)} steps were skipped, zero or not finite, first step {first}",
            "finite losses and gradients",
            where,
        )
    return None


def _was_skipped(line: Mapping[str, object]) -> bool:
    return line.get("kind") == "skipped-step" or bool(line.get("skipped"))


def _not_finite(value: object) -> bool:
    if isinstance(value, str):
        return value.lower() in ("nan", "inf", "-inf", "infinity")
    return isinstance(value, float) and not math.isfinite(value)
