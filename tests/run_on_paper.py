"""Run folders as a training leaves them, written without training."""

import json
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from small_pages import small_collection

from coltrain.data import Collection
from coltrain.data.plan import BatchPlan
from coltrain.evaluation.evaluate import Evaluation
from coltrain.evaluation.illustrations import illustrate
from coltrain.evaluation.measures import measure
from coltrain.evaluation.results import Result
from coltrain.recipe import Recipe, as_mapping, full_hash, load_recipe, result_hash, to_yaml
from coltrain.training.run_folder import RunFolder


def evaluation_of(collection: Collection, scores: torch.Tensor) -> Evaluation:
    """An evaluation that came to these scores, queries of 3, 4, … tokens."""
    ranking = {
        query.id: dict(zip(collection.page_ids, row, strict=True))
        for query, row in zip(collection.queries, scores.tolist(), strict=True)
    }
    measured = measure(collection.qrels, ranking)
    return Evaluation(
        result=Result(
            collection.name,
            len(measured.per_query),
            len(collection.page_ids),
            measured.measures,
            measured.per_query,
        ),
        queries=[torch.ones(3 + place % 4, 2) for place in range(len(collection.queries))],
        pages=[torch.ones(4, 2) for _ in collection.page_ids],
        scores=scores,
    )


def scores_of(collection: Collection, skill: float, seed: int = 0) -> torch.Tensor:
    """Noise, and the more skill the higher the relevant page."""
    shape = len(collection.queries), len(collection.page_ids)
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    for place, query in enumerate(collection.queries):
        for page in collection.qrels[query.id]:
            scores[place, collection.page_ids.index(page)] += skill
    return scores


def write_run(
    folder: Path,
    *,
    recipe: Recipe | None = None,
    steps: int = 12,
    of: int = 12,
    num_rows: int = 100,
    collections: Sequence[Collection] = (),
    state: str = "finished",
    with_pictures: bool = True,
    **facts: Any,
) -> Path:
    """A run of `tiny` that took some of its steps and evaluated before, halfway and at the end."""
    recipe = recipe or load_recipe("tiny", [f"train.steps={of}"])
    collections = collections or [small_collection("small", 9)]
    plan = BatchPlan(num_rows, recipe.batch.global_size, recipe.train.seed, recipe.batch.drop_last)
    run = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation").mkdir()
    lines: list[dict[str, Any]] = []
    for step in range(steps + 1):
        if step:
            lines.append(step_line(step, of, plan))
        if step in (0, of // 2, of):
            lines += _evaluate(run, step, of, collections, with_pictures)
    run.append(lines)
    run.record(
        **{
            "coltrain": "0.1.0",
            "state": state,
            "recipe": as_mapping(recipe),
            "recipe_yaml": to_yaml(recipe),
            "result_hash": result_hash(recipe),
            "full_hash": full_hash(recipe),
            # The torch that is here, or the doctor would see another one than the run's.
            "versions": {"python": "3.11.7", "torch": version("torch")},
            "device": {"type": "cpu", "name": "x86_64", "system": "Linux", "threads": 1},
            "commit": None,
            "started": "2026-01-02T03:04:05+00:00",
            "finished": "2026-01-02T03:05:15+00:00" if state == "finished" else None,
            "seconds": 70.0 if state == "finished" else None,
            "data": {
                "train": [fingerprint("small-train", num_rows)],
                "eval": [one.fingerprint() for one in collections],
            },
            "plan": {"num_steps": of, "batches_per_epoch": plan.batches_per_epoch},
            "probe": {
                "query": "What is it?",
                "query_ids": [7, 0, 0, 0],
                "page": "white",
                "page_ids": [1, 5, 5, 2],
                "visual_tokens": 2,
            },
            "parameters": {
                "trainable": 1234,
                "frozen": 56789,
                "by_dtype": {"trainable": {"float32": 1234}, "frozen": {"float32": 56789}},
                "lora_modules": 15,
                "lora_modules_in_vision_tower": 0,
            },
            "projection_hash": "cab02b636054892c",
            "deviations": [],
            "warnings": [],
            **facts,
        }
    )
    return folder


def fingerprint(name: str, num_rows: int) -> dict[str, Any]:
    """What run.json says of a training set."""
    return {
        "name": name,
        "layout": "rows",
        "revision": None,
        "rows": num_rows,
        "rows_per_source": {name: num_rows},
        "distinct_pages": num_rows - 1,
        "distinct_queries": num_rows,
        "pages": num_rows + 3,
        "left_out": {"query is empty": 4},
        "hash": "d664f4cdc685d9cb094caa7396bf5e93b52e7e4e91edb27ce73ed0279a785ae6",
    }


def step_line(step: int, of: int, plan: BatchPlan) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    return {
        "kind": "step",
        "step": step,
        "epoch": plan.batch_at(step)[0],
        "loss": 3.2 * math.exp(-3 * step / of) + 0.2 * math.sin(7 * step),
        "grad_norm": 1.5 + math.cos(3 * step),
        "candidates_per_query": 32.0 - (step % 3) / 8,
        "masked_duplicates": step % 3,
        "pages_per_second": 60.0 + step % 5,
        "seconds": 0.5,
        "lr": 0.002 * (1 - step / of),
    }


def _evaluate(
    run: RunFolder, step: int, of: int, collections: Sequence[Collection], with_pictures: bool
) -> list[dict[str, Any]]:
    evaluations = [
        evaluation_of(one, scores_of(one, 0.9 * step / of, seed))
        for seed, one in enumerate(collections)
    ]
    name = {0: "before", of: "final"}.get(step, f"step-{step:06d}")
    run.save_evaluation(name, step, [one.result for one in evaluations])
    if with_pictures and name in ("before", "final"):
        pairs = zip(evaluations, collections, strict=True)
        run.save_illustrations(name, step, [illustrate(*pair) for pair in pairs])
    return [
        {
            "kind": "evaluation",
            "step": step,
            "dataset": one.result.dataset,
            "nDCG@5": one.result.measures["nDCG@5"],
            "loss": 3.0 - step / of,
            "measures": one.result.measures,
            "seconds": 1.0,
        }
        for one in evaluations
    ]


def cut(file: Path, keep: int) -> None:
    """Keep the first bytes of a file, as a power cut would."""
    file.write_bytes(file.read_bytes()[:keep])


def facts_of(run: Path) -> dict[str, Any]:
    """run.json."""
    return json.loads((run / "run.json").read_text(encoding="utf-8"))
