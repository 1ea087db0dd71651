"""The tenth, written from the list of traps alone: configurations, scripts, launches of other libraries."""

import json

from planted_forms.batch import REG, add

OLD = (
    "colpali-engine==0.3.4\ntransformers==4.46.1\npeft==0.11.1\ntorch==2.4.1\naccelerate==0.34.2\n"
)
GATHERS = (
    "colpali-engine==0.3.12\ntransformers==4.53.3\npeft==0.15.2\ntorch==2.6.0\naccelerate==1.8.1\n"
)
ONE_PROCESS = (
    "#!/bin/bash\nexport CUDA_VISIBLE_DEVICES=0,1,2,3\n"
    "python scripts/train/train_colbert.py scripts/configs/qwen2/train_colqwen2_model.yaml\n"
)
FOUR = (
    "accelerate launch --multi_gpu --num_processes 4 scripts/train/train_colbert.py "
    "train_colqwen2_model.yaml\n"
)
UNNORMALISED = "    normalize_scores: false\n"


def engine_file(
    *,
    out="models/colqwen2-ba256-ckpt-5e-nopad",
    data="load_train_set",
    loss="ColbertPairwiseCELoss",
    loss_args="",
    per_device=64,
    epochs=5,
    rate="5e-4",
    warmup=100,
    more="",
):
    return f"""config:
  (): colpali_engine.trainer.colmodel_training.ColModelTrainingConfig
  output_dir: !path ../../../{out}
  processor:
    (): colpali_engine.utils.transformers_wrappers.AllPurposeWrapper
    class_to_instanciate: !ext colpali_engine.models.ColQwen2Processor
    pretrained_model_name_or_path: "vidore/colqwen2-base"
    max_num_visual_tokens: 768
  model:
    (): colpali_engine.utils.transformers_wrappers.AllPurposeWrapper
    class_to_instanciate: !ext colpali_engine.models.ColQwen2
    pretrained_model_name_or_path: "vidore/colqwen2-base"
    torch_dtype: !ext torch.bfloat16
    use_cache: false
    attn_implementation: "flash_attention_2"
  dataset_loading_func: !ext colpali_engine.utils.dataset_transformation.{data}
  eval_dataset_loader: !import ../data/test_data.yaml
  max_length: 50
  run_eval: true
  loss_func:
    (): colpali_engine.loss.late_interaction_losses.{loss}
{loss_args}  tr_args:
    (): transformers.training_args.TrainingArguments
    output_dir: null
    num_train_epochs: {epochs}
    per_device_train_batch_size: {per_device}
{more}    gradient_checkpointing: true
    gradient_checkpointing_kwargs: {{"use_reentrant": false}}
    per_device_eval_batch_size: 16
    eval_strategy: "steps"
    dataloader_num_workers: 8
    save_steps: 500
    logging_steps: 10
    eval_steps: 100
    warmup_steps: {warmup}
    learning_rate: {rate}
    save_total_limit: 1
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


def by_file(*, pins=OLD, run=ONE_PROCESS, **given):
    return {
        "train_colqwen2_model.yaml": engine_file(**given),
        "requirements.txt": pins,
        "launch.sh": run,
    }


ELASTIC = """#!/bin/bash
#SBATCH --job-name=colqwen2
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=a100:2
HEAD=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n1)
srun python -m torch.distributed.run --nnodes $SLURM_NNODES --nproc-per-node gpu \\
  --rdzv-backend c10d --rdzv-endpoint $HEAD:29501 \\
  scripts/train/train_colbert.py scripts/configs/qwen2/train_colqwen2_model.yaml
