"""The feed-forward layer by blocks of rows against the same layer module by module, in float64."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from peft.tuners import lora
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2MLP

from coltrain.model import feed_forward, feed_forward_in_blocks
from coltrain.model.dropout import KeyedDropout, SampleKeys, keep_rows
from coltrain.model.feed_forward import ACCELERATOR_NUMBERS, FeedForward
from coltrain.model.lora import LoraLinear
from coltrain.model.tiny.architecture import tiny_config
from coltrain.training.live_tensors import LiveTensors

LENGTHS = (4, 7)
RANK = 3
ALL = ("gate_proj", "up_proj", "down_proj")


def make(
    *, adapted: tuple[str, ...] = ALL, p: float = 0.25, dtype: torch.dtype = torch.float64
) -> tuple[FeedForward, SampleKeys]:
    """A layer whose adapters are not zero, with keyed dropout."""
    torch.manual_seed(0)
    layer = FeedForward(Qwen2MLP(tiny_config().text_config)).to(dtype).requires_grad_(False)
    keys = SampleKeys()
    config = lora.LoraConfig(r=RANK, lora_alpha=6, lora_dropout=p)
    for name in adapted:
        part = LoraLinear(getattr(layer, name), "default", config=config, r=RANK, lora_alpha=6)
        part.lora_dropout["default"] = KeyedDropout(p, name, keys)
        nn.init.normal_(part.lora_B["default"].weight)
        for side in (part.lora_A, part.lora_B):
            side["default"].weight.data = side["default"].weight.data.to(dtype)
        setattr(layer, name, part)
    return layer, keys


def states_of(layer: FeedForward, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(1)
    hidden = layer.down_proj.weight.shape[0]
    return torch.randn(1, sum(LENGTHS), hidden, dtype=dtype, requires_grad=True)


def results(
    layer: FeedForward, keys: SampleKeys, run: Callable | None = None, times: int = 1
) -> list[Tensor]:
    """Output, and gradients of the input and all that is trained, as often as told."""
    states = states_of(layer)
    trained = [one for one in layer.parameters() if one.requires_grad]
    found = []
    with keys.use([3, 4], states.device):
        keys.lay_out(LENGTHS)
        output = (run or layer)(states)
        towards = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
        for _ in range(times):
            found += torch.autograd.grad(output, [states, *trained], towards, retain_graph=True)
    return [output, *found]


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Blocks of three rows or fewer; how many rows each had that went up."""
    wide = tiny_config().text_config.intermediate_size
    monkeypatch.setattr(feed_forward, "CPU_NUMBERS", 3 * wide)
    seen = []
    project = feed_forward_in_blocks._project_up

    def watched(work, rows, block, *more):
        seen.append(block.stop - block.start)
        return project(work, rows, block, *more)

    monkeypatch.setattr(feed_forward_in_blocks, "_project_up", watched)
    return seen


def by_modules(layer: FeedForward) -> FeedForward:
    """The same layer with a look at it, for which each module has to be called."""
    layer.up_proj.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize("is_made_again", [False, True])
@pytest.mark.parametrize("adapted", [ALL, ("gate_proj", "down_proj"), ("up_proj",)])
@pytest.mark.parametrize("p", [0.25, 0.0])
def test_values_and_gradients_are_those_of_the_modules(blocks, adapted, p, is_made_again) -> None:
    layer, keys = make(adapted=adapted, p=p)
    layer.is_made_again = is_made_again
    ours = results(layer, keys)
    assert blocks == 2 * [2, 3, 3, 3]  # forward and backward
    theirs = results(by_modules(layer), keys)
    assert len(blocks) == 8
    assert len(ours) == 2 + 2 * len(adapted)
    for one, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 0.01
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_dropout_acts() -> None:
    for one, other in zip(results(*make()), results(*make(p=0.0)), strict=True):
        assert (one - other).abs().max() > 1e-2


