"""Facts of a run of ours: what run.json recorded beside the recipe."""

from typing import TYPE_CHECKING, Any

from coltrain.reproduction.targets.facts import Facts
from coltrain.reproduction.targets.versions import put_version

if TYPE_CHECKING:
    from coltrain.reproduction.report.reading import RunRecord


def put_run(run: "RunRecord", facts: Facts) -> None:
    """Add what a run recorded: what really happened is surer than what its recipe asked for."""
    for library, version in (run.fact("versions", {}) or {}).items():
        put_version(facts, library, str(version), f"run.json, versions.{library}")
    device = run.fact("device", {}) or {}
    if device.get("name"):
        facts.put("hardware.gpu", device["name"], "run.json, device.name")
    if device.get("capability"):
        facts.put("hardware.capability", device["capability"], "run.json, device.capability")
    facts.put("launch.world_size", run.num_ranks, "run.json, ranks", "derived")
    rows = [one.get("rows") for one in run.fact("data.train", [])]
    if rows and all(isinstance(one, int) for one in rows):
        facts.put("data.rows", sum(rows), "run.json, data.train")
    met = [
        line["candidates_per_query"] for line in run.steps if _number(line, "candidates_per_query")
    ]
    said = run.fact("candidates_per_query.median")
    medians = [(sorted(met)[len(met) // 2], "metrics.jsonl")] if met else []
    medians += [(said, "run.json")] if isinstance(said, int | float) else []
    if medians:
        median, file = min(medians)
        facts.put("batch.candidates", median, f"{file}, candidates_per_query", "told")
    trainable = run.fact("parameters.by_dtype.trainable", {}) or {}
    if len(trainable) == 1:
        facts.put("precision.lora", next(iter(trainable)), "run.json, parameters.by_dtype")
    if run.after is not None:
        names = [result.dataset for result in run.after.results]
        facts.put("eval.data", names, "evaluation/final.json")
    facts.put(
        "eval.evaluator", f"coltrain {run.fact('coltrain', '')}".strip(), "run.json, coltrain"
    )


def _number(line: dict[str, Any], key: str) -> bool:
    return isinstance(line.get(key), int | float)