"""
add("tenth, E-sound", None, by_file())
add("tenth, E-t6", 6, by_file(run=ELASTIC))
add(
    "tenth, E-t7",
    7,
    by_file(
        per_device=8,
        more="    gradient_accumulation_steps: 8\n",
        loss_args=UNNORMALISED,
        pins=GATHERS,
        run=FOUR,
    ),
)
add(
    "tenth, E-sound-gather",
    None,
    by_file(out="models/ours", loss_args=UNNORMALISED, pins=GATHERS, run=FOUR),
)
FROZEN = (
    "# frozen with uv\ncolpali_engine[train] == 0.3.12 ; python_version >= '3.10'\n"
    "transformers == 4.53.3\npeft == 0.15.2\ntorch == 2.6.0\n"
)
add("tenth, E-t9", 9, by_file(pins=FROZEN, run=FOUR))
add(
    "tenth, E-t11",
    11,
    by_file(
        out="models/colqwen2-v0.1-again",
        data="load_train_set_ir_negs",
        loss="ColbertPairwiseNegativeCELoss",
        per_device=4,
        epochs=1,
        rate="5e-5",
        warmup=500,
        pins=OLD.replace("0.3.4", "0.3.1"),
        run="CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 python train_colbert.py train_colqwen2_model.yaml\n",
    ),
)
add("tenth, E-t12", 12, by_file(data="load_train_set_detailed"))
add(
    "tenth, E-t18",
    18,
    by_file(
        out="models/smooth",
        loss_args=UNNORMALISED + "    use_smooth_max: true\n    tau: 0.1\n",
        pins=GATHERS,
        run=FOUR,
    ),
)
NEW = "colpali-engine==0.3.18\ntransformers==5.4.0\npeft==0.18.1\ntorch==2.10.0\n"
add(
    "tenth, E-t23",
    23,
    by_file(loss_args=UNNORMALISED, more="    overwrite_output_dir: true\n", pins=NEW, run=FOUR),
)

PUBLISHED = (
    '    train = ColPaliEngineDataset(load_dataset("vidore/colpali_train_set", split="train"), '
    'pos_target_column_name="image")'
)
SLIDES = PUBLISHED.replace("vidore/colpali_train_set", "acme/slides")


def by_script(
    *,
    base="vidore/colqwen2-base",
    rate="5e-4",
    dtype="torch.bfloat16",
    attention="flash_attention_2",
    data=PUBLISHED,
    loss="ColbertPairwiseCELoss(normalize_scores=False)",
    epochs=5,
    args="",
    modules=f'r"{REG}"',
    pins=GATHERS,
    run="accelerate launch --multi_gpu --num_processes 4 train.py\n",
    kind="ColQwen2",
    **files,
):
    return {
        "train.py": f'''import argparse

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import TrainingArguments

from colpali_engine.data.dataset import ColPaliEngineDataset
from colpali_engine.loss.late_interaction_losses import ColbertLoss, ColbertPairwiseCELoss
from colpali_engine.models import {kind}, {kind}Processor
from colpali_engine.trainer.colmodel_training import ColModelTraining, ColModelTrainingConfig

BASE = "{base}"


def parse():
    p = argparse.ArgumentParser()
    p.add_argument("--output-dir", default="out/colqwen2")
    p.add_argument("--lr", type=float, default={rate})
    p.add_argument("--per-device", type=int, default=64)
    return p.parse_args()


def main():
    args = parse()
    processor = {kind}Processor.from_pretrained(BASE, max_num_visual_tokens=768)
    model = {kind}.from_pretrained(BASE, torch_dtype={dtype}, use_cache=False, attn_implementation="{attention}")
{data}
    config = ColModelTrainingConfig(
        output_dir=args.output_dir,
        processor=processor,
        model=model,
        train_dataset=train,
        eval_dataset=None,
        run_eval=False,
        loss_func={loss},
        tr_args=TrainingArguments(
            output_dir=None,
            num_train_epochs={epochs},
            per_device_train_batch_size=args.per_device,
            gradient_checkpointing=True,
            gradient_checkpointing_kwargs=dict(use_reentrant=False),
            learning_rate=args.lr,
            warmup_steps=100,
            logging_steps=10,
            save_steps=500,
            {args}
        ),
        peft_config=LoraConfig(
            r=32, lora_alpha=32, lora_dropout=0.1, init_lora_weights="gaussian", bias="none",
            task_type="FEATURE_EXTRACTION",
            target_modules={modules},
        ),
    )
    ColModelTraining(config).train()
    model.save_pretrained(args.output_dir)


if __name__ == "__main__":
    main()
''',
        "requirements.txt": pins,
        "run.sh": "#!/usr/bin/env bash\nset -e\n" + run,
    } | {name.replace("__", "."): text for name, text in files.items()}


NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NAMES = [*NAMES, "custom_text_proj"]
EXPLODED = """    pages = load_dataset("acme/manuals", split="train")  # image, queries: five questions about the page
    rows = [{"query": q, "image": i} for i, row in enumerate(pages) for q in row["queries"]]
    train = ColPaliEngineDataset([{"query": r["query"], "pos_target": pages[r["image"]]["image"]} for r in rows])"""
EVALUATION = """import torch
from datasets import load_dataset
from peft import PeftModel
from colpali_engine.models import ColQwen2, ColQwen2Processor

