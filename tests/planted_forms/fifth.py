"""The fifth: parsers of dataclasses, containers and lock files, searching, logs, folders of the hub."""

import json
import math
import random

from planted_forms.batch import REG, add

OLD = "colpali-engine==0.3.12\ntransformers==4.53.3\ntorch==2.7.1\npeft==0.11.1\n"
PINS = OLD


# HfArgumentParser with own dataclasses + json positional
def parser_of_dataclasses(
    cfg=None, over="", req=PINS, cmd="python run_train.py config/args.json", tail=""
):
    c = {
        "model_name": "vidore/colqwen2-base",
        "max_tokens": 768,
        "dtype": "bfloat16",
        "loss": "pairwise",
        "normalize": False,
        "dataset": "vidore/colpali_train_set",
        "output_dir": "o",
        "per_device_train_batch_size": 32,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1,
        "learning_rate": 5e-5,
        "warmup_steps": 500,
        "gradient_checkpointing": True,
    } | (cfg or {})
    return {
        "config/args.json": c,
        "run_train.py": f'''import os, sys
from dataclasses import dataclass, field
from typing import Literal
import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import HfArgumentParser, TrainingArguments
from colpali_engine.data.dataset import ColPaliEngineDataset
from colpali_engine.loss.late_interaction_losses import ColbertLoss, ColbertPairwiseCELoss
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.trainer.colmodel_training import ColModelTraining, ColModelTrainingConfig


@dataclass
class ModelArguments:
    model_name: str = field(default="vidore/colqwen2-base", metadata={{"help": "base"}})
    max_tokens: int = field(default=768)
    dtype: str = "bfloat16"
    lora_r: int = 32
    lora_targets: str = r"{REG}"


@dataclass
class DataArguments:
    dataset: str = "vidore/colpali_train_set"
    loss: Literal["pairwise", "softmax"] = "pairwise"
    normalize: bool = False


def main():
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    if len(sys.argv) == 2 and sys.argv[1].endswith(".json"):
        model_args, data_args, training_args = parser.parse_json_file(json_file=os.path.abspath(sys.argv[1]))
    else:
        model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    {over}
    processor = ColQwen2Processor.from_pretrained(model_args.model_name, max_num_visual_tokens=model_args.max_tokens)
    {tail}
    losses = {{"pairwise": ColbertPairwiseCELoss(normalize_scores=data_args.normalize), "softmax": ColbertLoss(0.02)}}
    cfg = ColModelTrainingConfig(
        processor=processor,
        model=ColQwen2.from_pretrained(model_args.model_name, torch_dtype=getattr(torch, model_args.dtype)),
        train_dataset=ColPaliEngineDataset(load_dataset(data_args.dataset)["train"], pos_target_column_name="image"),
        tr_args=training_args, loss_func=losses[data_args.loss], run_eval=False,
        peft_config=LoraConfig(r=model_args.lora_r, lora_alpha=32, lora_dropout=0.1, init_lora_weights="gaussian", bias="none", task_type="FEATURE_EXTRACTION", target_modules=model_args.lora_targets))
    ColModelTraining(cfg).train()


if __name__ == "__main__":
    main()
''',
        "requirements.txt": req,
        "run.sh": cmd + "\n",
    }


