"""The seventh: the shipped YAML and script with an edit, output folders, cards of sentence-transformers, torch's own loops."""

import random

from planted_forms.batch import REG, add
from planted_forms.sixth import PINS, TODAY, adapter, by_trainer, folder, plain_loop, printed, state

OLD = "colpali-engine==0.3.1\ntransformers==4.45.1\ntorch==2.4.1\npeft==0.11.1\n"


# A: the YAML as it shipped with v0.3.1 and v0.3.4, with an edit
def shipped(
    *edits, pins=OLD, run="python scripts/train/train_colbert.py cfg.yml", more=None, name="cfg.yml"
):
    text = f"""config:
  (): colpali_engine.trainer.colmodel_training.ColModelTrainingConfig
  output_dir: !path ../../../models/colqwen2-cl-5e-5
  processor:
    (): colpali_engine.utils.transformers_wrappers.AllPurposeWrapper
    class_to_instanciate: !ext colpali_engine.models.ColQwen2Processor
    pretrained_model_name_or_path: "./models/colqwen2_base"
  model:
    (): colpali_engine.utils.transformers_wrappers.AllPurposeWrapper
    class_to_instanciate: !ext colpali_engine.models.ColQwen2
    pretrained_model_name_or_path: "./models/colqwen2_base"
    torch_dtype: !ext torch.bfloat16
    use_cache: false
  dataset_loading_func: !ext colpali_engine.utils.dataset_transformation.load_train_set
  eval_dataset_loader: !import ../data/test_data.yaml
  max_length: 50
  run_eval: true
  add_suffix: true
  loss_func:
    (): colpali_engine.loss.late_interaction_losses.ColbertPairwiseCELoss
  tr_args: !import ../tr_args/default_tr_args.yaml
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
    args = """(): transformers.training_args.TrainingArguments
