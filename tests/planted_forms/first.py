"""The first batch: constants, tagged YAML, factories, a notebook, logs and cards, sentence-transformers."""

import math
import random

from planted_forms.batch import REG, add


# ---------- A: constants at top, kwargs dicts ----------
def constants_script(**k):
    v = {
        "base": "vidore/colqwen2-base",
        "tok": 768,
        "bs": 32,
        "lr": "5e-4",
        "loss": "ColbertPairwiseCELoss(normalize_scores=False)",
        "imp": "ColbertPairwiseCELoss",
        "data": "load_train_set()",
        "dimp": "load_train_set",
        "dtype": "torch.bfloat16",
        "extra": "",
        "req": "colpali-engine==0.3.12\ntransformers==4.53.3\ntorch==2.7.1\npeft==0.16.0\n",
        "cmd": "accelerate launch --num_processes 8 --multi_gpu finetune.py",
        "attn": "flash_attention_2",
        "after": "",
        "evald": "None",
        "pre": "",
        "sync": "",
    }
    v.update(k)
    return {
        "finetune.py": f'''"""Fine-tune ColQwen2 on our machine."""
import os
import torch
from peft import LoraConfig
from transformers import TrainingArguments
from colpali_engine.loss import {v["imp"]}
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.trainer.colmodel_training import ColModelTraining, ColModelTrainingConfig
from colpali_engine.utils.dataset_transformation import {v["dimp"]}
{v["pre"]}
BASE = "{v["base"]}"
OUT = f"checkpoints/{{BASE.split('/')[-1]}}-lora"
MAX_TOKENS = {v["tok"]}
BATCH = {v["bs"]}
LR = {v["lr"]}

processor = ColQwen2Processor.from_pretrained(BASE, max_num_visual_tokens=MAX_TOKENS)
model_kwargs = dict(torch_dtype={v["dtype"]}, attn_implementation="{v["attn"]}")
model = ColQwen2.from_pretrained(BASE, **model_kwargs)
{v["after"]}
TRAIN = {{
    "output_dir": OUT,
    "num_train_epochs": 5,
    "per_device_train_batch_size": BATCH,
    "learning_rate": LR,
    "warmup_steps": 100,
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {{"use_reentrant": False}},
    "logging_steps": 10,
    "save_steps": 500,
}}
{v["extra"]}
lora = LoraConfig(r=32, lora_alpha=32, lora_dropout=0.1, init_lora_weights="gaussian", bias="none",
                  task_type="FEATURE_EXTRACTION",
                  target_modules=r"{REG}")
config = ColModelTrainingConfig(
    output_dir=OUT, processor=processor, model=model, train_dataset={v["data"]}, eval_dataset={v["evald"]},
    run_eval={v["evald"] != "None"}, loss_func={v["loss"]}, tr_args=TrainingArguments(**TRAIN), peft_config=lora)

if __name__ == "__main__":
    training = ColModelTraining(config)
    training.train()
    training.save()
''',
        "requirements.txt": v["req"],
        "run.sh": "#!/bin/bash\nset -e\nexport TOKENIZERS_PARALLELISM=false\n" + v["cmd"] + "\n",
    }


