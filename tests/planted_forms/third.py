"""The third: TOML, own loops, fire, launchers, notebooks that write scripts, the engine's run folders."""

import math
import random

from planted_forms.batch import REG, add

OLD = "colpali-engine==0.3.12\ntransformers==4.53.3\ntorch==2.7.1\npeft==0.11.1\n"


# --- 1 TOML + tomllib + TrainingArguments(**)
def toml_script(
    ga=1,
    bs=32,
    dtype="bfloat16",
    norm="false",
    tok=768,
    req=OLD,
    cmd="uv run accelerate launch --num_processes=1 train.py config.toml",
    lr="5e-5",
    opt="adamw_torch",
    extra="",
    base="vidore/colqwen2-base",
):
    return {
        "config.toml": f'''base = "{base}"
dtype = "{dtype}"
visual_tokens = {tok}

[loss]
name = "ColbertPairwiseCELoss"
normalize_scores = {norm}

[lora]
r = 32
lora_alpha = 32
lora_dropout = 0.1
init_lora_weights = "gaussian"
target_modules = '{REG}'
task_type = "FEATURE_EXTRACTION"

[training]
output_dir = "out"
num_train_epochs = 1
per_device_train_batch_size = {bs}
gradient_accumulation_steps = {ga}
learning_rate = {lr}
warmup_steps = 500
optim = "{opt}"
gradient_checkpointing = true
{extra}
''',
        "train.py": """import sys
import tomllib
from pathlib import Path

import torch
from peft import LoraConfig
from transformers import TrainingArguments

import colpali_engine.loss as losses
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.trainer.colmodel_training import ColModelTraining, ColModelTrainingConfig
from colpali_engine.utils.dataset_transformation import load_train_set


def load_config(path):
    with open(path, "rb") as f:
        return tomllib.load(f)


def main(path="config.toml"):
    cfg = load_config(path)
    loss_cfg = dict(cfg["loss"])
    loss = getattr(losses, loss_cfg.pop("name"))(**loss_cfg)
    config = ColModelTrainingConfig(
        processor=ColQwen2Processor.from_pretrained(cfg["base"], max_num_visual_tokens=cfg["visual_tokens"]),
        model=ColQwen2.from_pretrained(cfg["base"], torch_dtype=getattr(torch, cfg["dtype"])),
        train_dataset=load_train_set(),
        run_eval=False,
        loss_func=loss,
        tr_args=TrainingArguments(**cfg["training"]),
        peft_config=LoraConfig(**cfg["lora"]),
    )
    app = ColModelTraining(config)
    app.train()
    app.save(config_file=Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
""",
        "requirements.txt": req,
        "run.sh": cmd + "\n",
    }


add("third, T-sound", None, toml_script())
add("third, T-sound-8bit", None, toml_script(opt="paged_adamw_8bit"))
add("third, T-t7", 7, toml_script(ga=8, bs=4))
add("third, T-t9", 9, toml_script(norm="true"))
add("third, T-t15", 15, toml_script(dtype="float16"))
add(
    "third, T-t6",
    6,
    toml_script(
        req=OLD.replace("0.3.12", "0.3.6"),
        bs=4,
        cmd="poetry run torchrun --nproc_per_node 8 train.py config.toml",
    ),
)
add("third, T-t3", 3, toml_script(base="Qwen/Qwen2-VL-2B-Instruct"))


