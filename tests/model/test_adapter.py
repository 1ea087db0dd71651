"""LoRA layers: where they go, how they start, and peft's files."""

import copy
import json
import math
import re
from dataclasses import replace

import pytest
import torch
from peft import PeftConfig, PeftModel
from peft.utils import load_peft_weights
from safetensors.torch import load_file, save_file

from coltrain.errors import ModelError
from coltrain.model.adapter import (
    ADAPTER_NAME,
    LoraSettings,
    adapter_tensors,
    add_lora,
    load_adapter_weights,
    lora_layers,
    read_adapter,
    save_adapter,
)
from coltrain.recipe import load_recipe

TARGETS = load_recipe("tiny").lora.target_modules
# adapter_config.json of vidore/colqwen2-v1.0.
PUBLISHED_CONFIG = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": "vidore/colqwen2-base",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": "gaussian",
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 32,
    "lora_dropout": 0.1,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 32,
    "rank_pattern": {},
    "revision": None,
    "target_modules": TARGETS,
    "task_type": "FEATURE_EXTRACTION",
    "use_dora": False,
    "use_rslora": False,
}


def settings(**changed):
    return LoraSettings(
        **{"r": 8, "alpha": 16.0, "dropout": 0.1, "target_modules": TARGETS} | changed
    )


@pytest.fixture
def base(tiny_retriever):
    """The tiny base's network, without an adapter."""
    return copy.deepcopy(tiny_retriever.built.model)


def fresh(tiny_retriever, seed=0, **changed):
    model = copy.deepcopy(tiny_retriever.built.model)
    add_lora(model, settings(**changed), seed)
    return model


def test_lora_goes_where_the_published_expression_says(base):
    names = add_lora(base, settings(), seed=0)
    layer = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    layer += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    expected = [f"language_model.layers.{number}.{part}" for number in (0, 1) for part in layer]
    assert sorted(names) == sorted([*expected, "custom_text_proj"])
    trained = {name for name, p in base.named_parameters() if p.requires_grad}
    assert trained == {
        f"{name}.lora_{part}.{ADAPTER_NAME}.weight" for name in names for part in "AB"
    }


def test_an_expression_that_matches_nothing_is_refused(base):
    with pytest.raises(ModelError) as caught:
        add_lora(base, settings(target_modules="encoder.*"), seed=0)
    assert str(caught.value) == (
        "ModelError [no-lora-target]: the LoRA target expression matches no module of this model.\n"
        "  where     lora.target_modules\n"
        "  received  encoder.*\n"
        "  expected  an expression that matches full names such as "
        "language_model.layers.0.self_attn.q_proj"
    )


@pytest.mark.parametrize(
    ("expression", "received"),
    [
        (r".*embed_tokens", "'language_model.embed_tokens'"),
        (r"visual\.patch_embed\.proj", "'visual.patch_embed.proj'"),
        (r".*", "'', 'visual', 'visual.patch_embed', …"),
    ],
)
def test_an_expression_that_matches_more_than_linear_layers_is_refused(base, expression, received):
    with pytest.raises(ModelError) as caught:
        add_lora(base, settings(target_modules=expression, dropout=0.0), seed=0)
    assert str(caught.value) == (
        "ModelError [lora-target-not-linear]: the LoRA target expression matches what is not a "
        "linear layer.\n"
        "  where     lora.target_modules\n"
        f"  received  {received}\n"
        "  expected  linear layers only, such as language_model.layers.0.self_attn.q_proj"
    )


def test_the_vision_tower_can_be_adapted_without_dropout(base, tiny_retriever, page_inputs):
    vision = settings(target_modules=r"visual\.blocks.*(qkv|proj|fc1|fc2)", dropout=0.0)
    with pytest.raises(ModelError) as caught:
        add_lora(base, replace(vision, dropout=0.1), seed=0)
    assert caught.value.code == "dropout-in-vision-tower"
    assert caught.value.received == (
        "8 modules of the vision tower, first visual.blocks.0.attn.qkv"
    )
    assert len(add_lora(base, vision, seed=0)) == 8
    assert not base.vision_is_frozen
    inputs = page_inputs(tiny_retriever.built, 0, 1)
    assert base.encode_vision(inputs.pixel_values, inputs.grid_thw).requires_grad


def test_a_fresh_adapter_changes_nothing_and_one_that_is_filled_does(filled_built, tiny_retriever):
    text = "the light of the northern night"
    inputs = filled_built.preparer.collate_queries([text])

    def embed(model):
        with torch.no_grad():
            return model(inputs.input_ids, inputs.mask, inputs.position_ids)

    before = embed(tiny_retriever.built.model)
    assert torch.equal(embed(fresh(tiny_retriever)), before)
    assert (embed(filled_built.model) - before).abs().max() > 0.01


