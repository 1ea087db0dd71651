import json
import math

import numpy as np
import pytest
import torch
from small_pages import small_collection

from coltrain.errors import TrainingError
from coltrain.training.batches import Batch, ChunkReader
from coltrain.training.events import StepResult
from coltrain.training.nonfinite import explain_non_finite


@pytest.fixture
def explain(tiny_built):
    """What is said about rows 3 and 0 after the model was spoilt."""
    collection = small_collection("pages", 8)
    reader = ChunkReader(collection, tiny_built.preparer)
    return lambda: explain_non_finite(tiny_built.model, reader, Batch(np.array([3, 0])), collection)


def spoil(model, name):
    with torch.no_grad():
        model.get_parameter(name).view(-1)[0] = math.nan


@pytest.mark.parametrize(
    ("parameter", "module"),
    [
        ("language_model.layers.1.mlp.gate_proj.base_layer.weight", "mlp.gate_proj"),
        ("language_model.layers.0.self_attn.q_proj.base_layer.weight", "q_proj"),
        ("language_model.norm.weight", "language_model.norm"),
        ("custom_text_proj.base_layer.weight", "custom_text_proj"),
    ],
)
def test_the_first_module_that_is_not_finite_is_named(tiny_built, explain, parameter, module):
    spoil(tiny_built.model, parameter)
    assert explain().startswith("query q3: first not finite in module ")
    assert explain().endswith(module)


def test_a_page_is_named_where_queries_are_well(tiny_built, explain):
    spoil(tiny_built.model, "visual.blocks.0.mlp.fc1.weight")
    assert explain() == "page p3: first not finite in module visual.blocks.0.mlp.fc1"


def test_a_gradient_is_named_where_every_output_is_finite(tiny_built, explain):
    for name, parameter in tiny_built.model.named_parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
            if "layers.0.self_attn" in name:
                parameter.grad.fill_(math.inf)
    words = explain()
    assert words.startswith("every module's output is finite; the gradient of language_model")
    assert "layers.0.self_attn.o_proj.lora_B.default.weight was the first that is not" in words
    assert words.endswith("queries q3, q0")


def test_a_loss_that_only_dropout_spoils_is_said_to_be_so(explain):
    assert explain() == "every module's output is finite without dropout; queries q3, q0"


def test_the_search_computes_as_the_step_did(tiny_built):
    kinds = set()
    layer = tiny_built.model.get_submodule("language_model.layers.1.mlp.gate_proj.base_layer")
    layer.register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    collection = small_collection("pages", 8)
    reader = ChunkReader(collection, tiny_built.preparer)
    compute = torch.autocast("cpu", torch.bfloat16)
    explain_non_finite(tiny_built.model, reader, Batch(np.array([3, 0])), collection, compute)
    assert kinds == {torch.bfloat16}


def test_hooks_are_gone_afterwards(tiny_built, explain):
    explain()
    assert not any(module._forward_hooks for module in tiny_built.model.modules())


def spoiled_run(start, spoil_at, damage):
    """A run whose model is damaged after a step; returns the run and its error."""
    training = start("batch.global_size=2")

    def go():
        for event in training.events():
            if isinstance(event, StepResult) and event.step == spoil_at:
                damage(training.setup.built.model)

    with pytest.raises(TrainingError) as caught:
        go()
    return training, caught.value


def test_a_run_stops_at_a_loss_that_is_not_finite(start):
    name = "language_model.layers.1.mlp.up_proj.base_layer.weight"
    training, error = spoiled_run(start, 2, lambda model: spoil(model, name))
    assert error.exit_code == 1
    assert str(error).startswith(
        "TrainingError [not-finite]: step 3 has no finite loss or gradient: loss = nan.\n"
        f"  where     {training.run.path}, step 3\n"
        "  received  query q"
    )
    assert "first not finite in module language_model.layers.1.mlp.up_proj" in error.received
    facts = json.loads((training.run.path / "run.json").read_text())
    assert facts["state"] == "stopped"
    assert "not-finite" in facts["stopped_by"]
    steps = [line["step"] for line in training.run.lines() if line["kind"] == "step"]
    assert steps == [1, 2]  # what was learnt before is kept
    assert not (training.run.path / "model").exists()


@pytest.mark.slow
def test_a_run_stops_at_a_gradient_that_is_not_finite_and_names_its_origin(start):
    name = "language_model.layers.0.mlp.down_proj.lora_B.default.weight"

    def damage(model):
        model.get_parameter(name).register_hook(lambda gradient: gradient * math.nan)

    training, error = spoiled_run(start, 1, damage)
    assert "step 2 has no finite loss or gradient: gradient norm = nan" in error.message
    assert f"the gradient of {name} was the first that is not" in error.received
    before = [line["step"] for line in training.run.lines() if line["kind"] == "step"]
    assert before == [1]