add("first, A-sound", None, constants_script())
add(
    "first, A-sound-single",
    None,
    constants_script(cmd="CUDA_VISIBLE_DEVICES=0 python finetune.py", bs=256),
)
add(
    "first, A-t7",
    7,
    constants_script(
        extra='if os.environ.get("SMALL_GPU", "1") == "1":\n    TRAIN["per_device_train_batch_size"] = 4\n    TRAIN["gradient_accumulation_steps"] = 8\n'
    ),
)
add("first, A-t15", 15, constants_script(dtype="torch.float16", attn="sdpa"))
add("first, A-t9", 9, constants_script(loss="ColbertPairwiseCELoss()"))
add(
    "first, A-t11",
    11,
    constants_script(
        loss="ColbertPairwiseNegativeCELoss(in_batch_term_weight=0.5)",
        imp="ColbertPairwiseNegativeCELoss",
        data="load_train_set_ir_negs()",
        dimp="load_train_set_ir_negs",
    ),
)
add("first, A-t3", 3, constants_script(base="Qwen/Qwen2-VL-2B-Instruct"))
add(
    "first, A-t25",
    25,
    constants_script(
        dtype="torch.float32", after="model = model.to(torch.bfloat16)\n", attn="sdpa"
    ),
)
add(
    "first, A-t27",
    27,
    {
        **(a := constants_script()),
        "finetune.py": a["finetune.py"].replace(
            f'target_modules=r"{REG}"', 'target_modules="all-linear"'
        ),
    },
)
add(
    "first, A-t23",
    23,
    constants_script(
        req="colpali-engine==0.3.18\ntransformers==5.3.0\ntorch==2.9.0\npeft==0.18.0\n",
        loss="ColbertPairwiseCELoss(normalize_scores=False)",
        extra="TRAIN.update(overwrite_output_dir=True)\n",
        pre="",
        after='processor.query_prefix = "Query: "\n',
    ),
)
add(
    "first, A-t6",
    6,
    constants_script(
        req="colpali-engine==0.3.8\ntransformers==4.51.3\ntorch==2.6.0\npeft==0.14.0\n",
        loss="ColbertPairwiseCELoss()",
        cmd="torchrun --nnodes=2 --nproc-per-node=8 --rdzv-endpoint=$HEAD:29500 finetune.py",
    ),
)


# ---------- B: yaml with tags + python script ----------
def tagged_yaml(**k):
    v = {
        "out": "colqwen2-ba256-5e",
        "loss": "ColbertPairwiseCELoss",
        "lossargs": "",
        "lr": "5e-4",
        "tok": 768,
        "bs": 64,
        "extra": "",
        "evalds": "",
        "data": "dataset_loading_func: !ext colpali_engine.utils.dataset_transformation.load_train_set",
        "dtype": "bfloat16",
        "base": "./models/colqwen2_base",
        "req": '[project]\nname = "mine"\nversion = "0"\ndependencies = ["colpali-engine[train]==0.3.4", "transformers==4.46.3", "peft==0.11.1", "torch==2.4.1"]\n',
        "sh": "python scripts/train/train_colbert.py cfg/train.yaml",
    }
    v.update(k)
    return {
        "cfg/train.yaml": f'''config:
  (): colpali_engine.trainer.colmodel_training.ColModelTrainingConfig
  output_dir: !path ../../../models/{v["out"]}
  processor:
    (): colpali_engine.utils.transformers_wrappers.AllPurposeWrapper
    class_to_instanciate: !ext colpali_engine.models.ColQwen2Processor
    pretrained_model_name_or_path: "{v["base"]}"
    max_num_visual_tokens: {v["tok"]}
  model:
    (): colpali_engine.utils.transformers_wrappers.AllPurposeWrapper
    class_to_instanciate: !ext colpali_engine.models.ColQwen2
    pretrained_model_name_or_path: "{v["base"]}"
    torch_dtype: !ext torch.{v["dtype"]}
    use_cache: false
    attn_implementation: "flash_attention_2"
  {v["data"]}
  {v["evalds"]}
  run_eval: true
  loss_func:
    (): colpali_engine.loss.late_interaction_losses.{v["loss"]}
    {v["lossargs"]}
  tr_args:
    (): transformers.training_args.TrainingArguments
    output_dir: null
    overwrite_output_dir: true
    num_train_epochs: 5
    per_device_train_batch_size: {v["bs"]}
    gradient_checkpointing: true
    gradient_checkpointing_kwargs: {{"use_reentrant": false}}
    warmup_steps: 100
    learning_rate: {v["lr"]}
    {v["extra"]}
  peft_config:
    (): peft.LoraConfig
    r: 32
    lora_alpha: 32
    lora_dropout: 0.1
    init_lora_weights: "gaussian"
    bias: "none"
    task_type: "FEATURE_EXTRACTION"
    target_modules: '{REG}'
''',
        "pyproject.toml": v["req"],
        "job.sbatch": f"#!/bin/bash\n#SBATCH --nodes=1\n#SBATCH --gres=gpu:a100:4\n#SBATCH --time=48:00:00\nmodule load cuda\nsource .venv/bin/activate\n{v['sh']}\n",
    }


