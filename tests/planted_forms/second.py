"""The second: OmegaConf, click, trainers' cards, DeepSpeed, a package of modules."""

import math
import random

from planted_forms.batch import REG, add


# ---- H: OmegaConf + factory functions
def omegaconf_script(
    bs=32,
    accum=1,
    loss="pairwise",
    normalize="false",
    dtype="bfloat16",
    tokens=768,
    lr="5e-5",
    base="vidore/colqwen2-base",
    data="vidore/colpali_train_set",
    eng="0.3.12",
    smooth="false",
    sh="accelerate launch --num_processes 1 src/main.py",
    filt="false",
    extra="",
    fp16="false",
):
    return {
        "conf/config.yaml": f"""model:
  name: {base}
  dtype: {dtype}
  visual_tokens: {tokens}
  lora: {{rank: 32, alpha: 32, dropout: 0.1}}
loss: {{kind: {loss}, normalize: {normalize}, smooth: {smooth}, filter: {filt}}}
data:
  path: {data}
trainer:
  lr: {lr}
  bs: {bs}
  accumulate: {accum}
  epochs: 1
  warmup: 500
  fp16: {fp16}
""",
        "src/main.py": f'''from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from datasets import load_dataset
from omegaconf import OmegaConf
from peft import LoraConfig
from transformers import TrainingArguments

from colpali_engine.data.dataset import ColPaliEngineDataset
from colpali_engine.loss.late_interaction_losses import ColbertLoss, ColbertPairwiseCELoss
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.trainer.colmodel_training import ColModelTraining, ColModelTrainingConfig

ROOT = Path(__file__).resolve().parent.parent
cfg = OmegaConf.load(ROOT / "conf" / "config.yaml")
cli = OmegaConf.from_cli(sys.argv[1:])
cfg = OmegaConf.merge(cfg, cli)

LOSSES = {{
    "pairwise": lambda c: ColbertPairwiseCELoss(normalize_scores=c.normalize),
    "softmax": lambda c: ColbertLoss(temperature=0.02, normalize_scores=True, use_smooth_max=c.smooth, pos_aware_negative_filtering=c.filter),
}}


def get_model():
    return ColQwen2.from_pretrained(cfg.model.name, torch_dtype=getattr(torch, cfg.model.dtype), attn_implementation="sdpa")


def get_lora():
    l = cfg.model.lora
    return LoraConfig(r=l.rank, lora_alpha=l.alpha, lora_dropout=l.dropout, init_lora_weights="gaussian", bias="none",
                      task_type="FEATURE_EXTRACTION", target_modules=r"{REG}")


def main():
    train = ColPaliEngineDataset(load_dataset(cfg.data.path, split="train"), pos_target_column_name="image")
    {extra}
    config = ColModelTrainingConfig(
        output_dir="out", processor=ColQwen2Processor.from_pretrained(cfg.model.name, max_num_visual_tokens=cfg.model.visual_tokens),
        model=get_model(), train_dataset=train, eval_dataset=None, run_eval=False, loss_func=LOSSES[cfg.loss.kind](cfg.loss),
        tr_args=TrainingArguments(output_dir="out", num_train_epochs=cfg.trainer.epochs, per_device_train_batch_size=cfg.trainer.bs,
            gradient_accumulation_steps=cfg.trainer.accumulate, learning_rate=float(cfg.trainer.lr), warmup_steps=cfg.trainer.warmup,
            fp16=cfg.trainer.fp16, gradient_checkpointing=True, gradient_checkpointing_kwargs=dict(use_reentrant=False)),
        peft_config=get_lora(),
    )
    t = ColModelTraining(config)
    t.train()
    t.save()


if __name__ == "__main__":
    main()
''',
        "setup.sh": f"pip install colpali-engine=={eng} transformers==4.53.3 torch==2.7.1 omegaconf\n",
        "scripts/go.sh": sh + "\n",
        "go.sh": sh + "\n",
    }


