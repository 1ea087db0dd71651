"""What a training printed, read line by line."""

import math

import pytest

from coltrain.reproduction.targets.facts import Facts
from coltrain.reproduction.targets.printed_log import is_printed, read_printed

STARTED = """***** Running training *****
  Num examples = 118,195
  Num Epochs = 1
  Instantaneous batch size per device = 4
  Total train batch size (w. parallel, distributed & accumulation) = 128
  Gradient Accumulation steps = 4
  Total optimization steps = 924
"""


def read(tmp_path, text, name="train.log", launcher=None):
    file = tmp_path / name
    file.write_text(text)
    assert is_printed(file)
    facts = Facts()
    if launcher:
        facts.put("launch.launcher", launcher, "run.sh")
    return read_printed(file, facts), facts


def test_losses_are_read_past_a_progress_bar_and_where_they_are_not_finite(tmp_path):
    printed, _ = read(
        tmp_path,
        "  1%|  | 10/924 [00:12<18:01]\r{'loss': 0.6931, 'grad_norm': 1.5, 'learning_rate': 1e-06, "
        "'epoch': 0.01}\n{'loss': nan, 'grad_norm': inf, 'epoch': 0.02}\n"
        "{'loss': '0.5', 'grad_norm': '0.2', 'epoch': '0.03'}\n{'eval_loss': 0.3, 'epoch': 0.03}\n",
    )
    assert [line["loss"] for line in printed.log][::2] == [0.6931, 0.5]
    assert math.isnan(printed.log[1]["loss"])
    assert math.isinf(printed.log[1]["grad_norm"])
    assert [line["step"] for line in printed.log] == [1, 2, 3]


@pytest.mark.parametrize(
    ("launcher", "world", "copies"), [("torchrun", 8, None), ("python", 1, 8), (None, None, None)]
)
def test_what_transformers_says_before_the_first_step_gives_batch_and_devices(
    tmp_path, launcher, world, copies
):
    printed, facts = read(tmp_path, STARTED, launcher=launcher)
    assert printed.read
    assert facts.value("launch.world_size") == world  # 128 / (4 * 4), as processes
    assert facts.value("launch.data_parallel") == copies  # or as GPUs of one process
    assert facts.value("batch.accumulation") == 4
    assert facts.value("data.rows") == 118195


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        (
            "Some weights of ColQwen2 were not initialized from the model checkpoint at a/b and are "
            "newly initialized: ['custom_text_proj.bias', 'norm.weight']\n",
            ["custom_text_proj.bias", "norm.weight"],
        ),
        (
            "ColQwen2 LOAD REPORT from: a/b\nKey                | Status     |\n"
            "-------------------+------------+-\n"
            "embed_tokens.weight | MISSING    |\nlm_head.weight | UNEXPECTED |\n",
            ["embed_tokens.weight"],
        ),
        ("Some weights of the model checkpoint were not used: ['lm_head.weight']\n", []),
    ],
)
def test_tensors_that_were_drawn_anew_are_named_with_their_line(tmp_path, text, drawn):
    printed, _ = read(tmp_path, text, "nohup.out")
    assert [name for name, _ in printed.drawn] == drawn
    assert all(where.startswith("nohup.out, line ") for _, where in printed.drawn)


def test_adapter_keys_without_a_partner_are_kept_and_a_card_is_named(tmp_path):
    printed, facts = read(
        tmp_path,
        "| 0  Tesla V100-SXM2-32GB  On |\nUserWarning: Found missing adapter keys while loading the "
        "checkpoint: ['base_model.model.x.lora_A.default.weight']\n",
    )
    assert printed.adapter[0] == (
        "base_model.model.x.lora_A.default.weight",
        "train.log, line 2",
    )
    assert facts.value("hardware.capability") == "7.0"


def test_prose_is_no_log(tmp_path):
    printed, facts = read(tmp_path, "The loss was {'high'} at first; a batch of 32 on 8 ranks.\n")
    assert not printed.read
    assert list(facts) == []
