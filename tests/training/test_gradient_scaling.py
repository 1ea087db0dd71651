"""Gradient scaling by itself: torch's scale, exact division, and the step's gradient."""

import pytest
import torch

from coltrain.training.gradient_cache import cached_gradients
from coltrain.training.precision import scaling as subject
from coltrain.training.precision.scaling import Scaling, unscale


def test_the_scale_moves_as_torchs_does(monkeypatch):
    monkeypatch.setattr(subject, "_GROWTH_INTERVAL", 3)
    theirs = torch.amp.GradScaler("cpu", init_scale=1024, growth_interval=3)
    ours = Scaling.start("float16")
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scales = [ours.scale]
    for is_finite in [False, False, True, True, True, True, False, True, True, True, True, True]:
        theirs.scale(weight.sum()).backward()
        weight.grad.fill_(1.0 if is_finite else torch.inf)
        theirs.step(optimizer)
        theirs.update()
        ours = ours.taken() if is_finite else ours.skipped(at_loss=False)
        assert ours.scale == theirs.get_scale()
        scales.append(ours.scale)
    assert scales[0] == 1024
    assert len(set(scales)) == 3
    assert ours.num_skipped == 3


def test_a_loss_that_is_not_finite_leaves_the_scale():
    once = Scaling.start("float16").skipped(at_loss=True)
    twice = once.skipped(at_loss=False)
    assert (once.scale, once.skipped_in_a_row) == (1024, 1)
    assert (twice.scale, twice.skipped_in_a_row, twice.num_skipped) == (512, 2, 2)
    assert twice.taken().skipped_in_a_row == 0
    assert twice.taken().num_skipped == 2


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_nothing_is_scaled_in_a_precision_with_the_range_of_float32(compute):
    assert Scaling.start(compute).scale == 1.0


def test_unscaling_gives_the_bits_back():
    gradients = [torch.randn(5, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    scaled = [gradient * 2.0**20 for gradient in gradients]
    unscale(scaled, 2.0**20)
    assert all(torch.equal(a, b) for a, b in zip(gradients, scaled, strict=True))


def gradients_of(built, chunks, scale):
    model = built.model
    model.zero_grad(set_to_none=True)

    def loss(embeddings):
        return sum((part.vectors * 0.3).sin().sum() for part in embeddings.values())

    result = cached_gradients(model, chunks, loss, seed=3, step=7, scale=scale)
    return result.loss, {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@pytest.mark.parametrize("chunk_size", [1, 2, 4])
def test_scaled_gradients_are_the_plain_ones_times_the_scale(
    float64_built, uneven_chunks, chunk_size
):
    plain, expected = gradients_of(float64_built, uneven_chunks(float64_built, 4, 4), 1.0)
    loss, found = gradients_of(float64_built, uneven_chunks(float64_built, 4, chunk_size), 1024.0)
    assert loss == pytest.approx(plain, abs=1e-12)  # the loss is not scaled
    for name, gradient in found.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient / 1024, expected[name], rtol=1e-12, atol=1e-13)
