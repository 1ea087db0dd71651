"""What lies beside a training or stands in its calls: deepspeed, processes, machines, rows, cards, states."""

import json

import pytest

from coltrain.recipe import load_recipe, to_yaml
from coltrain.reproduction.targets import read_target
from coltrain.reproduction.traps import examine

SCRIPT = """from colpali_engine.models import ColQwen2
from datasets import load_dataset
from transformers import TrainingArguments, Trainer
model = ColQwen2.from_pretrained("vidore/colqwen2-base")
Trainer(model=model, args=TrainingArguments(output_dir="o", per_device_train_batch_size=4), train_dataset={data})
"""


def facts_of(folder, script="", **files):
    (folder / "train.py").write_text(script or SCRIPT.format(data='load_dataset("x")'))
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(json.dumps(content))
    return read_target(str(folder)).facts


def test_what_deepspeed_is_told_counts_and_auto_says_nothing(tmp_path):
    told = {"zero_optimization": {"stage": 2}, "gradient_accumulation_steps": 8}
    facts = facts_of(tmp_path, ds__json=told | {"fp16": {"enabled": True, "loss_scale": 1}})
    assert facts.value("batch.accumulation") == 8
    assert facts.value("precision.compute") == "float16"
    assert facts.value("precision.scaler") is False
    auto = told | {"gradient_accumulation_steps": "auto"}
    assert facts_of(tmp_path, ds__json=auto).value("batch.accumulation") == 1


@pytest.mark.parametrize(
    ("call", "world"),
    [
        ("TorchTrainer(f, scaling_config=ScalingConfig(num_workers=6, use_gpu=True))", 6),
        ("notebook_launcher(f, (), num_processes=4)", 4),
        ("mp.spawn(f, nprocs=2)", 2),
        ("mp.spawn(f, nprocs=n)", None),
    ],
)
def test_processes_that_a_script_asks_for(tmp_path, call, world):
    facts = facts_of(tmp_path, SCRIPT.format(data='load_dataset("x")') + call + "\n")
    assert facts.value("launch.world_size") == world


@pytest.mark.parametrize(
    ("line", "gpu"),
    [
        ('HuggingFace(entry_point="t.py", instance_type="ml.p3.2xlarge")', "V100"),
        ('HuggingFace(entry_point="t.py", instance_type="ml.g5.12xlarge")', "A10G"),
        ('f = modal.App().function(gpu="A100-80GB")', "A100"),
        ('f = run(machine_type="a2-highgpu-1g")', "A100"),
        ('f = run(machine_type="n2-standard-8")', None),
    ],
)
def test_rented_machines_have_a_card(tmp_path, line, gpu):
    facts = facts_of(tmp_path, SCRIPT.format(data='load_dataset("x")') + line + "\n")
    assert facts.value("hardware.gpu") == gpu


@pytest.mark.parametrize(
    ("data", "left"),
    [
        ('load_dataset("vidore/colpali_train_set", split="train[:40%]")', 0.4),
        ('load_dataset("vidore/colpali_train_set", split="train[:5000]")', 5000),
        ('load_dataset("vidore/colpali_train_set")["train"].shuffle().select(range(200))', 200),
        ('load_dataset("vidore/colpali_train_set", split="train").shard(4, 0)', 0.25),
        ('load_dataset("acme/mine", split="train[:40%]")', None),
        ('load_dataset("vidore/colpali_train_set", split="train")', None),
    ],
)
def test_rows_that_are_left_of_the_published_data(tmp_path, data, left):
    assert facts_of(tmp_path, SCRIPT.format(data=data)).value("data.left") == left


def test_rows_cut_off_in_a_branch_that_may_not_be_taken_do_not_count(tmp_path):
    script = """from datasets import load_dataset
import argparse
p = argparse.ArgumentParser()
p.add_argument("--debug", action="store_true")
a = p.parse_args()
d = load_dataset("vidore/colpali_train_set", split="train")
if a.debug:
    d = d.select(range(64))
""" + SCRIPT.format(data="d")
    assert facts_of(tmp_path, script).value("data.left") is None


def test_the_last_checkpoint_is_the_one_with_the_highest_number(tmp_path):
    for step in (500, 1000):
        folder = tmp_path / "out" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        state = {"max_steps": 2000, "global_step": step, "log_history": [{"step": step, "loss": 1}]}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    (tmp_path / "train.py").write_text(SCRIPT.format(data='load_dataset("x")'))
    assert [line["step"] for line in read_target(str(tmp_path)).log] == [1000]


def test_a_recipe_with_strings_that_are_not_its_templates_is_looked_at(tmp_path):
    text = to_yaml(load_recipe("colqwen2-v0.1"))
    assert "Describe the image." in text
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace("Describe the image.", "Describe it."))
    target = read_target(str(file))
    assert any("other strings" in one for one in target.not_read)
    assert examine(target)[0].trap.id == "prefix-drift"


def test_anchors_that_nothing_takes_are_no_settings(tmp_path):
    (tmp_path / "args.yaml").write_text(
        "x-small: &small {gradient_accumulation_steps: 16}\n"
        "training: {per_device_train_batch_size: 32, output_dir: TrainingArguments}\n"
    )
    facts = read_target(str(tmp_path / "args.yaml")).facts
    assert facts.value("batch.per_device") == 32
    assert facts.value("batch.accumulation") == 1