@pytest.mark.parametrize("is_made_again", [False, True])
def test_going_backward_twice_gives_the_same(blocks, is_made_again) -> None:
    layer, keys = make()
    layer.is_made_again = is_made_again
    found = results(layer, keys, times=2)[1:]
    first, second = found[: len(found) // 2], found[len(found) // 2 :]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_a_checkpointed_layer_does_not_compute_before_its_own_backward_pass(blocks) -> None:
    layer, keys = make()
    layer.is_made_again = True
    plain = results(layer, keys)
    num_blocks = len(blocks)
    again = results(layer, keys, lambda states: checkpoint(layer, states, use_reentrant=False))
    # Forward and backward once, as without checkpointing: running forward again stops at the input.
    assert len(blocks) == 2 * num_blocks
    for one, other in zip(plain, again, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("is_made_again", [False, True])
def test_what_is_kept(is_made_again) -> None:
    layer, keys = make()
    layer.is_made_again = is_made_again
    states = states_of(layer)
    with keys.use([3, 4], states.device):
        keys.lay_out(LENGTHS)
        with LiveTensors() as watch:
            output = layer(states)
            kept = watch.alive_bytes - output.nbytes
    wide = 8 * sum(LENGTHS) * tiny_config().text_config.intermediate_size
    small = 3 * 8 * sum(LENGTHS) * (1 + RANK)  # what masks hash from, and the products with A
    assert kept == (0 if is_made_again else 2 * wide) + small


def test_without_a_graph_nothing_is_kept(blocks) -> None:
    layer, keys = make()
    with torch.no_grad(), keys.use([3, 4], torch.device("cpu")), LiveTensors() as watch:
        keys.lay_out(LENGTHS)
        before = watch.alive_bytes
        output = layer(states_of(layer))
        assert blocks == [2, 3, 3, 3]
        assert watch.alive_bytes - before <= output.nbytes + states_of(layer).nbytes
    assert not output.requires_grad


def hooked(layer: FeedForward) -> None:
    layer.down_proj.lora_A["default"].register_forward_pre_hook(lambda *_: None)


def replaced(layer: FeedForward) -> None:
    layer.gate_proj.forward = layer.gate_proj.forward


def trained(layer: FeedForward) -> None:
    layer.up_proj.base_layer.weight.requires_grad_(True)


def narrower(layer: FeedForward) -> None:
    layer.down_proj.base_layer.to(torch.bfloat16)


def unadapted(layer: FeedForward) -> None:
    for name in ALL:
        getattr(layer, name).enable_adapters(False)


def biased(layer: FeedForward) -> None:
    layer.up_proj.base_layer.bias = nn.Parameter(torch.zeros(1).double(), requires_grad=False)


def on_an_accelerator(layer: FeedForward) -> None:
    layer.numbers_per_block = ACCELERATOR_NUMBERS


def of_another_type(layer: FeedForward) -> None:
    layer.gate_proj.base_layer.__class__ = type("Quantized", (nn.Linear,), {})


@pytest.mark.parametrize(
    "change",
    [
        hooked,
        replaced,
        trained,
        narrower,
        unadapted,
        biased,
        on_an_accelerator,
        of_another_type,
        torch.autocast,
    ],
)
def test_modules_are_called_where_rows_would_not_do(change, blocks, monkeypatch) -> None:
    layer, keys = make()
    scope: AbstractContextManager = nullcontext()
    if change is torch.autocast:
        scope = torch.autocast("cpu", torch.bfloat16)
    else:
        change(layer)
    monkeypatch.setattr(
        LoraLinear, "forward", lambda part, rows: torch.zeros(*rows.shape[:-1], part.out_features)
    )
    monkeypatch.setattr(
        nn.Linear, "forward", lambda part, rows: torch.zeros(*rows.shape[:-1], part.out_features)
    )
    with scope, keys.use([3, 4], torch.device("cpu")):
        keys.lay_out(LENGTHS)
        assert not layer(states_of(layer)).any()
    assert not blocks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_masks_are_the_same_in_every_type(dtype) -> None:
    starts = torch.arange(50) * 7919
    whole = keep_rows(starts, 21, 0.3, 12)
    assert 0.6 < whole.float().mean() < 0.8
    assert torch.equal(keep_rows(starts, 21, 0.3, 12, dtype=dtype), whole.to(dtype))