add("first, B-sound", None, tagged_yaml())
add(
    "first, B-sound-anchors",
    None,
    {
        **(b := tagged_yaml()),
        "cfg/train.yaml": b["cfg/train.yaml"]
        .replace(
            'pretrained_model_name_or_path: "./models/colqwen2_base"\n    max_num',
            'pretrained_model_name_or_path: &base "./models/colqwen2_base"\n    max_num',
        )
        .replace(
            'pretrained_model_name_or_path: "./models/colqwen2_base"\n    torch',
            "pretrained_model_name_or_path: *base\n    torch",
        ),
    },
)
add(
    "first, B-t12",
    12,
    tagged_yaml(
        data="dataset_loading_func: !ext colpali_engine.utils.dataset_transformation.load_train_set_detailed"
    ),
)
add(
    "first, B-t6-srun",
    6,
    tagged_yaml(
        sh="srun --ntasks-per-node=4 python -m torch.distributed.run --nproc_per_node 4 scripts/train/train_colbert.py cfg/train.yaml"
    ),
)
add("first, B-t10-lr", 10, tagged_yaml(lr="0.0002", out="colqwen2-v1.0-reproduction"))
add("first, B-t10-tok", 10, tagged_yaml(tok=1024, out="colqwen2-v1.0-repro"))
add(
    "first, B-t9",
    9,
    tagged_yaml(
        req='[tool.poetry.dependencies]\npython = "^3.10"\ncolpali-engine = "0.3.11"\ntransformers = "4.52.4"\npeft = "0.15.2"\n'
    ),
)
add(
    "first, B-t24",
    24,
    tagged_yaml(
        req='[project]\nname="m"\nversion="0"\ndependencies=["colpali-engine==0.3.12", "transformers==4.53.3"]\n',
        data="train_dataset:\n    (): colpali_engine.utils.dataset_transformation.load_train_set",
        lossargs="normalize_scores: false",
        evalds="eval_dataset:\n    (): colpali_engine.utils.dataset_transformation.load_eval_set\n    dataset_path: vidore/docvqa_test_subsampled",
    ),
)
add(
    "first, B-t18",
    18,
    tagged_yaml(
        loss="ColbertLoss",
        lossargs="use_smooth_max: true",
        req='[project]\nname="m"\nversion="0"\ndependencies=["colpali-engine==0.3.12", "transformers==4.53.3"]\n',
    ),
)
add(
    "first, B-t28",
    28,
    {
        **(b := tagged_yaml(dtype="bfloat16", lossargs="")),
        "job.sbatch": b["job.sbatch"].replace("gpu:a100:4", "gpu:v100:4"),
    },
)


