"""The adapted linear layer against peft's own formula, in float64, and what it does not keep."""

import pytest
import torch
from peft.tuners import lora
from torch import nn

from coltrain.model.dropout import ACCELERATOR_HASHES, CPU_HASHES, KeyedDropout, SampleKeys
from coltrain.model.lora import LoraLinear
from coltrain.training.live_tensors import LiveTensors

TOKENS, IN_DIM, OUT_DIM, RANK = 50, 24, 40, 4


def make_layer(
    dtype: torch.dtype = torch.float64, *, bias: bool = True, p: float = 0.25
) -> tuple[LoraLinear, SampleKeys]:
    """A layer whose adapter is not zero, with keyed dropout in blocks of a few rows."""
    torch.manual_seed(0)
    base = nn.Linear(IN_DIM, OUT_DIM, bias=bias, dtype=dtype)
    config = lora.LoraConfig(r=RANK, lora_alpha=6, lora_dropout=p)
    layer = LoraLinear(base, "default", config=config, r=RANK, lora_alpha=6)
    keys = SampleKeys()
    keys.hashes_per_block = 3 * IN_DIM // 4  # three rows of fifty
    layer.lora_dropout["default"] = KeyedDropout(p, "layer", keys)
    nn.init.normal_(layer.lora_B["default"].weight)
    for part in (layer.lora_A, layer.lora_B):
        part["default"].weight.data = part["default"].weight.data.to(dtype)
    base.requires_grad_(False)
    return layer, keys


def results(
    layer: LoraLinear, keys: SampleKeys, forward, dtype=torch.float64
) -> list[torch.Tensor]:
    """Output, and gradients of the input, A and B."""
    torch.manual_seed(1)
    # Numbers that bfloat16 holds, so that every type gets the same.
    features = torch.randn(2, TOKENS // 2, IN_DIM).bfloat16().to(dtype).requires_grad_()
    weights = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    with keys.use([3, 4], features.device):
        output = forward(layer, features)
        towards = torch.linspace(-1, 1, output.numel()).bfloat16().to(output.dtype)
        towards = towards.view(output.shape)
        return [output, *torch.autograd.grad(output, [features, *weights], towards)]


@pytest.mark.parametrize("are_masks_kept", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("p", [0.25, 0.0])
def test_values_and_gradients_are_those_of_peft(
    bias: bool, p: float, are_masks_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coltrain.model.lora.are_masks_kept", lambda *_: are_masks_kept)
    layer, keys = make_layer(bias=bias, p=p)
    ours = results(layer, keys, LoraLinear.forward)
    theirs = results(layer, keys, lora.Linear.forward)
    for one, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 0.1
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


def test_dropout_acts() -> None:
    dropped = results(*make_layer(), LoraLinear.forward)
    whole = results(*make_layer(p=0.0), LoraLinear.forward)
    for one, other in zip(dropped, whole, strict=True):
        assert (one - other).abs().max() > 1e-2


def test_a_half_precision_input_meets_a_float32_adapter() -> None:
    """As in a network that computes in half precision: the adapter in float32, its sum rounded once."""
    layer, keys = make_layer(torch.float32)
    layer.base_layer.to(torch.bfloat16)
    layer.adapter_is_wide = True
    output, *gradients = results(layer, keys, LoraLinear.forward, torch.bfloat16)
    wide, wide_keys = make_layer(torch.float32)
    wide.base_layer.weight.data = layer.base_layer.weight.float()
    wide.base_layer.bias.data = layer.base_layer.bias.float()
    expected, *others = results(wide, wide_keys, lora.Linear.forward, torch.float32)
    assert output.dtype == gradients[0].dtype == torch.bfloat16
    assert gradients[1].dtype == gradients[2].dtype == torch.float32
    torch.testing.assert_close(output.float(), expected, rtol=2e-2, atol=2e-2)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=2e-2, atol=3e-2)


def test_a_layer_without_its_adapter_is_the_base() -> None:
    layer, _ = make_layer()
    features = torch.randn(3, IN_DIM, dtype=torch.float64)
    layer.enable_adapters(False)
    torch.testing.assert_close(layer(features), layer.base_layer(features), rtol=0, atol=0)


def test_neither_mask_nor_dropped_features_are_whole() -> None:
    layer, keys = make_layer(torch.float32)
    features = torch.randn(1, 5000, IN_DIM)
    with keys.use([1], features.device):
        output = layer(features)
        del output
        with LiveTensors() as watch:
            output = layer(features)
    # Its own output, the low-rank product, and what the mask's keys take: nothing of the input's size.
    kept = 4 * 5000 * (OUT_DIM + RANK) + 3 * 8 * 5000
    assert watch.peak_bytes < kept + 0.5 * features.nbytes
    assert output.shape == (1, 5000, OUT_DIM)


@pytest.mark.parametrize(("hashes", "kept"), [(CPU_HASHES, 0), (ACCELERATOR_HASHES, 1)])
def test_a_mask_is_kept_on_an_accelerator_and_made_again_on_a_cpu(hashes: int, kept: int) -> None:
    layer, keys = make_layer()
    keys.hashes_per_block = hashes
    features = torch.randn(1, TOKENS, IN_DIM, dtype=torch.float64)
    saved = []
    with (
        keys.use([1], features.device),
        torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t), t)[1], lambda t: t),
    ):
        layer(features)
    masks = [part for part in saved if part.dtype == torch.bool]
    assert [tuple(mask.shape) for mask in masks] == kept * [(TOKENS, IN_DIM)]
