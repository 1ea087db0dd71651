import sys
import warnings

import pytest
import torch
from transformers.optimization import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from coltrain.errors import RunError
from coltrain.recipe import OptimizerSection, load_recipe
from coltrain.training import setup as training_setup
from coltrain.training.optimizers import build_optimizer, learning_rate

REFERENCES = {
    "linear": get_linear_schedule_with_warmup,
    "cosine": get_cosine_schedule_with_warmup,
    "constant": get_constant_schedule_with_warmup,
}


def settings(**changes) -> OptimizerSection:
    values = load_recipe("tiny").optimizer.model_dump() | {"learning_rate": 5e-5} | changes
    return OptimizerSection.model_validate(values)


@pytest.mark.parametrize("schedule", sorted(REFERENCES))
@pytest.mark.parametrize(("warmup", "num_steps"), [(0, 7), (3, 10), (10, 10), (12, 6), (1, 1)])
def test_schedules_equal_those_of_transformers(schedule, warmup, num_steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=5e-5)
    more = {} if schedule == "constant" else {"num_training_steps": num_steps}
    reference = REFERENCES[schedule](optimizer, num_warmup_steps=warmup, **more)
    expected = []
    for _ in range(num_steps):
        expected.append(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    ours = settings(schedule=schedule, warmup_steps=warmup)
    found = [learning_rate(step, num_steps, ours) for step in range(num_steps)]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-20)
    assert max(found) > 0 or num_steps == 1


def weights():
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(128, 64, generator=generator))]


def descend(optimizer, parameters, steps=5):
    losses = []
    for _ in range(steps):
        loss = sum((parameter**2).sum() for parameter in parameters)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_adamw_takes_every_setting_of_the_recipe():
    chosen = settings(betas=[0.8, 0.95], eps=1e-6, weight_decay=0.1, learning_rate=3e-3)
    ours, theirs = weights(), weights()
    optimizer = build_optimizer(ours, chosen)
    assert isinstance(optimizer, torch.optim.AdamW)
    reference = torch.optim.AdamW(
        theirs, lr=3e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, fused=False
    )
    losses = descend(optimizer, ours)
    assert losses == pytest.approx(descend(reference, theirs), rel=1e-5)  # fused rounds elsewhere
    assert losses[-1] < losses[0]


def test_that_bitsandbytes_is_missing_is_said_before_data_is_loaded(start, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    loaded = []
    monkeypatch.setattr(training_setup, "load_collection", lambda *_: loaded.append(1))
    with pytest.raises(RunError, match=r"\[missing-extra\]: the 8-bit optimisers"):
        start("optimizer.name=paged_adamw_8bit")
    assert not loaded


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
def test_eight_bits_without_bitsandbytes_say_how_to_get_it(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # which makes importing it fail
    with pytest.raises(RunError) as caught:
        build_optimizer(weights(), settings(name=name))
    assert str(caught.value) == (
        "RunError [missing-extra]: the 8-bit optimisers need bitsandbytes, which is not "
        "installed.\n"
        "  where     optimizer.name\n"
        f"  received  {name}\n"
        "  try       pip install 'coltrain[optim8bit]', or optimizer.name=adamw"
    )


@pytest.mark.reference
@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
def test_eight_bits_follow_adamw_on_a_cpu(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on a CPU nothing is paged, which bitsandbytes says
        import bitsandbytes

        ours, theirs = weights(), weights()
        chosen = settings(name=name, learning_rate=1e-2, weight_decay=0.01)
        losses = descend(build_optimizer(ours, chosen), ours, steps=20)
    assert bitsandbytes.__version__
    full = settings(learning_rate=1e-2, weight_decay=0.01)
    expected = descend(build_optimizer(theirs, full), theirs, steps=20)
    assert losses[-1] < 0.9 * losses[0]
    # States of 8 bits, in blocks of 256 with a scale each.
    assert losses == pytest.approx(expected, rel=0.02)
    assert losses != pytest.approx(expected, rel=1e-7)