# ---------- C: argparse, functions, builders ----------
def factories_script(**k):
    v = {
        "bs": 8,
        "ga": 1,
        "n": 4,
        "loss": "pairwise",
        "lr": "5e-5",
        "eng": "0.3.12",
        "tf": "4.53.3",
        "norm": "False",
        "prefix": "",
        "base": "vidore/colqwen2-base",
        "launch": None,
        "warm": 500,
        "half": "bf16",
        "device": "",
        "vision": "",
        "collate": "",
        "ds": "vidore/colpali_train_set",
        "grab": "",
    }
    v.update(k)
    launch = (
        v["launch"]
        or f"accelerate launch --config_file acc.yaml train.py --train_batch {v['bs']} --accum {v['ga']} --loss {v['loss']}"
    )
    return {
        "train.py": f'''#!/usr/bin/env python
import argparse, logging, sys
from dataclasses import dataclass, field
from typing import Optional

import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import TrainingArguments, set_seed

from colpali_engine.collators import VisualRetrieverCollator
from colpali_engine.data.dataset import ColPaliEngineDataset
from colpali_engine.loss.late_interaction_losses import ColbertLoss, ColbertPairwiseCELoss
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.trainer.contrastive_trainer import ContrastiveTrainer

log = logging.getLogger(__name__)
HALF = {{"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}}


@dataclass
class ModelCfg:
    base: str = "{v["base"]}"
    tokens: int = 768
    precision: str = "{v["half"]}"
    rank: int = 32
    modules: Optional[str] = None


def build_model(cfg: ModelCfg):
    model = ColQwen2.from_pretrained(cfg.base, torch_dtype=HALF[cfg.precision])
    modules = cfg.modules or (
        "(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)"
    )
    lora = LoraConfig(r=cfg.rank, lora_alpha=cfg.rank, lora_dropout=0.1, init_lora_weights="gaussian",
                      bias="none", task_type="FEATURE_EXTRACTION", target_modules=modules)
    return get_peft_model(model, lora)


def build_loss(name):
    if name == "pairwise":
        return ColbertPairwiseCELoss(normalize_scores={v["norm"]})
    return ColbertLoss(temperature=0.02)


def build_args(ns):
    return TrainingArguments(
        output_dir=ns.out,
        num_train_epochs=ns.epochs,
        per_device_train_batch_size=ns.train_batch,
        gradient_accumulation_steps=ns.accum,
        learning_rate=ns.lr,
        warmup_steps={v["warm"]},
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={{"use_reentrant": False}},
        remove_unused_columns=False,
        dataloader_num_workers=4,
        report_to=[],{v["device"]}
    )


def main(argv=None):
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", default="out/colqwen2")
    ap.add_argument("--train_batch", type=int, default=8)
    ap.add_argument("--accum", type=int, default=1)
    ap.add_argument("--epochs", type=float, default=1)
    ap.add_argument("--lr", type=float, default={v["lr"]})
    ap.add_argument("--loss", choices=["pairwise", "softmax"], default="pairwise")
    ns = ap.parse_args(argv)
    set_seed(42)
    cfg = ModelCfg()
    processor = ColQwen2Processor.from_pretrained(cfg.base, max_num_visual_tokens=cfg.tokens)
    {v["prefix"]}
    model = build_model(cfg)
    {v["vision"]}
    rows = load_dataset("{v["ds"]}", split="train")
    train = ColPaliEngineDataset(rows, pos_target_column_name="image")
    {v["grab"]}
    trainer = ContrastiveTrainer(
        model=model,
        train_dataset=train,
        args=build_args(ns),
        data_collator=VisualRetrieverCollator(processor=processor),
        loss_func=build_loss(ns.loss),
        is_vision_model=True,
    )
    trainer.train()
    model.save_pretrained(ns.out)


if __name__ == "__main__":
    main()
''',
        "acc.yaml": f"compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nmixed_precision: 'no'\nnum_machines: 1\nnum_processes: {v['n']}\ngpu_ids: all\n",
        "launch.sh": f"#!/usr/bin/env bash\npip install -q colpali-engine=={v['eng']} transformers=={v['tf']} \n{launch}\n",
    }


add("first, C-sound", None, factories_script())
add("first, C-sound-ce", None, factories_script(loss="softmax"))
add("first, C-t6", 6, factories_script(eng="0.3.9", tf="4.51.3", norm="False") | {})
add("first, C-t7", 7, factories_script(ga=4, bs=2))
add("first, C-t4", 4, factories_script(eng="0.3.14", tf="4.57.1"))
add(
    "first, C-t5",
    5,
    factories_script(
        prefix='processor.query_prefix = "Query: "',
        grab='rows = rows.map(lambda r: {"query": "Query: " + r["query"]})\n    train = ColPaliEngineDataset(rows, pos_target_column_name="image")',
    ),
)
add(
    "first, C-t21",
    21,
    factories_script(
        tf="4.53.3",
        prefix="processor.image_processor.max_pixels = 512 * 28 * 28  # smaller pages",
    )
    | {},
)
add(
    "first, C-t26",
    26,
    factories_script(
        launch="torchrun --nproc_per_node=2 train.py --train_batch 16",
        device='\n        use_cpu=True,\n        ddp_backend="gloo",',
    ),
)
add("first, C-t12", 12, factories_script(ds="vidore/colpali_train_set_detailed"))


# ---------- D: notebook ----------
def notebook_of(cells):
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "language": "python", "display_name": "p"}},
        "cells": [
            {
                "cell_type": t,
                "metadata": {},
                "source": s.splitlines(True),
                **({"outputs": [], "execution_count": None} if t == "code" else {}),
            }
            for t, s in cells
        ],
    }


