"""The fourth: packages, the environment, Lightning, hydra, settings of runs, cards."""

from planted_forms.batch import REG, add

OLD = "colpali-engine==0.3.12\ntransformers==4.53.3\ntorch==2.7.1\npeft==0.11.1\n"
NEG = OLD.replace("0.3.12", "0.3.9")


# 1 package with config module and class-based experiment
def package_of_modules(
    bs=32,
    ga=1,
    dtype="torch.bfloat16",
    loss="ColbertPairwiseCELoss(normalize_scores=False)",
    req=OLD,
    cmd="python -m project.train",
    tok=768,
    over="",
    lora="",
    proc="",
    data="vidore/colpali_train_set",
):
    return {
        "project/__init__.py": "",
        "project/config.py": f'''from dataclasses import dataclass, field
from typing import Optional
import torch


@dataclass
class LoraCfg:
    r: int = 32
    alpha: int = 32
    dropout: float = 0.1
    target: str = r"{lora or REG}"


@dataclass
class TrainCfg:
    base: str = "vidore/colqwen2-base"
    batch: int = {bs}
    accumulate: int = {ga}
    lr: float = 5e-5
    epochs: int = 1
    warmup: int = 500
    tokens: int = {tok}
    dtype: torch.dtype = {dtype}
    lora: LoraCfg = field(default_factory=LoraCfg)
    out: Optional[str] = "out"
''',
        "project/train.py": f'''import dataclasses
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import TrainingArguments

from colpali_engine.collators import VisualRetrieverCollator
from colpali_engine.data.dataset import ColPaliEngineDataset
from colpali_engine.loss import ColbertLoss, ColbertPairwiseCELoss
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.trainer.contrastive_trainer import ContrastiveTrainer

from project.config import TrainCfg


class Experiment:
    def __init__(self, cfg: TrainCfg):
        self.cfg = cfg
        self.processor = ColQwen2Processor.from_pretrained(cfg.base, max_num_visual_tokens=cfg.tokens)
        {proc}

    @property
    def arguments(self):
        c = self.cfg
        return TrainingArguments(output_dir=c.out, per_device_train_batch_size=c.batch, gradient_accumulation_steps=c.accumulate,
                                 learning_rate=c.lr, num_train_epochs=c.epochs, warmup_steps=c.warmup, remove_unused_columns=False)

    def model(self):
        model = ColQwen2.from_pretrained(self.cfg.base, torch_dtype=self.cfg.dtype)
        l = self.cfg.lora
        return get_peft_model(model, LoraConfig(r=l.r, lora_alpha=l.alpha, lora_dropout=l.dropout, init_lora_weights="gaussian",
                                                bias="none", task_type="FEATURE_EXTRACTION", target_modules=l.target))

    def loss(self):
        return {loss}

    def data(self):
        return ColPaliEngineDataset(load_dataset("{data}", split="train"), pos_target_column_name="image")

    def run(self):
        ContrastiveTrainer(model=self.model(), train_dataset=self.data(), args=self.arguments, loss_func=self.loss(), is_vision_model=True,
                           data_collator=VisualRetrieverCollator(processor=self.processor)).train()


if __name__ == "__main__":
    cfg = TrainCfg()
    {over}
    Experiment(cfg).run()
''',
        "requirements.txt": req,
        "run.sh": cmd + "\n",
    }


add("fourth, P-sound", None, package_of_modules())
add(
    "fourth, P-t7",
    7,
    package_of_modules(over="cfg = dataclasses.replace(cfg, batch=2, accumulate=16)"),
)
add("fourth, P-t7b", 7, package_of_modules(bs=4, ga=8))
add("fourth, P-t9", 9, package_of_modules(loss="ColbertPairwiseCELoss()"))
add("fourth, P-t15", 15, package_of_modules(dtype="torch.float16"))
add(
    "fourth, P-t6",
    6,
    package_of_modules(
        req=NEG,
        bs=4,
        cmd="python -m torch.distributed.launch --nproc_per_node=8 --module project.train",
    ),
)
add(
    "fourth, P-t27",
    27,
    package_of_modules(lora="(.*(q_proj|k_proj|v_proj|o_proj|qkv|custom_text_proj).*$)"),
)
add("fourth, P-t25", 25, package_of_modules(proc='self.processor.tokenizer.padding_side = "right"'))
add("fourth, P-t12", 12, package_of_modules(data="vidore/colpali_train_set_detailed"))
add(
    "fourth, P-t18",
    18,
    package_of_modules(loss="ColbertLoss(temperature=0.02, use_smooth_max=True)"),
)