output_dir: null
overwrite_output_dir: true
num_train_epochs: 1
per_device_train_batch_size: 4
per_device_eval_batch_size: 4
gradient_checkpointing: true
gradient_checkpointing_kwargs: {"use_reentrant": false}
eval_strategy: "steps"
dataloader_num_workers: 4
# bf16: true
save_steps: 500
logging_steps: 10
eval_steps: 100
warmup_steps: 500
learning_rate: 5e-5
save_total_limit: 1
# resume_from_checkpoint: true
# optim: "paged_adamw_8bit"
# wandb logging
# run_name: "colqwen2"
report_to: "wandb"
"""
    for a, b in edits:
        assert a in text or a in args, a
        text, args = text.replace(a, b), args.replace(a, b)
    return {
        name: text,
        "default_tr_args.yaml": args,
        "requirements.txt": pins,
        "job.sh": f"export CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7\n{run}\n",
    } | (more or {})


NEW = (
    OLD.replace("0.3.1\n", "0.3.12\n")
    .replace("4.45.1", "4.53.3")
    .replace("2.4.1", "2.7.1")
    .replace("0.11.1", "0.17.1")
)
add("seventh, A-sound", None, shipped())
add("seventh, A-sound-8bit", None, shipped(('# optim: "paged', 'optim: "paged')))
add(
    "seventh, A-sound-comment",
    None,
    shipped(("# bf16: true", "# gradient_accumulation_steps: 8\n# fp16: true")),
)
add("seventh, A-t5-suffix", 5, shipped(("add_suffix: true", "add_suffix: false")))
add(
    "seventh, A-t10-const",
    10,
    shipped(("save_total_limit: 1", "lr_scheduler_type: constant_with_warmup")),
)
add("seventh, A-t10-rank", 10, shipped(("r: 32\n    lora_alpha: 32", "r: 16\n    lora_alpha: 16")))
add(
    "seventh, A-t12",
    12,
    shipped(("_transformation.load_train_set", "_transformation.load_docmatix_ir_negs")),
)
add(
    "seventh, A-t6-torchrun",
    6,
    shipped(
        run="torchrun --standalone --nproc_per_node=gpu scripts/train/train_colbert.py cfg.yml"
    ),
)
add(
    "seventh, A-t27-vision",
    27,
    shipped(
        (
            "(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj)",
            "(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj|qkv|fc1|fc2)",
        ),
        (".*(model).*", ".*(model|visual).*"),
    ),
)
add(
    "seventh, A-t15-fp16",
    15,
    shipped(("torch.bfloat16", "torch.float16"), ("# bf16: true", "bf16: false\nfp16: true")),
)
add(
    "seventh, A-t9-state",
    9,
    shipped(
        ("  add_suffix: true\n", ""),
        (
            "  dataset_loading_func: !ext colpali_engine.utils.dataset_transformation.load_train_set\n",
            "",
        ),
        ("  eval_dataset_loader: !import ../data/test_data.yaml\n", ""),
        ("run_eval: true", "run_eval: false"),
        pins="",
        run="python scripts/train/train_colbert.py cfg.yml",
        more={
            "trainer_state.json": state(
                [0.69 - 0.19 * min(i / 40, 1) for i in range(150)], train_batch_size=32
            )
        },
    ),
)

random.seed(12)
FALL = [0.69 * 0.95**i + 0.03 + random.uniform(0, 0.02) for i in range(80)]


# B: output folders of the engine
OUT = {
    "preprocessor_config.json": {
        "size": {"longest_edge": 602112, "shortest_edge": 3136},
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
    },
    "git_hash.txt": "97e389a5ca83becbac51eee2dc5cb9967adc8b5e",
}
add(
    "seventh, B-sound",
    None,
    OUT | {"adapter_config.json": adapter(), "trainer_state.json": state(FALL)},
)
add(
    "seventh, B-t27-list",
    27,
    OUT
    | {
        "adapter_config.json": adapter(
            target_modules=["v_proj", "q_proj", "k_proj", "o_proj", "custom_text_proj"]
        )
    },
)
add(
    "seventh, B-t3-7b",
    3,
    OUT | {"adapter_config.json": adapter(base_model_name_or_path="Qwen/Qwen2-VL-7B-Instruct")},
)
add("seventh, B-t10-alpha", 10, OUT | {"adapter_config.json": adapter(lora_alpha=16)})
add(
    "seventh, B-t10-pattern",
    10,
    OUT | {"adapter_config.json": adapter(rank_pattern={"q_proj": 4, "k_proj": 4})},
)
add(
    "seventh, B-t21-edge",
    21,
    OUT
    | {
        "adapter_config.json": adapter(),
        "preprocessor_config.json": {"size": {"longest_edge": 12845056, "shortest_edge": 3136}},
    },
)
add(
    "seventh, B-t2-family",
    2,
    OUT | {"adapter_config.json": adapter(base_model_name_or_path="vidore/colqwen2.5-base")},
)
add(
    "seventh, B-t4-hash",
    4,
    OUT
    | {
        "adapter_config.json": adapter(),
        "git_hash.txt": "b34c38815d433f2f3aec65fb491a53851d195474",
    },
)
add(
    "seventh, B-t25",
    25,
    OUT
    | {
        "adapter_config.json": adapter(),
        "tokenizer_config.json": {"padding_side": "right", "pad_token": "<|endoftext|>"},
    },
)
add(
    "seventh, B-t8-grad",
    8,
    OUT
    | {
        "adapter_config.json": adapter(),
        "trainer_state.json": state([0.6931471 for _ in range(60)], grad=1e-7),
    },
)
add(
    "seventh, B-sound-modules",
    None,
    OUT
    | {
        "adapter_config.json": adapter(
            modules_to_save=["custom_text_proj"],
            target_modules=".*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj)$",
        )
    },
)
add(
    "seventh, B-sound-left",
    None,
    OUT | {"adapter_config.json": adapter(), "tokenizer_config.json": {"padding_side": "left"}},
)

# C: the engine's own script of 0.3.12 by its arguments
PY = by_trainer(
    head="import argparse\n\np = argparse.ArgumentParser()\np.add_argument('--loss', default='pairwise', choices=['ce', 'pairwise'])\np.add_argument('--tau', type=float, default=0.02)\np.add_argument('--trainer', default='hf')\np.add_argument('--lr', type=float, default=5e-5)\np.add_argument('--bs', type=int, default=32)\np.add_argument('--peft', action='store_true')\na = p.parse_args()",
    loss="ColbertLoss(temperature=a.tau, normalize_scores=True, use_smooth_max=False) if a.loss == 'ce' else ColbertPairwiseCELoss(normalize_scores=False)",
    bs="a.bs",
    run="accelerate launch --multi_gpu --num_processes 4 fit.py --bs 8 --peft",
)
add("seventh, C-sound", None, PY)
add(
    "seventh, C-t9-warm",
    9,
    PY
    | {
        "run.sh": "accelerate launch --multi_gpu --num_processes 4 fit.py --bs 8 --loss ce --tau 1.0\n"
    },
)
add(
    "seventh, C-t10-lr",
    10,
    PY
    | {
        "fit.py": PY["fit.py"].replace("learning_rate=5e-5", "learning_rate=a.lr"),
        "run.sh": "accelerate launch --multi_gpu --num_processes 4 fit.py --bs 8 --lr 2e-4\n",
    },
)
add(
    "seventh, C-t26-cpu",
    26,
    PY | {"run.sh": "CUDA_VISIBLE_DEVICES= torchrun --nproc_per_node 2 fit.py --bs 16\n"},
)
add(
    "seventh, C-t28-env",
    28,
    PY
    | {
        "run.sh": "#!/bin/bash\n#PBS -l select=1:ncpus=8:ngpus=1:gpu_model=v100\naccelerate launch --num_processes 1 fit.py --bs 32\n"
    },
)
add(
    "seventh, C-t14-mixed",
    14,
    PY
    | {
        "pyproject.toml": '[project]\nname = "x"\nversion = "0"\ndependencies = ["transformers==4.49.0", "colpali-engine==0.3.12"]\n'
    },
)
add("seventh, C-t2", 2, PY | {"requirements.txt": TODAY.replace("0.3.18", "0.3.15")})
add(
    "seventh, C-t23",
    23,
    by_trainer(
        pins=TODAY,
        after='processor.query_prefix = "Query: "',
        args="**{'overwrite_output_dir': True},",
    ),
)
add(
    "seventh, C-t18-eval",
    18,
    {
        "rank.py": """import torch
