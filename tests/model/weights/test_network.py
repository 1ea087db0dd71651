"""Every layout of the same weights loads the same; a tensor too few or too many is an error."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from coltrain.errors import ModelError
from coltrain.model.locate import tiny_folder
from coltrain.model.weights import load_backbone, projection_hash


def load(folder, dtype=torch.float32, std=None, seed=0, **more):
    return load_backbone(folder, dim=128, dtype=dtype, projection_std=std, seed=seed, **more)


def released(key):
    """Qwen/Qwen2-VL-2B-Instruct and vidore/colqwen2-base: visual.*, model.layers.*."""
    return re.sub(r"^language_model\.", "model.", key)


def of_transformers_5(key):
    """What transformers saves since 4.52: model.visual.*, model.language_model.*."""
    return re.sub(r"^(visual|language_model)\.", r"model.\1.", key)


def own(key):
    """What colpali-engine saves under transformers 5, and coltrain's tiny base."""
    return key


LAYOUTS = [released, of_transformers_5, own]


@pytest.fixture(scope="module")
def shipped():
    return load(tiny_folder())


def assert_equal_models(left, right):
    parameters = dict(right.named_parameters())
    assert parameters.keys() == dict(left.named_parameters()).keys()
    for name, parameter in left.named_parameters():
        assert torch.equal(parameter, parameters[name]), name


@pytest.mark.parametrize("rename", LAYOUTS)
def test_every_layout_of_names_loads_the_same(write_base, shipped, rename):
    folder = write_base(rename=rename)
    loaded = load(folder)
    assert_equal_models(loaded.model, shipped.model)
    assert loaded.projection_from_file
    assert loaded.weights_hash == shipped.weights_hash


@pytest.mark.parametrize("rename", LAYOUTS)
def test_the_output_layer_is_left_out(write_base, shipped, rename):
    folder = write_base(rename=rename, more={"lm_head.weight": torch.ones(1536, 128)})
    loaded = load(folder)
    assert_equal_models(loaded.model, shipped.model)
    assert loaded.weights_hash == shipped.weights_hash


@pytest.mark.parametrize("rename", LAYOUTS)
def test_sharded_files_load_as_one(write_base, shipped, rename):
    def shard(key):
        part = 1 if "layers.1." in key or "norm" in key else 2
        return f"model-0000{part}-of-00002.safetensors"

    folder = write_base(rename=rename, file_of=shard)
    assert len(list(folder.glob("*.safetensors"))) == 2
    loaded = load(folder)
    assert_equal_models(loaded.model, shipped.model)
    assert loaded.weights_hash == shipped.weights_hash


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_files_load_as_what_they_hold(write_base, shipped, dtype):
    folder = write_base(rename=released, dtype=dtype)
    for kept in (dtype, torch.float32):
        for name, parameter in load(folder, kept).model.named_parameters():
            assert parameter.dtype == kept
            expected = shipped.model.get_parameter(name).to(dtype)
            assert torch.equal(parameter.to(dtype), expected), name
    assert load(folder).weights_hash != shipped.weights_hash


def test_weights_can_be_rounded_and_kept_wider(shipped):
    model = load(tiny_folder(), torch.float32, rounded_to=torch.bfloat16).model
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, shipped.model.get_parameter(name).bfloat16().float()), name
    assert not torch.equal(
        model.custom_text_proj.weight, shipped.model.custom_text_proj.weight
    )  # the case can tell


def test_a_loaded_model_is_frozen_and_in_evaluation_mode(shipped):
    assert not any(parameter.requires_grad for parameter in shipped.model.parameters())
    assert not any(module.training for module in shipped.model.modules())
    assert not any(tensor.is_meta for tensor in shipped.model.state_dict().values())
    assert not any(buffer.is_meta for buffer in shipped.model.buffers())


def without_projection(key):
    return None if key.startswith("custom_text_proj") else released(key)


