"""`coltrain.load` and what it gives."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import coltrain
from coltrain.errors import ModelError, RecipeError
from coltrain.model.adapter import save_adapter
from coltrain.model.folder import save_model
from coltrain.model.locate import tiny_folder
from coltrain.model.retriever import load


def test_load_is_the_public_name_and_its_example_is_true():
    assert coltrain.load is load
    retriever = coltrain.load("tiny")
    [page] = retriever.encode_pages([Image.new("RGB", (224, 224), "white")])
    assert page.shape == torch.Size([80, 128])


def test_embeddings_are_unpadded_float32_unit_vectors(tiny_retriever, uneven_pages, uneven_queries):
    pages = tiny_retriever.encode_pages(uneven_pages)
    queries = tiny_retriever.encode_queries(uneven_queries)
    around = len(tiny_retriever.built.preparer.page_ids(0))
    for page, image in zip(pages, uneven_pages, strict=True):
        assert page.shape == (image.width * image.height // 28**2 + around, 128)
    for query, text in zip(queries, uneven_queries, strict=True):
        assert len(query) == len(tiny_retriever.query_ids(text))
    for embedding in (*pages, *queries):
        assert embedding.dtype == torch.float32
        assert not embedding.requires_grad
        assert not embedding.is_inference()
        torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(len(embedding)))


def test_embeddings_do_not_depend_on_order_or_neighbours(
    tiny_retriever, uneven_pages, uneven_queries
):
    pages = tiny_retriever.encode_pages(uneven_pages)
    queries = tiny_retriever.encode_queries(uneven_queries)
    for number in (3, 0):
        [page] = tiny_retriever.encode_pages([uneven_pages[number]])
        [query] = tiny_retriever.encode_queries([uneven_queries[number]])
        assert torch.equal(page, pages[number])
        assert torch.equal(query, queries[number])


def test_pages_of_every_mode_are_encoded(tiny_retriever):
    noise = np.random.default_rng(0).integers(0, 256, (84, 112, 3), np.uint8)
    rgb = Image.fromarray(noise)
    [expected] = tiny_retriever.encode_pages([rgb])
    opaque = rgb.convert("RGBA")
    opaque.putalpha(120)
    [with_alpha] = tiny_retriever.encode_pages([opaque])
    assert torch.equal(with_alpha, expected)
    for mode in ("L", "P", "1", "CMYK", "LA"):
        [page] = tiny_retriever.encode_pages([rgb.convert(mode)])
        assert page.shape == expected.shape
        assert page.isfinite().all()


def test_progress_is_called_for_each_item(tiny_retriever, uneven_pages, uneven_queries):
    calls = []
    tiny_retriever.encode_pages(iter(uneven_pages), lambda: calls.append(1))
    tiny_retriever.encode_queries(iter(uneven_queries), lambda: calls.append(1))
    assert len(calls) == len(uneven_pages) + len(uneven_queries)


def test_a_query_that_holds_special_tokens_is_encoded(tiny_retriever):
    # Text is tokenized as it is: the placeholder is a token like any other in a query, and no visual
    # token is put in its place.
    [query] = tiny_retriever.encode_queries(["where is <|image_pad|> of <|vision_start|>?"])
    ids = tiny_retriever.query_ids("where is <|image_pad|> of <|vision_start|>?")
    assert tiny_retriever.built.preparer.image_token_id in ids
    assert len(query) == len(ids)
    assert query.isfinite().all()


def test_the_tiny_base_has_its_own_budget_and_the_published_template(tiny_retriever):
    preparer = tiny_retriever.built.preparer
    assert preparer.max_visual_tokens == 64
    assert preparer.template.name == "engine-0.3.12"
    assert load("tiny", max_visual_tokens=16).built.preparer.max_visual_tokens == 16


def test_a_base_with_its_projection_loads(write_base, tiny_retriever, uneven_queries):
    retriever = load(write_base())
    assert retriever.built.preparer.max_visual_tokens == 768
    assert retriever.built.lora is None
    [first, *_] = retriever.encode_queries(uneven_queries)
    assert torch.equal(first, tiny_retriever.encode_queries(uneven_queries)[0])


def test_a_base_without_a_projection_is_refused(write_base):
    folder = write_base(rename=lambda key: None if key.startswith("custom_text_proj") else key)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert caught.value.code == "missing-weight"
    assert caught.value.received == "custom_text_proj.bias, custom_text_proj.weight"


@pytest.fixture
def adapter(filled_built, tmp_path):
    """A folder like a published adapter's: no card, no tokenizer, the base by name."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_adapter(filled_built.model, filled_built.lora, "tiny", folder)
    return folder