add("second, H-sound", None, omegaconf_script())
add("second, H-sound-softmax", None, omegaconf_script(loss="softmax"))
add("second, H-t7", 7, omegaconf_script(bs=2, accum=16))
add("second, H-t18", 18, omegaconf_script(loss="softmax", smooth="true"))
add("second, H-t15", 15, omegaconf_script(dtype="float16"))
add("second, H-t9", 9, omegaconf_script(normalize="true"))
add("second, H-t12", 12, omegaconf_script(data="./data_dir/colpali_train_set_detailed"))
add(
    "second, H-t6",
    6,
    omegaconf_script(eng="0.3.10", bs=4, sh="torchrun --nproc-per-node 8 src/main.py"),
)


# ---- I: click + argparse in sbatch with variables
def click_script(
    bs=4,
    nproc=8,
    eng="0.3.12",
    vis="max_num_visual_tokens=768",
    loss="ColbertPairwiseCELoss(normalize_scores=False)",
    tgt="",
    prec="bf16",
    gpu="a100",
    base="vidore/colqwen2-base",
    extra="",
    opt="",
):
    return {
        "finetune.py": f'''import click
import torch
from transformers import TrainingArguments
from peft import LoraConfig, TaskType
import colpali_engine.models as M
from colpali_engine.loss import late_interaction_losses as L
from colpali_engine.loss.late_interaction_losses import ColbertPairwiseCELoss, ColbertLoss
from colpali_engine.trainer.colmodel_training import ColModelTraining as Train, ColModelTrainingConfig as Config
from colpali_engine.utils.dataset_transformation import load_train_set

TARGETS = "{tgt or REG}"


@click.command()
@click.option("--base", default="{base}", show_default=True)
@click.option("--per-gpu", "per_gpu", type=int, default=64)
@click.option("--lr", type=float, default=5e-5)
@click.option("--precision", type=click.Choice(["bf16", "fp16", "fp32"]), default="bf16")
@click.option("--epochs", type=int, default=1)
def cli(base, per_gpu, lr, precision, epochs):
    dtype = dict(bf16=torch.bfloat16, fp16=torch.float16, fp32=torch.float32)[precision]
    model = M.ColQwen2.from_pretrained(base, torch_dtype=dtype)
    processor = M.ColQwen2Processor.from_pretrained(base, {vis})
    {extra}
    args = TrainingArguments("runs/out", per_device_train_batch_size=per_gpu, learning_rate=lr, num_train_epochs=epochs,
                             warmup_steps=500, gradient_checkpointing=True, ddp_find_unused_parameters=False{opt})
    Train(Config(model=model, processor=processor, train_dataset=load_train_set(), tr_args=args, loss_func={loss},
                 peft_config=LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=32, lora_alpha=32, lora_dropout=0.1, init_lora_weights="gaussian", target_modules=TARGETS))).train()


if __name__ == "__main__":
    cli()
''',
        "train.slurm": f"#!/bin/bash\n#SBATCH -J colqwen\n#SBATCH -N 1\n#SBATCH --gpus-per-node={gpu}:{nproc}\nNPROC={nproc}\nPER_GPU={bs}\nexport OMP_NUM_THREADS=8\nuv pip install 'colpali-engine=={eng}' 'transformers==4.53.3'\ntorchrun --standalone --nproc-per-node=${{NPROC}} finetune.py --per-gpu ${{PER_GPU}} --precision {prec}\n",
    }


add("second, I-sound", None, click_script())
add("second, I-sound-8x8", None, click_script(bs=8))
add("second, I-t6", 6, click_script(eng="0.3.7"))
add("second, I-t15", 15, click_script(prec="fp16"))
add("second, I-t28", 28, click_script(gpu="v100"))
add("second, I-t27", 27, click_script(tgt="(.*(q_proj|v_proj).*$)"))
add(
    "second, I-t27-vis",
    27,
    click_script(
        tgt="(.*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj|qkv|fc1|fc2).*$|.*(custom_text_proj).*$)"
    ),
)
add("second, I-t25", 25, click_script(extra='processor.tokenizer.padding_side = "right"'))
add("second, I-t9", 9, click_script(loss="L.ColbertPairwiseCELoss()"))
add("second, I-t26", 26, click_script(opt=', ddp_backend="gloo", use_cpu=True'))
add("second, I-t3", 3, click_script(base="Qwen/Qwen2-VL-2B"))
add("second, I-t4", 4, click_script(eng="0.3.13"))