# 2 env var config
def environment_script(env="BS=32 GA=1 DTYPE=bf16", req=OLD, run="python train_env.py", body=""):
    return {
        "train_env.py": f'''import os
import torch
from peft import LoraConfig
from transformers import TrainingArguments
from colpali_engine.loss import ColbertLoss
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.trainer.colmodel_training import ColModelTraining, ColModelTrainingConfig
from colpali_engine.utils.dataset_transformation import load_train_set

def env(name, default, kind=str):
    return kind(os.environ.get(name, default))

BS = env("BS", "32", int)
GA = int(os.getenv("GA", 1))
DTYPE = torch.bfloat16 if env("DTYPE", "bf16") == "bf16" else torch.float16
TAU = float(os.getenv("TAU", "0.02"))
base = os.environ.get("BASE_MODEL", "vidore/colqwen2-base")
{body}
ColModelTraining(ColModelTrainingConfig(
    model=ColQwen2.from_pretrained(base, torch_dtype=DTYPE), processor=ColQwen2Processor.from_pretrained(base, max_num_visual_tokens=768),
    train_dataset=load_train_set(), run_eval=False, loss_func=ColbertLoss(temperature=TAU),
    tr_args=TrainingArguments(output_dir="o", per_device_train_batch_size=BS, gradient_accumulation_steps=GA, learning_rate=5e-5, num_train_epochs=1, warmup_steps=500),
    peft_config=LoraConfig(r=32, lora_alpha=32, lora_dropout=0.1, init_lora_weights="gaussian", task_type="FEATURE_EXTRACTION", target_modules="{REG}"),
)).train()
''',
        "requirements.txt": req,
        "go.sh": "#!/bin/sh\n" + "\n".join(f"export {e}" for e in env.split()) + "\n" + run + "\n",
    }


add("fourth, N-sound", None, environment_script())
add("fourth, N-t7", 7, environment_script(env="BS=4 GA=8"))
add("fourth, N-t15", 15, environment_script(env="BS=32 DTYPE=fp16"))
add("fourth, N-t3", 3, environment_script(env="BS=32 BASE_MODEL=Qwen/Qwen2-VL-2B-Instruct"))
add("fourth, N-t9", 9, environment_script(env="BS=32 TAU=1.0"))
add(
    "fourth, N-t6",
    6,
    environment_script(
        req=NEG,
        env="BS=4",
        run="accelerate launch --multi_gpu --num_machines 2 --num_processes 16 train_env.py",
    ),
)


# 3 Lightning
def lightning_module(k="", dev=1, prec="bf16-mixed", gather="", n=""):
    return {
        "lit.py": f'''import lightning as L
import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from colpali_engine.loss import ColbertLoss
from colpali_engine.models import ColQwen2, ColQwen2Processor

class Lit(L.LightningModule):
    def __init__(self, base="vidore/colqwen2-base"):
        super().__init__()
        self.p = ColQwen2Processor.from_pretrained(base, max_num_visual_tokens=768)
        m = ColQwen2.from_pretrained(base, torch_dtype=torch.bfloat16)
        self.m = get_peft_model(m, LoraConfig(r=32, lora_alpha=32, lora_dropout=0.1, init_lora_weights="gaussian", task_type="FEATURE_EXTRACTION", target_modules="{REG}"))
        self.criterion = ColbertLoss(temperature=0.02)

    def training_step(self, batch, _):
        q, d = self.m(**batch["q"]), self.m(**batch["d"])
        {gather}
        return self.criterion(q, d)

    def collate(self, rows):
        return dict(q=self.p.process_queries([r["query"] for r in rows]), d=self.p.process_images([r["image"] for r in rows]))

    def train_dataloader(self):
        return DataLoader(load_dataset("vidore/colpali_train_set", split="train"), batch_size=32, shuffle=True, collate_fn=self.collate)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.m.parameters(), lr=5e-5)

if __name__ == "__main__":
    L.Trainer(max_epochs=1, devices={dev}, accelerator="gpu", precision="{prec}", gradient_clip_val=1.0{k}).fit(Lit())
''',
        "requirements.txt": OLD,
    }


add("fourth, LI-sound", None, lightning_module())
add("fourth, LI-t7", 7, lightning_module(k=", accumulate_grad_batches=8"))
add("fourth, LI-t6", 6, lightning_module(dev=8, k=', strategy="ddp"'))
add(
    "fourth, LI-t20",
    20,
    lightning_module(
        dev=8, k=', strategy="ddp"', gather="d = self.all_gather(d, sync_grads=True).flatten(0, 1)"
    ),
)