from colpali_engine.models import ColQwen2, ColQwen2Processor
from datasets import load_dataset

model = ColQwen2.from_pretrained("vidore/colqwen2-v1.0", torch_dtype=torch.bfloat16, device_map="cuda").eval()
processor = ColQwen2Processor.from_pretrained("vidore/colqwen2-v1.0")
rows = load_dataset("vidore/docvqa_test_subsampled", split="test")


def scores(queries, pages):
    q = torch.nn.utils.rnn.pad_sequence([x.half() for x in queries], batch_first=True)
    p = torch.nn.utils.rnn.pad_sequence([x.half() for x in pages], batch_first=True)
    return torch.einsum("qnd,psd->qpns", q, p).amax(3).sum(2)


with torch.no_grad():
    qs = [model(**processor.process_queries([r["query"]]).to("cuda"))[0] for r in rows if r["query"]]
    ps = [model(**processor.process_images([r["image"]]).to("cuda"))[0] for r in rows]
print(scores(qs, ps).argmax(1))
""",
        "requirements.txt": PINS,
    },
)

# D: sentence-transformers' folders, with the card that it writes
ST_CARD = """---
tags:
- sentence-transformers
- multi-vector
- generated_from_trainer
- dataset_size:118195
- loss:{loss}
base_model: {base}
library_name: sentence-transformers
---

# MultiVectorEncoder based on {base}

## Training Details

### Training Dataset

#### vidore/colpali_train_set