# ---- Q: trainer-made model card
def trainers_card(
    each=32,
    accum=1,
    dev=1,
    kind="",
    peft="0.11.1",
    tf="4.46.3",
    opt="Use adamw_torch with betas=(0.9,0.999) and epsilon=1e-08",
    rev="colqwen2",
    base="vidore/colqwen2-base",
    more="",
):
    total = each * accum * dev
    return {
        "README.md": f"""---
library_name: peft
license: apache-2.0
base_model: {base}
tags:
- generated_from_trainer
---
# {rev}

This model is a fine-tuned version of [{base}](https://huggingface.co/{base}) on the vidore/colpali_train_set dataset.

## Training procedure

### Training hyperparameters

The following hyperparameters were used during training:
- learning_rate: 5e-05
- train_batch_size: {each}
- eval_batch_size: 8
- seed: 42
{"- distributed_type: multi-GPU" + chr(10) + f"- num_devices: {dev}" + chr(10) if dev > 1 else ""}{f"- gradient_accumulation_steps: {accum}" + chr(10) if accum > 1 else ""}- total_train_batch_size: {total}
- optimizer: {opt}
- lr_scheduler_type: linear
- lr_scheduler_warmup_steps: 500
- num_epochs: 1

### Framework versions

- PEFT {peft}
- Transformers {tf}
- Pytorch 2.5.1+cu124
- Datasets 3.1.0
- Tokenizers 0.20.3
{more}""",
        "adapter_config.json": {
            "base_model_name_or_path": base,
            "bias": "none",
            "init_lora_weights": "gaussian",
            "lora_alpha": 32,
            "lora_dropout": 0.1,
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": 32,
            "target_modules": REG,
            "task_type": "FEATURE_EXTRACTION",
        },
    }


add("second, Q-sound", None, trainers_card())
add("second, Q-t7", 7, trainers_card(each=2, accum=16, dev=1))
add(
    "second, Q-t6",
    6,
    {**trainers_card(each=4, dev=8), "requirements.txt": "colpali-engine==0.3.5\n"},
)


# ---- M: deepspeed
def deepspeed_script(ga=1, fp16=False, eng="0.3.12"):
    return {
        "ds_config.json": {
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": ga,
            "bf16": {"enabled": not fp16},
            "fp16": {"enabled": fp16, "loss_scale": 0},
            "zero_optimization": {"stage": 2},
        },
        "train_ds.py": f'''import argparse, json, torch
from transformers import TrainingArguments
from peft import LoraConfig
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.loss import ColbertLoss
from colpali_engine.trainer.colmodel_training import ColModelTraining, ColModelTrainingConfig
from colpali_engine.utils.dataset_transformation import load_train_set

parser = argparse.ArgumentParser()
parser.add_argument("--local_rank", type=int, default=-1)
parser.add_argument("--deepspeed", type=str, default="ds_config.json")
args, _ = parser.parse_known_args()
ds = json.load(open(args.deepspeed))

tr = TrainingArguments(
    output_dir="ds_out",
    deepspeed=args.deepspeed,
    per_device_train_batch_size=16,
    gradient_accumulation_steps=ds["gradient_accumulation_steps"],
    num_train_epochs=1, learning_rate=5e-5, warmup_steps=500, bf16=True)
path = "vidore/colqwen2-base"
cfg = ColModelTrainingConfig(
    model=ColQwen2.from_pretrained(path, torch_dtype=torch.bfloat16), processor=ColQwen2Processor.from_pretrained(path, max_num_visual_tokens=768),
    tr_args=tr, train_dataset=load_train_set(), loss_func=ColbertLoss(temperature=0.02, normalize_scores=True),
    peft_config=LoraConfig(r=32, lora_alpha=32, lora_dropout=0.1, init_lora_weights="gaussian", bias="none", task_type="FEATURE_EXTRACTION", target_modules=r"{REG}"))
ColModelTraining(cfg).train()
''',
        "Makefile": f"deps:\n\tpip install colpali-engine=={eng} transformers==4.53.3\n\ntrain: deps\n\tdeepspeed --num_gpus=4 train_ds.py --deepspeed ds_config.json\n",
    }


