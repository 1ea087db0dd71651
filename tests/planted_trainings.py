"""Trainings with one planted trap each, and sound ones: what the doctor is measured on.

Each variant writes a target into a folder and says which trap it holds, or none. Forms differ on
purpose: YAML or Python, by name or by place, through variables, files, the environment or the launch.
`python -m pytest tests/reproduction/test_planted.py -s` prints the table.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from foreign_trainings import ENGINE_SCRIPT, SENTENCE_SCRIPT, TARGETS, engine_yaml, write
from planted_forms import FORMS
from published_layouts import LAYOUTS
from safetensors.torch import load_file, save_file

from coltrain.recipe import load_recipe, shipped_names, to_yaml


@dataclass(frozen=True)
class Made:
    """What models and runs are copied from.

    Attributes:
        run: A finished run of the tiny base.
        exports: Its exports by target.
    """

    run: Path
    exports: dict[str, Path]


@dataclass(frozen=True)
class Planted:
    """One target.

    Attributes:
        name: For the table.
        trap: Number of the planted trap; None where it is sound.
        write: Puts it into an empty folder and returns what is given to the doctor.
        settings: `--set`.
    """

    name: str
    trap: int | str | None
    write: Callable[[Path, Made], Path | str]
    settings: tuple[str, ...] = field(default=())


# Recipes


def recipe(*overrides: str, base: str = "colqwen2-v1.0", rename: str | None = None) -> Callable:
    def write_it(folder: Path, made: Made) -> Path:
        text = to_yaml(load_recipe(base, list(overrides)))
        if rename:
            text = re.sub(r"^name: .*$", f"name: {rename}", text, count=1, flags=re.MULTILINE)
        return write(folder, recipe__yaml=text) / "recipe.yaml"

    return write_it


def shipped(name: str) -> Callable:
    return lambda folder, made: name


# Runs of ours


def run(edit: Callable[[Path], None] | None = None) -> Callable:
    def write_it(folder: Path, made: Made) -> Path:
        shutil.copytree(made.run, folder / "run")
        if edit is not None:
            edit(folder / "run")
        return folder / "run"

    return write_it


def edit_json(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / name
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return edit


def edit_lines(change: Callable[[dict[str, Any], int], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        lines = [line for line in lines if line["kind"] == "step"]
        lines = [dict(line, step=n + 1) for n, line in enumerate(lines * 4)]
        for place, line in enumerate(lines):
            change(line, place)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    return edit


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        *path, last = key.split("/")
        for part in path:
            content = content[int(part) if isinstance(content, list) else part]
        content[last] = value

    return change


def edit_tensors(name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / name)
        tensors = {key: tensor.clone() for key, tensor in tensors.items()}
        changed = change(tensors)
        kept = changed if isinstance(changed, dict) else tensors
        save_file(kept, folder / name, metadata={"format": "pt"})

    return edit


def zero_b(tensors: dict[str, torch.Tensor]) -> None:
    for key in tensors:
        if "lora_B" in key:
            tensors[key].zero_()


def drop_layer(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: t for k, t in tensors.items() if "layers.1.self_attn.q_proj" not in k}


def rename(old: str, new: str) -> Callable:
    return lambda tensors: {key.replace(old, new): tensor for key, tensor in tensors.items()}


def stuck_at_ln_2(folder: Path) -> None:
    def pairwise(facts: dict[str, Any]) -> None:
        facts["recipe"]["loss"] |= {"name": "pairwise", "normalize": False, "temperature": 1.0}
        facts["result_hash"] = ""

    edit_json("run.json", pairwise)(folder)
    edit_lines(lambda line, _: line.update(loss=0.6931))(folder)


# Models


def model(kind: str, *edits: Callable[[Path], None], card: bool = True) -> Callable:
    def write_it(folder: Path, made: Made) -> Path:
        shutil.copytree(made.exports[kind], folder / "model")
        where = folder / "model"
        config = where / "adapter_config.json"
        if config.is_file() and (where / "base").is_dir():
            content = json.loads(config.read_text())
            content["base_model_name_or_path"] = str(where / "base")
            config.write_text(json.dumps(content))
        if not card:
            for name in ("coltrain.json", "hashes.json", "projection.safetensors", "README.md"):
                (where / name).unlink(missing_ok=True)
        for edit in edits:
            edit(where)
        return where

    return write_it


def layout(name: str, *edits: Callable[[Path], None]) -> Callable:
    def write_it(folder: Path, made: Made) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        where = LAYOUTS[name](folder / "model")
        for edit in edits:
            edit(where)
        return where

    return write_it


def adapter_only(**config: Any) -> Callable:
    """An adapter's folder as it lies on the hub, its base elsewhere."""

    def write_it(folder: Path, made: Made) -> Path:
        where = model("colpali-engine", card=False)(folder, made)
        shutil.rmtree(where / "base")
        content = json.loads((where / "adapter_config.json").read_text())
        content |= {"base_model_name_or_path": "vidore/colqwen2-base"} | config
        (where / "adapter_config.json").write_text(json.dumps(content))
        edge = {"size": {"longest_edge": 602112, "shortest_edge": 3136}}
        edit_json("preprocessor_config.json", lambda c: c.update(edge))(where)
        return where

    return write_it


# Foreign configurations


def yaml_file(
    file: str = "train.yaml", *, more: dict[str, str] | None = None, **given: str
) -> Callable:
    def write_it(folder: Path, made: Made) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(engine_yaml(**given))
        for name, text in (more or {}).items():
            (folder / name).write_text(text)
        return folder / file if more is None else folder

    return write_it


def script(
    *changes: tuple[str, str], source: str = ENGINE_SCRIPT, more: dict[str, str] | None = None
) -> Callable:
    def write_it(folder: Path, made: Made) -> Path:
        text = source
        for old, new in changes:
            assert old in text, f"{old} is not in the script"
            text = text.replace(old, new)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.py").write_text(text)
        for name, content in (more or {}).items():
            (folder / name).write_text(content)
        return folder if more else folder / "train.py"

    return write_it


def trainer_state(losses: list[Any], **values: Any) -> str:
    log = [
        {"step": 10 * (n + 1), "loss": loss, "learning_rate": 1e-4} for n, loss in enumerate(losses)
    ]
    return json.dumps({"log_history": log, "global_step": 10 * len(losses)} | values)