* Dataset: vidore/colpali_train_set
* Size: 118,195 training samples
* Loss: [<code>{loss}</code>](https://sbert.net/docs/package_reference/losses.html) with these parameters:
  ```json
  {{
      "scale": {scale},
      "similarity_fct": "{fct}",
      {more}"gather_across_devices": {gather}
  }}
  ```

### Training Hyperparameters
#### Non-Default Hyperparameters

- `per_device_train_batch_size`: {bs}
- `learning_rate`: 2e-05
- `num_train_epochs`: {epochs}
- `bf16`: True
- `batch_sampler`: {sampler}
{args}
### Framework Versions
- Python: 3.11.9
- Sentence Transformers: 6.1.0
- Transformers: {tf}
- PyTorch: 2.9.0
"""


def st_folder(
    loss="MultiVectorMultipleNegativesRankingLoss",
    base="vidore/colqwen2-v1.0",
    scale="50.0",
    fct="mean_colbert_scores",
    more="",
    gather="true",
    bs=32,
    epochs=1,
    sampler="batch_sampler",
    args="",
    tf="5.3.0",
    run="python train.py",
    files=None,
):
    return {
        "README.md": ST_CARD.format(
            loss=loss,
            base=base,
            scale=scale,
            fct=fct,
            more=more,
            gather=gather,
            bs=bs,
            epochs=epochs,
            sampler=sampler,
            args=args,
            tf=tf,
        ),
        "config_sentence_transformers.json": {
            "model_type": "MultiVectorEncoder",
            "__version__": {
                "sentence_transformers": "6.1.0",
                "transformers": tf,
                "pytorch": "2.9.0",
            },
            "prompts": {"query": "", "document": ""},
            "similarity_fn_name": "maxsim",
        },
        "modules.json": [
            {
                "idx": 0,
                "name": "0",
                "path": "",
                "type": "sentence_transformers.base.modules.transformer.Transformer",
            },
            {
                "idx": 1,
                "name": "1",
                "path": "1_Dense",
                "type": "sentence_transformers.base.modules.dense.Dense",
            },
        ],
        "1_Dense/config.json": {"in_features": 1536, "out_features": 128, "bias": True},
        "launch.sh": run + "\n",
    } | (files or {})


add("seventh, D-sound", None, st_folder())
add(
    "seventh, D-t6",
    6,
    st_folder(gather="false", bs=8, run="accelerate launch --num_processes 4 train.py"),
)
add(
    "seventh, D-tF3",
    "F3",
    st_folder(sampler="no_duplicates", epochs=5, bs=8, run="torchrun --nproc_per_node 4 train.py"),
)
add(
    "seventh, D-tF1",
    "F1",
    st_folder(
        loss="CachedMultiVectorMultipleNegativesRankingLoss",
        base="vidore/colqwen2-v1.0-hf",
        more='"mini_batch_size": 2, ',
    ),
)
add("seventh, D-t7", 7, st_folder(args="- `gradient_accumulation_steps`: 8\n", bs=4))

# E: torch's own loops
add(
    "seventh, E-tF3",
    "F3",
    plain_loop(
        launch="torchrun --nproc_per_node 8 loop.py --bs 4 --epochs 3",
        more={
            "loop.py": plain_loop()["loop.py"]
            .replace("shuffle=True, ", "sampler=DistributedSampler(rows_all), ")
            .replace(
                "from torch.utils.data import DataLoader",
                "from torch.utils.data import DataLoader\nfrom torch.utils.data.distributed import DistributedSampler",
            )
            .replace(
                "model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)",
                "model = torch.nn.parallel.DistributedDataParallel(model.cuda())",
            )
        },
    ),
)
add(
    "seventh, E-sound-epoch",
    None,
    plain_loop(
        launch="torchrun --nproc_per_node 8 loop.py --bs 4 --epochs 1",
        more={
            "loop.py": plain_loop(loop_start="sampler.set_epoch(epoch)")["loop.py"]
            .replace("shuffle=True, ", "sampler=sampler, ")
            .replace(
                "loader = DataLoader",
                "sampler = DistributedSampler(rows_all)\n    loader = DataLoader",
            )
            .replace(
                "from torch.utils.data import DataLoader",
                "from torch.utils.data import DataLoader\nfrom torch.utils.data.distributed import DistributedSampler",
            )
            .replace(
                "model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)",
                "model = torch.nn.parallel.DistributedDataParallel(model.cuda())",
            )
        },
    ),
)
add(
    "seventh, E-t5-both",
    5,
    plain_loop(queries="processor.process_queries([f\"Query: {r['query']}\" for r in rows])"),
)
add(
    "seventh, E-t5-none",
    5,
    plain_loop(
        queries='processor(text=[r["query"] for r in rows], return_tensors="pt", padding=True)'
    ),
)
add("seventh, E-t4", 4, plain_loop(more={"requirements.txt": TODAY}))
add(
    "seventh, E-t15",
    15,
    plain_loop(load="ColQwen2.from_pretrained(args.base, torch_dtype=torch.float16)"),
)
add(
    "seventh, E-t27",
    27,
    plain_loop(
        more={
            "loop.py": plain_loop()["loop.py"].replace(
                f'target_modules=r"{REG}"', 'target_modules=["q_proj", "v_proj"]'
            )
        }
    ),
)
add(
    "seventh, E-t10",
    10,
    plain_loop(
        launch="accelerate launch --config_file acc.yaml loop.py --bs 4 --warmup 0 --lr 3e-4"
    ),
)
add("seventh, E-t21", 21, plain_loop(after="processor.max_pixels = 768 * 784"))
add("seventh, E-t8", 8, plain_loop(launch="python loop.py --bs 1", processes=1))
add(
    "seventh, E-t2",
    2,
    plain_loop(
        more={"requirements.txt": TODAY.replace("0.3.18", "0.3.16")},
        queries='processor.process_queries(["Query: " + r["query"] for r in rows])',
    ),
)
add(
    "seventh, E-sound-today",
    None,
    plain_loop(
        more={"requirements.txt": TODAY},
        queries='processor.process_queries(["Query: " + r["query"] for r in rows])',
    ),
)
add(
    "seventh, E-sound-debug",
    None,
    plain_loop(rows="if args.lr == 0:\n        rows_all = rows_all.select(range(64))"),
)
add(
    "seventh, E-t24-own",
    24,
    by_trainer(
        evaluation='run_eval=True, eval_dataset=load_dataset("vidore/infovqa_test_subsampled", split="test")',
        head="from datasets import load_dataset",
        args='eval_strategy="steps", eval_steps=100,',
    ),
)
add("seventh, E-sound-log", None, folder(files={"train.log": printed(FALL)}))
