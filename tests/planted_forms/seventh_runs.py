"""Of the seventh batch: recipes, runs and model folders of coltrain, edited."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from planted_making import (
    Made,
    Planted,
    edit_json,
    edit_lines,
    edit_tensors,
    model,
    put,
    recipe,
    run,
)


def swap_layers(tensors: dict[str, torch.Tensor]) -> None:
    keys = sorted(key for key in tensors if "q_proj.lora_B" in key)
    a, b = keys[:2]
    tensors[a], tensors[b] = tensors[b], tensors[a]


def noise(tensors: dict[str, torch.Tensor]) -> None:
    for key in tensors:
        if "embed_tokens" in key:
            tensors[key] = torch.randn_like(tensors[key]) * 0.02


def crossed(folder: Path) -> None:
    lines = [json.loads(one) for one in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "step":
            line["candidates_per_query"] = 1.0
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))


def retold(old: str, new: str) -> Callable:
    """A recipe's file in which one string is another, as by hand."""

    def write_it(folder: Path, made: Made) -> Path:
        file = recipe()(folder, made)
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        return file

    return write_it


RUNS = (
    Planted("seventh, R-recipe-suffix", 5, retold("<|endoftext|>" * 10, "<|endoftext|>" * 9)),
    Planted("seventh, R-recipe-prompt", 4, retold("Describe the image.", "What is this?")),
    Planted("seventh, R-recipe-std", 3, recipe("projection.start=normal", "projection.std=0.02")),
    Planted("seventh, R-recipe-dropout", 10, recipe("lora.dropout=0")),
    Planted(
        "seventh, R-recipe-decay", 10, recipe("optimizer.weight_decay=0.1", base="colqwen2-v0.1")
    ),
    Planted(
        "seventh, R-recipe-pages", 10, recipe("model.max_visual_tokens=256", base="colqwen2-v0.1")
    ),
    Planted("seventh, R-recipe-revision", 12, recipe("data.train=[vidore/docvqa_train]")),
    Planted("seventh, R-recipe-attention", 27, recipe("lora.target_modules=.*(q_proj|v_proj).*")),
    Planted("seventh, R-recipe-sound-seed", None, recipe("train.seed=3", base="colqwen2-v100")),
    Planted("seventh, R-run-one", 6, run(crossed)),
    Planted(
        "seventh, R-run-swap", 1, run(edit_tensors("model/adapter_model.safetensors", swap_layers))
    ),
    Planted(
        "seventh, R-run-tokens",
        21,
        run(edit_json("model/coltrain.json", put("max_visual_tokens", 256))),
    ),
    Planted(
        "seventh, R-run-rate",
        10,
        run(edit_json("run.json", put("recipe/optimizer/learning_rate", 0.02))),
    ),
    Planted(
        "seventh, R-run-ln",
        8,
        run(edit_lines(lambda line, n: line.update(loss=2.0794 + 0.002 * (-1) ** n))),
    ),
    Planted(
        "seventh, R-run-zero",
        15,
        run(edit_lines(lambda line, n: line.update(loss=0.0, grad_norm=0.0) if n > 4 else None)),
    ),
    Planted(
        "seventh, R-run-sound-slow",
        None,
        run(edit_lines(lambda line, n: line.update(loss=1.2 - 0.03 * n, seconds=99.0))),
    ),
    Planted(
        "seventh, R-model-noise", 2, model("transformers", edit_tensors("model.safetensors", noise))
    ),
    Planted(
        "seventh, R-model-st-noise",
        2,
        model("sentence-transformers", edit_tensors("model.safetensors", noise)),
    ),
    Planted("seventh, R-model-sound", None, model("merged")),
    Planted("seventh, R-model-sound-st", None, model("sentence-transformers")),
    Planted("seventh, R-model-sound-bare", None, model("colpali-engine", card=False)),
)