FOUR = "accelerate launch --num_processes 4 train.py --peft\n"
V01 = (
    "num_train_epochs: 1\n    per_device_train_batch_size: 4\n    warmup_steps: 500\n"
    "    learning_rate: 5e-5"
)
PINS = "colpali-engine==0.3.18\ntransformers==5.3.0\ntorch==2.8.0\npeft==0.18.0\n"
OLD_PINS = "colpali-engine==0.3.4\ntransformers==4.46.1\ntorch==2.4.0\npeft==0.11.1\n"
PREFIXED = (
    "max_num_visual_tokens=768)\n",
    "max_num_visual_tokens=768)\n    processor.query_prefix = 'Query: '\n",
)
PYLATE = """from pylate import losses, models, utils
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from datasets import load_dataset

model = models.ColBERT("jinaai/jina-colbert-v2", query_prefix="Query: ")
args = SentenceTransformerTrainingArguments(output_dir="o", per_device_train_batch_size=256)
loss = losses.CachedContrastive(model=model, mini_batch_size=16)
trainer = SentenceTransformerTrainer(
    model=model, args=args, train_dataset=load_dataset("mine/pairs", split="train"), loss=loss
)
trainer.train()
"""
SAMPLER = (
    "num_train_epochs=1,",
    "num_train_epochs=5,\n        batch_sampler=BatchSamplers.NO_DUPLICATES,",
)
IMPORT_SAMPLER = (
    "import (\n    MultiVectorEncoder,",
    "import (\n    BatchSamplers,\n    MultiVectorEncoder,",
)
HF = ('"vidore/colqwen2-v1.0"', '"vidore/colqwen2-v1.0-hf"')
CACHED = (
    "MultiVectorMultipleNegativesRankingLoss(\n        model, scale=50.0,",
    "CachedMultiVectorMultipleNegativesRankingLoss(\n        model, mini_batch_size=8, scale=50.0,",
)
IMPORT_CACHED = (
    "losses import MultiVectorMultipleNegativesRankingLoss",
    "losses import CachedMultiVectorMultipleNegativesRankingLoss",
)

