"""The sixth: plain loops under accelerate, deepspeed, ray and clouds, printed logs, cards that a trainer writes."""

import random

from planted_forms.batch import REG, add

PINS = (
    "colpali-engine==0.3.12\ntransformers==4.53.3\ntorch==2.7.1\npeft==0.17.1\naccelerate==1.8.1\n"
)
TODAY = "colpali-engine==0.3.18\ntransformers==5.3.0\ntorch==2.9.0\npeft==0.18.0\n"


# A: a plain loop under accelerate, the loss written out, deepspeed's file beside it
def plain_loop(
    *,
    gather="gather(docs)",
    gather_body=None,
    sims='torch.einsum("qnd,csd->qcns", queries.float(), docs.float()).amax(dim=3).sum(dim=2)',
    load="ColQwen2.from_pretrained(args.base, torch_dtype=torch.bfloat16)",
    after="",
    rows="",
    data='load_dataset("vidore/colpali_train_set", split="train")',
    queries='processor.process_queries([r["query"] for r in rows])',
    accum="1",
    precision="no",
    launch="accelerate launch --config_file acc.yaml loop.py --bs 4",
    processes=8,
    cpu="false",
    more=None,
    loop_start="",
    peft="get_peft_model(model, lora)",
):
    body = (
        gather_body
        or """    longest = torch.tensor(x.shape[1], device=x.device)
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    x = F.pad(x, (0, 0, int(longest) - x.shape[1], 0))
    return torch.cat(dist_nn.all_gather(x.contiguous()), dim=0)"""
    )
    return {
        "loop.py": f'''#!/usr/bin/env python
import argparse
import math

import torch
import torch.distributed as dist
import torch.distributed.nn as dist_nn
import torch.nn.functional as F
from accelerate import Accelerator
from colpali_engine.models import ColQwen2, ColQwen2Processor
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup


def gather(x):
    if not dist.is_initialized():
        return x
{body}


def contrast(queries, docs, offset):
    docs = {gather}
    scores = {sims}
    target = torch.arange(len(queries), device=scores.device) + offset
    positive = scores.gather(1, target[:, None]).squeeze(1)
    others = scores.scatter(1, target[:, None], -math.inf).amax(dim=1)
    return F.softplus(others - positive).mean()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--base", default="vidore/colqwen2-base")
    ap.add_argument("--bs", type=int, default=32)
    ap.add_argument("--lr", type=float, default=5e-5)
    ap.add_argument("--warmup", type=int, default=500)
    ap.add_argument("--epochs", type=int, default=1)
    args = ap.parse_args()
    accelerator = Accelerator(gradient_accumulation_steps={accum}, mixed_precision="{precision}")
    processor = ColQwen2Processor.from_pretrained(args.base, max_num_visual_tokens=768)
    model = {load}
    lora = LoraConfig(r=32, lora_alpha=32, lora_dropout=0.1, bias="none", init_lora_weights="gaussian",
                      task_type="FEATURE_EXTRACTION", target_modules=r"{REG}")
    model = {peft}
    {after}
    rows_all = {data}
    {rows}

    def collate(rows):
        return ({queries},
                processor.process_images([r["image"].convert("RGB") for r in rows]))

    loader = DataLoader(rows_all, batch_size=args.bs, shuffle=True, drop_last=True, collate_fn=collate, num_workers=4)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=args.lr, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, args.warmup, args.epochs * len(loader))
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    for epoch in range(args.epochs):
        {loop_start}
        for queries, pages in loader:
            with accelerator.accumulate(model):
                loss = contrast(model(**queries), model(**pages), accelerator.process_index * args.bs)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
    accelerator.unwrap_model(model).save_pretrained("out")


if __name__ == "__main__":
    main()
''',
        "acc.yaml": f"compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nnum_machines: 1\nnum_processes: {processes}\nuse_cpu: {cpu}\nmixed_precision: '{precision}'\n",
        "requirements.txt": PINS,
        "train.sh": f"#!/usr/bin/env bash\nset -euo pipefail\n{launch}\n",
    } | (more or {})


