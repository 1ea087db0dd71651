"""A run in float16: skipped steps, the schedule, resuming, and where it gives up."""

import json

import pytest
import torch
from scaled_base import scaled_base
from torch import nn

from coltrain.errors import RunError, TrainingError
from coltrain.training.events import StepResult, StepSkipped
from coltrain.training.optimizers import learning_rate
from coltrain.training.precision import scaling
from coltrain.training.precision.choice import refuse_half_trainables
from coltrain.training.resume import resume

CPU = torch.device("cpu")
HALF = ("precision.compute=float16", "optimizer.warmup_steps=2")


def steps_of(training):
    return [event for event in training.events() if isinstance(event, StepResult | StepSkipped)]


@pytest.fixture
def large_scale(monkeypatch):
    """A first scale that overflows: the first steps are skipped until it is small enough."""
    monkeypatch.setattr(scaling, "FIRST_SCALE", 2.0**19)


def test_a_float16_step_is_close_to_the_float32_one(start):
    half, full = (steps_of(start(*more)) for more in (HALF, HALF[1:]))
    for ours, exact in zip(half, full, strict=True):
        assert ours.loss == pytest.approx(exact.loss, rel=5e-3)
        assert ours.grad_norm == pytest.approx(exact.grad_norm, rel=2e-2)
        assert ours.loss != exact.loss
        assert (ours.gradient_scale, exact.gradient_scale) == (1024, None)


@pytest.mark.slow
def test_a_skipped_step_moves_nothing_and_the_learning_rate_waits(start, large_scale):
    training = start(*HALF, "train.steps=6")
    before = {name: p.detach().clone() for name, p in training.setup.trained.items()}
    rates, skipped = [], []
    for event in training.events():
        if isinstance(event, StepSkipped):
            assert rates == []  # all at the start
            for name, parameter in training.setup.trained.items():
                assert torch.equal(parameter, before[name])
            assert training.setup.optimizer.state_dict()["state"] == {}
            skipped.append(event)
        elif isinstance(event, StepResult):
            rates.append(event.learning_rate)
    assert 1 <= len(skipped) <= 5
    assert [event.scale for event in skipped] == [2.0**19 / 2**n for n in range(len(skipped))]
    assert all(event.reason.startswith("gradient norm = ") for event in skipped)
    assert [event.num_skipped for event in skipped] == list(range(1, len(skipped) + 1))
    expected = [learning_rate(n, 6, training.recipe.optimizer) for n in range(len(rates))]
    assert rates == expected
    facts = json.loads((training.run.path / "run.json").read_text())
    assert facts["precision"] == {
        "compute": "float16",
        "weights": "float16",
        "keep_float32": [],
        "overflow": None,
        "float32_modules": list(training.setup.built.model.kept_in_float32),
        "skipped_steps": len(skipped),
        "gradient_scale": skipped[-1].next_scale,
    }
    lines = [line for line in training.run.lines() if line["kind"] == "skipped-step"]
    assert [line["step"] for line in lines] == [event.step for event in skipped]
    assert lines[0]["scale"] == 2.0**19
    assert lines[0]["next_scale"] == 2.0**18


@pytest.mark.slow
@pytest.mark.parametrize("cut_at", [1, 3])
def test_a_run_with_skipped_steps_resumes_to_the_bit(start, large_scale, cut_at, tmp_path):
    longer = (*HALF, "train.steps=5", "checkpoint.every=1", "lora.dropout=0.1")
    whole = start(*longer)
    assert isinstance(steps_of(whole)[0], StepSkipped)
    cut = start(*longer, folder=tmp_path / "cut")
    for event in cut.events():
        if isinstance(event, StepResult | StepSkipped) and event.step == cut_at + 1:
            break
    again = resume(tmp_path / "cut", CPU)
    assert again.words == [f"going on after step {cut_at}"]
    steps_of(again.training)
    for name, parameter in whole.setup.trained.items():
        assert torch.equal(parameter, again.training.setup.trained[name]), name
    kept = [
        [{k: v for k, v in line.items() if "second" not in k} for line in one.run.lines()]
        for one in (whole, again.training)
    ]
    assert kept[0] == kept[1]
    assert any(line["kind"] == "skipped-step" for line in kept[0])
    facts = [one.run.facts["precision"] for one in (whole, again.training)]
    assert facts[0] == facts[1]


@pytest.mark.slow
def test_an_overflow_without_a_policy_stops_the_run_and_names_the_module(start, tmp_path):
    name = "language_model.layers.1.mlp.down_proj"
    folder = scaled_base(tmp_path / "base", {f"{name}.weight": 1e5})
    training = start(*HALF, f"model.base={folder}", "train.steps=9")
    with pytest.raises(TrainingError) as caught:
        steps_of(training)
    error = caught.value
    assert error.code == "not-finite"
    assert "step 4 has no finite loss or gradient: loss = nan, 4 steps in a row" in error.message
    assert name in error.received
    assert "precision.keep_float32=auto" in error.suggestion
    facts = json.loads((training.run.path / "run.json").read_text())
    assert facts["state"] == "stopped"
    assert facts["precision"]["skipped_steps"] == 4
    assert facts["precision"]["gradient_scale"] == 1024
    assert [line["kind"] for line in training.run.lines()] == ["skipped-step"] * 4


@pytest.mark.slow
def test_a_gradient_that_never_is_finite_stops_the_run_as_well(start, monkeypatch):
    monkeypatch.setattr("coltrain.training.step.NUM_GRADIENT_SKIPS", 2)
    training = start(*HALF, "batch.global_size=2", "batch.chunk_size=2")
    name = "language_model.layers.0.mlp.down_proj.lora_B.default.weight"
    parameter = training.setup.built.model.get_parameter(name)
    parameter.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingError) as caught:
        steps_of(training)
    assert "2 steps in a row" in caught.value.message
    assert f"the gradient of {name} was the first" in caught.value.received


def test_an_adapter_in_half_precision_is_refused_with_what_came(start):
    training = start(*HALF)
    trained = dict(training.setup.trained)
    name = next(iter(trained))
    trained[name] = nn.Parameter(trained[name].detach().half())
    with pytest.raises(RunError) as caught:
        refuse_half_trainables(training.recipe, trained)
    assert str(caught.value) == (
        "RunError [trained-in-half]: float16 computes with trained weights in float32, and some of "
        "these are not.\n"
        "  where     lora.dtype, precision.compute\n"
        f"  received  precision.compute = float16, 1 of {len(trained)} trained tensors in float16, "
        f"first {name}\n"
        "  expected  an adapter in float32: its updates are smaller than the steps of a half type\n"
        "  try       lora.dtype=float32"
    )