add("fifth, HF-sound", None, parser_of_dataclasses())
add(
    "fifth, HF-sound-cli",
    None,
    parser_of_dataclasses(
        cmd="python run_train.py --output_dir o --per_device_train_batch_size 32 --num_train_epochs 1 --warmup_steps 500"
    ),
)
add(
    "fifth, HF-t7",
    7,
    parser_of_dataclasses({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 16}),
)
add(
    "fifth, HF-t7-cli",
    7,
    parser_of_dataclasses(
        cmd="python run_train.py --output_dir o --per_device_train_batch_size 4 --gradient_accumulation_steps 8 --num_train_epochs 1 --warmup_steps 500"
    ),
)
add("fifth, HF-t9", 9, parser_of_dataclasses({"normalize": True}))
add("fifth, HF-t15", 15, parser_of_dataclasses({"dtype": "float16"}))
add("fifth, HF-t12", 12, parser_of_dataclasses({"dataset": "vidore/colpali_train_set_detailed"}))
add("fifth, HF-t3", 3, parser_of_dataclasses({"model_name": "Qwen/Qwen2-VL-2B-Instruct"}))
add(
    "fifth, HF-t6",
    6,
    parser_of_dataclasses(
        {"per_device_train_batch_size": 4},
        req=PINS.replace("0.3.12", "0.3.8"),
        cmd="torchrun --nproc_per_node=8 run_train.py config/args.json",
    ),
)
add("fifth, HF-t25", 25, parser_of_dataclasses(tail='processor.tokenizer.padding_side = "right"'))
add(
    "fifth, HF-t7-post",
    7,
    parser_of_dataclasses(
        over="training_args.gradient_accumulation_steps = 8; training_args.per_device_train_batch_size = 4"
    ),
)
# poetry/uv lock, Dockerfile, compose
S = parser_of_dataclasses()["run_train.py"]
J = parser_of_dataclasses()["config/args.json"]
add(
    "fifth, D-t4-dockerfile",
    4,
    {
        "run_train.py": S,
        "config/args.json": J,
        "Dockerfile": 'FROM pytorch/pytorch:2.7.1-cuda12.6-cudnn9-devel\nRUN pip install --no-cache-dir \\\n    colpali-engine==0.3.14 \\\n    transformers==4.57.1\nCOPY . /app\nWORKDIR /app\nCMD ["python", "run_train.py", "config/args.json"]\n',
    },
)
add(
    "fifth, D-sound-lock",
    None,
    {
        "run_train.py": S,
        "config/args.json": J,
        "uv.lock": 'version = 1\n\n[[package]]\nname = "colpali-engine"\nversion = "0.3.12"\n\n[[package]]\nname = "transformers"\nversion = "4.53.3"\n',
        "run.sh": "uv run python run_train.py config/args.json\n",
    },
)
add(
    "fifth, D-t4-lock",
    4,
    {
        "run_train.py": S,
        "config/args.json": J,
        "uv.lock": 'version = 1\n\n[[package]]\nname = "colpali-engine"\nversion = "0.3.13"\nsource = { registry = "https://pypi.org/simple" }\n\n[[package]]\nname = "transformers"\nversion = "4.57.1"\n',
        "run.sh": "uv run python run_train.py config/args.json\n",
    },
)
J6 = J | {"per_device_train_batch_size": 4}
add(
    "fifth, D-t6-compose",
    6,
    {
        "run_train.py": S,
        "config/args.json": J6,
        "requirements.txt": PINS.replace("0.3.12", "0.3.9"),
        "docker-compose.yml": "services:\n  train:\n    build: .\n    command: torchrun --nproc_per_node=8 run_train.py config/args.json\n    deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}\n",
    },
)
add(
    "fifth, D-t6-srun",
    6,
    {
        "run_train.py": S,
        "config/args.json": J6,
        "requirements.txt": PINS.replace("0.3.12", "0.3.10"),
        "train.slurm": "#!/bin/bash\n#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=4\n#SBATCH --gpus-per-task=1\nexport MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n1)\nsrun python run_train.py config/args.json\n",
    },
)
add(
    "fifth, D-t28-slurm",
    28,
    {
        "run_train.py": S,
        "config/args.json": J,
        "requirements.txt": PINS,
        "train.slurm": "#!/bin/bash\n#SBATCH --partition=gpu\n#SBATCH --constraint=V100-32GB\n#SBATCH --gres=gpu:1\npython run_train.py config/args.json\n",
    },
)
add(
    "fifth, D-sound-slurm",
    None,
    {
        "run_train.py": S,
        "config/args.json": J,
        "requirements.txt": PINS,
        "train.slurm": "#!/bin/bash\n#SBATCH --partition=gpu\n#SBATCH --constraint=a100-80GB\n#SBATCH --gres=gpu:1\npython run_train.py config/args.json\n",
    },
)
# pep723
add(
    "fifth, P-t9",
    9,
    {
        "t.py": '# /// script\n# requires-python = ">=3.11"\n# dependencies = [\n#   "colpali-engine==0.3.12",\n#   "transformers==4.53.3",\n# ]\n# ///\n'
        + S.replace("normalize_scores=data_args.normalize", "")
    },
    "t.py",
)


# eval & inference variants
def search_script(
    q="p.process_queries(batch)",
    load="vidore/colqwen2-v1.0",
    req=PINS,
    pre="",
    dt="torch.bfloat16",
    proc="from colpali_engine.models import ColQwen2, ColQwen2Processor",
    fast="",
):
    return {
        "search.py": f'''import torch
from torch.utils.data import DataLoader
{proc}

device = "cuda" if torch.cuda.is_available() else "cpu"
m = ColQwen2.from_pretrained("{load}", torch_dtype={dt}, device_map=device).eval()
p = ColQwen2Processor.from_pretrained("{load}"{fast})
{pre}

def encode(texts):
    out = []
    for batch in DataLoader(texts, batch_size=8, collate_fn=list):
        with torch.inference_mode():
            out += list(torch.unbind(m(**{q}.to(device)).cpu()))
    return out
''',
        "requirements.txt": req,
    }


