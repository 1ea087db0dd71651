"""Facts of deepspeed's settings, which lie in a JSON file beside a training or in accelerate's."""

from typing import Any

from coltrain.reproduction.targets.facts import Facts


def put_deepspeed(content: Any, where: str, facts: Facts) -> None:
    """Add batch, accumulation and precision; "auto" leaves a value to the training's arguments.

    Args:
        content: The settings.
        where: The file.
        facts: Gets them.
    """
    if not isinstance(content, dict):
        return
    for key, name in (
        ("gradient_accumulation_steps", "batch.accumulation"),
        ("train_micro_batch_size_per_gpu", "batch.per_device"),
    ):
        if isinstance(content.get(key), int):
            facts.put(name, content[key], f"{where}, {key}")
    clipping = content.get("gradient_clipping")
    if isinstance(clipping, int | float):
        facts.put("optimizer.max_grad_norm", clipping, f"{where}, gradient_clipping")
    for key, kind in (("fp16", "float16"), ("bf16", "bfloat16")):
        section = content.get(key)
        if not isinstance(section, dict) or section.get("enabled") is not True:
            continue
        facts.put("precision.compute", kind, f"{where}, {key}.enabled")
        if kind == "float16":
            scale = section.get("loss_scale", 0)  # 0 is dynamic
            has_scaler = not (isinstance(scale, int | float) and scale == 1)
            facts.put("precision.scaler", has_scaler, f"{where}, fp16.loss_scale")