add("sixth, A-sound", None, plain_loop())
add(
    "sixth, A-sound-one",
    None,
    plain_loop(launch="python loop.py --bs 32", processes=1),
)
add(
    "sixth, A-sound-scaled",
    None,
    plain_loop(
        load="ColQwen2.from_pretrained(args.base, torch_dtype=torch.float32)", precision="bf16"
    ),
)
add(
    "sixth, A-t20",
    20,
    plain_loop(
        gather_body="    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]\n    dist.all_gather(parts, x)\n    parts[dist.get_rank()] = x\n    return torch.cat(parts)"
    ),
)
add("sixth, A-t6", 6, plain_loop(gather="docs"))
add(
    "sixth, A-t7",
    7,
    plain_loop(accum="8", launch="python loop.py --bs 4", processes=1),
)
add(
    "sixth, A-t18",
    18,
    plain_loop(
        sims='0.1 * torch.logsumexp(torch.einsum("qnd,csd->qcns", queries.float(), docs.float()) / 0.1, dim=3).sum(dim=2)'
    ),
)
add(
    "sixth, A-t3",
    3,
    plain_loop(
        after="torch.nn.init.normal_(model.base_model.model.custom_text_proj.weight, std=0.02)"
    ),
)
add(
    "sixth, A-t16",
    16,
    plain_loop(
        after='for name, p in model.named_parameters():\n        if "lora_" in name:\n            p.data = p.data.to(torch.bfloat16)'
    ),
)
add(
    "sixth, A-t16-peft",
    16,
    plain_loop(peft="get_peft_model(model, lora, autocast_adapter_dtype=False)"),
)
add(
    "sixth, A-t19",
    19,
    plain_loop(
        rows='rows_all = [{"query": q, "image": r["image"]} for r in rows_all for q in r["queries"]]',
        data='load_dataset("acme/manuals-with-queries", split="train")',
    ),
)
add(
    "sixth, A-t12",
    12,
    plain_loop(data='load_dataset("vidore/colpali_train_set", split="train[:40%]")'),
)
add(
    "sixth, A-t12-select",
    12,
    plain_loop(rows="rows_all = rows_all.shuffle(seed=0).select(range(20_000))"),
)
add(
    "sixth, A-t26",
    26,
    plain_loop(
        cpu="true",
        processes=2,
        gather_body="    return torch.cat(dist_nn.all_gather(x), dim=0)",
        launch="accelerate launch --cpu --num_processes 2 loop.py --bs 16",
    ),
)
add(
    "sixth, A-t5-suffix",
    5,
    plain_loop(queries='processor.process_queries([r["query"] for r in rows], suffix="")'),
)
add(
    "sixth, A-t25",
    25,
    plain_loop(
        load="ColQwen2.from_pretrained(args.base, torch_dtype=torch.float32)",
        after='model = model.to("cuda", torch.bfloat16)',
    ),
)
add(
    "sixth, A-tF3",
    "F3",
    plain_loop(
        loop_start="torch.manual_seed(42)",
        launch="accelerate launch --config_file acc.yaml loop.py --bs 4 --epochs 5",
    ),
)


# B: the trainer with deepspeed's file, ray and clouds
def by_trainer(
    *,
    base="vidore/colqwen2-base",
    dtype="torch.bfloat16",
    bs=32,
    args="",
    loss="ColbertPairwiseCELoss(normalize_scores=False)",
    head="",
    tail="",
    train_set="load_train_set()",
    ds=None,
    pins=PINS,
    run="python fit.py",
    files=None,
    attention="sdpa",
    processor="max_num_visual_tokens=768",
    after="",
    evaluation="run_eval=False",
    main="train()",
):
    written = {
        "fit.py": f'''from functools import partial

import torch
from colpali_engine.loss import ColbertLoss, ColbertPairwiseCELoss
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.trainer.colmodel_training import ColModelTraining, ColModelTrainingConfig
from colpali_engine.utils.dataset_transformation import load_train_set
from peft import LoraConfig
from transformers import TrainingArguments
{head}


def train():
    processor = ColQwen2Processor.from_pretrained("{base}", {processor})
    model = ColQwen2.from_pretrained("{base}", torch_dtype={dtype}, attn_implementation="{attention}")
    {after}
    arguments = TrainingArguments(
        output_dir="out", per_device_train_batch_size={bs}, num_train_epochs=1, learning_rate=5e-5, warmup_steps=500,
        gradient_checkpointing=True, gradient_checkpointing_kwargs={{"use_reentrant": False}}, {args}
    )
    lora = LoraConfig(r=32, lora_alpha=32, lora_dropout=0.1, init_lora_weights="gaussian", bias="none",
                      task_type="FEATURE_EXTRACTION", target_modules=r"{REG}")
    app = ColModelTraining(ColModelTrainingConfig(
        output_dir="out", processor=processor, model=model, tr_args=arguments, peft_config=lora,
        train_dataset={train_set}, {evaluation}, loss_func={loss}))
    app.train()
    app.save()


{tail}
if __name__ == "__main__":
    {main}
''',
        "requirements.txt": pins,
        "run.sh": run + "\n",
    }
    if ds is not None:
        written["ds.json"] = ds
    return written | (files or {})