PLANTED = (
    # Recipes of ours
    Planted("recipe, groups of two", 6, recipe("batch.negatives=2", base="colqwen2-v0.1")),
    Planted("recipe, tiny in groups", 6, recipe("batch.negatives=4", base="tiny", rename="mine")),
    Planted("recipe, divided pairwise", 9, recipe("loss.normalize=true")),
    Planted("recipe, another template", 4, recipe("model.template=engine-0.3.13")),
    Planted("recipe, letters for tokens", 5, recipe("model.template=engine-0.3.3-inference")),
    Planted("recipe, doubled template", 5, recipe("model.template=mteb-2.12.15+engine-0.3.12")),
    Planted("recipe, today's rate", 10, recipe("optimizer.learning_rate=2e-4")),
    Planted("recipe, 1024 tokens", 10, recipe("model.max_visual_tokens=1024", rename="again")),
    Planted("recipe, hard negatives", 11, recipe("loss.name=pairwise_hard_negatives")),
    Planted("recipe, detailed data", 12, recipe("data.train=[colpali_train_set_detailed]")),
    Planted(
        "recipe, trains on test",
        12,
        recipe("data.train=[{path: vidore/colpali_train_set, split: test}]", rename="mine"),
    ),
    Planted("recipe, zero padding", 18, recipe("loss.padding=zero")),
    Planted(
        "recipe, misses projection",
        27,
        recipe(
            "lora.target_modules=(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$)"
        ),
    ),
    Planted("recipe, everything adapted", 27, recipe("lora.target_modules=.*(proj|fc1|fc2|qkv).*")),
    Planted("recipe, base without projection", 3, recipe("model.base=Qwen/Qwen2-VL-2B-Instruct")),
    Planted(
        "recipe, half weights",
        15,
        recipe("model.dtype=float16", "lora.dtype=float32", rename="v100 mine"),
    ),
    Planted(
        "recipe, adapter in bfloat16",
        16,
        recipe("lora.dtype=bfloat16", base="colqwen2-v100", rename="mine"),
    ),
    Planted(
        "recipe, rate that collapses",
        8,
        recipe("optimizer.learning_rate=5e-2", base="tiny", rename="mine"),
    ),
    # Runs of ours
    Planted("run, ln 2 throughout", 8, run(stuck_at_ln_2)),
    Planted("run, ln N throughout", 8, run(edit_lines(lambda line, _: line.update(loss=2.0794)))),
    Planted(
        "run, few candidates",
        6,
        run(edit_lines(lambda line, _: line.update(candidates_per_query=2.0))),
    ),
    Planted(
        "run, steps not finite",
        15,
        run(
            edit_lines(lambda line, n: line.update(grad_norm=float("nan")) if n % 3 == 0 else None)
        ),
    ),
    Planted("run, zeroed adapter", 1, run(edit_tensors("model/adapter_model.safetensors", zero_b))),
    Planted(
        "run, other card template",
        4,
        run(edit_json("model/coltrain.json", put("template/query_prefix", ""))),
    ),
    Planted(
        "run, other data hash", 12, run(edit_json("run.json", put("data/train/0/hash", "0" * 64)))
    ),
    Planted("run, other rows", 12, run(edit_json("run.json", put("data/train/0/rows", 12)))),
    Planted(
        "run, other tokens counted", 21, run(edit_json("run.json", put("probe/visual_tokens", 160)))
    ),
    Planted(
        "run, vision adapted",
        27,
        run(edit_json("run.json", put("parameters/lora_modules_in_vision_tower", 8))),
    ),
    Planted(
        "run, other alpha", 10, run(edit_json("model/adapter_config.json", put("lora_alpha", 16)))
    ),
    Planted(
        "run, other versions",
        14,
        run(edit_json("run.json", put("versions/transformers", "4.46.0"))),
    ),
    Planted(
        "run, other projection",
        3,
        run(edit_json("model/coltrain.json", put("projection_hash", "abc"))),
    ),
    Planted(
        "run, collapsed",
        8,
        run(
            edit_json(
                "run.json",
                lambda c: c.update(
                    embeddings={
                        "tiny:test": {
                            "num_pages": 240,
                            "variance": 1e-7,
                            "effective_rank": 1.1,
                            "same_nearest": 0.9,
                        }
                    }
                ),
            )
        ),
    ),
    Planted(
        "run, adapter dtype",
        16,
        run(edit_json("run.json", put("parameters/by_dtype/trainable", {"bfloat16": 139264}))),
    ),
    # Models
    Planted(
        "model, adapter zeroed",
        1,
        model("colpali-engine", edit_tensors("adapter_model.safetensors", zero_b), card=False),
    ),
    Planted(
        "model, a module missing",
        1,
        model("colpali-engine", edit_tensors("adapter_model.safetensors", drop_layer), card=False),
    ),
    Planted(
        "model, keys of nobody",
        1,
        model(
            "colpali-engine",
            edit_tensors("adapter_model.safetensors", rename("language_model", "decoder")),
            card=False,
        ),
    ),
    Planted(
        "model, adapter file gone",
        1,
        model("coltrain", lambda f: (f / "adapter_model.safetensors").unlink()),
    ),
    Planted(
        "model, wrong base",
        2,
        model("coltrain", edit_json("coltrain.json", put("base_weights_hash", "0" * 16))),
    ),
    Planted(
        "model, norm of ones",
        2,
        layout(
            "colqwen2",
            edit_tensors("model.safetensors", lambda t: t["language_model.norm.weight"].fill_(1.0)),
        ),
    ),
    Planted(
        "model, no projection",
        3,
        layout(
            "colqwen2",
            edit_tensors(
                "model.safetensors",
                lambda t: {k: v for k, v in t.items() if "custom_text_proj" not in k},
            ),
        ),
    ),
    Planted(
        "model, native without projection",
        3,
        layout(
            "native-5",
            edit_tensors(
                "model.safetensors",
                lambda t: {k: v for k, v in t.items() if "embedding_proj" not in k},
            ),
        ),
    ),
    Planted(
        "model, projection file redrawn",
        3,
        model(
            "coltrain",
            edit_tensors(
                "projection.safetensors", lambda t: t["custom_text_proj.weight"].normal_()
            ),
        ),
    ),
    Planted(
        "model, instruct base", 3, adapter_only(base_model_name_or_path="Qwen/Qwen2-VL-2B-Instruct")
    ),
    Planted(
        "model, right padding",
        25,
        model("colpali-engine", edit_json("tokenizer_config.json", put("padding_side", "right"))),
    ),
    Planted(
        "model, registered name drifted",
        4,
        model(
            "coltrain",
            edit_json(
                "coltrain.json",
                put("template/page_prompt", "<|vision_start|><|image_pad|><|vision_end|>"),
            ),
        ),
    ),
    Planted(
        "model, five augmentation tokens",
        5,
        model(
            "coltrain",
            edit_json(
                "coltrain.json",
                lambda c: c.update(
                    template=c["template"] | {"name": "mine", "query_suffix": "<|endoftext|>" * 5}
                ),
            ),
        ),
    ),
    Planted(
        "model, two budgets",
        21,
        model("colpali-engine", edit_json("preprocessor_config.json", put("max_pixels", 12845056))),
    ),
    Planted(
        "model, hub adapter, large budget",
        21,
        lambda folder, made: (
            path := adapter_only()(folder, made),
            edit_json(
                "preprocessor_config.json",
                put("size", {"longest_edge": 12845056, "shortest_edge": 3136}),
            )(path),
        )[0],
    ),
    Planted("model, list of targets", 27, adapter_only(target_modules=["q_proj", "v_proj"])),
    Planted("model, alpha a tenth", 10, adapter_only(lora_alpha=3)),
    Planted(
        "model, mixed types",
        17,
        model(
            "colpali-engine",
            edit_tensors(
                "adapter_model.safetensors",
                lambda t: {k: v.bfloat16() if "lora_A" in k else v for k, v in t.items()},
            ),
            card=False,
        ),
    ),
    # colpali-engine, YAML
    Planted(
        "yaml, torchrun before 0.3.11",
        6,
        yaml_file(
            arguments=V01,
            more={"run.sh": "torchrun --nproc_per_node 8 train_colbert.py train.yaml\n"},
        ),
    ),
    Planted(
        "yaml, sixteen ranks by slurm",
        6,
        yaml_file(
            "training_config.yml",
            arguments=V01.replace("size: 4", "size: 2"),
            more={
                "job.slurm": "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=8\nsrun python train_colbert.py training_config.yml\n"
            },
        ),
    ),
    Planted(
        "yaml, ranks from the steps",
        6,
        yaml_file(
            "training_config.yml",
            arguments=V01,
            data="load_train_set",
            more={
                "trainer_state.json": trainer_state(
                    [0.5, 0.4, 0.3], max_steps=3694, num_train_epochs=1, train_batch_size=4
                )
            },
        ),
    ),
    Planted(
        "yaml, accumulation",
        7,
        yaml_file(
            arguments="num_train_epochs: 5\n    per_device_train_batch_size: 32\n    gradient_accumulation_steps: 8\n"
            "    warmup_steps: 100\n    learning_rate: 5e-4"
        ),
    ),
    Planted(
        "yaml, new engine divides", 9, yaml_file(era="new", tokens="max_num_visual_tokens: 768")
    ),
    Planted(
        "yaml, hard negatives",
        11,
        yaml_file(loss="ColbertPairwiseNegativeCELoss", data="load_train_set_ir_negs"),
    ),
    Planted("yaml, half weights", 15, yaml_file(dtype="torch.float16")),
    Planted("yaml, instruct base", 3, yaml_file(base="Qwen/Qwen2-VL-2B-Instruct")),
    Planted(
        "yaml, lr of today",
        10,
        yaml_file(
            arguments="num_train_epochs: 5\n    per_device_train_batch_size: 64\n    warmup_steps: 100\n    learning_rate: 2e-4"
        ),
    ),
    Planted("yaml, detailed mixture", 12, yaml_file(data="load_train_set_detailed")),
    Planted(
        "yaml, language_model in the old layout",
        27,
        yaml_file(targets=TARGETS.replace("(model)", "(language_model)")),
    ),
    Planted(
        "yaml, smooth maximum",
        18,
        yaml_file(
            era="new",
            tokens="max_num_visual_tokens: 768",
            loss_lines="normalize_scores: false\n    use_smooth_max: true",
        ),
    ),
    # colpali-engine, Python
    Planted(
        "script, removed argument",
        23,
        script(
            ("output_dir=None,", "output_dir=None, overwrite_output_dir=True,"),
            PREFIXED,
            more={"requirements.txt": PINS, "run.sh": FOUR},
        ),
    ),
    Planted(
        "script, accumulation by a variable",
        7,
        script(
            ("PER_DEVICE = 64", "PER_DEVICE = 16\nGLOBAL = 256"),
            (
                "warmup_steps=100,",
                "warmup_steps=100,\n            gradient_accumulation_steps=GLOBAL // PER_DEVICE,",
            ),
        ),
    ),
    Planted(
        "script, accumulation by the environment",
        7,
        script(
            (
                "warmup_steps=100,",
                "warmup_steps=100,\n            gradient_accumulation_steps=int(os.environ['ACC']),",
            ),
            more={"run.sh": "export ACC=4\naccelerate launch --num_processes 4 train.py --peft\n"},
        ),
    ),
    Planted(
        "script, divided by place",
        9,
        script(
            ("ColbertPairwiseCELoss(normalize_scores=False)", "ColbertPairwiseCELoss(1.0, True)")
        ),
    ),
    Planted(
        "script, divided by default",
        9,
        script(("ColbertPairwiseCELoss(normalize_scores=False)", "ColbertPairwiseCELoss()")),
    ),
    Planted(
        "script, lr by the launch",
        10,
        script(more={"run.sh": "accelerate launch --num_processes 4 train.py --lr 1e-5 --peft\n"}),
    ),
    Planted(
        "script, engine without prefix", 4, script(more={"requirements.txt": PINS, "run.sh": FOUR})
    ),
    Planted(
        "script, model.half()",
        15,
        script(("    processor = ", "    model = model.half()\n    processor = ")),
    ),
    Planted(
        "script, cast to bfloat16",
        25,
        script(
            ("torch_dtype=torch.bfloat16, use_cache=False)", "use_cache=False).to(torch.bfloat16)")
        ),
    ),
    Planted(
        "script, all-linear",
        27,
        script((f'target_modules="{TARGETS}"', 'target_modules="all-linear"')),
    ),
    Planted(
        "script, visual regex",
        27,
        script((f'target_modules="{TARGETS}"', 'target_modules=".*(proj|fc1|fc2|qkv).*"')),
    ),
    Planted(
        "script, flash attention on V100",
        28,
        script(
            ("use_cache=False", "use_cache=False, attn_implementation='flash_attention_2'"),
            more={
                "job.sbatch": "#SBATCH --gres=gpu:v100:4\naccelerate launch --num_processes 4 train.py --peft\n"
            },
        ),
    ),
    Planted(
        "script, gloo",
        26,
        script(
            ("warmup_steps=100,", "warmup_steps=100,\n            ddp_backend='gloo',"),
            more={"run.sh": FOUR},
        ),
    ),
    Planted(
        "script, raw evaluation set",
        24,
        script(
            (
                'ColPaliEngineDataset(\n            load_dataset("./data_dir/colpali_train_set", split="test"), pos_target_column_name="image"\n        )',
                'load_dataset("./data_dir/colpali_train_set", split="test")',
            )
        ),
    ),
    Planted(
        "script, main of 2026-03 with transformers 5",
        22,
        script(
            PREFIXED,
            more={
                "run.sh": FOUR,
                "requirements.txt": "git+https://github.com/illuin-tech/colpali@9be8f19\ntransformers==5.3.0\n",
            },
        ),
    ),
    Planted(
        "script, main of 2025-06",
        20,
        script(more={"run.sh": FOUR, "git_hash.txt": "b863674eb7eb5653e2cbfb52cce3a92fcf6b73a8"}),
    ),
    Planted(
        "script, base redrawn by versions",
        2,
        script(
            PREFIXED,
            more={
                "run.sh": FOUR,
                "requirements.txt": "colpali-engine==0.3.14\ntransformers==5.0.0\n",
            },
        ),
    ),
    Planted(
        "script, process_texts",
        5,
        script(
            ("    trainer = ", "    batch = processor.process_texts(['a query'])\n    trainer = ")
        ),
    ),
    Planted(
        "script, prefix twice",
        5,
        script(
            (
                "    trainer = ",
                "    batch = processor.process_queries([f'Query: {q}' for q in ['a']])\n    trainer = ",
            )
        ),
    ),
    Planted(
        "script, old evaluator",
        13,
        script(
            (
                "    trainer = ",
                "    from colpali_engine.trainer.eval_utils import CustomRetrievalEvaluator\n"
                "    evaluator = CustomRetrievalEvaluator()\n    trainer = ",
            )
        ),
    ),
    Planted(
        "script, peft beside an old engine",
        16,
        yaml_file(more={"requirements.txt": OLD_PINS.replace("0.11.1", "0.15.0")}),
    ),
    Planted(
        "script, max_pixels on the processor",
        21,
        script(
            (
                "max_num_visual_tokens=768)\n",
                "max_num_visual_tokens=768)\n    processor.max_pixels = 768 * 28 * 28\n",
            )
        ),
    ),
    Planted(
        "run folder, losses at ln 2",
        8,
        yaml_file("training_config.yml", more={"trainer_state.json": trainer_state([0.693] * 20)}),
    ),
    Planted(
        "run folder, losses of zero",
        15,
        yaml_file("training_config.yml", more={"trainer_state.json": trainer_state([0.0] * 20)}),
    ),
    # sentence-transformers and PyLate
    Planted("st, native", "F2", script(HF, source=SENTENCE_SCRIPT)),
    Planted("st, cached native", "F1", script(HF, CACHED, IMPORT_CACHED, source=SENTENCE_SCRIPT)),
    Planted(
        "st, epochs repeat",
        "F3",
        script(
            SAMPLER,
            IMPORT_SAMPLER,
            source=SENTENCE_SCRIPT,
            more={"run.sh": "torchrun --nproc_per_node=4 train.py\n"},
        ),
    ),
    Planted(
        "st, bare backbone",
        "F5",
        script(('"vidore/colqwen2-v1.0"', '"Qwen/Qwen2-VL-2B-Instruct"'), source=SENTENCE_SCRIPT),
    ),
    Planted(
        "st, not gathered",
        6,
        script(
            ("gather_across_devices=True", "gather_across_devices=False"),
            source=SENTENCE_SCRIPT,
            more={"run.sh": "torchrun --nproc_per_node 4 train.py\n"},
        ),
    ),
    Planted("pylate, cached", "F4", script(source=PYLATE)),
    Planted(
        "st, many queries a page",
        19,
        script(
            ('"vidore/colpali_train_set"', '"vidore/syntheticDocQA_energy_train"'),
            source=SENTENCE_SCRIPT,
        ),
    ),
)

