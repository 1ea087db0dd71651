"""Qwen2-VL-2B-Instruct's configuration on the meta device: what LoRA adapts there, counted."""

import pytest
import torch
from transformers import Qwen2VLConfig

from coltrain.model.adapter import LoraSettings, add_lora
from coltrain.model.audit import coverage
from coltrain.model.colqwen2 import ColQwen2
from coltrain.model.weights import NAMES, map_names
from coltrain.planning.bases import QWEN2_VL_2B
from coltrain.recipe import load_recipe, shipped_names


@pytest.fixture(scope="module")
def adapted():
    """Builds the real network without memory, with the LoRA layers of an expression."""

    def build(target_modules, dtype=torch.float32):
        config = Qwen2VLConfig.from_dict(QWEN2_VL_2B)
        with torch.device("meta"):
            model = ColQwen2(config)
        settings = LoraSettings(32, 32.0, 0.1, target_modules, "gaussian", dtype)
        return model, add_lora(model, settings, seed=0)

    return build


@pytest.fixture(scope="module")
def published(adapted):
    return adapted(load_recipe("colqwen2-v0.1").lora.target_modules)


def trainable(model):
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


def test_lora_adapts_197_modules_and_none_of_the_vision_tower(published):
    _, names = published
    assert len(names) == 197
    assert sum(name.startswith("language_model.layers.") for name in names) == 28 * 7
    assert "custom_text_proj" in names
    assert not any(name.startswith("visual.") for name in names)


def test_the_report_counts_the_same_modules_by_part(published):
    model, _ = published
    assert coverage(model) == {
        "vision_tower": (0, 130),
        "language_model": (196, 196),
        "projection": (1, 1),
    }


def test_every_name_of_the_real_network_goes_to_each_layout_and_back(published):
    model, _ = published
    names = [
        name.replace(".base_layer", "")
        for name, _ in model.named_parameters()
        if "lora_" not in name
    ]
    # 32 blocks of 12, patches and a merger of 6; 28 layers of 12, embeddings and norm; projection
    assert len(names) == len(set(names)) == (32 * 12 + 1 + 6) + (28 * 12 + 2) + 2
    for way in NAMES.values():
        found, mapped = map_names([*map(way.original, names), way.output_layer])
        assert found.name == way.name
        assert list(mapped.values()) == [*names, None]


def test_the_trainable_parameters_are_counted(published):
    model, _ = published
    counts = trainable(model)
    assert len(counts) == 394
    assert sum(counts.values()) == 36_982_784
    assert sum(count for name, count in counts.items() if name.startswith("visual.")) == 0
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert frozen == 2_209_182_336 == 2_208_985_600 + (1536 + 1) * 128  # base and projection
    assert sum(p.numel() for p in model.visual.parameters()) == 665_271_296


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_recipe_names_the_same_modules(name):
    lora, published = load_recipe(name).lora, load_recipe("colqwen2-v0.1").lora
    assert (lora.r, lora.target_modules) == (published.r, published.target_modules)


@pytest.mark.parametrize(
    "expression",
    [
        r"(.*(model)(?!.*visual).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)",
        r"(.*(language_model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)",
    ],
)
def test_the_later_spellings_of_the_expression_adapt_the_same_modules(
    expression, published, adapted
):
    _, names = adapted(expression)
    assert names == published[1]


def test_the_configuration_is_read_as_it_was_released(published):
    model, _ = published
    config = model.config
    assert config.text_config.rope_parameters["mrope_section"] == [16, 24, 24]
    assert config.text_config.rope_parameters["rope_theta"] == 1e6
    assert config.text_config.hidden_size == config.vision_config.hidden_size == 1536
    assert config.vision_config.embed_dim == 1280
    assert config.image_token_id == 151655
    assert set(config.text_config.layer_types) == {"full_attention"}
    assert model.custom_text_proj.in_features == 1536
    assert len(model.visual.blocks) == 32


def test_nothing_of_it_takes_memory(published):
    model, _ = published
    assert all(parameter.is_meta for parameter in model.parameters())
