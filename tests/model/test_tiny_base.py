"""The shipped base is what it says: it reads, it does not retrieve, and it can be made again."""

import hashlib
import json

import pytest
import torch

from coltrain.data.drawn import drawn_collection
from coltrain.data.drawn.windows import drawn_pages
from coltrain.evaluation.evaluate import evaluate
from coltrain.model.locate import tiny_folder
from coltrain.model.retriever import load
from coltrain.model.tiny import reading
from coltrain.model.tiny.architecture import (
    fresh_tiny_model,
    tiny_config,
    tiny_image_processor,
    tiny_tokenizer,
)
from coltrain.model.tiny.make_base import make_base
from coltrain.model.tiny.reading import ReadingSettings


@pytest.fixture
def _threads_as_before():
    """`make_base` sets the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def share_of_squares_read(built, pages):
    """Written squares whose first guess is one of their word pieces."""
    shares = []
    with torch.inference_mode():
        for start in range(0, len(pages), 10):
            chunk = [list(page.words) for page in pages[start : start + 10]]
            shares.append(reading._read_loss(built.model, built.preparer, chunk)[1])
    return sum(shares) / len(shares)


@pytest.mark.slow
def test_it_reads_pages_that_it_never_saw(tiny_retriever):
    pages = drawn_pages("dev")
    assert len(pages) >= 50
    assert share_of_squares_read(tiny_retriever.built, pages) >= 0.7


@pytest.mark.slow
def test_it_does_not_retrieve_yet(tiny_retriever):
    result = evaluate(tiny_retriever, drawn_collection("dev")).result
    assert result.num_queries == result.num_pages >= 50
    # Chance is about .03; reading alone gives something, training has to give the rest.
    assert result.measures["nDCG@5"] < 0.45


def test_its_files_are_those_that_were_recorded():
    folder = tiny_folder()
    recorded = json.loads((folder / "made.json").read_text())["sha256"]
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name != "made.json"
    }
    assert found == recorded
    assert set(found) == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_it_was_made_by_the_settings_of_today():
    made = json.loads((tiny_folder() / "made.json").read_text())
    assert ReadingSettings(**made["settings"]) == ReadingSettings()
    assert made["made_by"] == "make tiny-base"


def test_it_is_small_and_of_the_size_that_it_says(tiny_retriever):
    parameters = sum(p.numel() for p in tiny_retriever.built.model.parameters())
    assert 700_000 < parameters < 900_000
    assert sum(file.stat().st_size for file in tiny_folder().iterdir()) < 4_000_000


def test_its_files_follow_from_the_code(tiny_retriever):
    folder = tiny_folder()
    assert json.loads((folder / "tokenizer.json").read_text()) == json.loads(
        tiny_tokenizer().backend_tokenizer.to_str()
    )
    saved = json.loads((folder / "config.json").read_text())
    assert saved.pop("architectures") == ["ColQwen2"]
    today = tiny_config().to_diff_dict()
    for versioned in (saved, today):
        versioned.pop("transformers_version", None)
    assert saved["text_config"]["rope_parameters"] == today["text_config"]["rope_parameters"]
    assert saved["image_token_id"] == today["image_token_id"]
    processor = tiny_retriever.built.preparer.image_processor
    for name in ("image_mean", "image_std", "patch_size", "merge_size", "temporal_patch_size"):
        assert getattr(processor, name) == getattr(tiny_image_processor(), name)


def test_a_fresh_model_is_a_function_of_its_seed():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fresh_tiny_model(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = fresh_tiny_model(0), fresh_tiny_model(1)
    for name, parameter in first.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter)
    assert not torch.equal(
        first.language_model.embed_tokens.weight, other.language_model.embed_tokens.weight
    )


def test_reading_leaves_the_projection_alone(tiny_retriever):
    drawn = fresh_tiny_model(0).custom_text_proj
    shipped = tiny_retriever.built.model.custom_text_proj
    assert torch.equal(drawn.weight, shipped.weight)
    assert torch.equal(drawn.bias, shipped.bias)


@pytest.mark.slow
@pytest.mark.usefixtures("_threads_as_before")
def test_making_it_twice_gives_the_same_bytes(tmp_path):
    settings = ReadingSettings(steps=3, pages_per_step=2)
    for place in ("first", "second"):
        torch.manual_seed(len(place))
        make_base(tmp_path / place, settings)
    files = sorted(file.name for file in (tmp_path / "first").iterdir())
    assert files == sorted(file.name for file in tiny_folder().iterdir())
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (
            tmp_path / "second" / name
        ).read_bytes(), name
    # It is a base that loads, and it was trained: 3 steps moved it from where it started.
    model = load(tmp_path / "first", max_visual_tokens=64).built.model
    start = fresh_tiny_model(0)
    moved = model.language_model.embed_tokens.weight - start.language_model.embed_tokens.weight
    assert moved.abs().max() > 1e-4
    record = json.loads((tmp_path / "first" / "made.json").read_text())
    assert record["settings"]["steps"] == 3
    assert set(record["sha256"]) == set(files) - {"made.json"}


@pytest.mark.slow
@pytest.mark.usefixtures("_threads_as_before")
def test_another_seed_makes_another_base(tmp_path):
    for seed in (0, 1):
        make_base(tmp_path / str(seed), ReadingSettings(seed=seed, steps=1, pages_per_step=1))
    names = ("0", "1")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in names]
    assert weights[0] != weights[1]
