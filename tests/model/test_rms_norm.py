"""The norm against transformers' own: the same bits, forward and backward."""

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLRMSNorm

from coltrain.model import rms_norm
from coltrain.model.rms_norm import RmsNorm

HIDDEN = 48


def both(weight: torch.dtype = torch.float32) -> tuple[nn.Module, RmsNorm]:
    torch.manual_seed(0)
    theirs = Qwen2VLRMSNorm(HIDDEN)
    nn.init.normal_(theirs.weight)
    theirs.to(weight).requires_grad_(False)
    return theirs, RmsNorm(copy.deepcopy(theirs))


def results(norm: nn.Module, dtype: torch.dtype, wanted: list[Tensor]) -> list[Tensor]:
    """Output, gradient of the input, and of what else is wanted."""
    torch.manual_seed(1)
    states = (3 * torch.randn(2, 5, HIDDEN)).to(dtype).requires_grad_()
    output = norm(states)
    towards = torch.linspace(-1, 1, output.numel()).to(output.dtype).view(output.shape)
    return [output, *torch.autograd.grad(output, [states, *wanted], towards)]


@pytest.mark.parametrize(
    ("dtype", "weight"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.float32, torch.bfloat16),  # a residual stream that a module in float32 has widened
    ],
)
def test_values_and_gradients_are_transformers_to_the_bit(dtype, weight, monkeypatch) -> None:
    monkeypatch.setattr(rms_norm, "CPU_NUMBERS", 3 * HIDDEN)  # blocks of three rows of ten
    for one, other in zip(*(results(norm, dtype, []) for norm in both(weight)), strict=True):
        assert other.abs().max() > 0.1
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_a_weight_that_is_trained_gets_its_gradient() -> None:
    found = []
    for norm in both():
        norm.requires_grad_(True)
        found.append(results(norm, torch.float32, [norm.weight]))
    for one, other in zip(*found, strict=True):
        assert other.abs().max() > 0.1
        assert torch.equal(one, other)
