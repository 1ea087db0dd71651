"""What run.json says of how a run computes."""

import torch
from torch import nn

from coltrain.data.row_contents import read_row_contents
from coltrain.training.numerics import kernel_facts, moment_types, tensors_hash
from coltrain.training.run_folder import ROW_CONTENTS


def stepped(dtype):
    parameter = nn.Parameter(torch.ones(3, 2, dtype=dtype))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def test_moments_are_counted_by_their_type():
    assert moment_types(stepped(torch.float32)) == {
        "exp_avg": {"float32": 6},
        "exp_avg_sq": {"float32": 6},
    }
    assert moment_types(stepped(torch.bfloat16))["exp_avg"] == {"bfloat16": 6}


def test_there_are_no_moments_before_the_first_step():
    assert moment_types(torch.optim.AdamW([nn.Parameter(torch.ones(3))])) == {}


def test_the_hash_of_tensors_sees_values_names_and_types():
    tensors = {"a": torch.zeros(2), "b": torch.ones(2)}
    same = {"b": torch.ones(2), "a": torch.zeros(2)}
    assert tensors_hash(tensors) == tensors_hash(same)
    others = (
        {"a": torch.zeros(2), "b": torch.tensor([1.0, 1.0 + 1e-7])},
        {"a": torch.zeros(2), "c": torch.ones(2)},
        {"a": torch.zeros(2), "b": torch.ones(2).to(torch.bfloat16)},
        {"a": torch.zeros(2), "b": torch.ones(1, 2)},
    )
    assert len({tensors_hash(one) for one in (tensors, *others)}) == 5


def test_kernels_name_attention_and_threads(tiny_built):
    facts = kernel_facts(tiny_built, torch.device("cpu"))
    assert facts["threads"] == torch.get_num_threads()
    assert facts["attention"] == tiny_built.model.config.text_config._attn_implementation
    assert facts["attention"]


def test_a_run_records_moments_weights_and_rows(start, use_small_data):
    training = start()
    facts = dict(training.run.facts)
    assert "moments" not in facts  # nothing is known before the first step
    assert facts["trained_weights_hash"] == tensors_hash(training.setup.trained)
    assert facts["template_hash"]
    assert facts["reading"]["image_library"].startswith("Pillow ")
    for _ in training.events():
        pass
    elements = training.run.facts["parameters"]["trainable"]
    assert training.run.facts["moments"]["exp_avg"] == {"float32": elements}
    assert training.run.facts["trained_weights_hash"] == facts["trained_weights_hash"]
    (train, *_) = read_row_contents(training.run.path / ROW_CONTENTS)
    assert train.name == "small-train"
    assert len(train.rows) == len(training.setup.collection.rows)
    assert None not in train.pages.values()