# --- 2 accelerate own loop
def own_loop(
    ga="",
    n=4,
    gather="",
    dtype="torch.bfloat16",
    mp='"no"',
    cmd=None,
    loss="ColbertLoss(temperature=0.02, normalize_scores=True)",
    half="",
    base="vidore/colqwen2-base",
    q="processor.process_queries(queries)",
    req=OLD,
):
    return {
        "loop.py": f'''import torch
from accelerate import Accelerator
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from colpali_engine.loss.late_interaction_losses import ColbertLoss, ColbertPairwiseCELoss
from colpali_engine.models import ColQwen2, ColQwen2Processor

accelerator = Accelerator(mixed_precision={mp}{ga})
name = "{base}"
processor = ColQwen2Processor.from_pretrained(name, max_num_visual_tokens=768)
model = ColQwen2.from_pretrained(name, torch_dtype={dtype})
{half}
model = get_peft_model(model, LoraConfig(r=32, lora_alpha=32, lora_dropout=0.1, init_lora_weights="gaussian",
                                         task_type="FEATURE_EXTRACTION", target_modules="{REG}"))
criterion = {loss}


def collate(rows):
    queries = [r["query"] for r in rows]
    return {q}, processor.process_images([r["image"] for r in rows])


loader = DataLoader(load_dataset("vidore/colpali_train_set", split="train"), batch_size=32, shuffle=True, collate_fn=collate, num_workers=8, drop_last=True)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-5)
scheduler = get_linear_schedule_with_warmup(optimizer, 500, len(loader))
model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
model.train()
for queries, pages in tqdm(loader):
    with accelerator.accumulate(model):
        q, d = model(**queries), model(**pages)
        {gather}
        loss = criterion(q, d)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
''',
        "requirements.txt": req,
        "go.sh": (cmd or f"accelerate launch --num_processes {n} loop.py") + "\n",
    }


add("third, L-sound", None, own_loop(n=1))
add("third, L-t7", 7, own_loop(ga=", gradient_accumulation_steps=8", n=1))
add("third, L-t15", 15, own_loop(dtype="torch.float16", n=1))
add("third, L-t25", 25, own_loop(dtype="torch.float32", half="model.to(dtype=torch.bfloat16)", n=1))
add("third, L-t5", 5, own_loop(q="processor.process_texts(queries)", n=1))
add("third, L-t6", 6, own_loop(n=8))
add(
    "third, L-t4", 4, own_loop(n=1, req=OLD.replace("0.3.12", "0.3.13").replace("4.53.3", "4.57.0"))
)


# --- 3 fire, static config class, dtype choice
def fire_script(
    tail="",
    cls="",
    cmd="CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 nohup python finetune.py --per_device=4 > train.log 2>&1 &",
    req=OLD,
    tgt=REG,
    loss="ColbertPairwiseCELoss(normalize_scores=False)",
    dt="torch.bfloat16",
    data="load_train_set()",
    tok=768,
    ev="",
):
    return {
        "finetune.py": f'''import os

import fire
import torch
from peft import LoraConfig
from transformers import TrainingArguments

from colpali_engine.loss import ColbertLoss, ColbertPairwiseCELoss, ColbertPairwiseNegativeCELoss
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.trainer.colmodel_training import ColModelTraining, ColModelTrainingConfig
from colpali_engine.utils.dataset_transformation import *

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class CFG:
    BASE = "vidore/colqwen2-base"
    TOKENS = {tok}
    LORA = dict(r=32, lora_alpha=32, lora_dropout=0.1, bias="none", init_lora_weights="gaussian", task_type="FEATURE_EXTRACTION", target_modules="{tgt}")
    WARMUP = 500
    {cls}


try:
    import flash_attn  # noqa
    ATTN = "flash_attention_2"
except ImportError:
    ATTN = "sdpa"

DTYPE = {dt}


def train(per_device: int = 8, lr: float = 5e-5, epochs: int = 1, out: str = "out", accumulate: int = 1):
    args = TrainingArguments(
        output_dir=out, per_device_train_batch_size=per_device, learning_rate=lr, num_train_epochs=epochs,
        gradient_accumulation_steps=accumulate, warmup_steps=CFG.WARMUP, report_to="none", dataloader_num_workers=4,
    )
    processor = ColQwen2Processor.from_pretrained(CFG.BASE, max_num_visual_tokens=CFG.TOKENS)
    model = ColQwen2.from_pretrained(CFG.BASE, torch_dtype=DTYPE, attn_implementation=ATTN)
    {tail}
    conf = ColModelTrainingConfig(output_dir=out, processor=processor, model=model, train_dataset={data}, tr_args=args,
        loss_func={loss}, peft_config=LoraConfig(**CFG.LORA), run_eval={bool(ev)}{ev})
    ColModelTraining(conf).train()


if __name__ == "__main__":
    fire.Fire(train)
''',
        "requirements.txt": req,
        "start.sh": cmd + "\n",
    }