def test_a_projection_that_the_file_lacks_is_drawn_by_the_seed(write_base, shipped):
    folder = write_base(rename=without_projection)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    drawn = load(folder, std=0.02, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = load(folder, std=0.02, seed=3), load(folder, std=0.02, seed=4)
    assert not drawn.projection_from_file
    assert torch.equal(drawn.model.custom_text_proj.weight, again.model.custom_text_proj.weight)
    assert projection_hash(drawn.model) == projection_hash(again.model)
    assert projection_hash(drawn.model) != projection_hash(other.model)
    weight, bias = drawn.model.custom_text_proj.weight, drawn.model.custom_text_proj.bias
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert abs(weight.mean()) < 1e-3
    assert (bias == 0).all()
    # What was drawn is not of the base: the base's hash says nothing about it.
    assert drawn.weights_hash == other.weights_hash != shipped.weights_hash


def test_a_projection_that_is_there_is_taken_though_one_could_be_drawn(shipped):
    loaded = load(tiny_folder(), std=0.5)
    assert loaded.projection_from_file
    assert projection_hash(loaded.model) == projection_hash(shipped.model)


def test_a_projection_that_has_to_be_there_and_is_not(write_base):
    folder = write_base(rename=without_projection)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value) == (
        "ModelError [missing-weight]: 2 of the tensors are not in the model's files.\n"
        f"  where     {folder}\n"
        "  received  custom_text_proj.bias, custom_text_proj.weight\n"
        "  expected  every tensor; only the projection may be drawn, with projection.start: normal"
    )


@pytest.mark.parametrize(
    ("left_out", "received"),
    [
        ("language_model.embed_tokens.weight", "language_model.embed_tokens.weight"),
        ("language_model.norm.weight", "language_model.norm.weight"),
        ("visual.merger.ln_q.weight", "visual.merger.ln_q.weight"),
    ],
)
def test_a_missing_tensor_is_named_and_never_drawn(write_base, left_out, received):
    folder = write_base(rename=lambda key: None if key == left_out else of_transformers_5(key))
    with pytest.raises(
        ModelError, match="one of the tensors is not in the model's files"
    ) as caught:
        load(folder, std=0.02)
    assert caught.value.code == "missing-weight"
    assert caught.value.received == received


def test_a_whole_missing_layer_is_named_by_its_first_tensors(write_base):
    folder = write_base(rename=lambda key: None if ".layers.1." in key else released(key))
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert caught.value.message.startswith("12 of the tensors")
    assert caught.value.received.endswith("layers.1.mlp.gate_proj.weight, …")


def test_an_unexpected_tensor_is_refused(write_base):
    more = {"model.layers.2.input_layernorm.weight": torch.ones(128)}
    folder = write_base(rename=released, more=more)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value) == (
        "ModelError [unexpected-weight]: the file has a tensor that the model has no place for.\n"
        f"  where     {folder / 'model.safetensors'}\n"
        "  received  model.layers.2.input_layernorm.weight"
    )


def test_the_same_tensor_under_two_names_is_refused(write_base):
    more = {"model.language_model.norm.weight": torch.ones(128)}
    folder = write_base(rename=released, more=more)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert caught.value.code == "mixed-layouts"
    assert "model.language_model.norm.weight" in caught.value.received


def test_the_same_tensor_in_two_files_is_refused(write_base):
    folder = write_base(file_of=lambda key: f"model-0000{1 + ('norm' in key)}-of-00002.safetensors")
    first, second = sorted(folder.glob("model-*.safetensors"))
    key = "language_model.norm.weight"
    save_file(load_file(first) | {key: load_file(second)[key]}, first)
    with pytest.raises(ModelError, match=r"norm\.weight, a second time") as caught:
        load(folder)
    assert caught.value.code == "unexpected-weight"
    assert caught.value.where == str(second)


