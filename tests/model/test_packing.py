"""Samples end to end in one row give what each gives alone, and cost their own tokens only."""

import copy

import pytest
import torch
from torch.nn.functional import pad

from coltrain.model.attention import attention
from coltrain.model.inputs import Inputs
from coltrain.model.packing import SHORT, Packing, Segment, cut, segments

LENGTHS = (3, 1, 7, 7, 2)


def mask_of(lengths, width):
    return torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]


def test_what_is_packed_comes_back_and_padding_is_zero():
    packing = Packing.of(mask_of(LENGTHS, 9))
    assert packing == Packing(LENGTHS, 9)
    assert packing.total == 20
    padded = torch.randn(5, 9, 4)
    row = packing.pack(padded)
    assert row.shape == (1, 20, 4)
    assert torch.equal(packing.unpack(row), padded * mask_of(LENGTHS, 9)[:, :, None])


@pytest.mark.parametrize(
    "mask",
    [
        [[False, True, True], [True, True, True]],  # padding on the left
        [[True, False, True], [True, True, True]],
        [[True, True, True], [False, False, False]],
    ],
)
def test_padding_anywhere_but_on_the_right_is_refused(mask):
    with pytest.raises(ValueError, match="expected padding on the right only"):
        Packing.of(torch.tensor(mask))


def test_equal_neighbours_and_short_ones_attend_together():
    long, longer = SHORT + 1, SHORT + 2
    assert segments((3, SHORT, 1, long, long, longer, 2)) == [
        Segment(0, (3, SHORT, 1)),
        Segment(SHORT + 4, (long, long)),
        Segment(SHORT + 4 + 2 * long, (longer,)),
        Segment(SHORT + 4 + 2 * long + longer, (2,)),
    ]


class Layer(torch.nn.Module):
    is_causal = True


def attend_alone(query, key, value, lengths):
    """By the definition: scores, a mask of what came before, softmax."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(repeats, 1) for part in (key, value))
    scores = query @ key.mT / query.shape[-1] ** 0.5
    owner = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    place = torch.arange(len(owner))
    sees = (owner[:, None] == owner) & (place[:, None] >= place)
    return (scores.masked_fill(~sees, -torch.inf).softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("lengths", [LENGTHS, (SHORT + 5, 4, SHORT + 1, SHORT + 1, 9, 1), (6,)])
def test_a_sample_attends_to_itself_alone(lengths):
    total = sum(lengths)
    generator = torch.Generator().manual_seed(0)

    def draw(heads):
        drawn = torch.randn(1, total, heads, 8, generator=generator, dtype=torch.float64)
        return drawn.transpose(1, 2).requires_grad_()

    leaves = [draw(4), draw(2), draw(2)]
    found, _ = attention(Layer(), *leaves, lengths=lengths)
    expected = attend_alone(*leaves, lengths)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    for ours, slow in zip(
        torch.autograd.grad((found * weights).sum(), leaves),
        torch.autograd.grad((expected * weights).sum(), leaves),
        strict=True,
    ):
        assert slow.abs().max() > 0.1
        torch.testing.assert_close(ours, slow, rtol=0, atol=1e-12)


def test_uneven_samples_in_one_call_have_to_be_causal():
    one = torch.zeros(1, 2, 5, 8)
    with pytest.raises(ValueError, match="expected causal"):
        attention(Layer(), one, one, one, lengths=(2, 3), is_causal=False)


def embed(built, inputs, keys):
    with built.model.sample_keys.use(keys, built.model.device):
        visual = None
        if inputs.pixel_values is not None:
            visual = built.model.encode_vision(inputs.pixel_values, inputs.grid_thw)
        return built.model(inputs.input_ids, inputs.mask, inputs.position_ids, visual)


def gradient(built, vectors, weights):
    built.model.zero_grad()
    (vectors * weights).sum().backward()
    return torch.cat([p.grad.flatten() for p in built.model.parameters() if p.requires_grad])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_batch_equals_its_samples_alone_gradients_too(
    filled_built, page_inputs, dtype, close, checkpointing
):
    built = filled_built
    built.model.to(dtype)
    if checkpointing:
        built.model.checkpoint_activations()
    whole = page_inputs(built)
    keys = list(range(len(whole.mask)))
    weights = torch.randn(*whole.mask.shape, built.model.dim, dtype=dtype)
    total = 0
    for number in keys:
        one = page_inputs(built, number)
        alone = embed(built, one, [number])
        own = weights[number : number + 1, : alone.shape[1]]
        with built.model.sample_keys.use([number], built.model.device):
            built.model.zero_grad()
            visual = built.model.encode_vision(one.pixel_values, one.grid_thw)
            (built.model(one.input_ids, one.mask, one.position_ids, visual) * own).sum().backward()
        total = total + torch.cat(
            [p.grad.flatten() for p in built.model.parameters() if p.requires_grad]
        )
        together = embed(built, whole, keys)[number, : alone.shape[1]]
        torch.testing.assert_close(together, alone[0], rtol=0, atol=close)
    built.model.zero_grad()
    with built.model.sample_keys.use(keys, built.model.device):
        visual = built.model.encode_vision(whole.pixel_values, whole.grid_thw)
        vectors = built.model(whole.input_ids, whole.mask, whole.position_ids, visual)
        (vectors * weights).sum().backward()
    found = torch.cat([p.grad.flatten() for p in built.model.parameters() if p.requires_grad])
    assert total.norm() > 1
    assert (found - total).norm() / total.norm() < close


def test_the_language_model_computes_no_padding(float64_built, page_inputs):
    inputs = page_inputs(float64_built)
    seen = []
    layer = float64_built.model.language_model.layers[0]
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:2]))
    embed(float64_built, inputs, list(range(len(inputs.mask))))
    assert not inputs.mask.all()
    assert seen == [(1, int(inputs.mask.sum()))]


def test_what_stands_in_padding_does_not_matter(float64_built, page_inputs):
    inputs = page_inputs(float64_built)
    keys = list(range(len(inputs.mask)))
    expected = embed(float64_built, inputs, keys)
    other = copy.copy(inputs)
    ids = inputs.input_ids.masked_fill(~inputs.mask, 11)
    places = inputs.position_ids.masked_fill(~inputs.mask, 10**6)
    other = Inputs(ids, inputs.mask, places, inputs.pixel_values, inputs.grid_thw)
    assert not torch.equal(ids, inputs.input_ids)
    assert torch.equal(embed(float64_built, other, keys), expected)
    wider = Inputs(
        *(pad(part, (0, 3)) for part in (inputs.input_ids, inputs.mask, inputs.position_ids)),
        inputs.pixel_values,
        inputs.grid_thw,
    )
    assert torch.equal(embed(float64_built, wider, keys)[:, :-3], expected)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_kernel_that_knows_no_lengths_gets_samples_side_by_side(
    float64_base, page_inputs, implementation
):
    inputs = page_inputs(float64_base)
    keys = list(range(len(inputs.mask)))
    expected = embed(float64_base, inputs, keys)
    float64_base.model.language_model.config._attn_implementation = implementation
    # transformers' own takes the softmax in float32.
    assert (embed(float64_base, inputs, keys) - expected).abs().max() < 1e-6


def test_neighbours_are_cut_by_what_they_count() -> None:
    counts = [3, 3, 5, 9, 1, 1]
    assert [counts[part] for part in cut(counts, 6)] == [[3, 3], [5], [9], [1, 1]]
    assert [counts[part] for part in cut(counts, 1)] == [[count] for count in counts]
    assert list(cut([], 6)) == []