add("third, K-sound", None, fire_script())
add(
    "third, K-t7",
    7,
    fire_script(cmd="CUDA_VISIBLE_DEVICES=0 python finetune.py --per_device=2 --accumulate=16"),
)
add(
    "third, K-t11",
    11,
    fire_script(
        loss="ColbertPairwiseNegativeCELoss(in_batch_term_weight=0.5)",
        data="load_train_set_ir_negs()",
    ),
)
add("third, K-t12", 12, fire_script(data="load_train_set_detailed()"))
add("third, K-t27", 27, fire_script(tgt="(.*(q_proj|k_proj|v_proj|o_proj).*$)"))
add(
    "third, K-sound-choice",
    None,
    fire_script(dt="torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32"),
)
add("third, K-t21", 21, fire_script(tail="processor.image_processor.max_pixels = 1280 * 28 * 28"))
add(
    "third, K-t9",
    9,
    fire_script(loss="ColbertPairwiseCELoss(temperature=1.0, normalize_scores=True)"),
)
add("third, K-t18", 18, fire_script(loss="ColbertLoss(0.02, True, True)"))
add(
    "third, K-t24",
    24,
    fire_script(ev=", eval_dataset=load_eval_set('vidore/docvqa_test_subsampled')"),
)
add(
    "third, K-t23",
    23,
    {
        **(
            k := fire_script(
                req="colpali-engine==0.3.18\ntransformers==5.4.0\ntorch==2.10.0\npeft==0.18.1\n",
                tail='processor.query_prefix = "Query: "',
            )
        ),
        "finetune.py": k["finetune.py"].replace(
            "report_to=", "overwrite_output_dir=True, report_to="
        ),
    },
)
add(
    "third, K-t2",
    2,
    fire_script(
        req="colpali-engine==0.3.15\ntransformers==5.1.0\ntorch==2.10.0\n",
        tail='processor.query_prefix = "Query: "',
    ),
)
add(
    "third, K-t14",
    14,
    fire_script(
        req="colpali-engine==0.3.18\ntransformers>=5\ntorch>=2.4\npeft>=0.17\n",
        tail='processor.query_prefix = "Query: "',
    ),
)
add(
    "third, K-t20",
    20,
    fire_script(
        req="git+https://github.com/illuin-tech/colpali@830b9656655f1180230f3575d57c9b74b76232da\ntransformers==4.52.4\n",
        cmd="accelerate launch --multi_gpu --num_processes 8 finetune.py --per_device=4",
    ),
)