ZERO = {
    "zero_optimization": {"stage": 2},
    "bf16": {"enabled": "auto"},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
}
add(
    "sixth, B-sound-auto",
    None,
    by_trainer(ds=ZERO, args='deepspeed="ds.json"', bs=4, run="deepspeed --num_gpus 8 fit.py"),
)
add(
    "sixth, B-t7-deepspeed",
    7,
    by_trainer(
        ds=ZERO | {"gradient_accumulation_steps": 8, "train_micro_batch_size_per_gpu": 4},
        args='deepspeed="ds.json"',
        bs=4,
        run="deepspeed --num_gpus 1 fit.py",
    ),
)
add(
    "sixth, B-t6-ray",
    6,
    by_trainer(
        pins=PINS.replace("0.3.12", "0.3.8"),
        bs=4,
        head="from ray.train import ScalingConfig\nfrom ray.train.torch import TorchTrainer",
        main="TorchTrainer(train, scaling_config=ScalingConfig(num_workers=8, use_gpu=True)).fit()",
    ),
)
add(
    "sixth, B-t28-sagemaker",
    28,
    by_trainer(
        files={
            "launch_job.py": 'from sagemaker.huggingface import HuggingFace\n\nHuggingFace(entry_point="fit.py", instance_type="ml.p3.2xlarge", instance_count=1, role="x",\n            transformers_version="4.53", pytorch_version="2.7", py_version="py312").fit()\n'
        },
        run="python launch_job.py",
    ),
)
add(
    "sixth, B-t28-gcloud",
    28,
    by_trainer(
        attention="flash_attention_2",
        run='gcloud compute instances create trainer --accelerator=type=nvidia-tesla-t4,count=1 --zone us-central1-a\ngcloud compute ssh trainer --command "python fit.py"',
    ),
)
add(
    "sixth, B-t9-partial",
    9,
    by_trainer(
        loss="make_loss()", head="make_loss = partial(ColbertPairwiseCELoss, temperature=1.0)"
    ),
)
add(
    "sixth, B-t24",
    24,
    by_trainer(
        head="from colpali_engine.utils import dataset_transformation as dt",
        evaluation='run_eval=True, eval_dataset=dt.load_eval_set("vidore/docvqa_test_subsampled")',
        args='eval_strategy="steps", eval_steps=100,',
    ),
)
add(
    "sixth, B-t22",
    22,
    by_trainer(
        pins="",
        run="python fit.py",
        files={
            "Dockerfile": "FROM nvcr.io/nvidia/pytorch:25.09-py3\nRUN pip install 'transformers>=5.2,<6' peft==0.18.0 'git+https://github.com/illuin-tech/colpali.git@9be8f19'\nCOPY fit.py .\nCMD python fit.py\n"
        },
        after='processor.query_prefix = "Query: "',
    ),
)
add(
    "sixth, B-t23-flag",
    23,
    {
        **by_trainer(
            pins=TODAY, after='processor.query_prefix = "Query: "', args='evaluation_strategy="no",'
        ),
    },
)
add(
    "sixth, B-t21-fast",
    21,
    by_trainer(
        processor="use_fast=True", after="processor.image_processor.max_pixels = 768 * 28 * 28"
    ),
)
add(
    "sixth, B-t14-conda",
    14,
    by_trainer(
        pins="",
        files={
            "requirements.txt": "colpali-engine[train]\ntransformers\ntorch\npeft\ndatasets\n",
            "environment.yml": "name: colqwen\nchannels: [conda-forge]\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n      - -r requirements.txt\n",
        },
    ),
)
add("sixth, B-t2-other-base", 2, by_trainer(base="vidore/colqwen2.5-base"))
add(
    "sixth, B-t15-deepspeed",
    15,
    by_trainer(
        ds=ZERO | {"bf16": {"enabled": False}, "fp16": {"enabled": True, "loss_scale": 1.0}},
        dtype="torch.float16",
        args='deepspeed="ds.json"',
        run="deepspeed --num_gpus 1 fit.py",
    ),
)
add(
    "sixth, B-t13-engine",
    13,
    {
        "score.py": """import torch
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.trainer.retrieval_evaluator import CustomRetrievalEvaluator
from datasets import load_dataset

model = ColQwen2.from_pretrained("vidore/colqwen2-v0.1", torch_dtype=torch.bfloat16, device_map="cuda").eval()
processor = ColQwen2Processor.from_pretrained("vidore/colqwen2-v0.1")
rows = load_dataset("vidore/docvqa_test_subsampled", split="test")
queries = list(dict.fromkeys(q for q in rows["query"] if q))
with torch.no_grad():
    qs = [e for i in range(0, len(queries), 8) for e in model(**processor.process_queries(queries[i:i + 8]).to("cuda")).cpu()]
    ds = [e for r in rows for e in model(**processor.process_images([r["image"]]).to("cuda")).cpu()]
scores = processor.score(qs, ds)
relevant = {q: {rows["image_filename"][rows["query"].index(q)]: 1} for q in queries}
found = {q: dict(zip(rows["image_filename"], map(float, s))) for q, s in zip(queries, scores)}
print(CustomRetrievalEvaluator().compute_mteb_metrics(relevant, found)["ndcg_at_5"])
""",
        "requirements.txt": "colpali-engine==0.3.8\ntransformers==4.49.0\ntorch==2.6.0\npeft==0.14.0\n",
    },
)
add(
    "sixth, B-t13-mteb",
    13,
    {
        "bench.py": 'import mteb\n\nmodel = mteb.get_model("vidore/colqwen2.5-v0.2")\nprint(mteb.evaluate(model, mteb.get_benchmark("ViDoRe(v2)"), encode_kwargs={"batch_size": 4}))\n',
        "requirements.txt": "mteb[colpali_engine]==2.4.2\ncolpali-engine==0.3.12\ntransformers==4.53.3\ntorch==2.7.1\n",
    },
)