def notebook(
    ver="colpali-engine==0.3.12 transformers==4.53.3",
    loss="ColbertPairwiseCELoss(normalize_scores=False)",
    args="",
    base="vidore/colqwen2-base",
    dt="torch.bfloat16",
    gpu="A100",
):
    return {
        "finetune_colqwen2.ipynb": notebook_of(
            [
                ("markdown", f"# Fine-tuning ColQwen2 on a single {gpu}"),
                ("code", f"%pip install -q {ver} peft==0.16.0\n!nvidia-smi"),
                (
                    "code",
                    f'import torch\nfrom colpali_engine.models import ColQwen2, ColQwen2Processor\n\nmodel_name = "{base}"\nprocessor = ColQwen2Processor.from_pretrained(model_name, max_num_visual_tokens=768)\nmodel = ColQwen2.from_pretrained(\n    model_name,\n    torch_dtype={dt},\n    device_map="cuda:0",\n)',
                ),
                (
                    "code",
                    f'from peft import LoraConfig, get_peft_model\nconfig = LoraConfig(r=32, lora_alpha=32, lora_dropout=0.1, init_lora_weights="gaussian", bias="none", task_type="FEATURE_EXTRACTION",\n    target_modules="{REG}")\nmodel = get_peft_model(model, config)\nmodel.print_trainable_parameters()',
                ),
                (
                    "code",
                    'from datasets import load_dataset\nfrom colpali_engine.data.dataset import ColPaliEngineDataset\nds = load_dataset("vidore/colpali_train_set", split="train")\nds[0]',
                ),
                (
                    "code",
                    f'from transformers import TrainingArguments\nfrom colpali_engine.collators import VisualRetrieverCollator\nfrom colpali_engine.loss import ColbertLoss, ColbertPairwiseCELoss\nfrom colpali_engine.trainer.contrastive_trainer import ContrastiveTrainer\n\nargs = TrainingArguments(output_dir="out", per_device_train_batch_size=32, num_train_epochs=1, learning_rate=5e-5, warmup_steps=500, remove_unused_columns=False, {args})\ntrainer = ContrastiveTrainer(model=model, args=args, train_dataset=ColPaliEngineDataset(ds, pos_target_column_name="image"),\n    data_collator=VisualRetrieverCollator(processor=processor), loss_func={loss}, is_vision_model=True)\ntrainer.train()',
                ),
            ]
        )
    }


add("first, D-sound", None, notebook(), "finetune_colqwen2.ipynb")
add("first, D-t7", 7, notebook(args="gradient_accumulation_steps=16"), "finetune_colqwen2.ipynb")
add("first, D-t9", 9, notebook(loss="ColbertPairwiseCELoss()"), "finetune_colqwen2.ipynb")
x = notebook()
x["finetune_colqwen2.ipynb"]["metadata"]["colab"] = {"gpuType": "T4"}
add("first, D-t28", 28, x, "finetune_colqwen2.ipynb")
add("first, D-t3", 3, notebook(base="Qwen/Qwen2-VL-2B-Instruct"), "finetune_colqwen2.ipynb")


# ---------- E: trainer states, adapter configs, cards ----------
def state(losses, lr=5e-5, steps=3694, extra=None):
    h = []
    for i, loss in enumerate(losses):
        s = (i + 1) * 10
        h.append(
            {
                "epoch": round(s / steps, 5),
                "grad_norm": 1.0 + 0.1 * (i % 3),
                "learning_rate": lr * min(1, s / 500),
                "loss": loss,
                "step": s,
            }
        )
    return {
        "best_metric": None,
        "best_model_checkpoint": None,
        "epoch": round(len(losses) * 10 / steps, 4),
        "eval_steps": 100,
        "global_step": len(losses) * 10,
        "is_world_process_zero": True,
        "log_history": h,
        "logging_steps": 10,
        "max_steps": steps,
        "num_train_epochs": 1,
        "save_steps": 500,
        "train_batch_size": 32,
        "trial_name": None,
        "trial_params": None,
    } | (extra or {})