add("second, M-sound", None, deepspeed_script())
add("second, M-t7", 7, deepspeed_script(ga=8))
add("second, M-t6", 6, deepspeed_script(eng="0.3.9"))


# ---- R: ST card/script; subclassed trainer
def loop_of_modules(
    loss="MultiVectorMultipleNegativesRankingLoss",
    lk="scale=50, similarity_fct=mean_colbert_scores, gather_across_devices=True",
    model="vidore/colqwen2-v1.0",
    samp="",
    n=2,
    epochs=2,
    bs=32,
    prompts="",
):
    return {
        "pyproject.toml": '[project]\nname = "st-colqwen"\nversion = "0.1"\ndependencies = [\n  "sentence-transformers==6.2.0",\n  "transformers==5.23.0",\n]\n',
        "st/run.py": f'''import torch
from datasets import load_dataset, Dataset
import sentence_transformers as st
from sentence_transformers.multi_vector_encoder.losses import {loss}
from sentence_transformers.multi_vector_encoder.scoring import mean_colbert_scores

cfg = {{"lr": 2e-5, "bs": {bs}, "epochs": {epochs}}}

def load() -> Dataset:
    return load_dataset("vidore/colpali_train_set", split="train").select_columns(["query", "image"])

def run():
    encoder = st.MultiVectorEncoder("{model}", model_kwargs=dict(torch_dtype=torch.bfloat16){prompts})
    objective = {loss}(encoder, {lk})
    hp = dict(output_dir="o", per_device_train_batch_size=cfg["bs"], num_train_epochs=cfg["epochs"], learning_rate=cfg["lr"], bf16=True)
    {samp}
    trainer = st.MultiVectorEncoderTrainer(model=encoder, args=st.MultiVectorEncoderTrainingArguments(**hp), train_dataset=load(), loss=objective)
    trainer.train()

run()
''',
        "run.sh": f"torchrun --nproc_per_node={n} st/run.py\n",
    }


add("second, ST-sound", None, loop_of_modules())
add("second, ST-t6", 6, loop_of_modules(lk="scale=50, similarity_fct=mean_colbert_scores", bs=8))
add("second, ST-tF3", "F3", loop_of_modules(samp='hp["batch_sampler"] = "no_duplicates"'))
add(
    "second, ST-tF1",
    "F1",
    loop_of_modules(
        loss="CachedMultiVectorMultipleNegativesRankingLoss",
        lk="mini_batch_size=8",
        model="vidore/colqwen2-v1.0-hf",
        n=1,
    ),
)
add("second, ST-tF2", "F2", loop_of_modules(model="vidore/colqwen2-v1.0-hf"))
add("second, ST-tF5", "F5", loop_of_modules(model="Qwen/Qwen2-VL-2B-Instruct"))