# C: what a trainer prints and writes: logs, cards, states
CARD = """---
library_name: peft
base_model: {base}
tags:
- generated_from_trainer
model-index:
- name: colqwen2-mine
  results: []
---

<!-- This model card has been generated automatically according to the information the Trainer had access to. -->

# colqwen2-mine

### Training hyperparameters

The following hyperparameters were used during training:
- learning_rate: {lr}
- train_batch_size: {bs}
- eval_batch_size: 8
- seed: 42
{more}- optimizer: Use adamw_torch with betas=(0.9,0.999) and epsilon=1e-08 and optimizer_args=No additional optimizer arguments
- lr_scheduler_type: linear
- lr_scheduler_warmup_steps: 500
- num_epochs: 1

### Framework versions

- PEFT {peft}
- Transformers {transformers}
- Pytorch 2.7.1+cu126
- Datasets 3.6.0
- Tokenizers 0.21.2
"""


def adapter(**changed):
    return {
        "alpha_pattern": {},
        "auto_mapping": {"base_model_class": "ColQwen2", "parent_library": "colpali_engine.models"},
        "base_model_name_or_path": "vidore/colqwen2-base",
        "bias": "none",
        "exclude_modules": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": "gaussian",
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": 32,
        "lora_bias": False,
        "lora_dropout": 0.1,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 32,
        "rank_pattern": {},
        "target_modules": REG,
        "task_type": "FEATURE_EXTRACTION",
        "use_dora": False,
        "use_rslora": False,
    } | changed


def folder(
    more="",
    bs=32,
    lr="5e-05",
    base="vidore/colqwen2-base",
    peft="0.17.1",
    transformers="4.53.3",
    files=None,
    **changed,
):
    return {
        "adapter_config.json": adapter(base_model_name_or_path=base, **changed),
        "README.md": CARD.format(
            more=more, bs=bs, lr=lr, base=base, peft=peft, transformers=transformers
        ),
    } | (files or {})


