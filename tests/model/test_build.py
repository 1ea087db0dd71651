"""The model that a recipe trains."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from coltrain.errors import ModelError
from coltrain.model.adapter import adapter_tensors, lora_layers
from coltrain.model.build import build_for_training
from coltrain.model.folder import save_model
from coltrain.model.locate import tiny_folder
from coltrain.model.weights import projection_hash
from coltrain.recipe import load_recipe

CPU = torch.device("cpu")


def build(*overrides):
    return build_for_training(load_recipe("tiny", overrides), CPU)


def trained(built):
    return {name for name, p in built.model.named_parameters() if p.requires_grad}


def test_the_tiny_recipe_builds_a_base_an_adapter_and_a_preparer(tiny_built, tiny_recipe):
    assert len(lora_layers(tiny_built.model)) == 15
    assert tiny_built.lora.r == 32
    assert tiny_built.base == "tiny"
    assert tiny_built.preparer.template == tiny_recipe.model.template
    assert tiny_built.preparer.max_visual_tokens == 64
    assert tiny_built.projection_from_file
    assert len(trained(tiny_built)) == 30


def test_building_draws_nothing_from_the_global_generator():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = build()
    for name, parameter in first.model.named_parameters():
        assert torch.equal(second.model.get_parameter(name), parameter)


def test_a_projection_under_lora_has_no_trained_weights_of_its_own(tiny_built):
    names = {name for name in trained(tiny_built) if name.startswith("custom_text_proj")}
    assert names == {
        "custom_text_proj.lora_A.default.weight",
        "custom_text_proj.lora_B.default.weight",
    }


def test_a_projection_that_is_frozen_is_neither_trained_nor_adapted():
    built = build("projection.train=frozen")
    assert len(lora_layers(built.model)) == 14
    assert not any("custom_text_proj" in name for name in trained(built))


def test_a_projection_that_is_trained_whole_is_not_adapted():
    built = build("projection.train=full")
    assert len(lora_layers(built.model)) == 14
    names = {name for name in trained(built) if "custom_text_proj" in name}
    assert names == {"custom_text_proj.weight", "custom_text_proj.bias"}


def test_a_projection_is_drawn_where_the_recipe_says_and_the_base_has_none(write_base):
    folder = write_base(rename=lambda key: None if key.startswith("custom_text_proj") else key)
    override = f"model.base={folder}"
    with pytest.raises(ModelError, match="only the projection may be drawn"):
        build(override)
    drawn = build(override, "projection.start=normal", "projection.std=0.05")
    again = build(override, "projection.start=normal", "projection.std=0.05")
    other = build(override, "projection.start=normal", "projection.std=0.05", "train.seed=1")
    assert not drawn.projection_from_file
    weight = drawn.model.custom_text_proj.base_layer.weight
    assert weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert drawn.projection_hash == again.projection_hash != other.projection_hash
    assert drawn.weights_hash == other.weights_hash


def test_weights_are_rounded_to_their_type_and_kept_in_float32_to_compute_in_it():
    built = build("model.dtype=bfloat16")
    assert built.model.dtype == torch.float32
    assert built.rounded_to == torch.bfloat16
    base = [p for p in built.model.parameters() if not p.requires_grad]
    assert all(torch.equal(p, p.bfloat16().float()) for p in base)
    assert any(p.any() for p in base)


def test_weights_are_kept_in_half_to_compute_in_it():
    built = build("model.dtype=bfloat16", "precision.compute=bfloat16")
    dtypes = {"trained": set(), "frozen": set()}
    for parameter in built.model.parameters():
        dtypes["trained" if parameter.requires_grad else "frozen"].add(parameter.dtype)
    assert dtypes == {"trained": {torch.float32}, "frozen": {torch.bfloat16}}


def test_activation_checkpointing_is_switched_on_by_the_recipe():
    assert not build().model.language_model.layers[0].gradient_checkpointing
    model = build("model.activation_checkpointing=true").model
    assert model.language_model.layers[0].gradient_checkpointing
    assert model.language_model.layers[0].training
    assert not model.visual.blocks[0].gradient_checkpointing


@pytest.fixture
def run(filled_built, tmp_path):
    """A folder like a run's: a trained model of the tiny base in `model`."""
    save_model(filled_built, tmp_path / "run" / "model")
    return tmp_path / "run"


@pytest.mark.parametrize("place", ["", "model"])
def test_training_starts_from_an_adapter(run, filled_built, place):
    built = build(f"model.start_from={run / place}", "train.seed=5")
    expected = adapter_tensors(filled_built.model)
    for key, tensor in adapter_tensors(built.model).items():
        assert torch.equal(tensor, expected[key])
    assert len(trained(built)) == 30


def test_training_that_starts_from_a_run_takes_its_projection_too(write_base, tmp_path):
    # The projection of the first run was drawn; under another one its adapter is worth nothing.
    folder = write_base(rename=lambda key: None if key.startswith("custom_text_proj") else key)
    overrides = [f"model.base={folder}", "projection.start=normal"]
    first = build(*overrides)
    save_model(first, tmp_path / "run" / "model")
    second = build(*overrides, f"model.start_from={tmp_path / 'run'}", "train.seed=1")
    assert build(*overrides, "train.seed=1").projection_hash != first.projection_hash
    assert second.projection_hash == first.projection_hash == projection_hash(second.model)


def test_training_does_not_start_from_a_run_over_another_base(run, write_base):
    folder = write_base(dtype=torch.bfloat16)
    with pytest.raises(ModelError) as caught:
        build(f"model.start_from={run}", f"model.base={folder}")
    assert caught.value.code == "other-base"
    assert caught.value.where == f"{run / 'model'}, base {folder}"


def test_training_does_not_start_from_an_adapter_of_another_rank(run):
    with pytest.raises(ModelError) as caught:
        build(f"model.start_from={run}", "lora.r=16", "lora.alpha=64")
    assert str(caught.value) == (
        "ModelError [start-from-other-rank]: the adapter to start from has another rank or scale "
        "than the recipe.\n"
        f"  where     model.start_from = {run / 'model'}\n"
        "  received  r=32, alpha=32.0\n"
        "  expected  r=16, alpha=64.0\n"
        "  try       lora.r=32 lora.alpha=32.0"
    )


def test_training_does_not_start_from_what_is_not_there(tmp_path):
    with pytest.raises(ModelError, match=r"\[model-not-found\]"):
        build(f"model.start_from={tmp_path / 'nothing'}")


def test_a_tokenizer_of_another_model_is_refused(tmp_path, tiny_built):
    folder = tmp_path / "base"
    shutil.copytree(tiny_folder(), folder)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"image_token_id": 151655}))
    with pytest.raises(ModelError) as caught:
        build(f"model.base={folder}")
    assert str(caught.value) == (
        "ModelError [tokenizer-does-not-fit]: the tokenizer is not that of this model.\n"
        f"  where     {folder}\n"
        "  received  <|image_pad|> is token 5\n"
        "  expected  token 151655, as the model's config.json says"
    )
    assert replace(tiny_built, base="other").base == "other"
