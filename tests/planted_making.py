"""How a planted training is written into a folder: a recipe, a run, a model, another library's files."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from foreign_trainings import ENGINE_SCRIPT, TARGETS, engine_yaml, write
from published_layouts import LAYOUTS
from safetensors.torch import load_file, save_file

from coltrain.recipe import load_recipe, to_yaml


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


def recipe(*overrides: str, base: str = "colqwen2-v1.0", rename: str | None = None) -> Callable:
    def write_it(folder: Path, made: Made) -> Path:
        text = to_yaml(load_recipe(base, list(overrides)))
        if rename:
            text = re.sub(r"^name: .*$", f"name: {rename}", text, count=1, flags=re.MULTILINE)
        return write(folder, recipe__yaml=text) / "recipe.yaml"

    return write_it


def shipped(name: str) -> Callable:
    return lambda folder, made: name


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


def repeated_rows(folder: Path) -> None:
    edit_lines(lambda line, place: line.update(batch=f"{place % 3}", loss=1 / (place + 1)))(folder)
    edit_json("run.json", put("plan/batches_per_epoch", 3))(folder)