SHARED = "- distributed_type: multi-GPU\n- num_devices: 8\n- total_train_batch_size: 32\n- total_eval_batch_size: 64\n"
add("sixth, C-sound-card", None, folder())
add("sixth, C-sound-card-eight", None, folder(SHARED, bs=4, files={"requirements.txt": PINS}))
add(
    "sixth, C-t7-card",
    7,
    folder("- gradient_accumulation_steps: 16\n- total_train_batch_size: 32\n", bs=2),
)
add(
    "sixth, C-t6-card",
    6,
    folder(SHARED, bs=4, files={"requirements.txt": PINS.replace("0.3.12", "0.3.9")}),
)
add("sixth, C-t27-layers", 27, folder(layers_to_transform=list(range(14, 28))))
add("sixth, C-t27-excluded", 27, folder(exclude_modules=["custom_text_proj"]))
add(
    "sixth, C-sound-lookahead",
    None,
    folder(target_modules=REG.replace("(model)", "(model)(?!.*visual)")),
)

random.seed(11)


def printed(losses, grad=lambda i: 0.8, start=""):
    lines = [
        str(
            {
                "loss": round(x, 4),
                "grad_norm": grad(i),
                "learning_rate": 5e-5,
                "epoch": round(0.01 * i, 2),
            }
        )
        for i, x in enumerate(losses, 1)
    ]
    return (
        start
        + "\n".join(lines)
        + "\n{'train_runtime': 4121.2, 'train_samples_per_second': 28.7, 'train_loss': 0.2, 'epoch': 1.0}\n"
    )


FALLING = [0.69 * 0.95**i + 0.03 + random.uniform(0, 0.02) for i in range(80)]
add("sixth, C-sound-log", None, by_trainer(files={"train.log": printed(FALLING)}))
add(
    "sixth, C-t8-log",
    8,
    by_trainer(
        files={"train.log": printed([0.6931 + random.uniform(-3e-3, 3e-3) for _ in range(80)])}
    ),
)
add(
    "sixth, C-t15-log",
    15,
    by_trainer(
        files={
            "logs/slurm-4411.out": printed(
                FALLING[:5] + [float("nan")] * 60, grad=lambda i: float("nan") if i > 5 else 1.1
            )
        }
    ),
)
add(
    "sixth, C-t2-log",
    2,
    by_trainer(
        files={
            "train.log": printed(
                FALLING,
                start="Some weights of ColQwen2 were not initialized from the model checkpoint at vidore/colqwen2-base and are newly initialized: ['embed_tokens.weight', 'norm.weight']\nYou should probably TRAIN this model on a down-stream task to be able to use it for predictions and inference.\n",
            )
        }
    ),
)
add(
    "sixth, C-t3-log",
    3,
    by_trainer(
        base="./local/base",
        files={
            "nohup.out": printed(
                FALLING,
                start="Some weights of ColQwen2 were not initialized from the model checkpoint at ./local/base and are newly initialized: ['custom_text_proj.bias', 'custom_text_proj.weight']\n",
            )
        },
    ),
)
add(
    "sixth, C-t1-log",
    1,
    {
        "evaluate.py": """import torch
from peft import PeftModel
from colpali_engine.models import ColQwen2, ColQwen2Processor

model = ColQwen2.from_pretrained("vidore/colqwen2-base", torch_dtype=torch.bfloat16, device_map="cuda")
model = PeftModel.from_pretrained(model, "out").eval()
processor = ColQwen2Processor.from_pretrained("out")


@torch.no_grad()
def encode(texts):
    return model(**processor.process_queries(texts).to("cuda"))
""",
        "requirements.txt": PINS,
        "eval.log": "/opt/venv/lib/python3.11/site-packages/peft/peft_model.py:599: UserWarning: Found missing adapter keys while loading the checkpoint: ['base_model.model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight', 'base_model.model.language_model.layers.0.self_attn.q_proj.lora_B.default.weight']\n",
    },
)
add(
    "sixth, C-t1-strict",
    1,
    {
        "evaluate.py": """import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from colpali_engine.models import ColQwen2, ColQwen2Processor

model = ColQwen2.from_pretrained("vidore/colqwen2-base", torch_dtype=torch.bfloat16, device_map="cuda")
model = get_peft_model(model, LoraConfig.from_pretrained("out"))
model.load_state_dict(load_file("out/adapter_model.safetensors"), strict=False)
processor = ColQwen2Processor.from_pretrained("out")


@torch.no_grad()
def encode(texts):
    return model.eval()(**processor.process_queries(texts).to("cuda"))
""",
        "requirements.txt": PINS,
    },
)