TR_ARGS = """(): transformers.training_args.TrainingArguments
output_dir: null
num_train_epochs: 1
per_device_train_batch_size: 4
gradient_accumulation_steps: 8
warmup_steps: 500
learning_rate: 5e-5
"""
ADAPTER = {
    "base_model_name_or_path": "vidore/colqwen2-base",
    "r": 32,
    "lora_alpha": 32,
    "lora_dropout": 0.1,
    "target_modules": TARGETS,
    "init_lora_weights": "gaussian",
    "modules_to_save": None,
    "peft_type": "LORA",
}
HELPED = """from dataclasses import dataclass, field
import yaml
from transformers import HfArgumentParser, TrainingArguments
from peft import LoraConfig, get_peft_model
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.loss import ColbertPairwiseCELoss
from colpali_engine.trainer.contrastive_trainer import ContrastiveTrainer
from colpali_engine.collators import VisualRetrieverCollator
from colpali_engine.utils.dataset_transformation import load_train_set

@dataclass
class ModelArguments:
    base: str = field(default="vidore/colqwen2-base")
    rank: int = 32
    alpha: int = 32

def main():
    model_args, training_args = HfArgumentParser(
        (ModelArguments, TrainingArguments)
    ).parse_args_into_dataclasses()
    config = yaml.safe_load(open("config.yaml"))
    model = ColQwen2.from_pretrained(model_args.base, torch_dtype="bfloat16")
    model = get_peft_model(model, LoraConfig(
        r=model_args.rank, lora_alpha=model_args.alpha, lora_dropout=0.1,
        init_lora_weights="gaussian", target_modules=config["targets"],
    ))
    processor = ColQwen2Processor.from_pretrained(model_args.base, max_num_visual_tokens=config["tokens"])
    loss = ColbertPairwiseCELoss(normalize_scores=config.get("normalize", False))
    ContrastiveTrainer(
        model=model, args=training_args, train_dataset=load_train_set(), loss_func=loss,
        data_collator=VisualRetrieverCollator(processor=processor),
    ).train()

main()
"""
LAUNCH = (
    "torchrun --nproc_per_node 4 train.py --num_train_epochs 5 --learning_rate 5e-4 --warmup_steps 100"
    " --output_dir out --per_device_train_batch_size 64"
)