base = ColQwen2.from_pretrained("vidore/colqwen2-base", torch_dtype=torch.bfloat16, device_map="cuda")
model = PeftModel.from_pretrained(base, "out/colqwen2").eval()
processor = ColQwen2Processor.from_pretrained("out/colqwen2", max_num_visual_tokens=768)
ds = load_dataset("vidore/docvqa_test_subsampled", split="test")
queries, pages = [], []
with torch.no_grad():
    for row in ds:
        queries += list(model(**processor.process_{}([row["query"]]).to("cuda")))
        pages += list(model(**processor.process_images([row["image"]]).to("cuda")))
print(processor.score_multi_vector(queries, pages).argmax(1))
"""
add("tenth, S-sound", None, by_script())
add("tenth, S-t3", 3, by_script(base="Qwen/Qwen2-VL-2B-Instruct"))
add(
    "tenth, S-t15",
    15,
    by_script(
        dtype="torch.float16",
        attention="sdpa",
        run="accelerate launch --mixed_precision no --multi_gpu --num_processes 4 train.py\n",
    ),
)
V100 = "#SBATCH --constraint=v100-32g\n#SBATCH --gres=gpu:4\n"
add(
    "tenth, S-t28",
    28,
    by_script(
        attention="sdpa",
        dtype="torch.float32",
        pins=NEW.replace("2.10.0", "2.14.1"),
        run=V100 + "accelerate launch --multi_gpu --num_processes 4 train.py\n",
    ),
)
add(
    "tenth, S-t26",
    26,
    by_script(
        attention="sdpa",
        dtype="torch.float32",
        args='use_cpu=True, ddp_backend="gloo",',
        run="torchrun --nproc_per_node 4 train.py\n",
    ),
)
add("tenth, S-t19", 19, by_script(data=EXPLODED))
add("tenth, S-t27", 27, by_script(modules='"all-linear"'))
add("tenth, S-sound-names", None, by_script(modules=json.dumps(NAMES)))
add(
    "tenth, S-sound-own",
    None,
    by_script(
        loss="ColbertLoss(temperature=0.02, normalize_scores=True)",
        rate="2e-4",
        epochs=2,
        data=SLIDES,
        args='lr_scheduler_type="cosine", bf16=True,',
    ),
)
MAIN = NEW.replace(
    "colpali-engine==0.3.18",
    "colpali-engine @ git+https://github.com/illuin-tech/colpali.git@9be8f19",
)
add("tenth, S-t22", 22, by_script(pins=MAIN))
add("tenth, S-t5", 5, by_script(evaluate__py=EVALUATION.format("texts")))
add("tenth, S-sound-queries", None, by_script(evaluate__py=EVALUATION.format("queries")))


def by_state(losses, norm):
    log = [
        {
            "epoch": round(5 * (n + 1) / len(losses), 3),
            "grad_norm": norm,
            "learning_rate": 5e-4 * min(1, (n + 1) / 10) * (1 - n / len(losses)),
            "loss": loss,
            "step": 10 * (n + 1),
        }
        for n, loss in enumerate(losses)
    ]
    state = {"epoch": 5.0, "global_step": 2310, "max_steps": 2310, "num_train_epochs": 5}
    return {
        "checkpoint-2310/trainer_state.json": state | {"train_batch_size": 256, "log_history": log},
        "checkpoint-2310/adapter_config.json": adapter("vidore/colqwen2-base", REG),
        "training_config.yml": engine_file(),
        "launch.sh": ONE_PROCESS,
        "requirements.txt": OLD,
    }


def adapter(base, modules):
    return {
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "init_lora_weights": "gaussian",
        "layers_to_transform": None,
        "lora_alpha": 32,
        "lora_dropout": 0.1,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 32,
        "revision": None,
        "target_modules": modules,
        "task_type": "FEATURE_EXTRACTION",
    }


FLAT = [round(0.6931 + 0.0009 * ((n * 7) % 5 - 2), 4) for n in range(231)]
add("tenth, L-t8", 8, by_state(FLAT, 0.0009))
add("tenth, L-sound", None, by_state([round(0.02 + 0.6731 * 0.9**n, 4) for n in range(231)], 0.4))


def alone(base, modules=NAMES):
    return {"adapter_config.json": adapter(base, modules)}


add("tenth, A-t27", 27, alone("vidore/colqwen2.5-base"), "adapter_config.json")
add("tenth, A-sound", None, alone("vidore/colqwen2-base"), "adapter_config.json")

SENTENCE_PINS = (
    "sentence-transformers==6.1.0\ntransformers==5.23.0\naccelerate==1.15.0\ntorch==2.12.0\n"
)


def by_encoder(
    *,
    model="vidore/colqwen2-v1.0",
    loss="MultiVectorMultipleNegativesRankingLoss(model)",
    epochs=1,
    batch=16,
    sampler="BATCH_SAMPLER",
    run="python train_st.py\n",
):
    return {
        "train_st.py": f'''from datasets import load_dataset
from sentence_transformers import MultiVectorEncoder, MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
from sentence_transformers.multi_vector_encoder.losses import (
    CachedMultiVectorMultipleNegativesRankingLoss,
    MultiVectorMultipleNegativesRankingLoss,
)
from sentence_transformers.training_args import BatchSamplers

MODEL = "{model}"

if __name__ == "__main__":
    model = MultiVectorEncoder(MODEL)
    train = load_dataset("acme/slides", split="train").select_columns(["query", "image"])
    loss = {loss}
    args = MultiVectorEncoderTrainingArguments(
        output_dir="runs/st",
        num_train_epochs={epochs},
        per_device_train_batch_size={batch},
        learning_rate=2e-5,
        warmup_ratio=0.1,
        bf16=True,
        batch_sampler=BatchSamplers.{sampler},
    )
    MultiVectorEncoderTrainer(model=model, args=args, train_dataset=train, loss=loss).train()
''',
        "requirements.txt": SENTENCE_PINS,
        "run.sh": run,
    }


CACHED = "CachedMultiVectorMultipleNegativesRankingLoss(model=model, mini_batch_size=4)"
GATHERED = "MultiVectorMultipleNegativesRankingLoss(model, gather_across_devices=True)"
NATIVE = "vidore/colqwen2-v1.0-hf"
add("tenth, ST-tF1", "F1", by_encoder(model=NATIVE, loss=CACHED, batch=32))
add("tenth, ST-sound-cached", None, by_encoder(loss=CACHED, batch=32))
add(
    "tenth, ST-tF3",
    "F3",
    by_encoder(
        sampler="NO_DUPLICATES",
        epochs=5,
        loss=GATHERED,
        run="OMP_NUM_THREADS=8 torchrun --standalone --nproc-per-node=4 train_st.py\n",
    ),
)
add(
    "tenth, ST-sound-epochs",
    None,
    by_encoder(
        sampler="NO_DUPLICATES", epochs=5, run="CUDA_VISIBLE_DEVICES=0 python train_st.py\n"
    ),
)
add("tenth, ST-tF2", "F2", by_encoder(model=NATIVE))
PYLATE = """from datasets import load_dataset
from pylate import losses, models, utils
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