def test_b_starts_at_zero_and_a_with_the_deviation_of_its_rank(tiny_retriever):
    for name, layer in lora_layers(fresh(tiny_retriever)).items():
        down, up = layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight
        assert (up == 0).all()
        assert down.shape[0] == up.shape[1] == 8
        assert down.std().item() == pytest.approx(1 / 8, rel=0.15), name
        assert abs(down.mean()) < 0.02


def test_kaiming_starts_uniform_between_its_bounds(tiny_retriever):
    for layer in lora_layers(fresh(tiny_retriever, init="kaiming")).values():
        down = layer.lora_A[ADAPTER_NAME].weight
        bound = 1 / math.sqrt(down.shape[1])
        assert down.abs().max() <= bound
        assert down.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_the_start_depends_on_seed_and_name_alone(tiny_retriever):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    whole = adapter_tensors(fresh(tiny_retriever))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again = adapter_tensors(fresh(tiny_retriever))
    # The last modules alone: were they drawn in turn, they would get what others got before.
    part = adapter_tensors(fresh(tiny_retriever, target_modules=r".*layers\.1\.mlp\.down_proj"))
    other = adapter_tensors(fresh(tiny_retriever, seed=1))
    assert len(part) == 2
    for key, tensor in whole.items():
        assert torch.equal(tensor, again[key])
        if "lora_A" in key:
            assert not torch.equal(tensor, other[key])
    for key, tensor in part.items():
        assert torch.equal(tensor, whole[key])
    starts = [tensor[0, :4].tolist() for key, tensor in whole.items() if "lora_A" in key]
    assert len({tuple(start) for start in starts}) == 15  # one generator each


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_adapter_has_the_type_of_the_recipe(tiny_retriever, dtype):
    whole = adapter_tensors(fresh(tiny_retriever))
    for key, tensor in adapter_tensors(fresh(tiny_retriever, dtype=dtype)).items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, whole[key].to(dtype))


@pytest.fixture
def saved(filled_built, tmp_path):
    """A folder with the tiny model's adapter."""
    save_adapter(filled_built.model, filled_built.lora, "some/base", tmp_path)
    return tmp_path


def test_peft_opens_a_saved_adapter_and_it_does_the_same(saved, filled_built, base, page_inputs):
    config = PeftConfig.from_pretrained(str(saved))
    assert config.peft_type == "LORA"
    assert (config.r, config.lora_alpha, config.lora_dropout) == (32, 32, 0.1)
    assert config.base_model_name_or_path == "some/base"
    assert config.target_modules == TARGETS
    peft_model = PeftModel.from_pretrained(base, str(saved)).eval()
    opened = peft_model.base_model.model
    for name, parameter in filled_built.model.named_parameters():
        assert torch.equal(opened.get_parameter(name), parameter), name
    inputs = page_inputs(filled_built)
    with torch.no_grad():
        visual = opened.encode_vision(inputs.pixel_values, inputs.grid_thw)
        tensors = (inputs.input_ids, inputs.mask, inputs.position_ids, visual)
        ours, theirs = filled_built.model(*tensors), opened(*tensors)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)  # sums in another order


def test_a_saved_adapter_has_the_keys_that_peft_writes(saved):
    keys = load_peft_weights(str(saved), device="cpu").keys()
    assert len(keys) == 30
    assert "base_model.model.custom_text_proj.lora_A.weight" in keys
    prefix = "base_model.model.language_model.layers.1"
    assert f"{prefix}.mlp.down_proj.lora_B.weight" in keys


def test_a_saved_adapter_reads_back(saved, filled_built):
    adapter = read_adapter(saved)
    assert adapter.settings == filled_built.lora
    assert (adapter.base, adapter.base_revision) == ("some/base", None)
    assert adapter.names.name == "colqwen2"
    for key, tensor in adapter_tensors(filled_built.model).items():
        assert torch.equal(adapter.tensors[key], tensor)


def test_an_alpha_that_is_not_whole_is_kept(filled_built, tmp_path):
    lora = settings(alpha=22.5)
    save_adapter(filled_built.model, lora, "some/base", tmp_path)
    assert read_adapter(tmp_path).settings.alpha == 22.5


def of_2024(key):
    return key.replace("base_model.model.language_model.", "base_model.model.model.")


def of_a_whole_model(key):
    return key.replace("base_model.model.language_model.", "base_model.model.model.language_model.")


@pytest.mark.parametrize("rename", [str, of_2024, of_a_whole_model])
def test_adapters_of_every_key_layout_load(filled_built, tiny_retriever, rename):
    expected = adapter_tensors(filled_built.model)
    model = fresh(tiny_retriever, seed=7, r=32)
    load_adapter_weights(model, {rename(key): t for key, t in expected.items()}, "somewhere")
    for key, tensor in adapter_tensors(model).items():
        assert torch.equal(tensor, expected[key])