# 4 hydra composed
def hydra_script(bs=32, ga=1, cmd="python train.py", loss="pairwise"):
    return {
        "conf/config.yaml": "defaults:\n  - model: colqwen2\n  - trainer: single\n  - _self_\nseed: 42\n",
        "conf/model/colqwen2.yaml": "name: vidore/colqwen2-base\ntokens: 768\n",
        "conf/trainer/single.yaml": f"per_device_train_batch_size: {bs}\ngradient_accumulation_steps: {ga}\nlearning_rate: 5.0e-5\nnum_train_epochs: 1\nwarmup_steps: 500\noutput_dir: out\n",
        "train.py": f'''import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from peft import LoraConfig
from transformers import TrainingArguments
from colpali_engine.loss import ColbertPairwiseCELoss
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.trainer.colmodel_training import ColModelTraining, ColModelTrainingConfig
from colpali_engine.utils.dataset_transformation import load_train_set


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    args = TrainingArguments(**OmegaConf.to_container(cfg.trainer, resolve=True), seed=cfg.seed)
    config = ColModelTrainingConfig(
        model=ColQwen2.from_pretrained(cfg.model.name, torch_dtype=torch.bfloat16),
        processor=ColQwen2Processor.from_pretrained(cfg.model.name, max_num_visual_tokens=cfg.model.tokens),
        train_dataset=load_train_set(), tr_args=args, loss_func=ColbertPairwiseCELoss(normalize_scores=False),
        peft_config=LoraConfig(r=32, lora_alpha=32, lora_dropout=0.1, init_lora_weights="gaussian", task_type="FEATURE_EXTRACTION", target_modules=r"{REG}"))
    ColModelTraining(config).train()


if __name__ == "__main__":
    main()
''',
        "requirements.txt": OLD,
        "run.sh": cmd + "\n",
    }


add("fourth, HY-sound", None, hydra_script())
add("fourth, HY-t7", 7, hydra_script(ga=16, bs=2))
add(
    "fourth, HY-t7-cli",
    7,
    hydra_script(
        cmd="python train.py trainer.per_device_train_batch_size=4 trainer.gradient_accumulation_steps=8"
    ),
)
add(
    "fourth, HY-t6",
    6,
    {**hydra_script(bs=4, cmd="torchrun --nproc_per_node=8 train.py"), "requirements.txt": NEG},
)
# 5 yaml merges + wandb style + HF args json
add(
    "fourth, Y-t7",
    7,
    {
        "args.json": {
            "output_dir": "o",
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 16,
            "learning_rate": 5e-5,
            "num_train_epochs": 1,
            "warmup_steps": 500,
            "bf16": True,
            "model_name_or_path": "vidore/colqwen2-base",
        },
        "requirements.txt": OLD,
    },
)
add(
    "fourth, Y-sound",
    None,
    {
        "args.json": {
            "output_dir": "o",
            "per_device_train_batch_size": 32,
            "gradient_accumulation_steps": 1,
            "learning_rate": 5e-5,
            "num_train_epochs": 1,
            "warmup_steps": 500,
            "bf16": True,
        },
        "requirements.txt": OLD,
    },
)
add(
    "fourth, Y-t7-wandb",
    7,
    {
        "config.yaml": "wandb_version: 1\n_wandb: {desc: null, value: {python_version: 3.11.7}}\nper_device_train_batch_size: {desc: null, value: 4}\ngradient_accumulation_steps: {desc: null, value: 8}\nlearning_rate: {desc: null, value: 5.0e-05}\nnum_train_epochs: {desc: null, value: 1}\nwarmup_steps: {desc: null, value: 500}\n",
        "requirements.txt": OLD,
    },
)
# 6 ST script with evaluator, model card
CARD = "---\nlibrary_name: sentence-transformers\n---\n# MultiVectorEncoder\n### Training Hyperparameters\n#### Non-Default Hyperparameters\n\n- `per_device_train_batch_size`: 32\n- `gradient_accumulation_steps`: {ga}\n- `learning_rate`: 2e-05\n- `num_train_epochs`: 1\n- `bf16`: True\n"
add(
    "fourth, C-t7",
    7,
    {
        "README.md": CARD.format(ga=4),
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
        ],
        "config_sentence_transformers.json": {
            "model_type": "MultiVectorEncoder",
            "prompts": {"query": "Query: "},
        },
    },
)
add(
    "fourth, C-sound",
    None,
    {
        "README.md": CARD.format(ga=1),
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
        ],
        "config_sentence_transformers.json": {
            "model_type": "MultiVectorEncoder",
            "prompts": {"query": "Query: "},
        },
    },
)