def test_a_published_adapter_loads_over_the_base_that_it_names(
    adapter, filled_built, uneven_queries
):
    retriever = load(adapter, max_visual_tokens=64)
    assert retriever.built.base == "tiny"
    expected = coltrain.Retriever(filled_built).encode_queries(uneven_queries)
    for one, other in zip(retriever.encode_queries(uneven_queries), expected, strict=True):
        assert torch.equal(one, other)


def test_an_adapter_that_names_no_base_is_refused(adapter):
    content = json.loads((adapter / "adapter_config.json").read_text())
    content["base_model_name_or_path"] = None
    (adapter / "adapter_config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="an empty name"):
        load(adapter)


@pytest.mark.parametrize("place", ["", "model"])
def test_a_run_loads_with_its_own_template_and_budget(
    filled_built, tmp_path, place, uneven_queries
):
    save_model(filled_built, tmp_path / "run" / "model")
    retriever = load(tmp_path / "run" / place)
    assert retriever.built.preparer.max_visual_tokens == 64
    expected = coltrain.Retriever(filled_built).encode_queries(uneven_queries)
    for one, other in zip(retriever.encode_queries(uneven_queries), expected, strict=True):
        assert torch.equal(one, other)
    wider = load(tmp_path / "run" / place, max_visual_tokens=256)
    assert wider.built.preparer.max_visual_tokens == 256


def test_a_run_is_not_read_with_another_template(filled_built, tmp_path):
    save_model(filled_built, tmp_path)
    same = load(tmp_path, template="engine-0.3.12")
    assert same.built.preparer.template.name == "engine-0.3.12"
    with pytest.raises(ModelError) as caught:
        load(tmp_path, template="engine-0.3.13")
    assert str(caught.value) == (
        "ModelError [other-template]: the model was trained with another template, and scores "
        "lower under this one.\n"
        f"  where     {tmp_path}\n"
        "  received  engine-0.3.13\n"
        "  expected  engine-0.3.12\n"
        "  try       leave the template out; or --other-template (other_template=True), to see what "
        "it does"
    )


def test_the_template_of_a_base_can_be_chosen():
    retriever = load("tiny", template="engine-0.3.13")
    assert len(retriever.query_ids("")) == 10
    with pytest.raises(RecipeError, match="unknown-template"):
        load("tiny", template="engine-9")


def test_weights_can_be_kept_in_another_type(uneven_queries, tiny_retriever):
    expected = tiny_retriever.encode_queries(uneven_queries)
    retriever = load("tiny", dtype=torch.bfloat16)
    assert retriever.built.model.dtype == torch.bfloat16
    for one, other in zip(retriever.encode_queries(uneven_queries), expected, strict=True):
        assert one.dtype == torch.float32
        assert (one * other).sum(-1).min() > 0.99


def test_a_folder_that_holds_no_model(tmp_path):
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        "ModelError [not-a-model]: the folder holds no model.\n"
        f"  where     {tmp_path}\n"
        "  expected  config.json and safetensors, adapter_config.json, or a run of coltrain's"
    )


def test_a_folder_without_a_tokenizer(tmp_path):
    shutil.copytree(tiny_folder(), tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no-processor"):
        load(tmp_path / "base")