def test_a_tensor_of_another_shape_is_refused(write_base):
    more = {"custom_text_proj.weight": torch.ones(320, 128)}
    folder = write_base(more=more)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value) == (
        "ModelError [weight-shape]: a tensor has another shape than the model's configuration says.\n"
        f"  where     {folder / 'model.safetensors'}, custom_text_proj.weight\n"
        "  received  (320, 128)\n"
        "  expected  (128, 128)"
    )


def test_a_tensor_of_no_known_layout_is_refused_with_its_file(write_base):
    folder = write_base(more={"tower.merger.ln_q.weight": torch.ones(1)})
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value) == (
        "ModelError [unknown-weight]: a tensor's name belongs to no layout of Qwen2-VL or ColQwen2 "
        "that coltrain knows.\n"
        f"  where     {folder / 'model.safetensors'}\n"
        "  received  tower.merger.ln_q.weight\n"
        "  expected  visual.*, language_model.*, model.*, custom_text_proj.*, vlm.*, "
        "embedding_proj_layer.*"
    )


def test_a_file_that_the_index_names_and_is_not_there(write_base):
    folder = write_base(file_of=lambda key: f"model-{'layers.1.' in key}.safetensors")
    (folder / "model-True.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value) == (
        "ModelError [missing-model-file]: the model's folder lacks weight files.\n"
        f"  where     {folder / 'model-True.safetensors'}\n"
        "  try       download or copy the folder again, all shards and their index"
    )


def test_a_folder_without_weights(write_base):
    folder = write_base()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value) == (
        "ModelError [pickled-weights]: the weights are pickled, and a pickle can run code as it is "
        "read.\n"
        f"  where     {folder / 'pytorch_model.bin'}\n"
        "  expected  model.safetensors\n"
        "  try       only safetensors are read; convert the file, or insist with --allow-pickle, "
        "which reads it with torch.load(weights_only=True)"
    )
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"lacks model\.safetensors"):
        load(folder)


def test_a_file_that_was_cut_off_is_named(write_base):
    folder = write_base()
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert caught.value.code == "broken-model-file"
    assert caught.value.where == str(file)
    assert caught.value.suggestion == "download or copy it again; it may have been cut off"


def test_a_folder_without_config(write_base):
    folder = write_base()
    (folder / "config.json").unlink()
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value) == (
        "ModelError [missing-model-file]: the model's folder lacks config.json.\n"
        f"  where     {folder}"
    )


@pytest.mark.parametrize(
    ("text", "received"),
    [
        ('{"model_type": "qw', "Unterminated string starting at: line 1 column 16 (char 15)"),
        ("[1]", "a JSON list"),
    ],
)
def test_a_config_that_is_not_one_json_object(write_base, text, received):
    folder = write_base()
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value) == (
        "ModelError [broken-model-file]: a file of the model cannot be read.\n"
        f"  where     {folder / 'config.json'}\n"
        f"  received  {received}\n"
        "  expected  one JSON object\n"
        "  try       download or copy it again; it may have been cut off"
    )


def test_a_config_of_another_architecture(write_base):
    folder = write_base(config={"model_type": "qwen2_5_vl"})
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value) == (
        "ModelError [unknown-architecture]: the base is not a Qwen2-VL model.\n"
        f"  where     {folder / 'config.json'}\n"
        "  received  model_type 'qwen2_5_vl'\n"
        "  expected  'qwen2_vl'"
    )


def test_a_config_of_the_released_form_reads_as_the_current_one(write_base, shipped):
    # Released checkpoints have the language model's values at the top, and M-RoPE in rope_scaling.
    folder = write_base(rename=released)
    content = json.loads((folder / "config.json").read_text())
    text = content.pop("text_config")
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope["rope_theta"]
    text["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    text.pop("layer_types")
    text.pop("model_type")
    (folder / "config.json").write_text(json.dumps(text | content))
    model = load(folder).model
    assert_equal_models(model, shipped.model)
    assert (
        model.config.text_config.rope_parameters["mrope_section"]
        == shipped.model.config.text_config.rope_parameters["mrope_section"]
    )
    buffers = dict(shipped.model.named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name])
