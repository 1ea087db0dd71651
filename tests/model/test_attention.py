"""Our attention function: equal to the library's, and which kernel it asks for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface

from coltrain.model import attention as subject
from coltrain.model.attention import ATTENTION, attention, has_grouped_kernel

EXACT = {"rtol": 0, "atol": 1e-13}
V100, A100 = (7, 0), (8, 0)


class Layer(nn.Module):
    """What the library reads of an attention layer."""

    def __init__(self, heads: int, key_heads: int, is_causal: bool) -> None:
        super().__init__()
        self.num_key_value_groups = heads // key_heads
        self.is_causal = is_causal


@pytest.fixture
def grouped():
    """Queries of 6 heads, keys and values of 2."""
    random = torch.Generator().manual_seed(0)

    def draw(heads):
        parts = torch.randn(2, heads, 7, 8, generator=random, dtype=torch.float64)
        return parts.requires_grad_()

    return draw(6), draw(2), draw(2)


@pytest.fixture
def asked(monkeypatch):
    """Whether each call let torch group heads, and how many key heads it got."""
    calls = []
    kernel = F.scaled_dot_product_attention

    def record(query, key, value, **settings):
        calls.append((settings["enable_gqa"], key.shape[1]))
        return kernel(query, key, value, **settings)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    return calls


def value_and_gradients(function, inputs, **settings):
    output, weights = function(Layer(6, 2, True), *inputs, scaling=0.3, **settings)
    assert weights is None
    probe = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)
    return output, *torch.autograd.grad((output * probe).sum(), inputs)


def by_hand(query, key, value, mask):
    """Attention written out, one head at a time."""
    heads = []
    for head in range(query.shape[1]):
        other = head * key.shape[1] // query.shape[1]
        scores = query[:, head] @ key[:, other].transpose(1, 2) * 0.3
        weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), -1)
        heads.append(weights @ value[:, other])
    return torch.stack(heads, 2)


@pytest.mark.parametrize("repeats", [False, True])
def test_repeated_heads_give_the_same_values_and_gradients(monkeypatch, grouped, asked, repeats):
    monkeypatch.setattr(subject, "has_grouped_kernel", lambda *_: not repeats)
    found = value_and_gradients(attention, grouped, attention_mask=None)
    assert asked == [(False, 6) if repeats else (True, 2)]
    expected = by_hand(*grouped, torch.ones(7, 7, dtype=torch.bool).tril())
    probe = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    gradients = torch.autograd.grad((expected * probe).sum(), grouped)
    for ours, theirs in zip(found, (expected, *gradients), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)
        assert ours.abs().max() > 0.1


@pytest.mark.parametrize("is_causal", [None, False])
@pytest.mark.parametrize("is_masked", [False, True])
def test_it_equals_the_librarys_to_the_bit_on_a_cpu(grouped, is_causal, is_masked):
    mask = torch.rand(2, 1, 7, 7, generator=torch.Generator().manual_seed(1)) > 0.3
    mask |= torch.eye(7, dtype=torch.bool)
    settings = {"attention_mask": mask if is_masked else None, "is_causal": is_causal}
    library = AttentionInterface()["sdpa"]
    found = value_and_gradients(attention, grouped, **settings)
    expected = value_and_gradients(library, grouped, **settings)
    # torch 2.7.1 has no fused kernel of a CPU for groups: there the library's is another than ours.
    is_same_kernel = is_masked or has_grouped_kernel(torch.device("cpu"), torch.float64, False)
    exact = {"rtol": 0, "atol": 0} if is_same_kernel else EXACT
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **exact)


@pytest.mark.parametrize(
    ("capability", "dtype", "is_masked", "expected"),
    [
        (A100, torch.bfloat16, False, True),
        (A100, torch.float16, False, True),
        (A100, torch.float32, False, False),  # flash attention has no float32
        (A100, torch.float16, True, False),  # nor masks
        (V100, torch.float16, False, False),
        (V100, torch.float32, False, False),
        ((7, 5), torch.float16, False, False),
    ],
)
def test_heads_are_grouped_on_cuda_only_where_flash_attention_takes_them(
    monkeypatch, capability, dtype, is_masked, expected
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_grouped_kernel(torch.device("cuda"), dtype, is_masked) is expected


class Operations(TorchDispatchMode):
    """The names of all that is computed."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_cpu_takes_grouped_heads_by_its_fused_kernel_whatever_the_torch(grouped, dtype):
    """torch 2.7.1's takes no groups: handed them, it computes tokens x tokens a head, unseen."""
    with Operations() as computed:
        attention(Layer(6, 2, True), *(part.detach().to(dtype) for part in grouped))
    assert "_scaled_dot_product_flash_attention_for_cpu" in computed.names
    if torch.__version__ >= "2.14":
        assert has_grouped_kernel(torch.device("cpu"), torch.float32, False)


def test_heads_are_grouped_on_no_device_that_nobody_tried():
    assert not has_grouped_kernel(torch.device("mps"), torch.float32, False)


def test_autocast_decides_what_the_kernel_is_chosen_for(monkeypatch, grouped):
    chosen = []
    monkeypatch.setattr(
        subject, "has_grouped_kernel", lambda device, dtype, is_masked: chosen.append(dtype)
    )
    half = [part.detach().float() for part in grouped]
    attention(Layer(6, 2, True), *half)
    with torch.autocast("cpu", torch.float16):
        output, _ = attention(Layer(6, 2, True), *half)
    assert chosen == [torch.float32, torch.float16]
    assert output.dtype == torch.float16


def test_scores_beyond_float16_stay_finite_where_eager_attention_has_none():
    # Raw scores of 2.1e5, scaled ones of 1.8e4: the library's eager attention gives NaN here.
    query = torch.full((1, 1, 4, 128), 40.0, dtype=torch.float16)
    key = query * torch.tensor([1.0, 0.5, 1.0, 1.0], dtype=torch.float16)[:, None]
    settings = {"scaling": 128**-0.5, "attention_mask": None}
    from transformers.models.qwen2_vl.modeling_qwen2_vl import eager_attention_forward

    eager, _ = eager_attention_forward(Layer(1, 1, False).eval(), query, key, query, **settings)
    ours, _ = attention(Layer(1, 1, False), query, key, query, **settings)
    assert not eager.isfinite().all()
    assert ours.isfinite().all()


def test_the_model_goes_through_it(tiny_built, asked):
    inputs = tiny_built.preparer.collate_queries(["one", "another one"])
    tiny_built.model(inputs.input_ids, inputs.mask, inputs.position_ids)
    config = tiny_built.model.config.text_config
    assert config._attn_implementation == ATTENTION
    assert len(asked) == config.num_hidden_layers
