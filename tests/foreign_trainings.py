"""Configurations of foreign libraries, as their authors write them; forms as in colpali-engine's tags."""

from pathlib import Path

TARGETS = (
    "(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$"
    "|.*(custom_text_proj).*$)"
)


def engine_yaml(
    *,
    era: str = "old",
    loss: str = "ColbertPairwiseCELoss",
    loss_lines: str = "",
    data: str = "load_train_set",
    base: str = "./models/colqwen2_base",
    dtype: str = "torch.bfloat16",
    tokens: str = "",
    arguments: str = "num_train_epochs: 5\n    per_device_train_batch_size: 64\n"
    "    warmup_steps: 100\n    learning_rate: 5e-4\n    gradient_checkpointing: true",
    lora: str = "r: 32\n    lora_alpha: 32\n    lora_dropout: 0.1",
    targets: str = TARGETS,
    more: str = "",
    model: str = "ColQwen2",
) -> str:
    """A configue YAML: `old` up to 0.3.10, `new` from 0.3.11."""
    data_lines = (
        f"dataset_loading_func: !ext colpali_engine.utils.dataset_transformation.{data}"
        if era == "old"
        else f"train_dataset:\n    (): colpali_engine.utils.dataset_transformation.{data}"
    )
    return f"""config:
  (): colpali_engine.trainer.colmodel_training.ColModelTrainingConfig
  output_dir: !path ../../../models/colqwen2
  processor:
    (): colpali_engine.utils.transformers_wrappers.AllPurposeWrapper
    class_to_instanciate: !ext colpali_engine.models.{model}Processor
    pretrained_model_name_or_path: "{base}"
    {tokens}
  model:
    (): colpali_engine.utils.transformers_wrappers.AllPurposeWrapper
    class_to_instanciate: !ext colpali_engine.models.{model}
    pretrained_model_name_or_path: "{base}"
    torch_dtype: !ext {dtype}
    use_cache: false
  {data_lines}
  run_eval: true
  {more}
  loss_func:
    (): colpali_engine.loss.late_interaction_losses.{loss}
    {loss_lines}
  tr_args:
    (): transformers.training_args.TrainingArguments
    output_dir: null
    {arguments}
  peft_config:
    (): peft.LoraConfig
    {lora}
    init_lora_weights: "gaussian"
    bias: "none"
    task_type: "FEATURE_EXTRACTION"
    target_modules: '{targets}'
"""


ENGINE_SCRIPT = (
    '''import argparse
import os
import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import TrainingArguments
from colpali_engine.data.dataset import ColPaliEngineDataset
from colpali_engine.loss.late_interaction_losses import ColbertLoss, ColbertPairwiseCELoss
from colpali_engine.models import ColQwen2, ColQwen2Processor
from colpali_engine.trainer.colmodel_training import ColModelTraining, ColModelTrainingConfig
from colpali_engine.utils.dataset_transformation import load_train_set

BASE = "./models/base_models/colqwen2-base"
PER_DEVICE = 64


def parse_args():
    p = argparse.ArgumentParser()
    p.add_argument("--lr", type=float, default=5e-4)
    p.add_argument("--loss", type=str, default="pairwise", choices=["ce", "pairwise"])
    p.add_argument("--peft", action="store_true")
    return p.parse_args()


if __name__ == "__main__":
    args = parse_args()
    if args.loss == "ce":
        loss_func = ColbertLoss(temperature=0.02, normalize_scores=True)
    else:
        loss_func = ColbertPairwiseCELoss(normalize_scores=False)
    model = ColQwen2.from_pretrained(BASE, torch_dtype=torch.bfloat16, use_cache=False)
    processor = ColQwen2Processor.from_pretrained(BASE, max_num_visual_tokens=768)
    config = ColModelTrainingConfig(
        output_dir="out",
        processor=processor,
        model=model,
        train_dataset=load_train_set(),
        eval_dataset=ColPaliEngineDataset(
            load_dataset("./data_dir/colpali_train_set", split="test"), pos_target_column_name="image"
        ),
        loss_func=loss_func,
        tr_args=TrainingArguments(
            output_dir=None,
            num_train_epochs=5,
            per_device_train_batch_size=PER_DEVICE,
            gradient_checkpointing=True,
            warmup_steps=100,
            learning_rate=args.lr,
        ),
        peft_config=LoraConfig(
            r=32,
            lora_alpha=32,
            lora_dropout=0.1,
            init_lora_weights="gaussian",
            target_modules="'''
    + TARGETS
    + """",
        )
        if args.peft
        else None,
    )
    trainer = ColModelTraining(config)
    trainer.train()
    trainer.save()
"""
)

SENTENCE_SCRIPT = """from datasets import load_dataset
from peft import LoraConfig
from sentence_transformers import (
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
)
from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
from sentence_transformers.multi_vector_encoder.scoring import mean_colbert_scores


def main():
    model = MultiVectorEncoder("vidore/colqwen2-v1.0", model_kwargs={"torch_dtype": "bfloat16"})
    data = load_dataset("vidore/colpali_train_set", split="train")
    loss = MultiVectorMultipleNegativesRankingLoss(
        model, scale=50.0, similarity_fct=mean_colbert_scores, gather_across_devices=True
    )
    args = MultiVectorEncoderTrainingArguments(
        output_dir="out",
        num_train_epochs=1,
        per_device_train_batch_size=64,
        learning_rate=2e-5,
        warmup_steps=0.05,
        bf16=True,
    )
    trainer = MultiVectorEncoderTrainer(model=model, args=args, train_dataset=data, loss=loss)
    trainer.train()


if __name__ == "__main__":
    main()
"""


def write(folder: Path, **files: str) -> Path:
    """Files by name, in which a double underscore stands for the dot; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder
