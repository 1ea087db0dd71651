"""What is saved comes back to the bit, over its own base and projection or not at all."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from coltrain.errors import ModelError
from coltrain.model.build import build_for_training
from coltrain.model.card import is_model_folder
from coltrain.model.folder import load_model_folder, save_model
from coltrain.model.retriever import Retriever
from coltrain.recipe import load_recipe

CPU = torch.device("cpu")


def embed(built, pages, queries):
    retriever = Retriever(built)
    return [*retriever.encode_pages(pages), *retriever.encode_queries(queries)]


def assert_equal_embeddings(left, right, pages, queries):
    for one, other in zip(embed(left, pages, queries), embed(right, pages, queries), strict=True):
        assert torch.equal(one, other)


@pytest.fixture
def saved(filled_built, tmp_path):
    """The tiny model with an adapter as if trained, on disk."""
    save_model(filled_built, tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_comes_back_to_the_bit(
    saved, filled_built, tiny_retriever, uneven_pages, uneven_queries
):
    loaded = load_model_folder(saved, CPU)
    assert_equal_embeddings(loaded, filled_built, uneven_pages, uneven_queries)
    assert loaded.lora == filled_built.lora
    assert loaded.projection_hash == filled_built.projection_hash
    assert loaded.weights_hash == filled_built.weights_hash
    assert loaded.preparer.template == filled_built.preparer.template
    assert loaded.preparer.max_visual_tokens == 64
    base = embed(tiny_retriever.built, uneven_pages, uneven_queries)
    assert not torch.equal(embed(loaded, uneven_pages, uneven_queries)[0], base[0])


def test_a_saved_folder_has_the_files_that_scripts_rely_on(saved, filled_built):
    assert is_model_folder(saved)
    assert {file.name for file in saved.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "coltrain.json",
        "hashes.json",
        "preprocessor_config.json",
        "projection.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    card = json.loads((saved / "coltrain.json").read_text())
    assert card == {
        "format": 1,
        "base": "tiny",
        "base_revision": None,
        "base_weights_hash": filled_built.weights_hash,
        "backbone_rounded_to": "float32",
        "backbone_dtype": "float32",
        "projection_dim": 128,
        "projection_hash": filled_built.projection_hash,
        "template": filled_built.preparer.template.model_dump(),
        "max_visual_tokens": 64,
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ["projection.train=full"],
        ["projection.train=frozen", "lora.dtype=bfloat16"],
        ["model.dtype=bfloat16", "precision.compute=bfloat16"],
        ["model.dtype=bfloat16"],  # rounded, and kept in float32
        ["model.dtype=float16", "lora.init=kaiming"],
        ["precision.compute=float16", "precision.keep_float32=[language_model.layers.1.mlp]"],
        ["precision.compute=float16", "model.dtype=float16", "projection.train=full"],
    ],
)
def test_every_kind_of_model_comes_back_to_the_bit(
    overrides, tmp_path, uneven_pages, uneven_queries
):
    built = build_for_training(load_recipe("tiny", overrides), CPU)
    generator = torch.Generator().manual_seed(1)
    for parameter in built.model.parameters():
        if parameter.requires_grad:
            noise = torch.empty(parameter.shape).normal_(std=0.02, generator=generator)
            parameter.data += noise.to(parameter.dtype)
    save_model(built, tmp_path)
    loaded = load_model_folder(tmp_path, CPU)
    for name, parameter in built.model.named_parameters():
        assert loaded.model.get_parameter(name).dtype == parameter.dtype, name
        assert torch.equal(loaded.model.get_parameter(name), parameter), name
    assert_equal_embeddings(loaded, built, uneven_pages, uneven_queries)


def test_a_projection_that_was_drawn_comes_back(write_base, tmp_path, uneven_queries):
    folder = write_base(rename=lambda key: None if key.startswith("custom_text_proj") else key)
    recipe = load_recipe("tiny", [f"model.base={folder}", "projection.start=normal"])
    built = build_for_training(recipe, CPU)
    save_model(built, tmp_path / "model")
    assert_equal_embeddings(load_model_folder(tmp_path / "model", CPU), built, [], uneven_queries)


def test_another_type_can_be_asked_for(saved, filled_built, uneven_queries):
    for dtype in (torch.bfloat16, torch.float64):
        loaded = load_model_folder(saved, CPU, dtype)
        assert loaded.model.dtype == dtype
        assert loaded.model.custom_text_proj.weight.dtype == dtype
        pairs = zip(
            embed(loaded, [], uneven_queries), embed(filled_built, [], uneven_queries), strict=True
        )
        for one, other in pairs:
            assert (one * other).sum(-1).min() > 0.99


def test_saving_twice_gives_the_same_bytes(saved, filled_built, tmp_path):
    save_model(filled_built, tmp_path / "again")
    for file in saved.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_an_own_template_comes_back(tmp_path):
    template = "{name: mine, query_prefix: 'Q ', query_suffix: '', page_prompt: '<|image_pad|>é'}"
    built = build_for_training(load_recipe("tiny", [f"model.template={template}"]), CPU)
    save_model(built, tmp_path)
    assert load_model_folder(tmp_path, CPU).preparer.template == built.preparer.template


@pytest.fixture
def over_a_folder(write_base, tmp_path):
    """A model over a base in a folder; both folders."""
    base = write_base()
    built = build_for_training(load_recipe("tiny", [f"model.base={base}"]), CPU)
    save_model(built, tmp_path / "model")
    return base, tmp_path / "model"


def test_another_base_is_refused(over_a_folder):
    base, folder = over_a_folder
    tensors = load_file(base / "model.safetensors")
    before = load_model_folder(folder, CPU).weights_hash
    tensors["language_model.norm.weight"][3] += 1e-3
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        load_model_folder(folder, CPU)
    assert caught.value.received.startswith("weights ")
    assert caught.value.received.endswith(
        "; 1 of its tensors differ, first language_model.norm.weight"
    )
    assert caught.value.received != f"weights {before}"
    assert str(caught.value) == (
        "ModelError [other-base]: the base is not the one that this adapter was trained on.\n"
        f"  where     {folder}, base {base}\n"
        f"  received  {caught.value.received}\n"
        f"  expected  weights {before}"
    )


def test_a_base_that_is_gone_is_named(over_a_folder):
    base, folder = over_a_folder
    shutil.rmtree(base)
    with pytest.raises(ModelError) as caught:
        load_model_folder(folder, CPU)
    assert caught.value.code == "model-not-found"
    assert caught.value.received == str(base)


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_another_projection_is_refused(saved, dtype):
    file = saved / "projection.safetensors"
    tensors = load_file(file)
    tensors["custom_text_proj.bias"][0] += 1e-3
    save_file(tensors, file)
    with pytest.raises(ModelError) as caught:
        load_model_folder(saved, CPU, dtype)
    assert caught.value.code == "other-projection"
    assert caught.value.message == "the projection is not the one that was saved."
    assert caught.value.where == str(file)
    assert caught.value.received != caught.value.expected


def test_a_projection_of_another_shape_is_refused(saved):
    file = saved / "projection.safetensors"
    save_file({"custom_text_proj.weight": torch.zeros(320, 128)}, file)
    with pytest.raises(ModelError, match="the projection is not the one that was saved"):
        load_model_folder(saved, CPU)


def test_a_folder_that_lacks_its_projection(saved):
    (saved / "projection.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        load_model_folder(saved, CPU)
    assert str(caught.value) == (
        "ModelError [missing-model-file]: the model's folder lacks projection.safetensors.\n"
        f"  where     {saved}"
    )


def test_a_folder_that_lacks_half_of_its_adapter(saved):
    (saved / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks adapter_model\.safetensors"):
        load_model_folder(saved, CPU)


@pytest.mark.parametrize(
    ("change", "received"),
    [
        ({"format": 2}, "format 2"),
        ({"template": None, "base": None}, "no base, template"),
    ],
)
def test_a_card_of_another_version_is_refused(saved, change, received):
    card = json.loads((saved / "coltrain.json").read_text()) | change
    card = {key: value for key, value in card.items() if key not in change or value is not None}
    (saved / "coltrain.json").write_text(json.dumps(card))
    with pytest.raises(ModelError) as caught:
        load_model_folder(saved, CPU)
    assert str(caught.value) == (
        "ModelError [unknown-card]: the model's card is not of this version of coltrain.\n"
        f"  where     {saved / 'coltrain.json'}\n"
        f"  received  {received}\n"
        "  expected  format 1"
    )


def test_a_folder_with_a_broken_card(saved):
    (saved / "coltrain.json").write_text('{"format": 1')
    with pytest.raises(ModelError) as caught:
        load_model_folder(saved, CPU)
    assert caught.value.code == "broken-model-file"
    assert caught.value.where == str(saved / "coltrain.json")
