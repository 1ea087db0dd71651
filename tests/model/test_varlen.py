"""One call for a row of many samples: the values and gradients of one call for each length."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from coltrain.errors import ModelError
from coltrain.model import varlen as subject
from coltrain.model.attention import ATTENTION, attention
from coltrain.model.varlen import (
    VARLEN,
    attend_by_lengths,
    refuse_varlen,
    varlen_attention,
    varlen_kernel,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LENGTHS = (3, 140, 1, 7, 7, 140)


class Layer(torch.nn.Module):
    is_causal = True


class SlowKernel:
    """What torch's `varlen_attn` computes, written out; remembers its calls."""

    def __init__(self):
        self.calls = []

    def __call__(
        self, query, key, value, ends, key_ends, most, most_keys, *, scale, window_size, enable_gqa
    ):
        self.calls.append((ends, most, window_size, enable_gqa, query.dtype))
        assert ends is key_ends
        assert most == most_keys
        assert ends.dtype == torch.int32
        repeats = query.shape[1] // key.shape[1]
        assert enable_gqa == (repeats > 1)
        key, value = (part.repeat_interleave(repeats, 1) for part in (key, value))
        own = []
        for start, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            assert stop - start <= most
            q, k, v = (part[start:stop].transpose(0, 1) for part in (query, key, value))
            scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
            if window_size == (-1, 0):
                unseen = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
                scores = scores.masked_fill(unseen, -torch.inf)
            own.append((scores.softmax(-1) @ v).transpose(0, 1))
        return torch.cat(own)


@pytest.fixture
def kernel(monkeypatch):
    found = SlowKernel()
    monkeypatch.setattr(subject, "varlen_kernel", lambda: found)
    monkeypatch.setattr(subject, "_is_taken", lambda query: True)
    return found


def drawn(heads, dtype=torch.float64):
    generator = torch.Generator().manual_seed(heads)
    rows = torch.randn(1, sum(LENGTHS), heads, 8, generator=generator, dtype=dtype)
    return rows.transpose(1, 2).requires_grad_()


@pytest.mark.parametrize("key_heads", [2, 4])
@pytest.mark.parametrize("scaling", [None, 0.2])
def test_values_and_gradients_equal_those_of_a_call_for_each_length(kernel, key_heads, scaling):
    leaves = [drawn(4), drawn(key_heads), drawn(key_heads)]
    found, _ = varlen_attention(Layer(), *leaves, lengths=LENGTHS, scaling=scaling)
    expected, _ = attention(Layer(), *leaves, lengths=LENGTHS, scaling=scaling)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    probe = torch.randn(found.shape, generator=torch.Generator().manual_seed(9)).double()
    for ours, slow in zip(
        torch.autograd.grad((found * probe).sum(), leaves),
        torch.autograd.grad((expected * probe).sum(), leaves),
        strict=True,
    ):
        assert slow.abs().max() > 0.1
        torch.testing.assert_close(ours, slow, rtol=0, atol=1e-12)
    [(ends, most, window, is_grouped, _)] = kernel.calls
    assert ends.tolist() == [0, 3, 143, 144, 151, 158, 298]
    assert (most, window, is_grouped) == (140, (-1, 0), key_heads == 2)


def test_a_single_sample_and_one_without_lengths_attend_as_ever(kernel):
    leaves = [drawn(4), drawn(2), drawn(2)]
    expected, _ = attention(Layer(), *leaves)
    for lengths in (None, (sum(LENGTHS),)):
        assert torch.equal(varlen_attention(Layer(), *leaves, lengths=lengths)[0], expected)
    assert kernel.calls == []


def test_in_another_type_than_a_half_one_a_layer_attends_by_lengths(monkeypatch):
    def called(*_, **__):
        raise AssertionError("the kernel knows half precision only")

    monkeypatch.setattr(subject, "varlen_kernel", lambda: called)
    leaves = [drawn(4), drawn(2), drawn(2)]
    expected, _ = attention(Layer(), *leaves, lengths=LENGTHS)
    assert torch.equal(varlen_attention(Layer(), *leaves, lengths=LENGTHS)[0], expected)