def state(losses, **k):
    last = len(losses) * 10
    return {
        "best_metric": None,
        "epoch": 1.0,
        "global_step": last,
        "max_steps": last,
        "num_train_epochs": 1,
        "is_world_process_zero": True,
        "train_batch_size": k.pop("train_batch_size", 32),
        "log_history": [
            {
                "epoch": i / len(losses),
                "grad_norm": k.get("grad", 0.7),
                "learning_rate": k.get("lr", 5e-5) * min(i / 50, 1),
                "loss": x,
                "step": 10 * i,
            }
            for i, x in enumerate(losses, 1)
        ],
    }


add(
    "sixth, C-t15-state-inf",
    15,
    {
        "checkpoint-800/trainer_state.json": state(
            [0.68 + 0.01 * random.random() for _ in range(80)], grad=float("inf")
        ),
        "checkpoint-800/adapter_config.json": adapter(),
    },
)
add(
    "sixth, C-sound-state-bump",
    None,
    {
        "checkpoint-800/trainer_state.json": state(
            [0.6931, 0.693, 0.69, *FALLING[3:40], 0.9, *FALLING[41:]]
        ),
        "checkpoint-800/adapter_config.json": adapter(),
    },
)
add(
    "sixth, C-t10-peak",
    10,
    by_trainer(files={"out/checkpoint-800/trainer_state.json": state(FALLING, lr=1e-3)}),
)


# D: YAML with anchors and the environment
def anchored(
    top="",
    args="",
    loss="",
    lora="",
    model="vidore/colqwen2-base",
    run="python train_colbert.py run.yml",
    pins=PINS,
    dtype="torch.bfloat16",
    files=None,
):
    return {
        "run.yml": f'''x-common: &common
  pretrained_model_name_or_path: "{model}"
x-steps: &steps {{warmup_steps: 500, learning_rate: 5.0e-5, num_train_epochs: 1}}
x-big: &big {{per_device_train_batch_size: 32}}
x-small: &small {{per_device_train_batch_size: 2, gradient_accumulation_steps: 16}}
{top}
config:
  (): colpali_engine.trainer.colmodel_training.ColModelTrainingConfig
  output_dir: ${{OUTPUT_DIR:-out}}
  processor:
    (): colpali_engine.utils.transformers_wrappers.AllPurposeWrapper
    class_to_instanciate: !ext colpali_engine.models.ColQwen2Processor
    <<: *common
    max_num_visual_tokens: 768
  model:
    (): colpali_engine.utils.transformers_wrappers.AllPurposeWrapper
    class_to_instanciate: !ext colpali_engine.models.ColQwen2
    <<: *common
    torch_dtype: !ext {dtype}
  train_dataset:
    (): colpali_engine.utils.dataset_transformation.load_train_set
  run_eval: false
  loss_func:
    (): colpali_engine.loss.late_interaction_losses.ColbertPairwiseCELoss
    {loss or "normalize_scores: false"}
  tr_args:
    (): transformers.training_args.TrainingArguments
    {args or "<<: [*steps, *big]"}
    output_dir: null
    gradient_checkpointing: true
  peft_config:
    (): peft.LoraConfig
    r: 32
    lora_alpha: 32
    lora_dropout: 0.1
    init_lora_weights: gaussian
    bias: none
    task_type: FEATURE_EXTRACTION
    target_modules: '{lora or REG}'
''',
        "requirements.txt": pins,
        "Makefile": "train:\n\tOUTPUT_DIR=out " + run + "\n",
    } | (files or {})