def helped(launch: str = LAUNCH, *, rank: str = "", **config: Any) -> Callable:
    """A script of one's own around the trainer, its values in a file and on the command line."""
    content = {"targets": TARGETS, "tokens": 768} | config
    return lambda folder, made: write(
        folder, train__py=HELPED, config__yaml=json.dumps(content), run__sh=f"{launch}{rank}\n"
    )


def their_folder(
    losses: list[Any] | None = None, state: dict[str, Any] | None = None, **changes: Any
) -> Callable:
    """What colpali-engine leaves: configuration, adapter's settings, the trainer's state."""

    def write_it(folder: Path, made: Made) -> Path:
        given = {
            key: changes.pop(key)
            for key in list(changes)
            if key in ("arguments", "data", "loss", "more", "era")
        }
        values = {"max_steps": 2310, "num_train_epochs": 5, "train_batch_size": 64} | (state or {})
        return write(
            folder,
            training_config__yml=engine_yaml(**given),
            adapter_config__json=json.dumps(ADAPTER | changes),
            trainer_state__json=trainer_state(
                losses or [0.5 - 0.01 * n for n in range(20)], **values
            ),
            git_hash__txt="9bdcb8aa831711014199b9acd031a56cba37638e",
        )

    return write_it


def with_tr_args(folder: Path, made: Made) -> Path:
    text = engine_yaml(data="load_train_set_detailed")
    text = re.sub(r"  tr_args:\n(    .*\n)+", "  tr_args: !import ../tr_args/default.yaml\n", text)
    write(folder / "tr_args", default__yaml=TR_ARGS)
    return write(folder / "qwen2", train__yaml=text) / "train.yaml"


FURTHER = (
    Planted(
        "recipe, small batch of v0.1",
        6,
        recipe("batch.global_size=4", "batch.chunk_size=4", base="colqwen2-v0.1"),
    ),
    Planted(
        "recipe, rank 8 under a name of its own",
        10,
        recipe("lora.r=8", base="colqwen2-v0.1", rename="mine"),
    ),
    Planted("recipe, projection drawn", 3, recipe("projection.start=normal", rename="mine")),
    Planted(
        "recipe, softmax too warm", 9, recipe("loss.temperature=1.0", base="tiny", rename="mine")
    ),
    Planted(
        "recipe, evaluates on its training rows",
        13,
        recipe("eval.data=[tiny:train]", base="tiny", rename="mine"),
    ),
    Planted(
        "recipe, language model alone, as a list of names",
        27,
        recipe("lora.target_modules=.*self_attn.(q_proj|v_proj)$", base="tiny", rename="mine"),
    ),
    Planted(
        "run, projection gone", 3, run(lambda f: (f / "model" / "projection.safetensors").unlink())
    ),
    Planted(
        "run, groups in its recipe", 6, run(edit_json("run.json", put("recipe/batch/negatives", 2)))
    ),
    Planted(
        "run, base of another name",
        2,
        run(
            edit_json(
                "model/adapter_config.json",
                put("base_model_name_or_path", "Qwen/Qwen2-VL-2B-Instruct"),
            )
        ),
    ),
    Planted(
        "run, probe read without prefix",
        4,
        run(
            edit_json(
                "run.json", lambda c: c["probe"].update(query_ids=c["probe"]["query_ids"][4:])
            )
        ),
    ),
    Planted(
        "run, batches repeat",
        "F3",
        run(
            lambda f: (
                edit_lines(
                    lambda line, n: line.update(loss=1.0 / (1 + n % 5), masked_duplicates=0)
                )(f),
                edit_json("run.json", put("plan/batches_per_epoch", 5))(f),
            )[0]
        ),
    ),
    Planted(
        "run, losses not finite",
        15,
        run(edit_lines(lambda line, n: line.update(loss=float("inf")) if n > 8 else None)),
    ),
    Planted(
        "st model, template without prefix",
        "F5",
        model(
            "sentence-transformers",
            lambda f: (f / "chat_template.jinja").write_text(
                (f / "chat_template.jinja").read_text().replace("Query: ", "")
            ),
        ),
    ),
    Planted(
        "st model, prefix twice",
        5,
        model(
            "sentence-transformers",
            edit_json("config_sentence_transformers.json", put("prompts/query", "Query: ")),
        ),
    ),
    Planted(
        "native model, other prompt",
        4,
        model(
            "transformers",
            edit_json("processor_config.json", put("visual_prompt_prefix", "<image>Page.")),
        ),
    ),
    Planted(
        "native model, other budget",
        21,
        model(
            "transformers", edit_json("preprocessor_config.json", put("size/longest_edge", 1003520))
        ),
    ),
    Planted(
        "merged model, embeddings redrawn",
        2,
        layout(
            "transformers",
            edit_tensors(
                "model.safetensors",
                lambda t: t["model.language_model.embed_tokens.weight"].normal_(
                    std=0.0618718433538229
                ),
            ),
        ),
    ),
    Planted(
        "merged model, a tensor gone",
        2,
        layout(
            "released, sharded, with lm_head",
            edit_tensors(
                "model-00001-of-00002.safetensors",
                lambda t: {k: v for n, (k, v) in enumerate(t.items()) if n != 3},
            ),
        ),
    ),
    Planted(
        "adapter, keys with a prefix too much",
        1,
        layout(
            "adapter of today",
            edit_tensors(
                "adapter_model.safetensors",
                rename("base_model.model.", "base_model.model.model.model."),
            ),
        ),
    ),
    Planted(
        "adapter, one B zero",
        1,
        layout(
            "adapter of 2024",
            edit_tensors(
                "adapter_model.safetensors",
                lambda t: next(v for k, v in t.items() if "lora_B" in k).zero_(),
            ),
        ),
    ),
    Planted(
        "adapter, half type",
        17,
        layout(
            "adapter of today",
            edit_tensors(
                "adapter_model.safetensors", lambda t: {k: v.half() for k, v in t.items()}
            ),
        ),
    ),
    Planted("yaml, imported arguments accumulate", 7, with_tr_args),
    Planted(
        "yaml, told sixteen ranks",
        6,
        yaml_file(arguments=V01.replace("size: 4", "size: 2"), data="load_train_set_detailed"),
        ("launch.world_size=16",),
    ),
    Planted(
        "yaml, accelerate's file",
        6,
        yaml_file(
            arguments=V01,
            more={
                "accelerate_config.yaml": "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nnum_processes: 8\nmixed_precision: 'no'\n"
            },
        ),
    ),
    Planted(
        "their folder, adapter over instruct",
        3,
        their_folder(base_model_name_or_path="Qwen/Qwen2-VL-2B-Instruct"),
    ),
    Planted("their folder, other rank", 10, their_folder(r=16)),
    Planted(
        "their folder, torchrun by its steps",
        6,
        their_folder(state={"max_steps": 2310, "num_train_epochs": 5, "train_batch_size": 64}),
    ),
    Planted("their folder, stuck at ln 2", 8, their_folder([0.6932] * 30)),
    Planted("own script, divided by its file", 9, helped(normalize=True)),
    Planted("own script, rank by the command line", 10, helped(rank=" --rank 4 --alpha 4")),
    Planted(
        "own script, accumulation by the command line",
        7,
        helped(LAUNCH.replace("size 64", "size 8") + " --gradient_accumulation_steps 8"),
    ),
    Planted("own script, adapter on everything", 27, helped(targets="all-linear")),
    Planted("own script, 256 tokens", 10, helped(tokens=256)),
    Planted(
        "own script, base by the command line", 3, helped(rank=" --base Qwen/Qwen2-VL-2B-Instruct")
    ),
    Planted("own script, fp16 over bfloat16", 15, helped(LAUNCH + " --fp16 true")),
    Planted(
        "script, other augmentation",
        5,
        script(
            (
                "max_num_visual_tokens=768)\n",
                "max_num_visual_tokens=768)\n    processor.query_augmentation_token = '<pad>'\n",
            )
        ),
    ),
    Planted(
        "script, prefix taken on the class",
        4,
        script(("    processor = ", "    ColQwen2Processor.query_prefix = ''\n    processor = ")),
    ),
    Planted(
        "script, padding turned",
        25,
        script(
            (
                "max_num_visual_tokens=768)\n",
                "max_num_visual_tokens=768)\n    processor.tokenizer.padding_side = 'right'\n",
            )
        ),
    ),
    Planted(
        "script, own gather",
        20,
        script(
            (
                "    trainer = ",
                "    import torch.distributed as dist\n    dist.all_gather(list(model), model)\n    trainer = ",
            )
        ),
    ),
)
PLANTED = PLANTED + FURTHER

