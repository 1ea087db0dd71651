"""Of the tenth batch: recipes, runs and model folders of coltrain, edited."""

import re
import shutil
from pathlib import Path
from typing import Any

import torch
from planted_making import (
    Planted,
    edit_json,
    edit_lines,
    edit_tensors,
    model,
    put,
    recipe,
    rename,
    run,
    zero_b,
)

SHORT = "'(?:.*language_model\\.layers\\.\\d+\\.(?:self_attn|mlp)\\.(?:q|k|v|o|gate|up|down)_proj)|(?:.*custom_text_proj)'"
WIDE = ".*(q_proj|k_proj|v_proj|o_proj|qkv|proj|fc1|fc2|gate_proj|up_proj|down_proj).*"
INVOICES = ("data.train=[acme/invoices]", "eval.data=[acme/invoices:test]")
OWN = (
    "model.template=engine-0.3.13",
    "model.max_visual_tokens=1280",
    "loss.name=softmax",
    "loss.temperature=0.02",
    "loss.normalize=true",
    "batch.global_size=128",
    "batch.chunk_size=16",
    "optimizer.learning_rate=1e-4",
    "lora.dtype=float32",
)


def facts(**values: Any) -> Any:
    """Edits of run.json; two underlines stand for a step into it."""

    def change(content: dict[str, Any]) -> None:
        for key, value in values.items():
            put(key.replace("__", "/"), value)(content)

    return edit_json("run.json", change)


def both(*edits: Any) -> Any:
    def edit(folder: Path) -> None:
        for one in edits:
            one(folder)

    return edit


def pairwise(content: dict[str, Any]) -> None:
    content["recipe"]["loss"] |= {"name": "pairwise", "normalize": False, "temperature": 1.0}
    content["result_hash"] = ""


def near_ln_2(line: dict, place: int) -> None:
    line.update(loss=0.693147 + 0.0004 * (place % 5 - 2), grad_norm=0.002)


def from_ln_2(line: dict, place: int) -> None:
    line.update(loss=0.6931 if place < 4 else 0.6931 * 0.9 ** (place - 3))


def long_probe(content: dict[str, Any]) -> None:
    ids = content["probe"]["page_ids"]
    content["probe"]["page_ids"] = ids[:4] + [5] * 133 + ids[4:]
    content["probe"]["visual_tokens"] += 133


def other_projection(tensors: dict[str, torch.Tensor]) -> None:
    for key, tensor in tensors.items():
        tensors[key] = torch.linspace(-0.1, 0.1, tensor.numel()).reshape(tensor.shape)


def unhashed(folder: Path) -> None:
    (folder / "model" / "hashes.json").unlink()


def unfinished(folder: Path) -> None:
    shutil.rmtree(folder / "model")
    for name in ("report.html", "report.md"):
        (folder / name).unlink(missing_ok=True)


def without(*endings: str) -> Any:
    return lambda tensors: {k: t for k, t in tensors.items() if not k.endswith(endings)}


def wide_pixels(content: dict[str, Any]) -> None:
    images = content.get("image_processor", content)
    images.update(max_pixels=50176, size={"longest_edge": 12845056, "shortest_edge": 3136})


def in_both(change: Any) -> Any:
    return both(
        edit_json("processor_config.json", change), edit_json("preprocessor_config.json", change)
    )


def no_augmentation(folder: Path) -> None:
    file = folder / "chat_template.jinja"
    text, count = re.subn(r" \+ \"(<\|endoftext\|>){10}\"", "", file.read_text())
    assert count == 1
    file.write_text(text)


def plain(kind: str, *edits: Any) -> Any:
    """A model's folder without what only coltrain writes, but for the card that people read."""

    def strip(folder: Path) -> None:
        for name in ("coltrain.json", "hashes.json"):
            (folder / name).unlink(missing_ok=True)

    return model(kind, strip, *edits)