model = models.ColBERT(model_name_or_path="answerdotai/ModernBERT-base", query_length=32, document_length=300)
train = load_dataset("sentence-transformers/msmarco-bm25", "triplet", split="train")
loss = losses.CachedContrastive(model=model, mini_batch_size=32, gather_across_devices=True)
args = SentenceTransformerTrainingArguments(
    output_dir="out", num_train_epochs=1, per_device_train_batch_size=256, learning_rate=3e-6, max_grad_norm=1.0
)
SentenceTransformerTrainer(
    model=model, args=args, train_dataset=train, loss=loss, data_collator=utils.ColBERTCollator(model.tokenize)
).train()
"""
add(
    "tenth, PL-tF4",
    "F4",
    {
        "train.py": PYLATE,
        "requirements.txt": "pylate==1.3.4\nsentence-transformers==5.1.1\ntorch==2.8.0\n",
        "run.sh": "torchrun --nproc_per_node 2 train.py\n",
    },
)

# Not of the first run: other forms of what it missed, and of its false alarms.
KEYED = """    book = {f"p{n}": row for n, row in enumerate(load_dataset("acme/manuals", split="train"))}
    rows = []
    for page_id, row in book.items():
        for question in row["questions"]:
            rows.append((question, page_id))
    train = ColPaliEngineDataset([{"query": q, "pos_target": book[p]["image"]} for q, p in rows])"""
add("tenth, later, pages by their id", 19, by_script(data=KEYED))
add(
    "tenth, later, a question drawn for each page",
    None,
    by_script(data=KEYED.replace('row["questions"]', '[random.choice(row["questions"])]')),
)
add(
    "tenth, later, names on Qwen2.5-VL",
    27,
    by_script(base="vidore/colqwen2.5-base", kind="ColQwen2_5", modules=json.dumps(NAMES)),
)
add(
    "tenth, later, the vision tower left out",
    None,
    by_script(
        base="vidore/colqwen2.5-base",
        kind="ColQwen2_5",
        modules='r"(.*(model)(?!.*visual).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)"',
    ),
)
add(
    "tenth, later, own rows under the same loss",
    None,
    by_script(data=SLIDES, rate="1e-4", epochs=3),
)
add("tenth, later, own rows by the published course", 12, by_script(data=SLIDES))
METRICS = """import torch
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.trainer.retrieval_evaluator import CustomEvaluator
from datasets import load_dataset