# --- 4 pytorchjob / compose / singularity / mpirun launches, same script
S = fire_script()["finetune.py"]
add(
    "third, J-sound",
    None,
    {
        "finetune.py": S,
        "requirements.txt": OLD,
        "submit.sh": "singularity exec --nv colpali.sif torchrun --nproc_per_node=8 finetune.py --per_device 4\n",
    },
)
add(
    "third, J-t6-docker",
    6,
    {
        "finetune.py": S,
        "requirements.txt": OLD.replace("0.3.12", "0.3.4"),
        "run.sh": "docker run --rm --gpus all -v $PWD:/w colpali:latest \\\n  torchrun --nproc_per_node=8 /w/finetune.py --per_device=4\n",
    },
)
add(
    "third, J-t6-mpi",
    6,
    {
        "finetune.py": S,
        "requirements.txt": OLD.replace("0.3.12", "0.3.10"),
        "run.sh": "mpirun -np 8 python finetune.py --per_device=4\n",
    },
)
add(
    "third, J-t6-include",
    6,
    {
        "finetune.py": S,
        "requirements.txt": OLD.replace("0.3.12", "0.3.8"),
        "run.sh": "deepspeed --include localhost:0,1,2,3 finetune.py --per_device=8\n",
    },
)
add(
    "third, J-t6-k8s",
    6,
    {
        "finetune.py": S,
        "requirements.txt": OLD.replace("0.3.12", "0.3.9"),
        "job.yaml": "apiVersion: kubeflow.org/v1\nkind: PyTorchJob\nmetadata: {name: colqwen}\nspec:\n  pytorchReplicaSpecs:\n    Worker:\n      replicas: 2\n      template:\n        spec:\n          containers:\n          - name: pytorch\n            image: colpali:latest\n            command: [torchrun, --nnodes=2, --nproc_per_node=4, finetune.py, --per_device=4]\n",
    },
)
add(
    "third, J-sound-loop",
    None,
    {
        "finetune.py": S,
        "requirements.txt": OLD,
        "sweep.sh": "for lr in 1e-5 5e-5; do\n  accelerate launch --multi_gpu --num_processes 8 finetune.py --per_device 4 --lr $lr --out out/$lr\ndone\n",
    },
)
add(
    "third, J-sound-noinfo",
    None,
    {
        "finetune.py": S,
        "requirements.txt": OLD,
        "run.sh": "accelerate launch finetune.py --per_device=4\n",
    },
)


# --- 5 notebook with writefile
def code_cell(s, o=()):
    return {
        "cell_type": "code",
        "metadata": {},
        "execution_count": None,
        "outputs": list(o),
        "source": s.splitlines(True),
    }


def cells(cells):
    return {"nbformat": 4, "nbformat_minor": 0, "metadata": {"accelerator": "GPU"}, "cells": cells}


def notebook_that_writes(
    args="--per_device=32",
    req="colpali-engine==0.3.12 transformers==4.53.3",
    script=S,
    smi="NVIDIA A100-SXM4-40GB",
):
    return {
        "train.ipynb": cells(
            [
                code_cell(
                    "!nvidia-smi",
                    [
                        {
                            "output_type": "stream",
                            "name": "stdout",
                            "text": [f"|   0  {smi}   On |\n"],
                        }
                    ],
                ),
                code_cell(f"!pip install {req}"),
                code_cell("%%writefile finetune.py\n" + script),
                code_cell(f"!python finetune.py {args}"),
            ]
        )
    }


add("third, W-sound", None, notebook_that_writes(), "train.ipynb")
add("third, W-t7", 7, notebook_that_writes(args="--per_device=2 --accumulate=16"), "train.ipynb")
add("third, W-t28", 28, notebook_that_writes(smi="Tesla T4"), "train.ipynb")
add(
    "third, W-t4",
    4,
    notebook_that_writes(req="colpali-engine==0.3.14 transformers==4.57.1"),
    "train.ipynb",
)

# --- 6 run folders of engine
ad = {
    "base_model_name_or_path": "vidore/colqwen2-base",
    "bias": "none",
    "init_lora_weights": "gaussian",
    "lora_alpha": 32,
    "lora_dropout": 0.1,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 32,
    "target_modules": REG,
    "task_type": "FEATURE_EXTRACTION",
}


def log_of(losses, bs=32, mx=3694):
    return {
        "epoch": len(losses) * 10 / mx,
        "global_step": len(losses) * 10,
        "max_steps": mx,
        "num_train_epochs": 1,
        "train_batch_size": bs,
        "logging_steps": 10,
        "log_history": [
            {
                "epoch": i * 10 / mx,
                "grad_norm": 0.9,
                "learning_rate": 5e-5,
                "loss": round(loss, 4),
                "step": i * 10,
            }
            for i, loss in enumerate(losses, 1)
        ],
    }