random.seed(1)
good = [0.7 * math.exp(-i / 30) + 0.05 + random.uniform(-0.01, 0.01) for i in range(120)]
add("first, E-sound-state", None, {"trainer_state.json": state(good)}, "trainer_state.json")
add(
    "first, E-t8-state",
    8,
    {"trainer_state.json": state([0.6931 + random.uniform(-2e-3, 2e-3) for _ in range(120)])},
    "trainer_state.json",
)
add(
    "first, E-t8-ce",
    8,
    {"trainer_state.json": state([math.log(32) + random.uniform(-4e-3, 4e-3) for _ in range(120)])},
)
ad = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": "vidore/colqwen2-base",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": "gaussian",
    "lora_alpha": 32,
    "lora_dropout": 0.1,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 32,
    "rank_pattern": {},
    "revision": None,
    "target_modules": REG,
    "task_type": "FEATURE_EXTRACTION",
    "use_dora": False,
    "use_rslora": False,
}
card = "---\nlibrary_name: peft\nbase_model: {b}\ntags: [colpali, vidore]\n---\n# colqwen2 for invoices\n\n## Training\nTrained with colpali-engine {e}, {g}.\nLoRA alpha=32 r=32, {o}, bf16.\n"
add(
    "first, E-sound-card",
    None,
    {
        "adapter_config.json": ad,
        "README.md": card.format(
            b="vidore/colqwen2-base", e="0.3.4", g="one A100, batch size 32", o="adamw"
        ),
    },
)
add(
    "first, E-t3-card",
    3,
    {
        "adapter_config.json": ad | {"base_model_name_or_path": "Qwen/Qwen2-VL-2B-Instruct"},
        "README.md": card.format(
            b="Qwen/Qwen2-VL-2B-Instruct", e="0.3.4", g="one A100, batch size 32", o="adamw"
        ),
    },
)
add(
    "first, E-t27-adapter",
    27,
    {
        "adapter_config.json": ad
        | {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "qkv", "fc1", "fc2"]}
    },
)
add(
    "first, E-t27-proj",
    27,
    {
        "adapter_config.json": ad
        | {
            "target_modules": [
                "q_proj",
                "k_proj",
                "v_proj",
                "o_proj",
                "gate_proj",
                "up_proj",
                "down_proj",
            ]
        }
    },
)


# ---------- F: sentence-transformers / transformers native / pylate ----------
def sentence_script(
    model="vidore/colqwen2-v1.0",
    loss="MultiVectorMultipleNegativesRankingLoss(model=model, gather_across_devices=True)",
    sampler="",
    imp="MultiVectorMultipleNegativesRankingLoss",
    launch="python st_train.py",
    epochs=3,
    req="sentence-transformers==6.2.0\ntransformers==5.23.0\n",
    bs=64,
    proc="",
):
    return {
        "st_train.py": f'''from datasets import load_dataset
from sentence_transformers import MultiVectorEncoder, MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
from sentence_transformers.multi_vector_encoder import losses
from sentence_transformers.training_args import BatchSamplers

MODEL_ID = "{model}"


def get_data():
    ds = load_dataset("vidore/colpali_train_set", split="train").select_columns(["query", "image"])
    return ds.train_test_split(test_size=500, seed=42)


def main():
    model = MultiVectorEncoder(MODEL_ID, model_kwargs={{"torch_dtype": "bfloat16"}})
    data = get_data()
    loss = losses.{loss}
    training_args = MultiVectorEncoderTrainingArguments(
        output_dir="out/st", num_train_epochs={epochs}, per_device_train_batch_size={bs}, learning_rate=2e-5,
        warmup_ratio=0.05, bf16=True, {sampler}
    )
    MultiVectorEncoderTrainer(model=model, args=training_args, train_dataset=data["train"], loss=loss).train()


if __name__ == "__main__":
    main()
''',
        "requirements.txt": req,
        "start.sh": launch + "\n",
    }


