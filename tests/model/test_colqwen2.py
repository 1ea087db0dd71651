"""The forward pass against transformers' own, and what may not change an embedding."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import conv3d
from transformers import ColQwen2Config, ColQwen2ForRetrieval

from coltrain.model.attention import ATTENTION
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.locate import tiny_folder
from coltrain.model.tiny.architecture import tiny_config
from coltrain.model.weights import load_backbone

EXACT = {"rtol": 0, "atol": 1e-12}


def embed(built, inputs):
    with torch.no_grad():
        visual = None
        if inputs.pixel_values is not None:
            visual = built.model.encode_vision(inputs.pixel_values, inputs.grid_thw)
        return built.model(inputs.input_ids, inputs.mask, inputs.position_ids, visual)


def native_of(model):
    """transformers' ColQwen2ForRetrieval with the same weights."""
    config = ColQwen2Config(vlm_config=tiny_config().to_dict(), embedding_dim=model.dim)
    native = ColQwen2ForRetrieval(config).to(model.dtype).eval()
    weights = {
        f"vlm.{name}"
        if not name.startswith("custom_text_proj")
        else name.replace("custom_text_proj", "embedding_proj_layer"): tensor
        for name, tensor in model.state_dict().items()
    }
    native.load_state_dict(weights, strict=True)
    return native


def embed_natively(native, inputs, **more):
    pixels = {}
    if inputs.pixel_values is not None:
        parts = inputs.pixel_values.split(inputs.grid_thw.prod(-1).tolist())
        pixels["pixel_values"] = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).to(
            native.dtype
        )
        pixels["image_grid_thw"] = inputs.grid_thw
    with torch.no_grad():
        output = native(
            input_ids=inputs.input_ids, attention_mask=inputs.mask.long(), **pixels, **more
        )
    return output.embeddings


def plain_positions(inputs):
    """0, 1, 2, … on each axis."""
    return torch.arange(inputs.input_ids.shape[1]).expand(3, *inputs.input_ids.shape)


def test_embeddings_equal_transformers_when_it_is_given_the_positions(float64_base, page_inputs):
    inputs = page_inputs(float64_base)
    native = native_of(float64_base.model)
    expected = embed_natively(native, inputs, position_ids=inputs.position_ids)
    torch.testing.assert_close(embed(float64_base, inputs), expected, **EXACT)


def test_query_embeddings_equal_transformers_as_it_ships(float64_base, uneven_queries):
    inputs = float64_base.preparer.collate_queries(uneven_queries)
    expected = embed_natively(native_of(float64_base.model), inputs)
    torch.testing.assert_close(embed(float64_base, inputs), expected, **EXACT)


def test_transformers_as_it_ships_drops_the_positions_of_pages(float64_base, page_inputs):
    # The reason for our own forward pass. Once transformers computes them, this test may go.
    inputs = page_inputs(float64_base)
    native = native_of(float64_base.model)
    token_types = (inputs.input_ids == float64_base.preparer.image_token_id).long()
    shipped = embed_natively(native, inputs, mm_token_type_ids=token_types)
    plain = embed_natively(native, inputs, position_ids=plain_positions(inputs))
    torch.testing.assert_close(shipped, plain, **EXACT)
    ours = embed(float64_base, inputs)
    similarity = (ours * shipped).sum(-1)[inputs.mask]
    assert similarity.min() < 0.9


@pytest.mark.parametrize("far", [0, 300])
def test_padding_does_not_change_a_page(float64_base, page_inputs, far):
    inputs = page_inputs(float64_base)
    padded = embed(float64_base, pad_further(inputs, far))
    for number, mask in enumerate(inputs.mask):
        alone = embed(float64_base, page_inputs(float64_base, number))[0]
        torch.testing.assert_close(padded[number, : mask.sum()], alone, **EXACT)
        assert (padded[number, mask.sum() :] == 0).all()


def pad_further(inputs, far, token=0):
    def widen(tensor, value=0):
        return torch.nn.functional.pad(tensor, (0, far), value=value)

    return type(inputs)(
        widen(inputs.input_ids, token),
        widen(inputs.mask, False),
        widen(inputs.position_ids, 7),
        inputs.pixel_values,
        inputs.grid_thw,
    )


def test_padding_does_not_change_a_query(float64_base, uneven_queries):
    inputs = float64_base.preparer.collate_queries(uneven_queries)
    padded = embed(float64_base, pad_further(inputs, 50, token=99))
    for number, text in enumerate(uneven_queries):
        alone = embed(float64_base, float64_base.preparer.collate_queries([text]))[0]
        torch.testing.assert_close(padded[number, : len(alone)], alone, **EXACT)


def test_order_and_neighbours_do_not_change_a_page(float64_base, page_inputs):
    together = embed(float64_base, page_inputs(float64_base, 0, 1, 2, 3, 4))
    for order in [(4, 2, 0, 1, 3), (2, 3), (3, 3, 1)]:
        others = embed(float64_base, page_inputs(float64_base, *order))
        for place, number in enumerate(order):
            num_tokens = min(others.shape[1], together.shape[1])
            torch.testing.assert_close(
                others[place, :num_tokens], together[number, :num_tokens], **EXACT
            )