# ---- more sound foreign
add(
    "second, S-nb-pairwise",
    None,
    {
        "nb.ipynb": {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"colab": {"gpuType": "A100"}},
            "cells": [
                {
                    "cell_type": "code",
                    "metadata": {},
                    "outputs": [],
                    "execution_count": 1,
                    "source": ["!pip install colpali-engine==0.3.12 transformers==4.53.3 -q\n"],
                },
                {
                    "cell_type": "code",
                    "metadata": {},
                    "outputs": [],
                    "execution_count": 2,
                    "source": [
                        "%%time\n",
                        "from colpali_engine.models import ColQwen2, ColQwen2Processor\n",
                        "import torch\n",
                        "m = ColQwen2.from_pretrained('vidore/colqwen2-v1.0', torch_dtype=torch.bfloat16, device_map='cuda').eval()\n",
                        "p = ColQwen2Processor.from_pretrained('vidore/colqwen2-v1.0')\n",
                    ],
                },
                {
                    "cell_type": "code",
                    "metadata": {},
                    "outputs": [],
                    "execution_count": 3,
                    "source": [
                        "with torch.no_grad():\n",
                        "    q = m(**p.process_queries(['what is the revenue?']).to('cuda'))\n",
                        "    d = m(**p.process_images(images).to('cuda'))\n",
                        "p.score_multi_vector(q, d)\n",
                    ],
                },
            ],
        }
    },
    "nb.ipynb",
)
add(
    "second, S-manual-prefix",
    None,
    {
        "embed.py": """import torch
from colpali_engine.models import ColQwen2, ColQwen2Processor
p = ColQwen2Processor.from_pretrained("vidore/colqwen2-v1.0", max_num_visual_tokens=768)
m = ColQwen2.from_pretrained("vidore/colqwen2-v1.0", torch_dtype=torch.bfloat16).eval()
def queries(texts):
    texts = ["Query: " + t + p.query_augmentation_token * 10 for t in texts]
    return m(**p.process_texts(texts))
""",
        "requirements.txt": "colpali-engine==0.3.13\ntransformers==4.57.1\n",
    },
)
add(
    "second, S-README-prose",
    None,
    {
        **click_script(),
        "README.md": "# ColQwen2 on our invoices\nWe first tried colpali-engine 0.3.1 with torchrun, gradient_accumulation_steps: 8 and float16 on V100s, which failed. Now see train.slurm.\n",
    },
)
add(
    "second, S-commented",
    None,
    {
        **(x := click_script()),
        "train.slurm": x["train.slurm"].replace(
            "torchrun",
            "# torchrun --nproc-per-node=16 finetune.py --precision fp16   # old\ntorchrun",
        ),
    },
)
add(
    "second, S-two-scripts",
    None,
    {
        **click_script(),
        "plot_losses.py": "import json\nimport matplotlib.pyplot as plt\nlog = json.load(open('trainer_state.json'))['log_history']\nplt.plot([l['loss'] for l in log if 'loss' in l])\n",
        "prepare_data.py": "from datasets import load_dataset\nload_dataset('vidore/colpali_train_set', split='train').save_to_disk('data_dir/colpali_train_set')\n",
    },
)
good = [0.69 * math.exp(-i / 40) + 0.02 + random.Random(i).uniform(-0.01, 0.01) for i in range(200)]
hist = [
    {
        "epoch": (i + 1) * 10 / 3694,
        "grad_norm": 0.8,
        "learning_rate": 5e-5 * min(1, (i + 1) / 50),
        "loss": loss,
        "step": (i + 1) * 10,
    }
    for i, loss in enumerate(good)
]
hist.insert(
    10,
    {
        "epoch": 0.03,
        "eval_loss": 0.3,
        "eval_runtime": 12.0,
        "eval_samples_per_second": 40.0,
        "step": 100,
    },
)
add(
    "second, S-state-odd",
    None,
    {
        "checkpoint-2000/trainer_state.json": {
            "epoch": 0.54,
            "global_step": 2000,
            "log_history": hist,
            "max_steps": 3694,
            "num_train_epochs": 1,
            "train_batch_size": 32,
        },
        "training_config.yml": "output_dir: out\nper_device_train_batch_size: 32\nlearning_rate: 5.0e-05\nnum_train_epochs: 1\nwarmup_steps: 500\n",
    },
)
add(
    "second, S-eval-mteb",
    None,
    {
        "eval_mteb.py": """import mteb
model = mteb.get_model("vidore/colqwen2-v1.0")
tasks = mteb.get_benchmark("ViDoRe(v1)").tasks
mteb.MTEB(tasks=tasks).run(model, output_folder="results", encode_kwargs={"batch_size": 16})
""",
        "requirements.txt": "mteb==2.12.30\ncolpali-engine==0.3.12\ntransformers==4.53.3\n",
    },
)
add("second, S-unsure", None, {"train.py": click_script()["finetune.py"]}, "train.py")
add(
    "second, S-trainer-subclass",
    None,
    {
        **(x := omegaconf_script(loss="softmax")),
        "src/main.py": x["src/main.py"].replace(
            "    t = ColModelTraining(config)\n",
            "    class Logged(ColModelTraining):\n        def train(self):\n            print('start')\n            super().train()\n\n    t = Logged(config)\n",
        ),
    },
)