add("first, F-sound", None, sentence_script())
add(
    "first, F-tF1",
    "F1",
    sentence_script(
        model="vidore/colqwen2-v1.0-hf",
        loss="CachedMultiVectorMultipleNegativesRankingLoss(model, mini_batch_size=4)",
    ),
)
add(
    "first, F-tF3",
    "F3",
    sentence_script(
        sampler="batch_sampler=BatchSamplers.NO_DUPLICATES,",
        launch="accelerate launch --num_processes=4 st_train.py",
    ),
)
add(
    "first, F-t6",
    6,
    sentence_script(
        loss="MultiVectorMultipleNegativesRankingLoss(model=model)",
        launch="torchrun --nproc_per_node=8 st_train.py",
    ),
)
NATIVE = """import torch
from torch.utils.data import DataLoader
from transformers import ColQwen2ForRetrieval, ColQwen2Processor
from peft import LoraConfig, get_peft_model

ckpt = "vidore/colqwen2-v1.0-hf"
model = ColQwen2ForRetrieval.from_pretrained(ckpt, dtype=torch.bfloat16, device_map="auto")
processor = ColQwen2Processor.from_pretrained(ckpt)
model = get_peft_model(model, LoraConfig(r=32, lora_alpha=32, target_modules=["q_proj", "v_proj"]))
opt = torch.optim.AdamW(model.parameters(), lr=5e-5)
for batch in DataLoader(ds, batch_size=32, shuffle=True, collate_fn=lambda rows: rows):
    q = model(**processor(text=[r["query"] for r in batch]).to("cuda")).embeddings
    d = model(**processor(images=[r["image"] for r in batch]).to("cuda")).embeddings
    loss = torch.nn.functional.cross_entropy(processor.score_retrieval(q, d) / 0.02, torch.arange(32))
    loss.backward(); opt.step(); opt.zero_grad()
"""
add(
    "first, F-tF2",
    "F2",
    {
        "train_native.py": NATIVE,
        "requirements.txt": "transformers==5.23.0\ntorch==2.9.1\npeft==0.18.0\n",
    },
)
add(
    "first, F-tF4",
    "F4",
    {
        "pylate_train.py": """from pylate import losses, models, utils
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from datasets import load_dataset
model = models.ColBERT("lightonai/GTE-ModernColBERT-v1")
ds = load_dataset("sentence-transformers/msmarco-bm25", "triplet", split="train")
loss = losses.CachedContrastive(model=model, mini_batch_size=16, temperature=0.02)
args = SentenceTransformerTrainingArguments(output_dir="o", per_device_train_batch_size=256, max_grad_norm=1.0, bf16=True, learning_rate=3e-6)
SentenceTransformerTrainer(model=model, args=args, train_dataset=ds, loss=loss, data_collator=utils.ColBERTCollator(model.tokenize)).train()
""",
        "requirements.txt": "pylate==1.3.4\nsentence-transformers==5.1.0\n",
    },
)
add(
    "first, F-tF5",
    "F5",
    {
        "eval_native.py": """import torch
from transformers import ColQwen2Processor
from colpali_engine.models import ColQwen2
model = ColQwen2.from_pretrained("vidore/colqwen2-v1.0", torch_dtype=torch.bfloat16).eval()
processor = ColQwen2Processor.from_pretrained("vidore/colqwen2-v1.0")
q = model(**processor(text=["how much"]))
""",
        "requirements.txt": "transformers==5.23.0\ncolpali-engine==0.3.18\n",
    },
)
# eval scripts
add(
    "first, G-t13",
    13,
    {
        "evaluate.py": """from colpali_engine.trainer.eval_utils import CustomRetrievalEvaluator
from colpali_engine.models import ColQwen2, ColQwen2Processor
from datasets import load_dataset
import torch
proc = ColQwen2Processor.from_pretrained("vidore/colqwen2-v1.0")
model = ColQwen2.from_pretrained("vidore/colqwen2-v1.0", torch_dtype=torch.bfloat16, device_map="cuda").eval()
ds = load_dataset("vidore/docvqa_test_subsampled", split="test")
qs = [proc.process_queries([q]) for q in ds["query"]]
ev = CustomRetrievalEvaluator()
print(ev.compute_mteb_metrics(relevant_docs, results))
""",
        "requirements.txt": "colpali-engine==0.3.4\ntransformers==4.46.3\n",
    },
)
add(
    "first, G-t5",
    5,
    {
        "evaluate.py": """import mteb, torch
from colpali_engine.models import ColQwen2, ColQwen2Processor
processor = ColQwen2Processor.from_pretrained("vidore/colqwen2-v1.0")
model = ColQwen2.from_pretrained("vidore/colqwen2-v1.0", torch_dtype=torch.bfloat16, device_map="cuda").eval()

@torch.inference_mode()
def embed_queries(queries, bs=8):
    out = []
    for i in range(0, len(queries), bs):
        batch = processor.process_texts(queries[i : i + bs]).to(model.device)
        out.extend(model(**batch).cpu())
    return out
""",
        "requirements.txt": "colpali-engine==0.3.12\ntransformers==4.53.3\nmteb==2.12.30\n",
    },
)
add(
    "first, G-sound",
    None,
    {
        "evaluate.py": """import torch
from colpali_engine.models import ColQwen2, ColQwen2Processor
from vidore_benchmark.evaluation.vidore_evaluators import ViDoReEvaluatorQA
from vidore_benchmark.retrievers import VisionRetriever
processor = ColQwen2Processor.from_pretrained("vidore/colqwen2-v1.0")
model = ColQwen2.from_pretrained("vidore/colqwen2-v1.0", torch_dtype=torch.bfloat16, device_map="cuda").eval()
q = model(**processor.process_queries(["a"]).to(model.device))
""",
        "requirements.txt": "colpali-engine==0.3.4\ntransformers==4.46.3\nvidore-benchmark==4.0.2\n",
    },
)
# trap 22, 2
add(
    "first, A-t2",
    2,
    constants_script(
        req="git+https://github.com/illuin-tech/colpali@9be8f19\ntransformers==5.3.0\ntorch==2.9.0\npeft==0.18.0\n",
        after='processor.query_prefix = "Query: "\n',
    ),
)
add(
    "first, A-t22",
    22,
    constants_script(
        req="colpali-engine @ git+https://github.com/illuin-tech/colpali.git@9be8f19\ntransformers==5.3.0\ntorch==2.9.0\n",
        after='processor.query_prefix = "Query: "\n',
        data="[load_train_set()]",
    ),
)
# more sound forms
add(
    "first, C-sound-ddp-ds",
    None,
    {
        **factories_script(),
        "launch.sh": "#!/bin/bash\nset -x\nexport NCCL_DEBUG=INFO\npip install colpali-engine==0.3.12 transformers==4.53.3\nexec accelerate launch \\\n  --config_file acc.yaml \\\n  train.py \\\n  --train_batch 8 \\\n  --loss pairwise\n",
    },
)
add(
    "first, A-sound-env",
    None,
    constants_script(
        extra='for key, cast in (("LR", float), ("EPOCHS", int)):\n    if key in os.environ:\n        print("override", key, cast(os.environ[key]))\n'
    ),
)
add(
    "first, A-sound-eval",
    None,
    constants_script(
        evald="ColPaliEngineDataset(load_dataset('vidore/colpali_train_set', split='test'), pos_target_column_name='image')",
        pre="from datasets import load_dataset\nfrom colpali_engine.data.dataset import ColPaliEngineDataset\n",
    ),
)
add(
    "first, B-sound-v01",
    None,
    {
        **(b := tagged_yaml(bs=4, lr="5e-5", out="colqwen2-mine")),
        "job.sbatch": b["job.sbatch"].replace("a100:4", "a100:8"),
        "cfg/train.yaml": b["cfg/train.yaml"]
        .replace("num_train_epochs: 5", "num_train_epochs: 1")
        .replace("warmup_steps: 100", "warmup_steps: 500"),
    },
)
add(
    "first, F-sound-mp",
    None,
    sentence_script(launch="torchrun --nproc_per_node=8 st_train.py", epochs=1, bs=32),
)
add(
    "first, E-sound-jumpy",
    None,
    {
        "trainer_state.json": state(
            [
                max(
                    0.02,
                    0.69 * math.exp(-i / 20)
                    + (0.3 if i % 17 == 0 else 0)
                    + random.uniform(-0.02, 0.02),
                )
                for i in range(100)
            ]
        ),
        "adapter_config.json": ad,
    },
)