random.seed(3)
good = [0.65 * math.exp(-i / 25) + 0.03 + random.uniform(-0.01, 0.01) for i in range(150)]
YML = f"""config:
  (): colpali_engine.trainer.colmodel_training.ColModelTrainingConfig
  output_dir: ./models/colqwen2-mine
  processor:
    (): colpali_engine.utils.transformers_wrappers.AllPurposeWrapper
    class_to_instanciate: !ext colpali_engine.models.ColQwen2Processor
    pretrained_model_name_or_path: ./models/colqwen2_base
  model:
    (): colpali_engine.utils.transformers_wrappers.AllPurposeWrapper
    class_to_instanciate: !ext colpali_engine.models.ColQwen2
    pretrained_model_name_or_path: ./models/colqwen2_base
    torch_dtype: !ext torch.bfloat16
  dataset_loading_func: !ext colpali_engine.utils.dataset_transformation.load_train_set
  run_eval: true
  loss_func:
    (): colpali_engine.loss.late_interaction_losses.ColbertPairwiseCELoss
  tr_args:
    (): transformers.training_args.TrainingArguments
    output_dir: null
    num_train_epochs: 1
    per_device_train_batch_size: 4
    warmup_steps: 500
    learning_rate: 5e-5
  peft_config:
    (): peft.LoraConfig
    r: 32
    lora_alpha: 32
    lora_dropout: 0.1
    init_lora_weights: "gaussian"
    bias: "none"
    task_type: "FEATURE_EXTRACTION"
    target_modules: '{REG}'
"""
G1, G4 = "782edcd50108d1842d154730ad3ce72476a2d17d", "9bdcb8aa831711014199b9acd031a56cba37638e"
add(
    "third, E-sound",
    None,
    {
        "training_config.yml": YML,
        "adapter_config.json": ad,
        "git_hash.txt": G4,
        "checkpoint-1500/trainer_state.json": log_of(good),
    },
)
add(
    "third, E-t6",
    6,
    {
        "training_config.yml": YML,
        "adapter_config.json": ad,
        "git_hash.txt": G4,
        "trainer_state.json": log_of(good, bs=4),
        "launch.sh": "torchrun --nproc_per_node 8 train_colbert.py cfg.yml\n",
    },
)
add(
    "third, E-t8",
    8,
    {
        "training_config.yml": YML,
        "adapter_config.json": ad,
        "git_hash.txt": G1,
        "trainer_state.json": log_of([0.6931 + random.uniform(-0.003, 0.003) for _ in range(80)]),
    },
)
add(
    "third, E-t7",
    7,
    {
        "training_config.yml": YML.replace(
            "    warmup_steps", "    gradient_accumulation_steps: 8\n    warmup_steps"
        ),
        "adapter_config.json": ad,
        "git_hash.txt": G4,
    },
)
add("third, E-t27", 27, {"training_config.yml": YML.replace("|o_proj)", ")"), "git_hash.txt": G4})
add(
    "third, E-t10",
    10,
    {
        "training_config.yml": YML.replace("colqwen2-mine", "colqwen2-v0.1").replace(
            "5e-5", "2e-4"
        ),
        "git_hash.txt": G4,
    },
)
add(
    "third, E-t9",
    9,
    {"training_config.yml": YML, "git_hash.txt": "0fcbe49a225b54a5b80b2a70dda3248f7de852f2"},
)
add("third, E-state-spike", None, {"trainer_state.json": log_of([*good[:60], 5.2, *good[60:]])})
add(
    "third, E-state-early-plateau",
    None,
    {"trainer_state.json": log_of([0.693 - 0.0006 * i * (i > 3) for i in range(8)] + good)},
)