NATIVE, ENGINE, SENTENCE = "transformers", "colpali-engine", "sentence-transformers"
WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"
RUNS = (
    Planted("tenth, R-t6", 6, recipe("batch.negatives=64", rename="v1.0-four-cards")),
    Planted("tenth, R-t9", 9, recipe("loss.normalize=true", rename="redo-colqwen2-v1.0")),
    Planted(
        "tenth, R-t10",
        10,
        recipe(
            "optimizer.learning_rate=2e-4",
            "model.max_visual_tokens=1024",
            rename="colqwen2-v1.0-repro",
        ),
    ),
    Planted(
        "tenth, R-t12",
        12,
        recipe("data.train=[colpali_train_set_detailed]", rename="colqwen2-v1.0-repro"),
    ),
    Planted(
        "tenth, R-t4",
        4,
        recipe(
            "model.start_from=vidore/colqwen2-v1.0",
            "model.template=engine-0.3.13",
            "optimizer.learning_rate=5e-5",
            *INVOICES,
            rename="invoices",
        ),
    ),
    Planted(
        "tenth, R-t5",
        5,
        recipe("model.template=mteb-2.12.15+engine-0.3.12", base="colqwen2-v0.1", rename="v01"),
    ),
    Planted(
        "tenth, R-t27-wide",
        27,
        recipe(f"lora.target_modules={WIDE}", "lora.dropout=0", base="colqwen2-v0.1", rename="v01"),
    ),
    Planted(
        "tenth, R-t27-none",
        27,
        recipe(r"lora.target_modules=transformer\.h\.\d+\.(q|k)_proj|custom_text_proj"),
    ),
    Planted(
        "tenth, R-sound-chunks",
        None,
        recipe("batch.chunk_size=8", "data.num_workers=12", "data.vision_cache.path=auto"),
    ),
    Planted("tenth, R-sound-own", None, recipe(*OWN, *INVOICES, rename="acme-invoices")),
    Planted(
        "tenth, R-sound-continued",
        None,
        recipe(
            "model.start_from=vidore/colqwen2-v1.0",
            "optimizer.learning_rate=5e-5",
            *INVOICES,
            rename="invoices",
        ),
    ),
    Planted("tenth, R-sound-v100", None, recipe("batch.chunk_size=1", base="colqwen2-v100")),
    Planted("tenth, R-sound-steps", None, recipe("train.epochs=null", "train.steps=2309")),
    Planted("tenth, R-sound-modules", None, recipe(f"lora.target_modules={SHORT}")),
    Planted(
        "tenth, run-t6",
        6,
        run(
            both(
                facts(candidates_per_query={"min": 4.0, "median": 4.0, "max": 4.0}),
                edit_lines(lambda line, _: line.update(candidates_per_query=4.0)),
            )
        ),
    ),
    Planted("tenth, run-t8", 8, run(both(edit_json("run.json", pairwise), edit_lines(near_ln_2)))),
    Planted(
        "tenth, run-tF3",
        "F3",
        run(
            both(
                facts(plan__batches_per_epoch=5),
                edit_lines(
                    lambda line, n: line.update(epoch=n // 5, batch=f"{n % 5}", loss=1 / (n + 1))
                ),
            )
        ),
    ),
    Planted(
        "tenth, run-t3",
        3,
        run(edit_tensors("model/projection.safetensors", other_projection)),
    ),
    Planted("tenth, run-t21", 21, run(edit_json("run.json", long_probe))),
    Planted("tenth, run-tF2", "F2", run(facts(reading__positions="sequential"))),
    Planted("tenth, run-t1", 1, run(both(edit_tensors(f"model/{ADAPTER}", zero_b), unhashed))),
    Planted("tenth, run-sound", None, run()),
    Planted(
        "tenth, run-sound-ln-2",
        None,
        run(both(edit_json("run.json", pairwise), edit_lines(from_ln_2))),
    ),
    Planted(
        "tenth, run-sound-ranks",
        None,
        run(
            facts(
                ranks=[
                    {"after_step": 0, "size": 1, "backend": None, "hosts": ["a"]},
                    {"after_step": 2, "size": 2, "backend": "nccl", "hosts": ["a"]},
                ]
            )
        ),
    ),
    Planted(
        "tenth, run-sound-running",
        None,
        run(both(facts(state="running", finished=None), unfinished)),
    ),
    Planted(
        "tenth, M-t1",
        1,
        plain(ENGINE, edit_tensors(ADAPTER, rename("language_model.layers.", "text_model.h."))),
    ),
    Planted(
        "tenth, M-t1-one",
        1,
        plain(ENGINE, edit_tensors(ADAPTER, without("layers.1.self_attn.q_proj.lora_B.weight"))),
    ),
    Planted(
        "tenth, M-t2",
        2,
        plain(
            NATIVE,
            edit_tensors(WEIGHTS, without("embed_tokens.weight", "language_model.norm.weight")),
        ),
    ),
    Planted(
        "tenth, M-t3",
        3,
        plain(
            ENGINE,
            lambda folder: (folder / "projection.safetensors").unlink(),
            edit_tensors(
                f"base/{WEIGHTS}", without("custom_text_proj.weight", "custom_text_proj.bias")
            ),
        ),
    ),
    Planted(
        "tenth, M-t4",
        4,
        plain(NATIVE, edit_json("processor_config.json", put("query_prefix", ""))),
    ),
    Planted(
        "tenth, M-t5-twice",
        5,
        plain(
            SENTENCE,
            edit_json("config_sentence_transformers.json", put("prompts/query", "Query: ")),
        ),
    ),
    Planted("tenth, M-t5-none", 5, plain(SENTENCE, no_augmentation)),
    Planted("tenth, M-t21", 21, plain(NATIVE, in_both(wide_pixels))),
    Planted(
        "tenth, M-t25",
        25,
        plain(NATIVE, edit_json("tokenizer_config.json", put("padding_side", "right"))),
    ),
    Planted("tenth, M-sound-engine", None, model(ENGINE)),
    Planted("tenth, M-sound-native", None, model(NATIVE)),
    Planted("tenth, M-sound-sentence", None, model(SENTENCE)),
    Planted(
        "tenth, M-sound-2024",
        None,
        plain(
            ENGINE,
            edit_tensors(
                ADAPTER, rename("base_model.model.language_model.", "base_model.model.model.")
            ),
        ),
    ),
    Planted(
        "tenth, M-sound-prompts",
        None,
        plain(
            SENTENCE,
            edit_json("config_sentence_transformers.json", put("prompts", {})),
            edit_json("tokenizer_config.json", put("padding_side", "left")),
        ),
    ),
    # Not of the first run.
    Planted(
        "tenth, later, v0.1 in steps",
        None,
        recipe("train.epochs=null", "train.steps=3694", base="colqwen2-v0.1"),
    ),
    Planted("tenth, later, fewer steps", 10, recipe("train.epochs=null", "train.steps=1000")),
    Planted("tenth, later, own groups", 6, recipe("batch.negatives=8", *INVOICES, rename="inv")),
    Planted(
        "tenth, later, own hard negatives",
        None,
        recipe(
            "loss.name=softmax_hard_negatives",
            "loss.temperature=0.02",
            "loss.normalize=true",
            "batch.global_size=64",
            "batch.chunk_size=8",
            *INVOICES,
            rename="inv",
        ),
    ),
    Planted(
        "tenth, later, own rows beside the published",
        None,
        recipe(
            "data.train=[vidore/colpali_train_set, acme/invoices]",
            "optimizer.learning_rate=1e-4",
            rename="docs",
        ),
    ),
    Planted(
        "tenth, later, a small batch of one's own",
        None,
        recipe("batch.global_size=16", "batch.chunk_size=8", *INVOICES, rename="inv"),
    ),
)