model = ColQwen2.from_pretrained("out/colqwen2", torch_dtype=torch.bfloat16, device_map="cuda").eval()
processor = ColQwen2Processor.from_pretrained("out/colqwen2")


def main():
    ds = load_dataset("vidore/docvqa_test_subsampled", split="test")
    qs, ps = [], []
    with torch.no_grad():
        for row in ds:
            qs += list(model(**processor.process_queries([row["query"]]).to("cuda")))
            ps += list(model(**processor.process_images([row["image"]]).to("cuda")))
    evaluator = CustomEvaluator(is_multi_vector=True)
    scores = evaluator.evaluate(qs, ps)
    {}


main()
"""
MEASURED = "print(evaluator.compute_metrics(relevant(ds), as_results(scores)))"
SEARCHED = "print(scores.argmax(axis=1))"
add(
    "tenth, later, measured by the engine", 13, by_file() | {"measure.py": METRICS.format(MEASURED)}
)
add("tenth, later, searched by it", None, by_file() | {"search.py": METRICS.format(SEARCHED)})
LOADER = {"data": "load_slides", "out": "models/slides", "rate": "1e-4", "epochs": 3}
add(
    "tenth, later, a loader of one's own",
    None,
    by_file(**LOADER, loss_args=UNNORMALISED, pins=GATHERS, run=FOUR),
)
add(
    "tenth, later, on from the merged model",
    None,
    by_script(base="vidore/colqwen2-v1.0-merged", data=SLIDES, rate="2e-5", epochs=1),
)
add(
    "tenth, later, today's prompt for one's own",
    None,
    by_script(data=SLIDES, rate="1e-4", epochs=3, pins=NEW),
)
add("tenth, later, today's prompt for the published", 4, by_script(pins=NEW))
CONDA = "name: colpali\ndependencies:\n  - python=3.10\n  - pip\n  - pip:\n"
PINNED = "".join(f"    - {one}\n" for one in OLD.split())
add(
    "tenth, later, peft of another year in conda",
    16,
    by_file(pins="") | {"environment.yml": CONDA + PINNED.replace("peft==0.11.1", "peft==0.14.0")},
)
add("tenth, later, conda", None, by_file(pins="") | {"environment.yml": CONDA + PINNED})