add("sixth, D-sound", None, anchored())
add("sixth, D-t7", 7, anchored(args="<<: [*steps, *small]"))
add("sixth, D-t3", 3, anchored(model="Qwen/Qwen2-VL-2B-Instruct"))
add(
    "sixth, D-t10",
    10,
    anchored(args="<<: [*steps, *big]\n    learning_rate: 2.0e-4\n    lr_scheduler_type: cosine"),
)
add("sixth, D-t18", 18, anchored(loss="normalize_scores: false\n    use_smooth_max: yes"))
add("sixth, D-t27", 27, anchored(lora=".*(q_proj|k_proj|v_proj|o_proj)$"))
add(
    "sixth, D-sound-v01",
    None,
    {
        "training_config.yml": anchored()["run.yml"]
        .replace("load_train_set", "load_train_set_detailed")
        .replace("train_dataset:\n    (): ", "dataset_loading_func: !ext ")
        .replace("    normalize_scores: false\n", "")
        .replace("per_device_train_batch_size: 32", "per_device_train_batch_size: 4"),
        "git_hash.txt": "v0.3.1\n",
        "requirements.txt": "colpali-engine==0.3.1\ntransformers==4.45.1\ntorch==2.4.1\npeft==0.11.1\n",
        "run.sh": "CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 python scripts/train/train_colbert.py training_config.yml\n",
    },
)


# E: sentence-transformers, PyLate and transformers by settings
def by_settings(
    loss="MultiVectorMultipleNegativesRankingLoss",
    loss_args="{gather_across_devices: true}",
    sampler="batch_sampler",
    epochs=1,
    run="python st.py settings.yaml",
    model="vidore/colqwen2-v1.0",
    prompts="",
    bs=32,
    pins="sentence-transformers==6.1.0\ntransformers==5.3.0\ntorch==2.9.0\n",
    route="prompts",
):
    return {
        "settings.yaml": f"model: {model}\nloss: {loss}\nloss_args: {loss_args}\ntraining:\n  output_dir: out\n  num_train_epochs: {epochs}\n  per_device_train_batch_size: {bs}\n  learning_rate: 5.0e-5\n  warmup_steps: 500\n  bf16: true\n  batch_sampler: {sampler}\n",
        "st.py": f"""import sys

import yaml
from datasets import load_dataset
from sentence_transformers import MultiVectorEncoder, MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
from sentence_transformers.multi_vector_encoder import losses

with open(sys.argv[1]) as f:
    S = yaml.safe_load(f)
model = MultiVectorEncoder(S["model"]{prompts})
loss = getattr(losses, S["loss"])(model, **S["loss_args"])
MultiVectorEncoderTrainer(
    model=model,
    args=MultiVectorEncoderTrainingArguments(**S["training"]),
    train_dataset=load_dataset("vidore/colpali_train_set", split="train").select_columns(["query", "image"]),
    loss=loss,
).train()
""",
        "requirements.txt": pins,
        "run.sh": run + "\n",
    }


add(
    "sixth, E-sound",
    None,
    by_settings(run="torchrun --nproc_per_node 4 st.py settings.yaml", bs=8),
)
add("sixth, E-sound-unique", None, by_settings(sampler="no_duplicates", epochs=5))
add(
    "sixth, E-tF1",
    "F1",
    by_settings(
        "CachedMultiVectorMultipleNegativesRankingLoss",
        "{mini_batch_size: 4}",
        model="vidore/colqwen2-v1.0-hf",
    ),
)
add(
    "sixth, E-tF3",
    "F3",
    by_settings(
        sampler="no_duplicates",
        epochs=5,
        run="accelerate launch --num_processes 4 st.py settings.yaml",
        bs=8,
    ),
)
add(
    "sixth, E-t6",
    6,
    by_settings(
        loss_args="{}",
        run="accelerate launch --num_processes 8 st.py settings.yaml",
        bs=4,
    ),
)
add(
    "sixth, E-tF4",
    "F4",
    {
        "pl.py": """import pylate.losses as L
from datasets import load_dataset
from pylate import models, utils
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

model = models.ColBERT("answerdotai/ModernBERT-base", document_length=300)
SentenceTransformerTrainer(
    model=model,
    args=SentenceTransformerTrainingArguments(output_dir="o", per_device_train_batch_size=256, learning_rate=3e-6, bf16=True, max_grad_norm=0.5),
    train_dataset=load_dataset("sentence-transformers/msmarco-bm25", "triplet", split="train"),
    loss=L.CachedContrastive(model=model, mini_batch_size=32),
    data_collator=utils.ColBERTCollator(model.tokenize),
).train()
""",
        "requirements.txt": "pylate==1.3.0\nsentence-transformers==5.1.1\ntorch==2.8.0\n",
    },
)
add(
    "sixth, E-tF2",
    "F2",
    {
        "native.py": """import torch
from transformers import AutoModel, AutoProcessor

NAME = "vidore/colqwen2-v1.0-hf"
processor = AutoProcessor.from_pretrained(NAME)
model = AutoModel.from_pretrained(NAME, dtype=torch.bfloat16, device_map="auto").eval()


def pages(images):
    with torch.no_grad():
        return model(**processor(images=images).to(model.device)).embeddings
""",
        "pyproject.toml": '[project]\nname = "search"\nversion = "0.1"\ndependencies = ["transformers==5.23.0", "torch==2.14.1"]\n',
    },
)
add(
    "sixth, E-tF5",
    "F5",
    {
        "mix.py": """import torch
import transformers
from colpali_engine.models import ColQwen2

model = ColQwen2.from_pretrained("vidore/colqwen2-v1.0", torch_dtype=torch.bfloat16, device_map="cuda:0").eval()
processor = transformers.ColQwen2Processor.from_pretrained("vidore/colqwen2-v1.0-hf")


def embed(texts):
    with torch.no_grad():
        return model(**processor(text=texts, return_tensors="pt", padding=True).to("cuda:0"))
""",
        "requirements.txt": "colpali-engine==0.3.12\ntransformers==4.53.3\ntorch==2.7.1\npeft==0.17.1\n",
    },
)