add("fifth, V-sound", None, search_script())
add(
    "fifth, V-sound-pre",
    None,
    search_script(
        req=PINS.replace("0.3.12", "0.3.14").replace("4.53.3", "4.57.1"),
        pre='p.query_prefix = "Query: "',
    ),
)
add(
    "fifth, V-t4",
    4,
    search_script(req=PINS.replace("0.3.12", "0.3.14").replace("4.53.3", "4.57.1")),
)
add("fifth, V-t5", 5, search_script(q='p.process_queries(["Query: " + b for b in batch])'))
add("fifth, V-t5b", 5, search_script(q='p.process_texts(["Query: %s" % b for b in batch])'))
add(
    "fifth, V-tF5",
    "F5",
    search_script(
        proc="from colpali_engine.models import ColQwen2\nfrom transformers import AutoProcessor as ColQwen2Processor"
    ),
)
add("fifth, V-t25", 25, search_script(dt="torch.float32", pre="m = m.half()"))
add("fifth, V-t21", 21, search_script(pre="p.image_processor.max_pixels = 2048 * 28 * 28"))
add(
    "fifth, V-t1",
    1,
    {
        "adapter_config.json": {
            "base_model_name_or_path": "vidore/colqwen2-base",
            "peft_type": "LORA",
            "r": 32,
            "lora_alpha": 32,
            "target_modules": REG,
            "init_lora_weights": "gaussian",
            "lora_dropout": 0.1,
        },
        "coltrain.json": "{}",
    },
)
random.seed(9)


def log_of(losses, **k):
    return {
        "epoch": 1.0,
        "global_step": len(losses) * 10,
        "max_steps": len(losses) * 10,
        "num_train_epochs": 1,
        "train_batch_size": 64,
        "log_history": [
            {
                "epoch": i / len(losses),
                "grad_norm": 0.9,
                "learning_rate": 5e-5 * (1 - i / len(losses)),
                "loss": loss,
                "step": i * 10,
            }
            for i, loss in enumerate(losses, 1)
        ],
    } | k


add("fifth, S-t15-nan", 15, {"trainer_state.json": log_of([0.6, 0.5, 0.45] + [float("nan")] * 20)})
add(
    "fifth, S-t15-zero",
    15,
    {
        "trainer_state.json": json.loads(
            json.dumps(log_of([0.6, 0.5] + [0.0] * 30)).replace(
                '"grad_norm": 0.9', '"grad_norm": 0.0'
            )
        )
    },
)
add(
    "fifth, S-t8-64",
    8,
    {"trainer_state.json": log_of([math.log(64) + random.uniform(-0.01, 0.01) for _ in range(50)])},
)
add(
    "fifth, S-sound",
    None,
    {"trainer_state.json": log_of([0.7 * 0.97**i + 0.02 for i in range(100)])},
)
add(
    "fifth, S-sound-eval-only-tail",
    None,
    {
        "trainer_state.json": log_of(
            [0.7 * 0.95**i + 0.02 for i in range(60)],
            log_history=log_of([0.7 * 0.95**i + 0.02 for i in range(60)])["log_history"]
            + [
                {
                    "epoch": 1.0,
                    "step": 600,
                    "total_flos": 0.0,
                    "train_loss": 0.11,
                    "train_runtime": 3600.0,
                }
            ],
        )
    },
)
add(
    "fifth, S-sound-hub",
    None,
    {
        "adapter_config.json": {
            "base_model_name_or_path": "vidore/colqwen2-base",
            "peft_type": "LORA",
            "r": 32,
            "lora_alpha": 32,
            "target_modules": REG,
            "init_lora_weights": "gaussian",
            "lora_dropout": 0.1,
            "modules_to_save": None,
            "corda_config": None,
            "eva_config": None,
            "task_type": "FEATURE_EXTRACTION",
            "use_dora": False,
        },
        "README.md": "---\nbase_model: vidore/colqwen2-base\n---\n# x\nUse it with `colpali-engine>=0.3.4` and fp16 on a T4.\n",
        "training_args.bin": "PK",
        "preprocessor_config.json": {
            "max_pixels": 602112,
            "min_pixels": 3136,
            "size": {"longest_edge": 602112, "shortest_edge": 3136},
            "patch_size": 14,
            "merge_size": 2,
            "temporal_patch_size": 2,
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "ColQwen2Processor",
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "do_convert_rgb": True,
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
    },
)