def test_the_patch_projection_equals_the_convolution_it_replaces(float64_base):
    projection = float64_base.model.visual.patch_embed
    patches = torch.randn(12, 3 * 2 * 14 * 14, dtype=torch.float64)
    weight = projection.proj.weight
    convolved = conv3d(patches.view(12, 3, 2, 14, 14), weight, stride=(2, 14, 14)).view(12, -1)
    torch.testing.assert_close(projection(patches), convolved, **EXACT)


def test_embeddings_are_unit_vectors_in_float32_and_zero_where_padded(tiny_retriever, page_inputs):
    for dtype in (torch.float32, torch.bfloat16):
        built = copy.deepcopy(tiny_retriever.built)
        for parameter in built.model.parameters():
            parameter.data = parameter.data.to(dtype)
        inputs = page_inputs(built)
        embeddings = embed(built, inputs)
        assert embeddings.dtype == torch.float32
        torch.testing.assert_close(embeddings.norm(dim=-1), inputs.mask.float())


def test_a_zero_vector_gives_zeros_and_no_nan(float64_base, page_inputs):
    projection = float64_base.model.custom_text_proj
    projection.weight.data.zero_()
    projection.bias.data.zero_()
    assert (embed(float64_base, page_inputs(float64_base)) == 0).all()


def test_a_nan_at_a_padded_place_stays_there(float64_base, page_inputs):
    inputs = page_inputs(float64_base, 0, 2)
    expected = embed(float64_base, inputs)
    assert not inputs.mask[0, -1]
    # A token that stands in no page: padding's own ends every prompt.
    poison = 1535
    assert poison not in inputs.input_ids
    ids = inputs.input_ids.masked_fill(~inputs.mask, poison)
    float64_base.model.language_model.embed_tokens.weight.data[poison] = torch.nan
    poisoned = embed(float64_base, replace(inputs, input_ids=ids))
    torch.testing.assert_close(poisoned, expected, **EXACT)


def test_visual_tokens_that_do_not_fit_the_placeholders_are_refused(tiny_retriever, page_inputs):
    built = tiny_retriever.built
    inputs = page_inputs(built, 0, 1)
    visual = built.model.encode_vision(inputs.pixel_values, inputs.grid_thw)
    with pytest.raises(ValueError, match="15 visual tokens for 16 image placeholders"):
        built.model(inputs.input_ids, inputs.mask, inputs.position_ids, visual[:-1])


def test_pixels_of_another_page_change_only_that_page(tiny_retriever, page_inputs, uneven_pages):
    built = tiny_retriever.built
    inputs = page_inputs(built, 0, 1)
    other = page_inputs(built, 0, 1)
    other.pixel_values[-1] += 1.0  # the last patch is the second page's
    before, after = embed(built, inputs), embed(built, other)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_attention_is_our_own_in_both_towers():
    config = tiny_config()
    config._attn_implementation = "eager"
    model = ColQwen2(config)
    assert model.visual.config._attn_implementation == ATTENTION
    assert model.language_model.config._attn_implementation == ATTENTION


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rotary_frequencies_stay_in_float32(tmp_path, write_base, dtype):
    # config.json of the released checkpoints says bfloat16; frequencies rounded to it would move
    # every position.
    folder = write_base(config={"dtype": str(dtype).removeprefix("torch.")})
    content = json.loads((folder / "config.json").read_text())
    content["text_config"]["dtype"] = content["vision_config"]["dtype"] = content["dtype"]
    (folder / "config.json").write_text(json.dumps(content))
    models = [
        load_backbone(source, dim=128, dtype=dtype, projection_std=None, seed=0).model
        for source in (folder, tiny_folder())
    ]
    buffers = [dict(model.named_buffers()) for model in models]
    assert {name.rpartition(".")[2] for name in buffers[0]} >= {"inv_freq"}
    for name, buffer in buffers[0].items():
        assert buffer.dtype == torch.float32, name
        assert torch.equal(buffer, buffers[1][name])
    assert models[0].dtype == models[0].visual.dtype == dtype


def test_a_frozen_vision_tower_sees_pages_in_passes(float64_built, page_inputs, monkeypatch):
    built = float64_built
    inputs = page_inputs(built)
    counts = inputs.grid_thw.prod(dim=1).tolist()
    assert len(counts) > 1
    whole = built.model.encode_vision(inputs.pixel_values, inputs.grid_thw)
    monkeypatch.setattr("coltrain.model.colqwen2.CPU_PATCHES", 1)
    passes = []
    hook = built.model.visual.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    apart = built.model.encode_vision(inputs.pixel_values, inputs.grid_thw)
    hook.remove()
    assert passes == counts
    torch.testing.assert_close(apart, whole, rtol=1e-11, atol=1e-12)
