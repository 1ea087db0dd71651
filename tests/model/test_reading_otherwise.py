"""Positions, image backend, alpha, template and budget of a preparer, changed in a copy."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

import coltrain
from coltrain.errors import ModelError
from coltrain.model import image_backend
from coltrain.model.folder import save_model
from coltrain.recipe import template_named


@pytest.fixture
def preparer(tiny_retriever):
    return tiny_retriever.built.preparer


def test_nothing_changes_where_nothing_is_asked_for(preparer, uneven_pages):
    same = preparer.using()
    assert same.settings() == preparer.settings()
    assert same.settings() == {
        "template": template_named("engine-0.3.12").model_dump(),
        "trained_template": None,
        "positions": "mrope",
        "max_visual_tokens": 64,
        "image_backend": "pil",
        "image_library": f"Pillow {Image.__version__}",
        "alpha": "drop",
    }
    pages = [p.collate_pages([p.prepare_page(uneven_pages[0])]) for p in (preparer, same)]
    assert torch.equal(pages[0].pixel_values, pages[1].pixel_values)
    assert torch.equal(pages[0].position_ids, pages[1].position_ids)


def test_a_copy_is_changed_and_not_the_original(preparer):
    before = preparer.settings()
    changed = preparer.using(
        positions="sequential",
        alpha="white",
        max_visual_tokens=16,
        template=template_named("transformers-native"),
    )
    assert preparer.settings() == before
    after = changed.settings()
    assert {key for key in after if after[key] != before[key]} == {
        "template",
        "trained_template",
        "positions",
        "max_visual_tokens",
        "alpha",
    }
    assert after["trained_template"]["name"] == "engine-0.3.12"
    assert changed.query_ids("red") == [*preparer.query_ids("red"), *changed._tokenize("\n")]


def test_alpha_decides_what_a_transparent_page_shows(preparer):
    white, dropped = preparer.using(alpha="white"), preparer.using(alpha="drop")
    glass = Image.new("RGBA", (56, 56), (200, 100, 50, 0))
    paper = Image.new("RGB", (56, 56), "white")
    as_paper = preparer.prepare_page(paper).pixel_values
    assert torch.equal(white.prepare_page(glass).pixel_values, as_paper)
    as_colour = preparer.prepare_page(glass.convert("RGB")).pixel_values
    assert torch.equal(dropped.prepare_page(glass).pixel_values, as_colour)
    assert not torch.equal(as_paper, as_colour)


@pytest.mark.parametrize(
    ("setting", "received", "expected"),
    [
        ("positions", "rope", "'mrope' or 'sequential'"),
        ("image_backend", "opencv", "'pil' or 'torchvision'"),
        ("alpha", "black", "'drop' or 'white'"),
    ],
)
def test_another_way_is_refused(setting, received, expected):
    with pytest.raises(ModelError) as caught:
        coltrain.load("tiny", **{setting: received})
    assert str(caught.value) == (
        "ModelError [unknown-input-setting]: there is no such way to read pages and queries.\n"
        f"  where     {setting}\n"
        f"  received  {received!r}\n"
        f"  expected  {expected}"
    )


def test_torchvision_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(image_backend, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        coltrain.load("tiny", image_backend="torchvision")
    assert str(caught.value) == (
        "ModelError [no-torchvision]: pages are to be resized by torchvision, which is not "
        "installed.\n"
        "  received  image backend torchvision\n"
        "  expected  the package torchvision, in the version that fits torch\n"
        "  try       pip install 'coltrain[torchvision]', or the image backend pil"
    )


def test_load_hands_the_settings_on(filled_built, tmp_path):
    save_model(filled_built, tmp_path)
    for model in ("tiny", tmp_path):
        retriever = coltrain.load(model, positions="sequential", alpha="white")
        assert retriever.built.preparer.positions == "sequential"
        assert retriever.built.preparer.alpha == "white"
        assert isinstance(retriever.built.preparer.image_processor, Qwen2VLImageProcessorPil)
        assert coltrain.load(model).built.preparer.settings()["positions"] == "mrope"


def test_another_template_needs_a_word_and_is_remembered(filled_built, tmp_path):
    save_model(filled_built, tmp_path)
    retriever = coltrain.load(tmp_path, template="engine-0.3.13", other_template=True)
    settings = retriever.built.preparer.settings()
    assert settings["template"]["name"] == "engine-0.3.13"
    assert settings["trained_template"]["name"] == "engine-0.3.12"
    # The word alone changes nothing.
    same = coltrain.load(tmp_path, template="engine-0.3.12", other_template=True)
    assert same.built.preparer.settings()["trained_template"] is None


def test_what_was_read_comes_with_an_embedding(tiny_retriever, uneven_pages, uneven_queries):
    preparer = tiny_retriever.built.preparer
    read = [
        *tiny_retriever.read_pages(uneven_pages),
        *tiny_retriever.read_queries(uneven_queries),
    ]
    expected = [
        *tiny_retriever.encode_pages(uneven_pages),
        *tiny_retriever.encode_queries(uneven_queries),
    ]
    for encoded, embedding in zip(read, expected, strict=True):
        assert torch.equal(encoded.embedding, embedding)
        assert len(encoded.token_ids) == encoded.position_ids.shape[1] == len(embedding)
    page = preparer.collate_pages([preparer.prepare_page(uneven_pages[1])])
    assert torch.equal(read[1].token_ids, page.input_ids[0])
    assert torch.equal(read[1].position_ids, page.position_ids[:, 0])
    assert read[-1].token_ids.tolist() == preparer.query_ids(uneven_queries[-1])


def test_positions_move_the_embeddings_of_pages_only(tiny_retriever, uneven_pages, uneven_queries):
    sequential = coltrain.load("tiny", positions="sequential")
    for one, other in zip(
        tiny_retriever.encode_pages(uneven_pages[:3]),
        sequential.encode_pages(uneven_pages[:3]),
        strict=True,
    ):
        assert (one - other).abs().max() > 0.01
    [one], [other] = (r.encode_queries(uneven_queries[:1]) for r in (tiny_retriever, sequential))
    assert np.array_equal(one.numpy(), other.numpy())