# F: sound ones that look like a trap
add(
    "sixth, F-sound-words",
    None,
    by_trainer(
        bs=256,
        head="# gradient_accumulation_steps=8 adds no negatives (trap 7), .half() breaks rotary (25): we use neither\nfp16 = False\nhalf_of_batch = 128\naccumulation = 1",
        args="gradient_accumulation_steps=accumulation, fp16=fp16, seed=1234, dataloader_num_workers=8, save_steps=100,",
        run="CUDA_VISIBLE_DEVICES=3 python fit.py",
    ),
)
add(
    "sixth, F-sound-dead",
    None,
    by_trainer(
        tail='''def old_train():
    """What we tried first: collapsed."""
    model = ColQwen2.from_pretrained("Qwen/Qwen2-VL-2B-Instruct", torch_dtype=torch.float16).half()
    return TrainingArguments(output_dir="old", per_device_train_batch_size=2, gradient_accumulation_steps=16), model, ColbertPairwiseCELoss()
'''
    ),
)
add("sixth, F-sound-never", None, by_trainer(after="if False:\n        model = model.half()"))
add(
    "sixth, F-sound-scaled-T4",
    None,
    by_trainer(
        dtype="torch.float16", args="fp16=True,", run="#SBATCH --gres=gpu:t4:1\npython fit.py"
    ),
)
add(
    "sixth, F-sound-today",
    None,
    by_trainer(
        pins=TODAY,
        after='processor.query_prefix = "Query: "',
        run="accelerate launch --num_processes 8 --multi_gpu fit.py",
        bs=4,
    ),
)
add(
    "sixth, F-sound-defaults",
    None,
    by_trainer(
        args='max_grad_norm=1.0, weight_decay=0.0, adam_epsilon=1e-8, adam_beta2=0.999, lr_scheduler_type="linear", gradient_accumulation_steps=1, ddp_find_unused_parameters=False, bf16=False, remove_unused_columns=False,'
    ),
)
add(
    "sixth, F-sound-log-noise",
    None,
    by_trainer(
        files={
            "train.log": printed(
                FALLING,
                start="The following generation flags are not valid and may be ignored: ['temperature'].\nLoading checkpoint shards: 100%|##########| 2/2\n`use_cache=True` is incompatible with gradient checkpointing. Setting `use_cache=False`.\n[rank0] NCCL version 2.26.2+cuda12.6\n",
            )
        }
    ),
)
add(
    "sixth, F-sound-sets",
    None,
    {
        "score.py": """import mteb

model = mteb.get_model("vidore/colqwen2-v1.0")
results = mteb.evaluate(model, mteb.get_benchmark("ViDoRe(v1)"), encode_kwargs={"batch_size": 16})
print(results.to_dataframe())
""",
        "requirements.txt": "mteb==2.12.30\ncolpali-engine==0.3.12\ntransformers==4.53.3\ntorch==2.7.1\npeft==0.17.1\n",
    },
)