SOUND = (
    Planted(
        "yaml, v0.1 by python, GPUs not said",
        None,
        yaml_file(
            arguments=V01,
            data="load_train_set_detailed",
            more={"run.sh": "python train_colbert.py train.yaml\n"},
        ),
    ),
    Planted("own script", None, helped()),
    Planted(
        "their folder of v1.0, one process",
        None,
        their_folder(state={"max_steps": 2310, "num_train_epochs": 5, "train_batch_size": 256}),
    ),
    Planted(
        "their adapter's settings alone",
        None,
        lambda folder, made: write(folder, adapter_config__json=json.dumps(ADAPTER)),
    ),
    *(Planted(f"recipe, {name}", None, shipped(name)) for name in shipped_names()),
    Planted("recipe, other seed and chunk", None, recipe("train.seed=7", "batch.chunk_size=2")),
    Planted(
        "recipe, tiny, shorter",
        None,
        recipe("train.steps=20", "batch.global_size=8", base="tiny", rename="short"),
    ),
    Planted(
        "recipe, tiny pairwise",
        None,
        recipe(
            "loss.name=pairwise",
            "loss.normalize=false",
            "loss.temperature=1.0",
            "optimizer.learning_rate=3e-4",
            base="tiny",
            rename="pair",
        ),
    ),
    Planted("recipe, 8-bit optimiser", None, recipe("optimizer.name=paged_adamw_8bit")),
    Planted("run", None, run()),
    Planted("run's model", None, lambda folder, made: run()(folder, made) / "model"),
    *(
        Planted(f"export, {kind}", None, model(kind))
        for kind in (
            "coltrain",
            "colpali-engine",
            "transformers",
            "sentence-transformers",
            "merged",
        )
    ),
    Planted("export, engine without card", None, model("colpali-engine", card=False)),
    Planted("hub adapter", None, adapter_only()),
    *(
        Planted(f"layout, {name}", None, layout(name))
        for name in (
            "colqwen2",
            "adapter of 2024",
            "native-5",
            "sentence-transformers, flat",
            "sentence-transformers, adapter",
        )
    ),
    Planted(
        "yaml, v0.1",
        None,
        yaml_file(
            arguments=V01,
            data="load_train_set_detailed",
            more={"requirements.txt": "colpali-engine==0.3.1\n"},
        ),
    ),
    Planted(
        "yaml, v0.1 on one process",
        None,
        yaml_file(
            "training_config.yml",
            arguments=V01,
            data="load_train_set_detailed",
            more={
                "run.sh": "CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 python train_colbert.py training_config.yml\n"
            },
        ),
    ),
    Planted("yaml, v1.0", None, yaml_file()),
    Planted("yaml, v1.0 pinned", None, yaml_file(more={"requirements.txt": OLD_PINS})),
    Planted(
        "yaml, v1.0 on four",
        None,
        yaml_file(
            more={
                "run.sh": "CUDA_VISIBLE_DEVICES=0,1,2,3 python scripts/train/train_colbert.py train.yaml\n"
            }
        ),
    ),
    Planted(
        "yaml, new form spelled out",
        None,
        yaml_file(
            era="new", tokens="max_num_visual_tokens: 768", loss_lines="normalize_scores: false"
        ),
    ),
    Planted(
        "run folder, losses fall",
        None,
        yaml_file(
            "training_config.yml",
            more={"trainer_state.json": trainer_state([0.6 - 0.02 * n for n in range(20)])},
        ),
    ),
    Planted("script", None, script()),
    Planted("script on four", None, script(more={"run.sh": FOUR})),
    Planted(
        "script, pinned, prefix given back",
        None,
        script(PREFIXED, more={"requirements.txt": PINS, "run.sh": FOUR}),
    ),
    Planted(
        "script of today, softmax",
        None,
        script(("default=5e-4", "default=2e-4"), ('default="pairwise"', 'default="ce"')),
    ),
    Planted("st", None, script(source=SENTENCE_SCRIPT)),
    Planted(
        "st on four",
        None,
        script(source=SENTENCE_SCRIPT, more={"run.sh": "torchrun --nproc_per_node 4 train.py\n"}),
    ),
    Planted("st, cached flat", None, script(CACHED, IMPORT_CACHED, source=SENTENCE_SCRIPT)),
    Planted(
        "pylate",
        None,
        script(("CachedContrastive", "Contrastive"), (", mini_batch_size=16", ""), source=PYLATE),
    ),
)