# --- 7 ST family
ST = """from datasets import load_dataset
from sentence_transformers import {cls}, {cls}Trainer, {cls}TrainingArguments
from sentence_transformers.{pkg}.losses import {loss}
model = {cls}("{m}")
ds = load_dataset("{ds}", split="train")
args = {cls}TrainingArguments(output_dir="o", per_device_train_batch_size=64, num_train_epochs={ep}, bf16=True, learning_rate=2e-5{more})
{cls}Trainer(model=model, args=args, train_dataset=ds, loss={loss}(model{lk})).train()
"""
R6 = "sentence-transformers==6.2.0\ntransformers==5.23.0\n"
add(
    "third, ST-sound-sparse",
    None,
    {
        "train.py": ST.format(
            cls="SparseEncoder",
            pkg="sparse_encoder",
            loss="SparseMultipleNegativesRankingLoss",
            m="naver/splade-v3",
            ds="sentence-transformers/natural-questions",
            ep=1,
            more="",
            lk="",
        ),
        "requirements.txt": R6,
    },
)
add(
    "third, ST-sound-cross",
    None,
    {
        "train.py": ST.format(
            cls="CrossEncoder",
            pkg="cross_encoder",
            loss="BinaryCrossEntropyLoss",
            m="answerdotai/ModernBERT-base",
            ds="sentence-transformers/gooaq",
            ep=1,
            more="",
            lk="",
        ),
        "requirements.txt": R6,
    },
)
mv = {
    "cls": "MultiVectorEncoder",
    "pkg": "multi_vector_encoder",
    "loss": "MultiVectorMultipleNegativesRankingLoss",
    "ds": "vidore/colpali_train_set",
}
add(
    "third, ST-sound-mv",
    None,
    {
        "train.py": ST.format(**mv, m="vidore/colqwen2-v1.0", ep=1, more="", lk=", scale=1.0"),
        "requirements.txt": R6,
    },
)
add(
    "third, ST-tF3",
    "F3",
    {
        "train.py": ST.format(
            **mv,
            m="vidore/colqwen2-v1.0",
            ep=3,
            more=', batch_sampler="no_duplicates"',
            lk=", gather_across_devices=True",
        ),
        "requirements.txt": R6,
        "run.sh": "torchrun --nproc_per_node=2 train.py\n",
    },
)
add(
    "third, ST-tF1",
    "F1",
    {
        "train.py": ST.format(
            **(mv | {"loss": "CachedMultiVectorMultipleNegativesRankingLoss"}),
            m="vidore/colqwen2-v1.0-hf",
            ep=1,
            more="",
            lk=", mini_batch_size=2",
        ),
        "requirements.txt": R6,
    },
)
add(
    "third, ST-t6",
    6,
    {
        "train.py": ST.format(**mv, m="vidore/colqwen2-v1.0", ep=1, more="", lk=""),
        "requirements.txt": R6,
        "run.sh": "accelerate launch --multi_gpu --num_processes=4 train.py\n",
    },
)
add(
    "third, ST-t7",
    7,
    {
        "train.py": ST.format(
            **mv, m="vidore/colqwen2-v1.0", ep=1, more=", gradient_accumulation_steps=8", lk=""
        ),
        "requirements.txt": R6,
        "run.sh": "python train.py\n",
    },
)
add(
    "third, PL-tF4",
    "F4",
    {
        "train.py": "from pylate import losses, models, utils\nfrom sentence_transformers import SentenceTransformerTrainer as T, SentenceTransformerTrainingArguments as A\nimport datasets\nm = models.ColBERT(model_name_or_path='bert-base-uncased', device='cuda')\nargs = A(output_dir='o', per_device_train_batch_size=512, learning_rate=3e-6, fp16=False, bf16=True)\nT(model=m, args=args, train_dataset=datasets.load_dataset('x'), loss=losses.CachedContrastive(model=m, mini_batch_size=32), data_collator=utils.ColBERTCollator(m.tokenize)).train()\n",
        "requirements.txt": "pylate==1.3.0\n",
    },
)
add(
    "third, PL-sound",
    None,
    {
        "train.py": "from pylate import losses, models, utils\nfrom sentence_transformers import SentenceTransformerTrainer as T, SentenceTransformerTrainingArguments as A\nimport datasets\nm = models.ColBERT(model_name_or_path='bert-base-uncased', device='cuda')\nargs = A(output_dir='o', per_device_train_batch_size=64, learning_rate=3e-6, bf16=True)\nT(model=m, args=args, train_dataset=datasets.load_dataset('x'), loss=losses.Contrastive(model=m), data_collator=utils.ColBERTCollator(m.tokenize)).train()\n",
        "requirements.txt": "pylate==1.3.0\n",
    },
)
add(
    "third, HF-tF2",
    "F2",
    {
        "embed.py": "import torch\nfrom transformers import ColQwen2ForRetrieval, ColQwen2Processor\nM = 'vidore/colqwen2-v1.0-hf'\nmodel = ColQwen2ForRetrieval.from_pretrained(M, dtype=torch.bfloat16, device_map='auto').eval()\nproc = ColQwen2Processor.from_pretrained(M)\nq = model(**proc(text=['a'])).embeddings\n",
        "requirements.txt": "transformers==5.10.0\ntorch==2.9.0\n",
    },
)
add(
    "third, HF-sound",
    None,
    {
        "embed.py": "import torch\nfrom transformers import ColQwen2ForRetrieval, ColQwen2Processor\nM = 'vidore/colqwen2-v1.0-hf'\nmodel = ColQwen2ForRetrieval.from_pretrained(M, torch_dtype=torch.bfloat16, device_map='auto').eval()\nproc = ColQwen2Processor.from_pretrained(M)\nq = model(**proc(text=['a'])).embeddings\n",
        "requirements.txt": "transformers==4.53.3\ntorch==2.7.1\n",
    },
)
# --- 8 evals
add(
    "third, V-t13",
    13,
    {
        "eval.sh": "pip install mteb==1.12.0 vidore-benchmark==4.0.0\nvidore-benchmark evaluate-retriever --model-class colqwen2 --model-name vidore/colqwen2-v1.0 --dataset-name vidore/docvqa_test_subsampled\n",
        "evaluate.py": "from colpali_engine.trainer.eval_utils import CustomRetrievalEvaluator\nfrom colpali_engine.models import ColQwen2, ColQwen2Processor\nimport torch\nm = ColQwen2.from_pretrained('vidore/colqwen2-v1.0', torch_dtype=torch.bfloat16)\np = ColQwen2Processor.from_pretrained('vidore/colqwen2-v1.0')\nq = m(**p.process_queries(['a']))\nCustomRetrievalEvaluator().compute_mteb_metrics({}, {})\n",
        "requirements.txt": "colpali-engine==0.3.5\n",
    },
)
add(
    "third, V-sound",
    None,
    {
        "eval.py": "import mteb\nm = mteb.get_model('vidore/colqwen2-v1.0')\nb = mteb.get_benchmark('ViDoRe(v1)')\nmteb.evaluate(m, b.tasks)\n",
        "requirements.txt": "mteb==2.20.0\n",
    },
)
add(
    "third, V-t5",
    5,
    {
        "encode.py": "import torch\nfrom colpali_engine.models import ColQwen2, ColQwen2Processor\nm = ColQwen2.from_pretrained('vidore/colqwen2-v1.0', torch_dtype=torch.bfloat16).eval()\np = ColQwen2Processor.from_pretrained('vidore/colqwen2-v1.0')\n\ndef embed(texts):\n    batch = p.process_queries([f'Query: {t}' for t in texts]).to(m.device)\n    return m(**batch)\n",
        "requirements.txt": "colpali-engine==0.3.10\ntransformers==4.52.4\n",
    },
)