def test_what_autocast_would_narrow_comes_to_the_kernel_narrow(kernel):
    leaves = [drawn(heads, dtype=torch.float32) for heads in (4, 2, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = varlen_attention(Layer(), *leaves, lengths=LENGTHS)
    assert found.dtype == kernel.calls[0][-1] == torch.bfloat16


def test_ends_made_in_an_evaluation_serve_a_training_step(kernel):
    subject._ends.cache_clear()
    with torch.inference_mode():
        rows = [drawn(2).detach() for _ in range(3)]
        varlen_attention(Layer(), *rows, lengths=LENGTHS)
    leaves = [drawn(2) for _ in range(3)]
    varlen_attention(Layer(), *leaves, lengths=LENGTHS)
    assert kernel.calls[0][0] is kernel.calls[1][0]
    assert not kernel.calls[0][0].is_inference()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_network_s_embeddings_and_gradients_are_the_same(
    kernel, filled_built, page_inputs, checkpointing
):
    built = filled_built
    built.model.double()
    if checkpointing:
        built.model.checkpoint_activations(kept_layers=0)
    inputs = page_inputs(built)
    found = []
    for is_varlen in (False, True):
        if is_varlen:
            attend_by_lengths(built.model)
        built.model.zero_grad()
        with built.model.sample_keys.use(list(range(len(inputs.mask))), built.model.device):
            visual = built.model.encode_vision(inputs.pixel_values, inputs.grid_thw)
            vectors = built.model(inputs.input_ids, inputs.mask, inputs.position_ids, visual)
            probe = torch.linspace(-1, 1, vectors.numel(), dtype=vectors.dtype)
            (vectors * probe.view_as(vectors)).sum().backward()
        grads = [p.grad.flatten() for p in built.model.parameters() if p.requires_grad]
        found.append((vectors.detach(), torch.cat(grads)))
    assert len(kernel.calls) == built.model.config.text_config.num_hidden_layers * (
        1 + checkpointing
    )
    assert len(kernel.calls[0][0]) == len(inputs.mask) + 1 > 2
    for ours, expected in zip(found[1], found[0], strict=True):
        assert expected.norm() > 0.1
        assert (ours - expected).norm() / expected.norm() < 1e-12
    assert built.model.visual.config._attn_implementation == ATTENTION
    assert built.model.language_model.config._attn_implementation == VARLEN


@pytest.mark.skipif(varlen_kernel() is None, reason="this torch has no such kernel")
def test_torch_s_own_function_takes_the_call_and_its_gradient(monkeypatch):
    # On tensors without values: what a GPU would be asked for, names, types and shapes.
    monkeypatch.setattr(subject, "_is_taken", lambda query: True)
    subject._ends.cache_clear()
    with FakeTensorMode():
        leaves = [drawn(heads, dtype=torch.bfloat16) for heads in (4, 2, 2)]
        found, _ = varlen_attention(Layer(), *leaves, lengths=LENGTHS, scaling=0.3)
        gradients = torch.autograd.grad(found.sum(), leaves)
    subject._ends.cache_clear()
    assert (found.shape, found.dtype) == ((1, sum(LENGTHS), 4, 8), torch.bfloat16)
    assert [one.shape for one in gradients] == [one.shape for one in leaves]


def test_device_precision_and_torch_decide_and_asked_for_nothing_takes_its_place(
    monkeypatch, coltrain
):
    monkeypatch.setattr(subject, "varlen_kernel", lambda: SlowKernel())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    refuse_varlen(CUDA, "bfloat16")
    with pytest.raises(ModelError) as raised:
        refuse_varlen(CUDA, "float32")
    assert str(raised.value) == (
        "ModelError [no-varlen-attention]: variable-length attention cannot be used here.\n"
        "  where     model.attention = varlen\n"
        "  received  precision.compute = float32, expected bfloat16 or float16\n"
        "  expected  an NVIDIA GPU of compute capability 8.0 or later, half precision, and a torch "
        "with torch.nn.attention.varlen, as 2.14\n"
        "  try       model.attention=sdpa, which gives the same by one call for each length"
    )
    monkeypatch.setattr(subject, "varlen_kernel", lambda: None)
    with pytest.raises(ModelError, match="has no variable-length attention that groups heads"):
        refuse_varlen(CUDA, "bfloat16")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ModelError, match=r"compute capability 7\.5, expected 8\.0"):
        refuse_varlen(CUDA, "float16")
    code, _, err = coltrain("train", "tiny", "model.attention=varlen", "--out", "run")
    assert code == 2
    assert "cpu is no NVIDIA GPU" in err


@pytest.mark.gpu
def test_on_a_gpu_the_kernel_gives_what_a_call_for_each_length_gives():
    leaves = [
        drawn(heads).detach().to(CUDA, torch.bfloat16).requires_grad_() for heads in (4, 2, 2)
    ]
    found, _ = varlen_attention(Layer(), *leaves, lengths=LENGTHS)
    expected, _ = attention(Layer(), *leaves, lengths=LENGTHS)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)  # bfloat16
    for ours, slow in zip(
        torch.autograd.grad(found.sum(), leaves),
        torch.autograd.grad(expected.sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(ours, slow, rtol=5e-2, atol=5e-2)