LATER = (
    Planted(
        "recipe int tokens 2048", 10, recipe("model.max_visual_tokens=2048", base="colqwen2-v0.1")
    ),
    Planted("recipe epochs 1 v1.0", 10, recipe("train.epochs=1.0")),
    Planted("recipe warmup 0", 10, recipe("optimizer.warmup_steps=0", base="colqwen2-v0.1")),
    Planted("recipe alpha 128", 10, recipe("lora.alpha=128.0")),
    Planted(
        "recipe tiny smaller tokens",
        None,
        recipe("model.max_visual_tokens=36", base="tiny", rename="t2"),
    ),
    Planted(
        "recipe v0.1 steps",
        10,
        recipe("train.epochs=null", "train.steps=500", base="colqwen2-v0.1"),
    ),
    Planted(
        "recipe float32 sound",
        None,
        recipe(
            "model.dtype=float32",
            "precision.compute=float32",
            "lora.dtype=float32",
            base="colqwen2-v100",
            rename="v100-f32",
        ),
    ),
    Planted(
        "recipe auto", None, recipe("precision.compute=auto", base="colqwen2-v100", rename="mine")
    ),
    Planted("recipe hardneg regex", 11, recipe("data.train=[manu/colpali-data-ir]")),
    Planted(
        "recipe own template no suffix",
        5,
        recipe(
            "model.template={name: mine, query_prefix: 'Query: ', query_suffix: '', page_prompt: '<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|><|endoftext|>'}"
        ),
    ),
    Planted(
        "recipe own template question",
        4,
        recipe(
            "model.template={name: mine, query_prefix: 'Question: ', query_suffix: '<|endoftext|><|endoftext|><|endoftext|><|endoftext|><|endoftext|><|endoftext|><|endoftext|><|endoftext|><|endoftext|><|endoftext|>', page_prompt: '<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|><|endoftext|>'}",
            base="tiny",
            rename="tt",
        ),
    ),
    Planted("recipe transformers-native", "F5", recipe("model.template=transformers-native")),
    Planted(
        "recipe frozen drawn",
        3,
        recipe("projection.start=normal", "projection.train=frozen", base="tiny", rename="x"),
    ),
    Planted("run missing metrics", None, run(lambda f: (f / "metrics.jsonl").write_text(""))),
    Planted(
        "run capability 7.0",
        28,
        run(
            edit_json(
                "run.json",
                lambda c: c["device"].update(
                    type="cuda", name="Tesla V100-SXM2-32GB", capability="7.0"
                ),
            )
        ),
    ),
    Planted(
        "run base hash", 2, run(edit_json("run.json", put("base_weights_hash", "0123456789abcdef")))
    ),
    Planted("run lr jump", 10, run(edit_lines(lambda line, n: line.update(lr=0.02)))),
    Planted(
        "run skipped",
        15,
        run(edit_lines(lambda line, n: line.update(skipped=True) if n % 2 else None)),
    ),
    Planted(
        "run result hash",
        10,
        run(edit_json("run.json", put("recipe/optimizer/learning_rate", 5e-3))),
    ),
    Planted(
        "run tokens card", 21, run(edit_json("model/coltrain.json", put("max_visual_tokens", 16)))
    ),
    Planted(
        "run grad zero", 8, run(edit_lines(lambda line, n: line.update(loss=2.0794, grad_norm=0.0)))
    ),
    Planted(
        "run adapter nan",
        1,
        run(
            edit_tensors(
                "model/adapter_model.safetensors",
                lambda t: next(iter(t.values())).fill_(float("nan")),
            )
        ),
    ),
    Planted(
        "model nan merged",
        2,
        model(
            "merged",
            edit_tensors(
                "model.safetensors",
                lambda t: t["language_model.layers.0.mlp.up_proj.weight"].fill_(float("nan")),
            ),
        ),
    ),
    Planted(
        "model merged changed tensor",
        2,
        model(
            "merged",
            edit_tensors(
                "model.safetensors",
                lambda t: t["language_model.layers.0.mlp.up_proj.weight"].mul_(1.01),
            ),
        ),
    ),
    Planted(
        "model merged projection changed",
        3,
        model(
            "merged",
            edit_tensors("model.safetensors", lambda t: t["custom_text_proj.weight"].normal_()),
        ),
    ),
    Planted(
        "st dense gone", 3, model("sentence-transformers", lambda f: shutil.rmtree(f / "1_Dense"))
    ),
    Planted(
        "st dense redrawn",
        3,
        model(
            "sentence-transformers",
            edit_tensors("1_Dense/model.safetensors", lambda t: t["linear.weight"].normal_()),
        ),
    ),
    Planted(
        "engine adapter base without proj",
        3,
        model(
            "colpali-engine",
            edit_tensors(
                "base/model.safetensors",
                lambda t: {k: v for k, v in t.items() if "custom_text" not in k},
            ),
            card=False,
        ),
    ),
    Planted(
        "engine adapter rank config",
        1,
        model("colpali-engine", edit_json("adapter_config.json", put("r", 16)), card=False),
    ),
    Planted(
        "engine adapter regex misses proj",
        27,
        model(
            "colpali-engine",
            edit_json(
                "adapter_config.json",
                put("target_modules", TARGETS.split("|.*(custom")[0].strip("(") + ")"),
            ),
            card=False,
        ),
    ),
    Planted(
        "engine adapter regex vision",
        27,
        model(
            "colpali-engine",
            edit_json(
                "adapter_config.json",
                put(
                    "target_modules",
                    ".*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|qkv|fc1|fc2|custom_text_proj)$",
                ),
            ),
            card=False,
        ),
    ),
    Planted(
        "engine adapter drop proj tensors",
        27,
        model(
            "colpali-engine",
            edit_tensors(
                "adapter_model.safetensors",
                lambda t: {k: v for k, v in t.items() if "custom_text" not in k},
            ),
            card=False,
        ),
    ),
    Planted(
        "adapter_config rslora",
        1,
        model(
            "colpali-engine", edit_json("adapter_config.json", put("use_rslora", True)), card=False
        ),
    ),
    Planted(
        "yaml bf16 on v100 slurm",
        28,
        yaml_file(
            more={"job.sh": "#SBATCH --gres=gpu:v100:4\npython train_colbert.py train.yaml\n"}
        ),
    ),
    Planted(
        "yaml fp16 true + bf16",
        15,
        yaml_file(
            arguments="num_train_epochs: 5\n    per_device_train_batch_size: 64\n    warmup_steps: 100\n    learning_rate: 5e-4\n    fp16: true"
        ),
    ),
    Planted(
        "yaml accum in comment sound",
        None,
        yaml_file(
            arguments="num_train_epochs: 5\n    per_device_train_batch_size: 64\n    # gradient_accumulation_steps: 4\n    warmup_steps: 100\n    learning_rate: 5e-4\n    # fp16: true"
        ),
    ),
    Planted(
        "yaml all in list",
        27,
        (
            lambda folder, made: (
                write(
                    folder,
                    train__yaml=engine_yaml().replace(
                        f"target_modules: '{TARGETS}'",
                        "target_modules: [q_proj, k_proj, v_proj, o_proj]",
                    ),
                )
                / "train.yaml"
            )
        ),
    ),
    Planted(
        "yaml list with all sound",
        None,
        (
            lambda folder, made: (
                write(
                    folder,
                    train__yaml=engine_yaml().replace(
                        f"target_modules: '{TARGETS}'",
                        "target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, custom_text_proj]",
                    ),
                )
                / "train.yaml"
            )
        ),
    ),
    Planted(
        "yaml deepspeed",
        6,
        yaml_file(
            arguments=V01, more={"go.sh": "deepspeed --num_gpus 8 train_colbert.py train.yaml\n"}
        ),
    ),
    Planted(
        "yaml srun torchrun",
        6,
        yaml_file(
            arguments=V01,
            more={
                "go.sh": "srun torchrun --nnodes=$SLURM_NNODES --nproc_per_node=4 train_colbert.py train.yaml\n"
            },
        ),
    ),
    Planted(
        "yaml eval raw",
        24,
        (
            lambda folder, made: (
                write(
                    folder,
                    train__yaml=engine_yaml(
                        era="new",
                        tokens="max_num_visual_tokens: 768",
                        loss_lines="normalize_scores: false",
                        more="eval_dataset:\n    (): colpali_engine.utils.dataset_transformation.load_eval_set\n    dataset_path: ./data_dir/x",
                    ),
                )
                / "train.yaml"
            )
        ),
    ),
    Planted(
        "yaml tf5 overwrite",
        23,
        yaml_file(
            era="new",
            tokens="max_num_visual_tokens: 768",
            loss_lines="normalize_scores: false",
            arguments="overwrite_output_dir: true\n    num_train_epochs: 5\n    per_device_train_batch_size: 64\n    warmup_steps: 100\n    learning_rate: 5e-4",
            more={
                "environment.yml": "dependencies:\n  - pip:\n    - transformers==5.23.0\n    - colpali-engine==0.3.18\n    - torch==2.8.0\n    - peft==0.18.1\n"
            },
        ),
    ),
    Planted(
        "yaml v100 torch 2.14",
        28,
        yaml_file(
            dtype="torch.float32",
            more={
                "requirements.txt": "torch==2.14.1\n",
                "job.sh": "#SBATCH --constraint=v100\n#SBATCH --gres=gpu:4\npython train_colbert.py train.yaml\n",
            },
        ),
    ),
    Planted(
        "script softmax cfg",
        9,
        script(("ColbertPairwiseCELoss(normalize_scores=False)", "ColbertLoss(temperature=1.0)")),
    ),
    Planted(
        "script kwargs dict",
        7,
        script(
            ("    model = ", "    extra = dict(gradient_accumulation_steps=4)\n    model = "),
            ("warmup_steps=100,", "warmup_steps=100, **extra,"),
        ),
    ),
    Planted(
        "script setattr args",
        7,
        script(
            (
                "    trainer = ",
                "    config.tr_args.gradient_accumulation_steps = 16\n    trainer = ",
            )
        ),
    ),
    Planted(
        "script device half map",
        15,
        script(("torch_dtype=torch.bfloat16", "torch_dtype=torch.float16")),
    ),
    Planted("script dtype str", 15, script(("torch_dtype=torch.bfloat16", "dtype='float16'"))),
    Planted(
        "script two sets on four",
        "F3",
        script(
            (
                "train_dataset=load_train_set(),",
                "train_dataset=[load_train_set(), load_train_set()],",
            ),
            more={"run.sh": FOUR},
        ),
    ),
    Planted(
        "script mteb doubling",
        5,
        script(more={"run.sh": FOUR, "requirements.txt": "mteb==2.3.0\n"}),
    ),
    Planted(
        "st no prompts qwen3",
        "F5",
        script(('"vidore/colqwen2-v1.0"', '"Qwen/Qwen3-VL-2B-Instruct"'), source=SENTENCE_SCRIPT),
    ),
    Planted(
        "st cached minibatch positional",
        "F1",
        script(
            HF,
            (
                "MultiVectorMultipleNegativesRankingLoss(\n        model,",
                "MultiVectorMultipleNegativesRankingLoss(\n        model, mini_batch_size=4,",
            ),
            source=SENTENCE_SCRIPT,
        ),
    ),
    Planted(
        "st, native under an earlier transformers",
        None,
        script(HF, source=SENTENCE_SCRIPT, more={"requirements.txt": "transformers==4.53.3\n"}),
    ),
)
"""Written when the checks stood: 1 of them was not named as it is here, and no alarm was false."""