def test_a_published_adapter_folder_reads(saved, filled_built):
    file = saved / "adapter_model.safetensors"
    renamed = {of_2024(key): tensor.bfloat16() for key, tensor in load_file(file).items()}
    save_file(renamed, file)
    (saved / "adapter_config.json").write_text(json.dumps(PUBLISHED_CONFIG))
    adapter = read_adapter(saved)
    assert adapter.settings == LoraSettings(32, 32.0, 0.1, TARGETS, "gaussian", torch.bfloat16)
    assert adapter.base == "vidore/colqwen2-base"
    assert adapter.names.name == "released"
    load_adapter_weights(filled_built.model, adapter.tensors, str(saved))


def test_an_adapter_of_other_modules_is_refused(filled_built, tiny_retriever):
    tensors = adapter_tensors(filled_built.model)
    model = fresh(tiny_retriever, r=32, target_modules=r".*(q_proj|k_proj)")
    with pytest.raises(ModelError) as caught:
        load_adapter_weights(model, tensors, "somewhere")
    assert str(caught.value) == (
        "ModelError [adapter-does-not-fit]: the adapter's tensors are not those of this model.\n"
        "  where     somewhere\n"
        "  received  0 missing; 22 unexpected, first "
        "base_model.model.custom_text_proj.lora_A.weight\n"
        "  expected  8 tensors on 4 modules"
    )
    part = {key: tensor for key, tensor in tensors.items() if "layers.0.mlp" not in key}
    with pytest.raises(ModelError, match=r"6 missing, first .*mlp.down_proj.lora_A.weight; 0 unex"):
        load_adapter_weights(filled_built.model, part, "somewhere")


def test_an_adapter_of_another_rank_is_refused(filled_built, tiny_retriever):
    with pytest.raises(ModelError) as caught:
        load_adapter_weights(
            fresh(tiny_retriever), adapter_tensors(filled_built.model), "somewhere"
        )
    assert caught.value.code == "adapter-shape"
    assert caught.value.received == "(32, 128)"
    assert caught.value.expected == "(8, 128)"


def write_config(folder, **changed):
    content = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(content | changed))


def test_targets_by_name_are_names_or_their_ends(saved, base):
    write_config(saved, target_modules=["q_proj", "mlp.up_proj", "custom_text_proj"])
    lora = read_adapter(saved).settings
    assert sorted(add_lora(base, lora, seed=0)) == [
        "custom_text_proj",
        "language_model.layers.0.mlp.up_proj",
        "language_model.layers.0.self_attn.q_proj",
        "language_model.layers.1.mlp.up_proj",
        "language_model.layers.1.self_attn.q_proj",
    ]
    write_config(saved, target_modules=["proj", "k.proj"])
    expression = read_adapter(saved).settings.target_modules
    for name in ("proj", "visual.blocks.0.attn.proj", "k.proj"):
        assert re.fullmatch(expression, name)
    for name in ("custom_text_proj", "self_attn.o_proj", "layers.k_proj", "proj.base_layer"):
        assert not re.fullmatch(expression, name)


def test_an_adapter_that_is_not_lora_is_refused(saved):
    write_config(saved, peft_type="IA3")
    with pytest.raises(ModelError) as caught:
        read_adapter(saved)
    assert str(caught.value) == (
        "ModelError [not-a-lora-adapter]: this adapter is of another kind.\n"
        f"  where     {saved / 'adapter_config.json'}\n"
        "  received  IA3\n"
        "  expected  LORA"
    )


@pytest.mark.parametrize(
    "option",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"alpha_pattern": {"q_proj": 64}},
        {"init_lora_weights": "pissa"},
    ],
)
def test_options_that_would_be_ignored_are_refused(saved, option):
    write_config(saved, **option)
    with pytest.raises(ModelError) as caught:
        read_adapter(saved)
    [(name, value)] = option.items()
    assert str(caught.value) == (
        "ModelError [unsupported-adapter]: the adapter has options that coltrain would not follow, "
        "or lacks one.\n"
        f"  where     {saved / 'adapter_config.json'}\n"
        f"  received  {name}: {value}\n"
        "  expected  plain LoRA: r, lora_alpha, lora_dropout, target_modules"
    )


def test_an_adapter_without_its_settings_is_refused(saved):
    write_config(saved, r=None, target_modules=None)
    with pytest.raises(ModelError) as caught:
        read_adapter(saved)
    assert caught.value.code == "unsupported-adapter"
    assert caught.value.received == "no r, no target_modules"


@pytest.mark.parametrize("lost", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_folder_that_lacks_a_file(saved, lost):
    (saved / lost).unlink()
    with pytest.raises(ModelError) as caught:
        read_adapter(saved)
    assert str(caught.value) == (
        f"ModelError [missing-model-file]: the model's folder lacks {lost}.\n  where     {saved}"
    )


def test_an_adapter_file_that_was_cut_off_is_named(saved):
    file = saved / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError) as caught:
        read_adapter(saved)
    assert caught.value.code == "broken-model-file"
    assert caught.value.where == str(file)
