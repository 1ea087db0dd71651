"""The gated feed-forward layer against transformers' own, in float64."""

import copy

import pytest
import torch
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2MLP

from coltrain.model import feed_forward
from coltrain.model.feed_forward import FeedForward
from coltrain.model.tiny.architecture import tiny_config
from coltrain.training.live_tensors import LiveTensors


def both(**changes: object) -> tuple[Qwen2MLP, FeedForward]:
    config = copy.deepcopy(tiny_config().text_config)
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    theirs = Qwen2MLP(config).double()
    return theirs, FeedForward(copy.deepcopy(theirs))


def test_values_and_gradients_are_those_of_transformers(monkeypatch) -> None:
    theirs, ours = both()
    wide = theirs.gate_proj.out_features
    monkeypatch.setattr(feed_forward, "CPU_NUMBERS", 3 * wide)  # blocks of three rows of ten
    assert dict(theirs.named_parameters()).keys() == dict(ours.named_parameters()).keys()
    found = []
    for layer in (theirs, ours):
        torch.manual_seed(1)
        states = torch.randn(2, 5, theirs.gate_proj.in_features, dtype=torch.float64)
        output = layer(states.requires_grad_())
        towards = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape)
        found.append([output, *torch.autograd.grad(output, [states, *layer.parameters()], towards)])
    for one, other in zip(*found, strict=True):
        assert other.abs().max() > 1e-6
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-15)


def test_less_is_kept_than_by_transformers() -> None:
    kept = []
    for layer in both():
        states = torch.randn(1, 400, layer.gate_proj.in_features, dtype=torch.float64)
        with LiveTensors() as watch:
            layer.requires_grad_(False)
            output = layer(states.requires_grad_())
            kept.append(watch.alive_bytes)
        assert output.requires_grad
    wide = 8 * 400 * layer.gate_proj.out_features
    assert (
        kept[0] - kept[1] >= wide
    )  # silu(gate); the product is kept by the layer behind, if at all


def test_another_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="activation gelu; expected silu, as in Qwen2"):
        both(hidden_act="gelu")