def repeated_rows(folder: Path) -> None:
    edit_lines(lambda line, place: line.update(batch=f"{place % 3}", loss=1 / (place + 1)))(folder)
    edit_json("run.json", put("plan/batches_per_epoch", 3))(folder)


WITH_RUNS = (
    Planted(
        "run, a pair met by the record",
        6,
        run(edit_json("run.json", put("candidates_per_query", {"min": 2, "median": 2, "max": 2}))),
    ),
    Planted(
        "run, rows of one epoch before",
        "F3",
        run(repeated_rows),
    ),
    Planted(
        "run, an earlier torch", None, run(edit_json("run.json", put("versions/torch", "2.7.1")))
    ),
    Planted(
        "run, an earlier transformers 5",
        None,
        run(edit_json("run.json", put("versions/transformers", "5.3.0"))),
    ),
    Planted(
        "colpali, its own regex and mined pages",
        None,
        yaml_file(
            model="ColPali",
            loss="ColbertPairwiseNegativeCELoss",
            data="load_train_set_ir_negs",
            targets="(.*(language_model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)",
        ),
    ),
    Planted(
        "run, two ranks over gloo",
        None,
        run(edit_json("run.json", put("ranks", [{"after_step": 0, "size": 2, "backend": "gloo"}]))),
    ),
)
"""What a run records, and versions that are no matter."""

LATER += WITH_RUNS + tuple(
    Planted(name, trap, lambda folder, made, write=write: write(folder))
    for name, trap, write in FORMS
)
PLANTED = PLANTED + tuple(one for one in LATER if one.trap is not None)
SOUND = SOUND + tuple(one for one in LATER if one.trap is None)
